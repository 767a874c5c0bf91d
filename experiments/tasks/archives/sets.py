"""Sets of an archive: the series of both files in one array."""

import functools
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.data.time_series import SeriesFile, read_time_series
from experiments.errors import UsageError, check_expansion


class SeriesSet(NamedTuple):
    """Series of equal or different lengths."""

    x: np.ndarray
    """float32 of shape ``(N, L, d)``; NaN in padding, and where a value is missing."""
    lengths: np.ndarray | None
    """int32 of shape ``(N,)``; None if all series have the same length."""
    labels: np.ndarray
    """Classes, int32 of shape ``(N,)``, or values, float64 ``(N,)``."""
    classes: tuple[str, ...] | None
    """Names of the classes; None for values."""
    n_repeated: int
    """Number of series that were left out, as they are equal to others."""

    @property
    def has_missing(self) -> bool:
        """Whether there are missing values."""
        return has_missing(self.x, self.lengths)


def has_missing(x: np.ndarray, lengths: np.ndarray | None) -> bool:
    """Returns whether a value is NaN in padded series, padding apart."""
    missing = np.isnan(x).any(axis=-1)
    if lengths is not None:
        missing &= np.arange(x.shape[1]) < lengths[:, None]
    return bool(missing.any())


def read_set(folder: Path, *, drop_repeated: bool) -> SeriesSet:
    """Reads and joins ``NAME_TRAIN.ts`` and ``NAME_TEST.ts`` of the folder NAME.

    Args:
        folder: the folder of the set.
        drop_repeated: whether to keep only the first of equal series.

    Returns:
        The set, which is cached until a file changes.

    Raises:
        UsageError: if a file is not valid, or the two do not fit together.
    """
    paths = [folder / f"{folder.name}_{part}.ts" for part in ("TRAIN", "TEST")]
    return _read_set(*paths, tuple(p.lstat().st_mtime_ns for p in paths), drop_repeated)


@functools.lru_cache(maxsize=2)
def _read_set(train: Path, test: Path, changed: tuple[int, ...], drop_repeated: bool) -> SeriesSet:
    del changed
    first, second = read_time_series(train), read_time_series(test)
    labels, classes = _join_labels(train, test, first, second)
    n_dimensions = [part.values[0].shape[1] for part in (first, second)]
    if n_dimensions[0] != n_dimensions[1]:
        raise UsageError(
            f"{test} must have {n_dimensions[0]} dimensions, as {train.name} has; got "
            f"{n_dimensions[1]}. Get both files from the same archive."
        )
    x, lengths = pad(train, [*first.values, *second.values])
    n_repeated = 0
    if drop_repeated:
        digests = [hashlib.sha256(row).digest() for row in x]
        kept = np.sort([digests.index(digest) for digest in set(digests)])
        n_repeated = len(x) - len(kept)
        x, labels = x[kept], labels[kept]
        lengths = None if lengths is None else lengths[kept]
    return SeriesSet(x, lengths, labels, classes, n_repeated)


def pad(path: Path, series: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
    """Pads series to the longest with NaN.

    Args:
        path: the file, for messages.
        series: arrays of shape ``(L, d)``.

    Returns:
        The padded series, and their lengths unless all are the same.

    Raises:
        UsageError: if the padded series would fill the memory.
    """
    lengths = np.array([len(values) for values in series], np.int32)
    shape = (len(series), int(lengths.max()), series[0].shape[1])
    check_expansion(path, 4 * int(lengths.sum()) * shape[2], 4 * math.prod(shape))
    x = np.full(shape, np.nan, np.float32)
    for row, values in zip(x, series, strict=True):
        row[: len(values)] = values
    return x, None if (lengths == shape[1]).all() else lengths


def _join_labels(
    train: Path, test: Path, first: SeriesFile, second: SeriesFile
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Returns the labels of both files, with the classes in the order of the first."""
    if first.labels is None or second.labels is None:
        path = train if first.labels is None else test
        raise UsageError(
            f"{path} has neither classes nor values to learn: its header must have @classLabel "
            "true with the classes, or @targetlabel true."
        )
    names = [None if f.classes is None else tuple(sorted(f.classes)) for f in (first, second)]
    if names[0] != names[1]:
        theirs = ", ".join(second.classes or ("values",))
        raise UsageError(
            f"{test} must have the labels of {train.name} "
            f"({', '.join(first.classes or ('values',))}); got {theirs}. Correct the header "
            "@classLabel."
        )
    if first.classes is None or second.classes is None:
        return np.concatenate([first.labels, second.labels]), None
    order = np.array([first.classes.index(name) for name in second.classes], np.int32)
    return np.concatenate([first.labels, order[second.labels]]), first.classes
