"""WikiText-103, word by word, as the published S4 and Transformer-XL read it.

The words of the training text are numbered by falling frequency, case kept, and every line ends
with ``<eos>``, which is number 0. The text is cut into ``n_streams`` streams of equal length and
each stream into windows; a batch takes the next window of every stream, and each epoch starts
every stream at another place. The model starts every window afresh. Perplexity is that of all
words of a split together.
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
from experiments.errors import UsageError, blaming_file, check_positive
from experiments.tasks._readers import map_array
from experiments.tasks._task import HERE, Batch, DataOptions, Files, Source, Split, digest
from experiments.tasks._windows import EvalWindows, Streams
from experiments.tasks._words import count_words, read_words, remember
from experiments.tasks.language import LanguageTask

MAX_LOSS = 100.0
"""Beyond it perplexity stays as it is, so that a bad start overflows nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WikiTextOptions(DataOptions):
    """Data: how WikiText-103 is cut."""

    length: int = 8_192
    """Words that the model predicts at a time."""
    vocabulary: int = 267_735
    """Different words of the training text, ``<eos>`` included."""
    n_streams: int = 8
    """Streams that the training text is cut into; the published run has one for each example of a
    batch."""
    n_train: int = 12_600
    """Training windows an epoch; 1,575 of 8,192 words in each of 8 streams are all there are."""
    n_validation: int = 27
    """Validation windows; 27 of 8,192 words are all there are."""
    n_test: int = 30
    """Test windows; 30 of 8,192 words are all there are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = {"vocabulary": self.vocabulary, "n_streams": self.n_streams}
        check_positive(self, length=self.length, **sizes)


class WikiText103(LanguageTask):
    """The next word of WikiText-103."""

    options_type = WikiTextOptions
    measures = ("loss", "perplexity")
    metric = "perplexity"

    def __init__(self, options: WikiTextOptions, files: Files = HERE) -> None:
        super().__init__(options, files)
        self.length = options.length
        self.d_input = self.d_output = options.vocabulary

    def source(self, split: Split, *, seed: int) -> Source:
        """Windows of streams for training, of the text from its beginning for evaluation."""
        text, o, n = self._words(split), self.options, self.options.n_examples(split)
        if split == "train":
            available = o.n_streams * ((len(text) // o.n_streams - 1) // o.length)
        else:
            available = -(-(len(text) - 1) // o.length)
        if n > available:
            raise UsageError(
                f"{self._file(split)} has {len(text):,} words, which make {available:,} windows of "
                f"{o.length:,}, not {n:,}: set --data.n_{split} to at most that, or --data.length "
                "to less."
            )
        if split == "train":
            return Streams(text, o.length, o.n_streams, n, seed=seed)
        return EvalWindows(text, o.length, n)

    @functools.cached_property
    def preprocessing(self) -> s5jax.Preprocessing:
        """The words by number."""
        return s5jax.Preprocessing(vocabulary=tuple(self._vocabulary()))

    def fingerprint(self, *, seed: int) -> dict[str, Any]:
        """The vocabulary, and the words of each split."""
        del seed
        words = {f"{split} words": len(self._words(split)) for split in get_args(Split)}
        vocabulary = np.frombuffer("\n".join(self._vocabulary()).encode(), np.uint8)
        return {**words, "sha256": digest({"vocabulary": vocabulary})}

    @property
    def quantities(self) -> dict[str, tuple[int, ...]]:
        """What the mean over all words is made of."""
        return {"loss": (), "nats": (), "words": ()}

    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Mean loss of each window's words; its sum; and their number."""
        words = batch["length"].astype(jnp.float32)
        real = jnp.arange(outputs.shape[-1]) < batch["length"][:, None]
        nats = jnp.sum(outputs, axis=-1, where=real)
        return {"loss": nats / words, "nats": nats, "words": words}

    def report(self, means: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Nats a word and perplexity over the whole split, not means over windows."""
        loss = float(means["nats"]) / float(means["words"])
        return {"loss": loss, "perplexity": math.exp(min(loss, MAX_LOSS))}

    def encode(self, text: str) -> np.ndarray:
        """Words separated by blanks; a line ends with ``<eos>`` if it is written there."""
        numbers = {word: i for i, word in enumerate(self.preprocessing.vocabulary or ())}
        words = text.split()
        if not words:
            raise UsageError("A prompt must not be empty; <eos> stands for a line that has ended.")
        if unknown := [word for word in words if word not in numbers]:
            raise UsageError(
                f"Words that the training text does not have: {' '.join(unknown)}. Punctuation is "
                "separated by blanks there; <unk> stands for an unknown word."
            )
        return np.array([numbers[word] for word in words], np.int32)

    def decode(self, tokens: np.ndarray) -> str:
        """Words separated by blanks, and a new line for ``<eos>``."""
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
        """The words of a split, from a file beside the text that is made at the first use."""
        path = self._file(split)
        numbers, vocabulary = path.with_suffix(".npy"), self._vocabulary()
        if split != "train" and not _is_newer(numbers, path, self._file("train")):
            with blaming_file(path, "text in UTF-8"):
                found = read_words(path, vocabulary)
            remember(numbers, lambda file: np.save(file, found))
        text = map_array(numbers, np.int32, (None,), remove=numbers)
        if text.size and not 0 <= text.min() <= text.max() < self.d_input:
            raise UsageError(
                f"{numbers} has numbers of words from {text.min()} to {text.max()}, and there are "
                f"{self.d_input:,} words: delete the file, it is made again."
            )
        return text

    def _vocabulary(self) -> list[str]:
        """The words by number, from a file that is made, as the training text's numbers are."""
        path = self._file("train")
        numbers, words = path.with_suffix(".npy"), path.with_name("vocabulary.txt")
        if not _is_newer(numbers, path) or not _is_newer(words, path):
            with blaming_file(path, "text in UTF-8"):
                found, vocabulary = count_words(path)
            text = "\n".join(vocabulary).encode()
            remember(words, lambda file: file.write(text))
            remember(numbers, lambda file: np.save(file, found))
        with blaming_file(words, "list of words (delete the file, it is made again)"):
            vocabulary = words.read_text(encoding="utf-8").split("\n")
        if len(vocabulary) != self.d_input:
            raise UsageError(
                f"{path} has {len(vocabulary):,} different words, not {self.d_input:,}: set "
                f"--data.vocabulary={len(vocabulary)}."
            )
        return vocabulary


def _is_newer(path: Path, *others: Path) -> bool:
    """Whether a file is there that was made after all of those."""
    made = path.stat().st_mtime_ns if path.is_file() else -1
    return all(made >= other.stat().st_mtime_ns for other in others)
