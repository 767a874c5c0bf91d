"""A user's own examples: read from an archive of arrays or from a folder, and checked."""

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.errors import UsageError, check_expansion
from experiments.tasks._readers import FULL_SCALE, read_csv, read_npz, read_wav

COLUMNS = ("x", "y", "lengths", "dt")


class Table(NamedTuple):
    """Checked examples; what pads them is zero."""

    x: np.ndarray
    """float32 ``(N, L, d)``, or int32 ``(N, L)``: tokens."""
    y: np.ndarray | None
    """Targets: int32 ``(N,)`` or ``(N, L)``, or float32 ``(N, d)`` or ``(N, L, d)``."""
    lengths: np.ndarray | None = None
    """int32, shape ``(N,)``."""
    dt: np.ndarray | None = None
    """float32, shape ``(N, L)``."""
    classes: tuple[str, ...] | None = None
    """Names of the classes, where folders have them."""
    rate: int | None = None
    """Samples a second, of sounds."""


def read_table(path: Path) -> Table:
    """Reads examples with their targets.

    Args:
        path: a ``.npz`` file, or a folder ``CLASS/*.wav`` or ``CLASS/*.csv``.

    Returns:
        The table; of a file that has not changed, the same one again.

    Raises:
        UsageError: if it is neither, or breaks a rule.
    """
    if not path.exists():
        raise UsageError(
            f"No file or folder {path}: --data.file must name a .npz file with arrays x and y, or "
            "a folder CLASS/*.wav or CLASS/*.csv."
        )
    return _read_table(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _read_table(path: Path, changed: int) -> Table:
    del changed
    table = _read_folder(path) if path.is_dir() else read_arrays(path)
    if table.y is None:
        raise UsageError(f"{path} needs an array `y` with the targets, one row an example.")
    if len(table.x) < 3:
        raise UsageError(
            f"{path} must hold three examples or more, to train, validate and test; got "
            f"{len(table.x)}."
        )
    return table


def read_arrays(path: Path) -> Table:
    """Reads a ``.npz`` file with ``x`` and, where it has them, ``y``, ``lengths`` and ``dt``.

    Raises:
        UsageError: if an array breaks a rule; names the array, the rule and what was received.
    """
    arrays = read_npz(path)
    if "x" not in arrays or not set(arrays) <= set(COLUMNS):
        raise UsageError(
            f"{path} must hold arrays named x, y and, if need be, lengths and dt; got "
            f"{', '.join(arrays) or 'none'}."
        )
    x = _check_inputs(path, arrays["x"])
    n, L = x.shape[:2]
    for name, array in arrays.items():
        if array.ndim == 0 or len(array) != n:
            raise _Broken(path, name, f"must have {n} rows, as `x` has", array.shape)
    lengths = _check_lengths(path, arrays.get("lengths"), L)
    valid = np.arange(L) < (np.full(n, L) if lengths is None else lengths)[:, None]
    return Table(
        x=_clean(path, "x", x, valid),
        y=_check_targets(path, arrays["y"], valid) if "y" in arrays else None,
        lengths=lengths,
        dt=_check_dt(path, arrays["dt"], valid) if "dt" in arrays else None,
    )


def read_sequence(path: Path) -> tuple[np.ndarray, int | None]:
    """One example from a WAV or CSV file.

    Returns:
        float32 of shape ``(L, d)``, and the samples a second of a sound.
    """
    if path.suffix.lower() == ".csv":
        x = read_csv(path)
        return _clean(path, "x", x, np.ones(len(x), bool)), None
    samples, rate = read_wav(path)
    return np.divide(samples, FULL_SCALE, dtype=np.float32), rate


class _Broken(UsageError):
    """An array breaks a rule."""

    def __init__(self, path: Path, name: str, rule: str, received: object) -> None:
        super().__init__(f"{path}: `{name}` {rule}; got {received}.")


def _check_inputs(path: Path, x: np.ndarray) -> np.ndarray:
    is_token = np.issubdtype(x.dtype, np.integer) and x.ndim == 2
    is_vector = x.ndim == 3 and (x.dtype.kind in "iuf")
    if not (is_token or is_vector) or x.size == 0:
        rule = (
            "must be numbers of shape (N, L, d), or integers of shape (N, L) for tokens (one "
            "number a step: x[..., None])"
        )
        raise _Broken(path, "x", rule, f"{x.dtype} with shape {x.shape}")
    return x


def _check_lengths(path: Path, lengths: np.ndarray | None, L: int) -> np.ndarray | None:
    if lengths is None:
        return None
    if lengths.ndim != 1 or not np.issubdtype(lengths.dtype, np.integer):
        found = f"{lengths.dtype} with shape {lengths.shape}"
        raise _Broken(path, "lengths", "must be integers of shape (N,)", found)
    if lengths.min() < 1 or lengths.max() > L:
        found = f"{lengths.min()} to {lengths.max()}"
        raise _Broken(path, "lengths", f"must lie in 1 to {L}, the steps of `x`", found)
    return lengths.astype(np.int32)


def _check_dt(path: Path, dt: np.ndarray, valid: np.ndarray) -> np.ndarray:
    if dt.shape not in (valid.shape, valid.shape[:1]) or dt.dtype.kind not in "iuf":
        rule = f"must be numbers of shape {valid.shape} or {valid.shape[:1]}"
        raise _Broken(path, "dt", rule, f"{dt.dtype} with shape {dt.shape}")
    dt = np.broadcast_to(dt.reshape(len(dt), -1), valid.shape)
    dt = _clean(path, "dt", dt, valid).astype(np.float32)
    if (dt[valid] <= 0).any():
        raise _Broken(path, "dt", "must be positive", dt[valid].min())
    return dt


def _check_targets(path: Path, y: np.ndarray, valid: np.ndarray) -> np.ndarray:
    is_label = np.issubdtype(y.dtype, np.integer)
    per_step = y.ndim == (2 if is_label else 3) and y.shape[:2] == valid.shape
    per_sequence = y.ndim == 1 or (y.ndim == 2 and not is_label)
    if not (per_step or per_sequence) or y.dtype.kind not in "iuf" or y.size == 0:
        rule = (
            "must be integers (classes) of shape (N,) or, one a step, (N, L), or floats of shape "
            "(N,), (N, d) or, one a step, (N, L, d)"
        )
        raise _Broken(path, "y", rule, f"{y.dtype} with shape {y.shape}")
    y = _clean(path, "y", y, valid if per_step else np.ones(len(y), bool))
    if not is_label:
        return y.reshape(len(y), 1) if y.ndim == 1 else y
    labels = y[valid] if per_step else y
    if labels.min() != 0 or labels.max() == 0:
        rule = "must be classes counted from 0, two or more of them"
        raise _Broken(path, "y", rule, f"{labels.min()} to {labels.max()}")
    return y


def _clean(path: Path, name: str, array: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Float32 or int32, finite, with zeros for what pads it."""
    integers = array.dtype.kind != "f" and array.ndim < 3
    if integers and (array[valid].min() < 0 or array[valid].max() >= 2**31):
        found = f"{array[valid].min()} to {array[valid].max()}"
        raise _Broken(path, name, "must lie in 0 to 2**31 - 1 if it holds integers", found)
    kept = valid.reshape(valid.shape + (1,) * (array.ndim - valid.ndim))
    with np.errstate(over="ignore"):  # infinite then, and refused
        array = np.where(kept, array, 0).astype(np.int32 if integers else np.float32)
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        where = ", ".join(map(str, bad[0].tolist()))
        raise _Broken(path, name, "must be finite", f"{array[tuple(bad[0])]} at [{where}]")
    return array


def _read_folder(path: Path) -> Table:
    """``CLASS/*.wav`` or ``CLASS/*.csv``, padded to the longest; classes in alphabetical order."""
    files = sorted(f for f in path.glob("*/*") if f.suffix.lower() in (".wav", ".csv"))
    kinds = {f.suffix.lower() for f in files}
    classes = tuple(sorted({f.parent.name for f in files}))
    if len(kinds) != 1 or len(classes) < 2:
        raise UsageError(
            f"{path} must hold two or more folders, one a class, of .wav or of .csv files; got "
            f"{len(files)} files of {' and '.join(sorted(kinds)) or 'these kinds'} in "
            f"{len(classes)} folders."
        )
    sequences, rates = zip(*map(read_sequence, files), strict=True)
    _check_equal(files, [x.shape[1] for x in sequences], "channels or columns")
    _check_equal(files, rates, "samples a second")
    lengths = np.array([len(x) for x in sequences], np.int32)
    shape = (len(files), int(lengths.max()), sequences[0].shape[1])
    check_expansion(path, sum(f.stat().st_size for f in files), 4 * math.prod(shape))
    padded = np.zeros(shape, np.float32)
    for row, x in zip(padded, sequences, strict=True):
        row[: len(x)] = x
    label = np.array([classes.index(f.parent.name) for f in files], np.int32)
    return Table(padded, label, lengths, classes=classes, rate=rates[0])


def _check_equal(files: Sequence[Path], values: Sequence[Any], what: str) -> None:
    for file, value in zip(files, values, strict=True):
        if value != values[0]:
            raise UsageError(
                f"All files must have as many {what}; got {values[0]} in {files[0]}, but {value} "
                f"in {file}."
            )
