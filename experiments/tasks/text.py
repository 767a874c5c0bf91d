"""Characters of real texts: reviews of films, and pairs of papers.

The vocabulary is that of the loaders of S4 and its forks: padding, unknown, end of text, then the
characters of the training texts by falling frequency, equally frequent ones in the order of
Unicode. Texts are cut to ``l_max - 1`` characters first, so that the end fits in.
"""

import abc
import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import s5jax
from experiments.errors import UsageError, blaming_file, check_positive, shorten
from experiments.tasks._held_out import Parts, first_rows, hold_out
from experiments.tasks._task import (
    HERE,
    Batch,
    BatchSource,
    DataOptions,
    Files,
    Source,
    Split,
    Task,
    measure_classification,
)
from experiments.tasks._tfds import KIND, Columns, keep, missing, open_dataset, read_examples

PAD, UNKNOWN, END, N_SPECIALS = range(4)
AAN_FOLDERS = ("aan", "lra_release/lra_release/tsv_data", "lra_release/tsv_data", ".")
LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
LONGEST_LINE = 2**24
AAN_PARTS: dict[Split, str] = {"train": "train", "validation": "eval", "test": "test"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CharacterOptions(DataOptions):
    """Data: texts as sequences of characters."""

    l_max: int
    """Longest sequence; longer texts lose their end [characters, one of them the end mark]."""
    min_freq: int
    """How often a character must occur in training to have an id of its own."""
    vocabulary_size: int
    """Ids that the model knows, three special ones included."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, min_freq=self.min_freq)
        if self.l_max < 2 or self.vocabulary_size < N_SPECIALS:
            raise ValueError(
                f"{type(self).__name__}: `l_max` must be at least 2 and `vocabulary_size` at least "
                f"{N_SPECIALS}; got {self.l_max} and {self.vocabulary_size}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReviewsOptions(CharacterOptions):
    """Data: IMDB's reviews."""

    n_train: int = 25_000
    """Training examples."""
    n_validation: int = 25_000
    """Validation examples, by which the best checkpoint is chosen."""
    n_test: int = 25_000
    """Test examples, used once, at the end."""
    l_max: int = 4096
    """Longest sequence; longer texts lose their end [characters, one of them the end mark]."""
    min_freq: int = 15
    """How often a character must occur in training to have an id of its own."""
    vocabulary_size: int = 135
    """Ids that the model knows, three special ones included."""
    held_out: Literal["published", "validation", "train_only"] = "published"
    """Where validation comes from: the test reviews, as published; a tenth of the training ones;
    or, without any test reviews, validation and test are a tenth of the training ones each."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PapersOptions(CharacterOptions):
    """Data: AAN's pairs of papers."""

    n_train: int = 147_086
    """Training examples."""
    n_validation: int = 18_090
    """Validation examples, by which the best checkpoint is chosen."""
    n_test: int = 17_437
    """Test examples, used once, at the end."""
    l_max: int = 4000
    """Longest sequence; longer texts lose their end [characters, one of them the end mark]."""
    min_freq: int = 1
    """How often a character must occur in training to have an id of its own."""
    vocabulary_size: int = 98
    """Ids that the model knows, three special ones included."""


class Texts(NamedTuple):
    """Examples of one or more texts, all of them as one array of characters."""

    codes: np.ndarray
    """Unicode code points, in the smallest type."""
    starts: np.ndarray
    """Where each text begins, and where the last one ends."""
    label: np.ndarray
    """Classes of the examples, int32 of shape ``(n,)``."""

    @property
    def rows(self) -> np.ndarray:
        """The texts of each example, shape ``(n,)`` if it has one, else ``(n, number)``."""
        rows = np.arange(len(self.starts) - 1).reshape(len(self.label), -1)
        return rows[:, 0] if rows.shape[1] == 1 else rows

    def text(self, row: int) -> np.ndarray:
        """The characters of one text."""
        return self.codes[self.starts[row] : self.starts[row + 1]]


def pack(examples: Iterable[tuple[int, Sequence[str]]], max_characters: int) -> Texts:
    """Puts the texts of examples one after the other, each cut to its first characters.

    Args:
        examples: class and texts, equally many in each.
        max_characters: how many are kept of each text.

    Returns:
        The texts as arrays.
    """
    parts, lengths, labels = [np.empty(0, np.uint8)], [0], []
    stream = iter(examples)
    while group := list(itertools.islice(stream, 1_000)):
        texts = [text[:max_characters] for _, texts in group for text in texts]
        codes = np.frombuffer("".join(texts).encode("utf-32-le"), "<u4")
        parts.append(codes.astype(np.min_scalar_type(codes.max(initial=0))))
        lengths += map(len, texts)
        labels += [label for label, _ in group]
    return Texts(np.concatenate(parts), np.cumsum(lengths), np.array(labels, np.int32))


def vocabulary(texts: Texts, rows: np.ndarray, *, min_freq: int) -> np.ndarray:
    """The id of every character.

    Args:
        texts: the texts.
        rows: which of them are counted, shape ``(n,)``.
        min_freq: how often a character must occur to have an id of its own.

    Returns:
        Ids of shape ``(c,)`` for the code points below c; those from ``c - 1`` on are unknown.
    """
    counts = np.zeros(int(texts.codes.max(initial=0)) + 1, np.int64)
    for group in np.array_split(rows, len(rows) // 1_000 + 1):
        codes = np.concatenate([texts.codes[:0], *(texts.text(row) for row in group)])
        counts += np.bincount(codes, minlength=len(counts))
    known = np.flatnonzero(counts >= min_freq)
    table = np.full(len(counts) + 1, UNKNOWN, np.int32)
    table[known[np.argsort(-counts[known], kind="stable")]] = N_SPECIALS + np.arange(len(known))
    return table


class TokenSource(BatchSource):
    """Texts as ids, each with an end mark, and padding after it.

    Args:
        texts: the texts.
        examples: which examples, shape ``(n,)``.
        table: ids, from :func:`vocabulary`.
        length: number of ids of a padded text.
    """

    in_memory = True

    def __init__(self, texts: Texts, examples: np.ndarray, table: np.ndarray, length: int) -> None:
        self.texts, self.length = texts, length
        self.rows, self.label = texts.rows[examples], texts.label[examples]
        self.table = table.astype(np.min_scalar_type(table.max()))

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: np.ndarray, *, epoch: int) -> dict[str, np.ndarray]:
        """Ids, lengths and labels."""
        del epoch
        rows = self.rows[indices]
        token = np.full((rows.size, self.length), PAD, self.table.dtype)
        length = np.empty(rows.size, np.int32)
        for i, row in enumerate(rows.reshape(-1).tolist()):
            codes = self.texts.text(row)
            n = len(codes)
            token[i, :n] = self.table[np.minimum(codes, len(self.table) - 1)]
            token[i, n] = END
            length[i] = n + 1
        return {
            "token": token.reshape(*rows.shape, self.length),
            "length": length.reshape(rows.shape),
            "label": self.label[indices],
        }


class Characters(Task):
    """Texts in two classes, read character by character."""

    encoder = "tokens"
    d_output = 2

    def __init__(self, options: Any, files: Files = HERE) -> None:
        super().__init__(options, files)
        self.length, self.d_input = options.l_max, options.vocabulary_size

    @abc.abstractmethod
    def texts(self, split: Split) -> Texts:
        """The texts from which a split takes some."""

    @abc.abstractmethod
    def parts(self) -> Parts:
        """The examples that each split may take."""

    @functools.cached_property
    def table(self) -> np.ndarray:
        """The ids of the characters in the training examples.

        Raises:
            UsageError: if there are more than the model knows.
        """
        texts, examples = self.texts("train"), first_rows(self.options, self.parts())["train"]
        rows = texts.rows[examples].reshape(-1)
        table = vocabulary(texts, rows, min_freq=self.options.min_freq)
        size = max(int(table.max()) + 1, N_SPECIALS)
        if size > self.d_input:
            raise UsageError(
                f"The training texts have {size} ids, more than --data.vocabulary_size="
                f"{self.d_input}: set it to {size}, or raise --data.min_freq."
            )
        return table

    @functools.cached_property
    def preprocessing(self) -> s5jax.Preprocessing:
        """The classes, and the character of each id."""
        characters = ["<pad>", "<unknown>", "<end>"] + ["<unused>"] * (self.d_input - N_SPECIALS)
        known = np.flatnonzero(self.table >= N_SPECIALS)
        for code, token in zip(known.tolist(), self.table[known].tolist(), strict=True):
            characters[token] = chr(code)
        return s5jax.Preprocessing(classes=self.classes, vocabulary=tuple(characters))

    def source(self, split: Split, *, seed: int) -> Source:
        """Texts as ids of the training examples' vocabulary; the same for every seed."""
        del seed
        examples = first_rows(self.options, self.parts())[split]
        return TokenSource(self.texts(split), examples, self.table, self.length)

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Ids ``u``, and how many of them are not padding."""
        return {"u": batch["token"].astype(jnp.int32), "lengths": batch["length"]}

    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Cross entropy and accuracy."""
        return measure_classification(outputs, batch["label"])


class Reviews(Characters):
    """Is a review of IMDB positive? The text task of Long Range Arena.

    The published loaders have no validation examples: they choose the epoch by the test reviews.
    ``held_out`` decides whether to follow them, and the run says which it does.
    """

    options_type = ReviewsOptions

    def texts(self, split: Split) -> Texts:
        """The reviews of the split that holds these examples."""
        return _read_reviews(self.files, self._part(split), self.length)

    def parts(self) -> Parts:
        """All reviews of a split, or a tenth of the training ones for each that is held out."""
        splits = open_dataset("imdb_reviews", self.files, task="text").info.splits
        held_out = self.options.held_out
        if "test" not in splits and held_out != "train_only":
            raise UsageError(
                f"imdb_reviews in {self.files.data_dir} has no test reviews: add "
                "--data.held_out=train_only --data.n_train=20000 --data.n_validation=2500 "
                "--data.n_test=2500 to cut all three from the training reviews."
            )
        n = splits["train"].num_examples
        if held_out == "train_only":
            train, validation, test = hold_out(n, 0.1, 0.1)
            return {"train": train, "validation": validation, "test": test}
        test = np.arange(splits["test"].num_examples)
        if held_out == "published":
            return {"train": np.arange(n), "validation": test, "test": test}
        train, validation = hold_out(n, 0.1)
        return {"train": train, "validation": validation, "test": test}

    @property
    def note(self) -> str:
        """What the figures are, if not what they are called."""
        return {
            "published": "validation is the test set, as in the papers: the test accuracy is that "
            "of the checkpoint that is best on it",
            "validation": "",
            "train_only": "validation and test are cut from IMDB's training reviews: the test "
            "accuracy is not IMDB's",
        }[self.options.held_out]

    def _part(self, split: Split) -> str:
        from_test = {"published": ("validation", "test"), "validation": ("test",)}
        return "test" if split in from_test.get(self.options.held_out, ()) else "train"


class Papers(Characters):
    """Does one paper cite the other? The retrieval task of Long Range Arena, on AAN's papers."""

    options_type = PapersOptions
    head = "match"

    def texts(self, split: Split) -> Texts:
        """The pairs of a split."""
        return _read_papers(self.files, split, self.length)

    def parts(self) -> Parts:
        """All pairs of each split, which are those of the published files."""
        return {split: np.arange(len(self.texts(split).label)) for split in AAN_PARTS}


@functools.lru_cache(maxsize=2)
def _read_reviews(files: Files, part: str, l_max: int) -> Texts:
    builder = open_dataset("imdb_reviews", files, task="text")
    examples = read_examples(builder, part)
    with blaming_file(builder.data_path, KIND):
        return pack(((x["label"], [x["text"].decode()]) for x in examples), l_max - 1)


@functools.lru_cache(maxsize=3)
def _read_papers(files: Files, split: Split, l_max: int) -> Texts:
    path = _find_papers(files, AAN_PARTS[split])

    def read() -> Columns:
        return pack(_pairs(path), l_max - 1)._asdict()

    name = f"aan-{split}-{l_max}-{path.stat().st_size}.npz"
    return Texts(**keep(files.data_dir / "s5jax" / name, read, names=Texts._fields))


def _find_papers(files: Files, part: str) -> Path:
    name = f"new_aan_pairs.{part}.tsv"
    for folder in AAN_FOLDERS:
        if (path := files.data_dir / folder / name).is_file():
            return path
    raise missing(f"The file {name}", files.data_dir / AAN_FOLDERS[0], files, task="retrieval")


def _pairs(path: Path) -> Iterator[tuple[int, Sequence[str]]]:
    """Label and texts of each line; quotation marks have no meaning in these files."""
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        lines = iter(lambda: file.readline(LONGEST_LINE), "")
        for number, line in enumerate(lines, start=1):
            fields = line.rstrip("\n").split("\t")
            if len(fields) != 5 or fields[0] not in LABELS or len(line) == LONGEST_LINE:
                raise UsageError(
                    f"{path}, line {number}: expected a label ({', '.join(LABELS)}), two names and "
                    f"two texts between tabs; got {len(fields)} fields, the first "
                    f"{shorten(fields[0], 40)!r}. Copy the file again, or mend the line."
                )
            yield LABELS[fields[0]], fields[3:]
