"""Reading of configuration sections from JSON, strict about names and types."""

import dataclasses
import functools
import os
import reprlib
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import numpy as np

from experiments.errors import UsageError, blaming_options, suggest

Section = TypeVar("Section")
LATER = {
    *("config.init_from", "config.init_sha256", "config.pretrain"),
    *("optim.clip_norm", "optim.ema", "optim.freeze"),
    *("train.precision", "train.accumulate", "train.remat", "train.data", "train.logger"),
    *("model.algorithm", "model.init", "model.ffn_activation"),
    *("data.csv_delimiter", "data.csv_decimal", "data.csv_header", "data.csv_columns"),
    *("data.sample_rate", "data.mono", "data.ignore_index", "data.normalise_dt", "data.tail"),
    "data.augment",
}
"""Options that an older ``config.json`` lacks; the older program behaved as their default."""
RENAMED = {"model.conv": "model.algorithm", "model.backend": "model.algorithm"}
"""Options that had another name in older runs; command lines may still use it."""
EARLIER = {"data.normalise_dt": False}
"""Values of missing options where the older program differed from the default."""


def read_section(section: type[Section], values: object, where: str) -> Section:
    """Builds a dataclass from JSON values; an instance is returned as it is.

    ``where`` is the name of the section in the configuration.

    Raises:
        UsageError: if a field is unknown, missing, or of another type.
    """
    if isinstance(values, section):
        return values
    if not isinstance(values, Mapping):
        raise UsageError(f"`{where}` must be an object; got {reprlib.repr(values)}.")
    full = {f"{where}.{name}": value for name, value in values.items()}
    values = {RENAMED.get(k, k).removeprefix(f"{where}."): value for k, value in full.items()}
    hints = _hints(section)
    names = [field.name for field in dataclasses.fields(section)]  # ty: ignore[invalid-argument-type]
    for name in values:
        if name not in names:
            valid, hint = ", ".join(names), suggest(str(name), names)
            raise UsageError(f"Unknown field `{where}.{name}`: choose from {valid}.{hint}")
    required = [name for name in names if f"{where}.{name}" not in LATER]
    if missing := [name for name in required if name not in values]:
        raise UsageError(f"Missing in `{where}`: {', '.join(missing)}.")
    values = {**{n: EARLIER[f"{where}.{n}"] for n in names if f"{where}.{n}" in EARLIER}, **values}
    read = {name: convert(hints[name], value, f"{where}.{name}") for name, value in values.items()}
    with blaming_options():
        return section(**read)


@functools.cache
def _hints(section: type) -> dict[str, Any]:
    return typing.get_type_hints(section)


def check_section(section: Any, where: str) -> Any:
    """Converts the values of a dataclass to the declared types.

    Raises:
        UsageError: if a value is of another type.
    """
    hints = _hints(type(section))
    names = [field.name for field in dataclasses.fields(section)]
    values = {
        name: convert(hints[name], to_plain(getattr(section, name)), f"{where}.{name}")
        for name in names
    }
    return dataclasses.replace(section, **values)


def to_plain(value: Any) -> Any:
    """Converts NumPy numbers, paths and sequences of them to Python values."""
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def convert(kind: Any, value: Any, where: str) -> Any:
    """Checks a JSON value against an annotation; converts lists to tuples, integers to floats."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal and value in arguments:
        return value
    any_length = arguments[-1:] == (...,)
    if origin is tuple and isinstance(value, list) and (any_length or len(value) == len(arguments)):
        return tuple(convert(arguments[0], item, where) for item in value)
    if origin in (types.UnionType, typing.Union) and type(None) in arguments:
        return None if value is None else convert(arguments[0], value, where)
    if kind is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    if kind is int and type(value) is int and abs(value) < 2**63:
        return value
    if kind not in (int, float) and isinstance(kind, type) and isinstance(value, kind):
        return value
    name = (
        " | ".join(map(repr, arguments)) if origin is Literal else getattr(kind, "__name__", kind)
    )
    raise UsageError(f"`{where}` must be {name}; got {reprlib.repr(value)}.")
