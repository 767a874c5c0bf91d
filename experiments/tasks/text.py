"""Characters of real texts: reviews of films, and pairs of papers.

The vocabulary follows the loaders of S4 and its forks: padding, unknown, end of text, then the
characters of the training texts by descending frequency, and equally frequent characters in the
order of Unicode. Texts are first cut to ``l_max - 1`` characters, so that the end mark fits in.
"""

import abc
import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

import s5jax
from experiments.data.held_out import Parts, first_rows, hold_out
from experiments.data.sources import (
    DEFAULT_PATHS,
    Batch,
    BatchSource,
    DataOptions,
    Files,
    Source,
    Split,
)
from experiments.data.tfds import KIND, Columns, cached, missing, open_dataset, read_examples
from experiments.errors import UsageError, blaming_file, check_positive, shorten
from experiments.tasks._task import Task, token_inputs

PAD, UNKNOWN, END, N_SPECIALS = range(4)
AAN_FOLDERS = ("aan", "lra_release/lra_release/tsv_data", "lra_release/tsv_data", ".")
LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
LONGEST_LINE = 2**24
AAN_PARTS: dict[Split, str] = {"train": "train", "validation": "eval", "test": "test"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CharacterOptions(DataOptions):
    """Data: texts as sequences of characters."""

    l_max: int
    """Longest sequence; longer texts are cut at the end [characters, including the end mark]."""
    min_freq: int
    """Lowest number of occurrences in training for which a character has its own id."""
    vocabulary_size: int
    """Number of ids, including three special ones."""

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
    """Data: the reviews of IMDB."""

    n_train: int = 25_000
    n_validation: int = 25_000
    n_test: int = 25_000
    l_max: int = 4096
    min_freq: int = 15
    vocabulary_size: int = 135
    held_out: Literal["published", "validation", "train_only"] = "published"
    """Source of the validation set: "published" takes the test reviews, "validation" a tenth of the
    training reviews; "train_only" takes a tenth of them each for validation and test."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PapersOptions(CharacterOptions):
    """Data: pairs of papers of AAN."""

    n_train: int = 147_086
    n_validation: int = 18_090
    n_test: int = 17_437
    l_max: int = 4000
    min_freq: int = 1
    vocabulary_size: int = 98


class Texts(NamedTuple):
    """Examples of one or more texts, concatenated to one array of characters."""

    codes: np.ndarray
    """Unicode code points in the smallest type."""
    starts: np.ndarray
    """The start of each text, and the end of the last one."""
    label: np.ndarray
    """Classes of the examples, int32 of shape ``(n,)``."""

    @property
    def rows(self) -> np.ndarray:
        """The texts of each example, shape ``(n,)`` for one per example, else ``(n, number)``."""
        rows = np.arange(len(self.starts) - 1).reshape(len(self.label), -1)
        return rows[:, 0] if rows.shape[1] == 1 else rows

    def text(self, row: int) -> np.ndarray:
        """Returns the characters of one text."""
        return self.codes[self.starts[row] : self.starts[row + 1]]


def pack(examples: Iterable[tuple[int, Sequence[str]]], max_characters: int) -> Texts:
    """Concatenates the texts of examples, each cut to its first characters.

    Args:
        examples: class and texts, with the same number of texts in each.
        max_characters: the length to which texts are cut.

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
    """Assigns an id to every character.

    Args:
        texts: the texts.
        rows: the indices of the texts that are counted, shape ``(n,)``.
        min_freq: lowest number of occurrences for which a character has its own id.

    Returns:
        Ids of shape ``(c,)`` for the code points below c. Code points from ``c - 1`` are unknown.
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
    """Texts as ids, each with an end mark and padding.

    Args:
        texts: the texts.
        examples: indices of the examples, shape ``(n,)``.
        table: the result of :func:`vocabulary`.
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
        """Returns ids, lengths and labels."""
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
    """Base class of texts in two classes, read character by character."""

    encoder = "tokens"
    d_output = 2
    mask_share = 0.15

    def __init__(self, options: Any, files: Files = DEFAULT_PATHS) -> None:
        super().__init__(options, files)
        self.length, self.d_input = options.l_max, options.vocabulary_size

    @abc.abstractmethod
    def texts(self, split: Split) -> Texts:
        """Returns the texts from which a split is taken."""

    @abc.abstractmethod
    def parts(self) -> Parts:
        """Returns the available examples of each split."""

    @functools.cached_property
    def table(self) -> np.ndarray:
        """The ids of the characters in the training examples.

        Raises:
            UsageError: if there are more than ``vocabulary_size``.
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
        """The classes and the character of each id."""
        characters = ["<pad>", "<unknown>", "<end>"] + ["<unused>"] * (self.d_input - N_SPECIALS)
        known = np.flatnonzero(self.table >= N_SPECIALS)
        for code, token in zip(known.tolist(), self.table[known].tolist(), strict=True):
            characters[token] = chr(code)
        return s5jax.Preprocessing(classes=self.classes, vocabulary=tuple(characters))

    def source(self, split: Split, *, seed: int) -> Source:
        """Returns texts as ids of the training vocabulary, which are the same for every seed."""
        del seed
        examples = first_rows(self.options, self.parts())[split]
        return TokenSource(self.texts(split), examples, self.table, self.length)

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns ids ``u``, and ``lengths`` without padding."""
        return token_inputs(batch)


class Reviews(Characters):
    """The text task of Long Range Arena: is a review of IMDB positive?

    The published loaders have no validation examples: they choose the epoch by the test reviews.
    ``held_out`` decides whether to follow them, and the run prints a note.
    """

    options_type = ReviewsOptions

    def texts(self, split: Split) -> Texts:
        """Returns the reviews among which the split is."""
        return _read_reviews(self.files, self._part(split), self.length)

    def parts(self) -> Parts:
        """Returns all reviews of a split, or the shares that ``held_out`` defines."""
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
        else:
            test = np.arange(splits["test"].num_examples)
            train, validation = (
                hold_out(n, 0.1) if held_out == "validation" else (np.arange(n), test)
            )
        return {"train": train, "validation": validation, "test": test}

    @property
    def note(self) -> str:
        """A remark if the results are not what their names suggest."""
        return {
            "published": "validation is the test set, as in the papers: the test accuracy is the "
            "accuracy of the checkpoint that is best on the test set",
            "validation": "",
            "train_only": "validation and test are cut from IMDB's training reviews: the test "
            "accuracy is not IMDB's",
        }[self.options.held_out]

    def _part(self, split: Split) -> str:
        from_test = {"published": ("validation", "test"), "validation": ("test",)}
        return "test" if split in from_test.get(self.options.held_out, ()) else "train"


class Papers(Characters):
    """The retrieval task of Long Range Arena, on papers of AAN: does one cite the other?"""

    options_type = PapersOptions
    head = "match"

    def texts(self, split: Split) -> Texts:
        """Returns the pairs of a split."""
        return _read_papers(self.files, split, self.length)

    def parts(self) -> Parts:
        """Returns all pairs of each split of the published files."""
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
    return Texts(**cached(files.data_dir / "s5jax" / name, read, names=Texts._fields))


def _find_papers(files: Files, part: str) -> Path:
    name = f"new_aan_pairs.{part}.tsv"
    for folder in AAN_FOLDERS:
        if (path := files.data_dir / folder / name).is_file():
            return path
    raise missing(f"The file {name}", files.data_dir / AAN_FOLDERS[0], files, task="retrieval")


def _pairs(path: Path) -> Iterator[tuple[int, Sequence[str]]]:
    """Yields label and texts of each line; quotation marks have no meaning in these files."""
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        lines = iter(lambda: file.readline(LONGEST_LINE), "")
        for number, line in enumerate(lines, start=1):
            fields = line.rstrip("\n").split("\t")
            if len(fields) != 5 or fields[0] not in LABELS or len(line) == LONGEST_LINE:
                raise UsageError(
                    f"{path}, line {number}: expected a label ({', '.join(LABELS)}), two names and "
                    f"two texts between tabs; got {len(fields)} fields, the first "
                    f"{shorten(fields[0], 40)!r}. Copy the file again, or correct the line."
                )
            yield LABELS[fields[0]], fields[3:]
