"""Splits of a data set into training examples and examples that are held out."""

import functools
from collections.abc import Mapping
from typing import get_args

import numpy as np

from experiments.data.sources import ArraySource, DataOptions, Split


@functools.lru_cache(maxsize=4)
def published_order(n: int, seed: int = 42) -> np.ndarray:
    """Returns the permutation of ``torch.randperm(n)`` under ``torch.manual_seed(seed)``.

    The loaders of S4, S5, SGConv and HOPE use it to split: the first part is for training, the rest
    for validation.

    Args:
        n: number of examples.
        seed: seed of the Mersenne Twister.

    Returns:
        Integers of shape ``(n,)``.

    Example:
        >>> published_order(10).tolist()
        [2, 6, 1, 8, 4, 5, 0, 9, 3, 7]
    """
    bits = np.random.MT19937()
    bits._legacy_seeding(seed)
    draws = bits.random_raw(n - 1).astype(np.int64) % np.arange(n, 1, -1)
    order = np.arange(n)
    for i, draw in enumerate(draws.tolist()):
        order[i], order[i + draw] = order[i + draw], order[i]
    return order


Parts = Mapping[Split, np.ndarray]
"""The rows of each split."""


def hold_out(n: int, *shares: float) -> list[np.ndarray]:
    """Cuts a data set into parts, in the order of the published loaders.

    Args:
        n: number of examples.
        *shares: the share of each part after the first.

    Returns:
        The rows of each part.

    Example:
        >>> [part.tolist() for part in hold_out(10, 0.1)]
        [[2, 6, 1, 8, 4, 5, 0, 9, 3], [7]]
    """
    ends = np.cumsum([1 - sum(shares), *shares[:-1]])
    return np.split(published_order(n), np.rint(ends * n).astype(int))


def first_rows(options: DataOptions, parts: Parts) -> Parts:
    """Returns the first rows of each split, as many as the options require.

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


class RowsSource(ArraySource):
    """Selected rows of arrays in memory, in any order.

    Args:
        rows: indices of the rows, integers of shape ``(n,)``.
        **columns: arrays with one row per example.
    """

    def __init__(self, rows: np.ndarray, **columns: np.ndarray) -> None:
        super().__init__(**columns)
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: np.ndarray, *, epoch: int) -> dict[str, np.ndarray]:
        """Returns rows of the arrays."""
        return super().batch(self.rows[indices], epoch=epoch)
