"""Rules for arrays of examples."""

from pathlib import Path

import numpy as np

from experiments.errors import UsageError

MAX_TOKENS = 2**17
"""Upper bound of a vocabulary: larger integers are values, not tokens."""
MAX_CLASSES = 1_000
"""Whole numbers below this look like classes."""
NUMBERS = "biuf"
"""Kinds of data types that represent real numbers."""


class BrokenRule(UsageError):
    """Raised for an array that breaks a rule."""

    def __init__(self, path: Path, name: str, rule: str, received: object) -> None:
        super().__init__(f"{path}: `{name}` {rule}; got {received}.")


def check_inputs(path: Path, x: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns ``x`` with an axis of features or of tokens, and lines to print."""
    remarks: tuple[str, ...] = ()
    if x.ndim == 2 and x.dtype.kind in "bf":
        x = x[..., None]
        remarks = (f"`x` is {x.dtype} of shape (N, L): read as one feature per step.",)
    is_token = x.ndim == 2 and x.dtype.kind in "iu"
    if not (is_token or (x.ndim == 3 and x.dtype.kind in NUMBERS)) or x.size == 0:
        rule = (
            "must be numbers of shape (N, L, d), floats of shape (N, L) with one number a step, or "
            "integers of shape (N, L) for tokens"
        )
        raise BrokenRule(path, "x", rule, f"{x.dtype} with shape {x.shape}")
    return x, remarks


def check_lengths(path: Path, lengths: np.ndarray | None, L: int) -> np.ndarray | None:
    """Returns ``lengths`` as int32."""
    if lengths is None:
        return None
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        found = f"{lengths.dtype} with shape {lengths.shape}"
        raise BrokenRule(path, "lengths", "must be integers of shape (N,)", found)
    if lengths.min() < 1 or lengths.max() > L:
        found = f"{lengths.min()} to {lengths.max()}"
        raise BrokenRule(path, "lengths", f"must be in 1 to {L}, the steps of `x`", found)
    return lengths.astype(np.int32)


def check_dt(path: Path, dt: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Returns ``dt`` as float32 of shape ``(N, L)``."""
    if dt.shape not in (valid.shape, valid.shape[:1]) or dt.dtype.kind not in "iuf":
        rule = f"must be numbers of shape {valid.shape} or {valid.shape[:1]}"
        raise BrokenRule(path, "dt", rule, f"{dt.dtype} with shape {dt.shape}")
    dt = np.broadcast_to(dt.reshape(len(dt), -1), valid.shape)
    dt = clean_values(path, "dt", dt, valid).astype(np.float32)
    if (dt[valid] <= 0).any():
        raise BrokenRule(path, "dt", "must be positive", dt[valid].min())
    return dt


def check_targets(
    path: Path, y: np.ndarray, valid: np.ndarray, *, ignore_index: int | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns classes as int32, or values as floats with an axis of features; and lines to print.

    Args:
        path: the file, for messages.
        y: the array.
        valid: False at padding, shape ``(N, L)``.
        ignore_index: the class of valid steps that do not count.

    Raises:
        BrokenRule: if ``y`` is neither.
    """
    is_label = y.dtype.kind in "biu"
    if is_label and y.ndim == 2 and y.shape[1] == 1 != valid.shape[1]:
        y = y[:, 0]
    per_step = y.ndim == (2 if is_label else 3) and y.shape[:2] == valid.shape
    per_sequence = y.ndim == 1 or (y.ndim == 2 and not is_label)
    if not (per_step or per_sequence) or y.dtype.kind not in NUMBERS or y.size == 0:
        rule = (
            "must be integers (classes) of shape (N,) or, one per step, (N, L), or floats of shape "
            "(N,), (N, d) or, one per step, (N, L, d)"
        )
        raise BrokenRule(path, "y", rule, f"{y.dtype} with shape {y.shape}")
    valid = valid if per_step else np.ones(len(y), bool)
    if is_label:
        return _check_labels(path, y, valid, ignore_index if per_step else None), ()
    y = clean_values(path, "y", y, valid)
    remarks = ("`y` has whole numbers as floats: read as values (classes must be integers).",)
    return y.reshape(len(y), 1) if y.ndim == 1 else y, remarks if _like_classes(y[valid]) else ()


def _like_classes(values: np.ndarray) -> bool:
    return bool(
        values.shape[-1:] in ((1,), (values.size,))
        and values.min() >= 0
        and values.max() < MAX_CLASSES
        and (values == np.rint(values)).all()
    )


def _check_labels(
    path: Path, y: np.ndarray, valid: np.ndarray, ignore_index: int | None
) -> np.ndarray:
    counts = valid if ignore_index is None else valid & (y != ignore_index)
    labels = y[counts]
    if not labels.size:
        raise BrokenRule(path, "y", "must have a class at one or more steps", "none")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 and y.ndim == 2:
        rule = (
            "must be classes counted from 0 (to leave out the steps of a class, set "
            f"--data.ignore_index={low})"
        )
        raise BrokenRule(path, "y", rule, f"{low} to {high}")
    if low != 0 or high == 0 or high >= 2**31:
        rule = "must be classes counted from 0, two or more of them"
        raise BrokenRule(path, "y", rule, f"{low} to {high}")
    return np.where(valid, y, 0).astype(np.int32)


def clean_tokens(path: Path, x: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Returns tokens as int32, with zeros at padding."""
    low, high = int(x[valid].min()), int(x[valid].max())
    if low < 0 or high >= MAX_TOKENS:
        rule = (
            f"must be in 0 to {MAX_TOKENS - 1:,}, because integers of shape (N, L) are tokens (if "
            "these are values, write x[..., None])"
        )
        raise BrokenRule(path, "x", rule, f"{low} to {high}")
    return np.where(valid, x, 0).astype(np.int32)


def clean_values(path: Path, name: str, array: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Returns finite floats with zeros at padding; float64 if float32 cannot represent them.

    Args:
        path: the file, for messages.
        name: the name of the array, for messages.
        array: numbers.
        valid: False at padding, with the first axes of ``array``.

    Raises:
        BrokenRule: if a number is not finite in float32, in which models compute.
    """
    kept = valid.reshape(valid.shape + (1,) * (array.ndim - valid.ndim))
    wide = np.result_type(array.dtype, np.float32) != np.float32
    array = np.where(kept, array, 0).astype(np.float64 if wide else np.float32)
    with np.errstate(over="ignore"):
        bad = np.argwhere(~np.isfinite(array.astype(np.float32)))
    if len(bad):
        where = ", ".join(map(str, bad[0].tolist()))
        raise BrokenRule(path, name, "must be finite", f"{array[tuple(bad[0])]} at [{where}]")
    return array
