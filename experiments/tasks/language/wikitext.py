"""WikiText-103, word by word, as for the published S4 and Transformer-XL.

The words of the training text are numbered by descending frequency, with their case. Every line
ends with ``<eos>``, which is number 0. The text is cut into ``n_streams`` streams of equal length,
and each stream into windows. A batch takes the next window of every stream, and each epoch starts
every stream at another position. The model starts every window from the zero state. Perplexity is
computed over all words of a split.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

import s5jax
from experiments.data.readers import map_array, write_atomically
from experiments.data.sources import DEFAULT_PATHS, Batch, DataOptions, Files, Source, Split, digest
from experiments.data.windows import EvalWindows, Streams
from experiments.data.words import count_words, read_words
from experiments.errors import UsageError, blaming_file, check_positive
from experiments.tasks.language.task import LanguageTask

MAX_LOSS = 100.0
"""Bound on the loss in the perplexity, which could otherwise overflow."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WikiTextOptions(DataOptions):
    """Data: the windows of WikiText-103."""

    length: int = 8_192
    """Targets of a window [words]."""
    vocabulary: int = 267_735
    """Number of different words in the training text, including ``<eos>``."""
    n_streams: int = 8
    """Number of streams of the training text; the published run has one for each example of a
    batch."""
    n_train: int = 12_600
    """Training windows per epoch; the default is all windows of the default length."""
    n_validation: int = 27
    """Validation windows; the default is all windows of the default length."""
    n_test: int = 30
    """Test windows; the default is all windows of the default length."""

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = {"vocabulary": self.vocabulary, "n_streams": self.n_streams}
        check_positive(self, length=self.length, **sizes)


class WikiText103(LanguageTask):
    """Prediction of the next word of WikiText-103."""

    options_type = WikiTextOptions
    measures = ("loss", "perplexity")
    metric = "perplexity"

    def __init__(self, options: WikiTextOptions, files: Files = DEFAULT_PATHS) -> None:
        super().__init__(options, files)
        self.length = options.length
        self.d_input = self.d_output = options.vocabulary

    def source(self, split: Split, *, seed: int) -> Source:
        """Returns windows of streams for training, and consecutive windows for evaluation."""
        text, o, n = self._words(split), self.options, self.options.n_examples(split)
        if split == "train":
            available = o.n_streams * ((len(text) // o.n_streams - 1) // o.length)
        else:
            available = -(-(len(text) - 1) // o.length)
        if n > available:
            raise UsageError(
                f"{self._file(split)} has {len(text):,} words, which make {available:,} windows of "
                f"{o.length:,}, not {n:,}: lower --data.n_{split} or --data.length."
            )
        if split == "train":
            return Streams(text, o.length, o.n_streams, n, seed=seed)
        return EvalWindows(text, o.length, n)

    @functools.cached_property
    def preprocessing(self) -> s5jax.Preprocessing:
        """The vocabulary."""
        return s5jax.Preprocessing(vocabulary=tuple(self._vocabulary()))

    def fingerprint(self, *, seed: int) -> dict[str, Any]:
        """Returns a digest of the vocabulary, and the number of words of each split."""
        del seed
        words = {f"{split} words": len(self._words(split)) for split in get_args(Split)}
        vocabulary = np.frombuffer("\n".join(self._vocabulary()).encode(), np.uint8)
        return {**words, "sha256": digest({"vocabulary": vocabulary})}

    @property
    def quantities(self) -> dict[str, tuple[int, ...]]:
        """The quantities for the mean over all words."""
        return {"loss": (), "nats": (), "words": ()}

    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Returns the mean and the sum of each window's loss, and its number of words."""
        words = batch["length"].astype(jnp.float32)
        real = jnp.arange(outputs.shape[-1]) < batch["length"][:, None]
        nats = jnp.sum(outputs, axis=-1, where=real)
        return {"loss": nats / words, "nats": nats, "words": words}

    def report(self, means: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Computes nats per word and perplexity over the whole split."""
        loss = float(means["nats"]) / float(means["words"])
        return {"loss": loss, "perplexity": math.exp(min(loss, MAX_LOSS))}

    def encode(self, text: str) -> np.ndarray:
        """Encodes words that are separated by blanks; ``<eos>`` ends a line."""
        numbers = {word: i for i, word in enumerate(self.preprocessing.vocabulary or ())}
        words = text.split()
        if not words:
            raise UsageError("A prompt must not be empty; <eos> stands for the end of a line.")
        if unknown := [word for word in words if word not in numbers]:
            raise UsageError(
                f"Words that are not in the training text: {' '.join(unknown)}. Punctuation is "
                "separated by blanks; <unk> stands for an unknown word."
            )
        return np.array([numbers[word] for word in words], np.int32)

    def decode(self, tokens: np.ndarray) -> str:
        """Returns words separated by blanks, with a new line for ``<eos>``."""
        vocabulary = self.preprocessing.vocabulary or ()
        return " ".join("\n" if i == 0 else vocabulary[i] for i in tokens.tolist())

    def _file(self, split: Split) -> Path:
        name = {"train": "train", "validation": "valid", "test": "test"}[split]
        path = self.files.data_dir / "wikitext-103" / f"wiki.{name}.tokens"
        if not path.is_file():
            raise UsageError(
                f"No WikiText-103: {path} does not exist. Prepare it from the published archive "
                "with: python -m experiments.data prepare --task=wikitext103 --source=wikitext-103-"
                f"v1.zip --data-dir={self.files.data_dir}"
            )
        return path

    def _words(self, split: Split) -> np.ndarray:
        """Maps the words of a split from a file next to the text, which the first use makes."""
        path = self._file(split)
        numbers, vocabulary = path.with_suffix(".npy"), self._vocabulary()
        if split != "train" and not _is_newer(numbers, path, self._file("train")):
            with blaming_file(path, "text in UTF-8"):
                found = read_words(path, vocabulary)
            write_atomically(numbers, lambda file: np.save(file, found))
        text = map_array(numbers, np.int32, (None,), remove=numbers)
        if text.size and not 0 <= text.min() <= text.max() < self.d_input:
            raise UsageError(
                f"{numbers} has numbers of words from {text.min()} to {text.max()}, but there are "
                f"{self.d_input:,} words: delete the file, and it will be made again."
            )
        return text

    def _vocabulary(self) -> list[str]:
        """Reads the vocabulary from a file next to the text, which the first use makes."""
        path = self._file("train")
        numbers, words = path.with_suffix(".npy"), path.with_name("vocabulary.txt")
        if not _is_newer(numbers, path) or not _is_newer(words, path):
            with blaming_file(path, "text in UTF-8"):
                found, vocabulary = count_words(path)
            text = "\n".join(vocabulary).encode()
            write_atomically(words, lambda file: file.write(text))
            write_atomically(numbers, lambda file: np.save(file, found))
        with blaming_file(words, "list of words (delete the file, and it will be made again)"):
            vocabulary = words.read_text(encoding="utf-8").split("\n")
        if len(vocabulary) != self.d_input:
            raise UsageError(
                f"{path} has {len(vocabulary):,} different words, not {self.d_input:,}: set "
                f"--data.vocabulary={len(vocabulary)}."
            )
        return vocabulary


def _is_newer(path: Path, *others: Path) -> bool:
    """Returns whether a file exists and is newer than all others."""
    made = path.stat().st_mtime_ns if path.is_file() else -1
    return all(made >= other.stat().st_mtime_ns for other in others)
