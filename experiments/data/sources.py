"""Paths of data sets, and random access to the examples of a split."""

import abc
import dataclasses
import hashlib
import operator
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from experiments.errors import check_positive, choose
from experiments.files import user_path

Split = Literal["train", "validation", "test"]
Batch = Mapping[str, Any]
DATA_DIR = Path(os.path.expanduser(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"))


@dataclasses.dataclass(frozen=True)
class Files:
    """Paths of data sets on this machine; no result of a run depends on them.

    Attributes:
        data_dir: folder of the data sets.
        download: whether a missing data set may be fetched from its publisher.
    """

    data_dir: Path = DATA_DIR
    download: bool = False

    def __post_init__(self) -> None:
        if self.data_dir != DATA_DIR:
            object.__setattr__(self, "data_dir", user_path(self.data_dir))


DEFAULT_PATHS = Files()


class Source(abc.ABC):
    """Random access to the examples of one split; safe to read from many threads.

    Names of columns are singular: ``image``, ``label``. Every batch also gets the columns ``index``
    and ``epoch``, int32, from the input pipeline.
    """

    ordered: ClassVar[bool] = False
    """Whether training keeps the order of the examples instead of shuffling in each epoch."""
    in_memory: ClassVar[bool] = False
    """Whether all examples are in memory, and the same in each epoch: a device can store them."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """Returns the number of examples."""

    @abc.abstractmethod
    def __getitem__(self, index: int, /) -> Mapping[str, np.ndarray | np.generic]:
        """Returns one example."""

    def batch(self, indices: np.ndarray, *, epoch: int) -> dict[str, np.ndarray]:
        """Returns examples, stacked along a new first axis.

        Args:
            indices: the indices of the examples, integers of shape ``(B,)``.
            epoch: the number of completed epochs, for sources that draw new examples.
        """
        del epoch
        examples = [self[i] for i in indices.tolist()]
        return {name: np.stack([example[name] for example in examples]) for name in examples[0]}


class BatchSource(Source):
    """A source that defines batches; an example is a batch of one."""

    def __getitem__(self, index: int, /) -> Mapping[str, np.ndarray | np.generic]:
        return {name: column[0] for name, column in self.batch(np.array([index]), epoch=0).items()}

    @abc.abstractmethod
    def batch(self, indices: np.ndarray, *, epoch: int) -> dict[str, np.ndarray]:
        """Returns examples, stacked along a new first axis."""


class ArraySource(BatchSource):
    """Rows of arrays in memory.

    Args:
        **columns: arrays with one row per example.

    Example:
        >>> source = ArraySource(x=np.arange(6).reshape(3, 2), label=np.arange(3))
        >>> source.batch(np.array([2, 0]), epoch=0)["x"].tolist()
        [[4, 5], [0, 1]]
    """

    in_memory = True

    def __init__(self, **columns: np.ndarray) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def batch(self, indices: np.ndarray, *, epoch: int) -> dict[str, np.ndarray]:
        """Returns rows of the arrays."""
        del epoch
        return {name: column[indices] for name, column in self.columns.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Data: the options of every task."""

    n_train: int
    """Training examples."""
    n_validation: int
    """Validation examples, by which the best checkpoint is chosen."""
    n_test: int
    """Test examples, used once, at the end."""

    def __post_init__(self) -> None:
        sizes = {f"n_{split}": self.n_examples(split) for split in get_args(Split)}
        check_positive(self, **sizes)

    @property
    def data_set(self) -> str:
        """The name of the data set, for tasks that have several; otherwise empty."""
        return ""

    def n_examples(self, split: Split) -> int:
        """Returns the number of examples of a split."""
        sizes = {"train": self.n_train, "validation": self.n_validation, "test": self.n_test}
        return choose("split", split, sizes)


class DrawnSource(BatchSource):
    """Synthetic examples of one split, each a pure function of (seed, split, index).

    Args:
        options: parameters of the generator.
        seed: seed of the whole data set, at least 0.
        split: ``"train"``, ``"validation"`` or ``"test"``: three independent streams of examples.
        n_examples: number of examples in the split.

    Raises:
        ValueError: if an argument is out of range.
    """

    streams: ClassVar[Mapping[str, int]] = {"train": 0, "validation": 1, "test": 2}
    """The number of the random stream of each split."""

    def __init__(self, options: Any, *, seed: int, split: str, n_examples: int) -> None:
        self.stream = choose("split", split, self.streams)
        if not 0 <= seed < 2**63:
            raise ValueError(f"{type(self).__name__}: `seed` must be in [0, 2**63); got {seed}.")
        check_positive(self, n_examples=n_examples)
        self.options, self.seed, self.split, self.n_examples = options, seed, split, n_examples

    def __len__(self) -> int:
        return self.n_examples

    def __getitem__(self, index: int, /) -> Mapping[str, np.ndarray | np.generic]:
        return super().__getitem__(operator.index(index))

    def batch(self, indices: np.ndarray, *, epoch: int) -> dict[str, np.ndarray]:
        """Draws examples, which are the same in every epoch.

        Raises:
            IndexError: if an index is negative or not below the number of examples.
            ValueError: if no example was found that satisfies the options.
        """
        del epoch
        for index in (indices.min(), indices.max()):
            if not 0 <= index < len(self):
                raise IndexError(
                    f"{type(self).__name__}: index must be in [0, {len(self)}); got {index}."
                )
        return self.draw_columns(indices)

    @abc.abstractmethod
    def draw_columns(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Draws examples as columns with one row per example."""


def absolute_path(path: str) -> str:
    """Makes a path absolute; a leading ``~`` stands for the home folder."""
    return os.path.abspath(os.path.expanduser(path))  # Path.expanduser fails where there is no home


def digest(columns: Mapping[str, np.ndarray]) -> str:
    """Returns the SHA-256 of named arrays: of their types, shapes and values."""
    found = hashlib.sha256()
    for name, column in sorted(columns.items()):
        found.update(f"{name} {column.dtype.str} {column.shape}".encode())
        found.update(np.ascontiguousarray(column).data)
    return found.hexdigest()
