"""Checked examples of users, from an archive of arrays or from a folder."""

import functools
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.data.checks import (
    BrokenRule,
    check_dt,
    check_inputs,
    check_lengths,
    check_targets,
    clean_tokens,
    clean_values,
)
from experiments.data.csv_files import read_csvs
from experiments.data.csv_options import CsvOptions
from experiments.data.readers import read_npz
from experiments.data.sounds import SoundOptions, read_sound, read_sounds
from experiments.errors import UsageError, check_expansion
from experiments.tasks.arrays.folders import check_training_path, list_classes

COLUMNS = ("x", "y", "lengths", "dt")


class Table(NamedTuple):
    """Checked examples; padding is zero."""

    x: np.ndarray
    """float32 or float64 ``(N, L, d)``, or tokens: int32 ``(N, L)``."""
    y: np.ndarray | None
    """Classes, int32 ``(N,)`` or ``(N, L)``; or values, floats ``(N, d)`` or ``(N, L, d)``."""
    lengths: np.ndarray | None = None
    """int32, shape ``(N,)``."""
    dt: np.ndarray | None = None
    """float32, shape ``(N, L)``."""
    classes: tuple[str, ...] | None = None
    """Names of the classes, for folders."""
    rate: int | None = None
    """Sampling rate, for sounds [samples/s]."""
    features: tuple[str, ...] | None = None
    """Names of the columns, if CSV files have them."""
    csv: CsvOptions | None = None
    """How CSV files were read, completely: pass it to read more of them in the same way."""
    remarks: tuple[str, ...] = ()
    """Lines to print about guesses and skipped files."""


def read_table(
    path: Path,
    *,
    csv: CsvOptions | None = None,
    sound: SoundOptions | None = None,
    ignore_index: int | None = None,
) -> Table:
    """Reads examples with their targets.

    Args:
        path: a ``.npz`` file, or a folder ``CLASS/*`` of CSV files or of sounds.
        csv: how to read CSV files; options that are None are guessed.
        sound: whether to resample sounds and to average their channels.
        ignore_index: the class of steps that do not count.

    Returns:
        The table, which is cached until the file changes.

    Raises:
        UsageError: if it is neither, or breaks a rule.
    """
    check_training_path(path)
    within = (path, *path.glob("*"), *path.glob("*/*")) if path.is_dir() else (path,)
    changed = tuple(file.lstat().st_mtime_ns for file in within)
    return _read_table(path, changed, csv or CsvOptions(), sound or SoundOptions(), ignore_index)


@functools.lru_cache(maxsize=2)
def _read_table(
    path: Path,
    changed: tuple[int, ...],
    csv: CsvOptions,
    sound: SoundOptions,
    ignore_index: int | None,
) -> Table:
    del changed
    if path.is_dir():
        table = _read_folder(path, csv, sound)
    else:
        table = read_arrays(path, ignore_index=ignore_index)
    if table.y is None:
        raise UsageError(f"{path} needs an array `y` with the targets, one row per example.")
    if len(table.x) < 3:
        raise UsageError(
            f"{path} must hold three examples or more, to train, validate and test; got "
            f"{len(table.x)}."
        )
    return table


def read_arrays(path: Path, *, ignore_index: int | None = None) -> Table:
    """Reads a ``.npz`` file with ``x`` and optionally ``y``, ``lengths`` and ``dt``.

    Args:
        path: the file.
        ignore_index: the class of steps that do not count.

    Raises:
        UsageError: if an array breaks a rule.
    """
    arrays = read_npz(path)
    if "x" not in arrays or not set(arrays) <= set(COLUMNS):
        raise UsageError(
            f"{path} must hold arrays named x, y and, optionally, lengths and dt, as "
            f"np.savez(FILE, x=x, y=y) writes; got {', '.join(arrays) or 'none'}."
        )
    x, remarks = check_inputs(path, arrays["x"])
    n, L = x.shape[:2]
    for name, array in arrays.items():
        if array.ndim == 0 or len(array) != n:
            raise BrokenRule(path, name, f"must have {n} rows, as `x` has", array.shape)
    lengths = check_lengths(path, arrays.get("lengths"), L)
    valid = np.arange(L) < (np.full(n, L) if lengths is None else lengths)[:, None]
    x = clean_tokens(path, x, valid) if x.ndim == 2 else clean_values(path, "x", x, valid)
    y, dt = None, arrays.get("dt")
    if "y" in arrays:
        y, more = check_targets(path, arrays["y"], valid, ignore_index=ignore_index)
        remarks += more
    dt = None if dt is None else check_dt(path, dt, valid)
    return Table(x, y, lengths, dt, remarks=remarks)


def read_sequence(
    path: Path,
    *,
    csv: CsvOptions | None = None,
    sound: SoundOptions | None = None,
    features: tuple[str, ...] | None = None,
) -> tuple[np.ndarray, int | None]:
    """Reads one example from a sound or a CSV file.

    Args:
        path: the file.
        csv: how to read a CSV file, such as ``Table.csv`` of the training files.
        sound: whether to resample a sound and to average its channels.
        features: the required names of the columns, if the file has names.

    Returns:
        Floats of shape ``(L, d)``, and the sampling rate of a sound [samples/s].

    Raises:
        UsageError: if the file cannot be read, or has other columns.
    """
    if path.suffix.lower() == ".csv":
        tables = read_csvs([path], csv or CsvOptions())
        if None not in (features, tables.features) and features != tables.features:
            raise UsageError(
                f"{path} must have the columns {', '.join(features or ())}, as in training; got "
                f"{', '.join(tables.features or ())}."
            )
        return tables.arrays[0], None
    samples, rate = read_sound(path, sound or SoundOptions())
    return clean_values(path, "x", samples, np.ones(len(samples), bool)), rate


def _read_folder(path: Path, csv: CsvOptions, sound: SoundOptions) -> Table:
    """Reads ``CLASS/*``, padded to the longest; classes are in alphabetical order."""
    files, remarks = list_classes(path)
    classes = tuple(sorted({f.parent.name for f in files}))
    rate, features, resolved = None, None, None
    if files[0].suffix.lower() == ".csv":
        arrays, features, resolved, more = read_csvs(files, csv)
        remarks += more
    else:
        arrays, rate = read_sounds(files, sound)
    lengths = np.array([len(x) for x in arrays], np.int32)
    dtype = np.result_type(*{x.dtype for x in arrays})
    shape = (len(files), int(np.max(lengths)), arrays[0].shape[1])
    size = sum(f.stat().st_size for f in files)
    check_expansion(path, size, dtype.itemsize * math.prod(shape))
    padded = np.zeros(shape, dtype)
    for row, x in zip(padded, arrays, strict=True):
        row[: len(x)] = x
    label = np.array([classes.index(f.parent.name) for f in files], np.int32)
    return Table(padded, label, lengths, None, classes, rate, features, resolved, remarks)
