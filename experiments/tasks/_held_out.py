"""Which examples of a data set are for training, and which are held out."""

from collections.abc import Mapping
from typing import get_args

import numpy as np

from experiments.tasks._task import BatchSource, DataOptions, Split, published_order

Parts = Mapping[Split, np.ndarray]
"""The rows of each split."""


def hold_out(n: int, *shares: float) -> list[np.ndarray]:
    """Cuts a data set in parts, in the order in which the published loaders do.

    Args:
        n: number of examples.
        *shares: of the examples, one for each part after the first.

    Returns:
        The rows of the first part, then those of the others.

    Example:
        >>> [part.tolist() for part in hold_out(10, 0.1)]
        [[2, 6, 1, 8, 4, 5, 0, 9, 3], [7]]
    """
    ends = np.cumsum([1 - sum(shares), *shares[:-1]])
    return np.split(published_order(n), np.rint(ends * n).astype(int))


def first_rows(options: DataOptions, parts: Parts) -> Parts:
    """The first rows of each split, as many as the options ask for.

    Raises:
        ValueError: if there are fewer.
    """
    for split in get_args(Split):
        n, n_max = options.n_examples(split), len(parts[split])
        if n > n_max:
            raise ValueError(
                f"{type(options).__name__}: `n_{split}` must be at most {n_max:,}, the number of "
                f"{split} examples; got {n:,}."
            )
    return {split: rows[: options.n_examples(split)] for split, rows in parts.items()}


class RowsSource(BatchSource):
    """Some rows of arrays in memory, in any order.

    Args:
        rows: which rows, integers of shape ``(n,)``.
        **columns: arrays with one row an example.
    """

    in_memory = True

    def __init__(self, rows: np.ndarray, **columns: np.ndarray) -> None:
        self.rows, self.columns = rows, columns

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: np.ndarray, *, epoch: int) -> dict[str, np.ndarray]:
        """The rows of the arrays."""
        del epoch
        rows = self.rows[indices]
        return {name: column[rows] for name, column in self.columns.items()}
