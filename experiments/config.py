"""The configuration of a run: typed, checked, and the same as ``config.json``."""

import dataclasses
import functools
import json
import os
import reprlib
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from experiments.errors import (
    UsageError,
    blaming_options,
    check_not_negative,
    check_positive,
    check_share,
    nearest,
    pick,
    shorten,
)
from experiments.models import MODELS, ModelOptions
from experiments.results import parse_json, read_json
from experiments.tasks import DataOptions, get_task

OptConfig = Literal[
    "standard",
    "BandCdecay",
    "BfastandCdecay",
    "noBCdecay",
    "slow_C",
    "slow_h_decay",
    "frozen_h",
    "fast_A",
]
Group = Literal["regular", "no_decay", "ssm", "ssm_decay", "frozen"]
Section = TypeVar("Section")
LATER = {
    *("optim.clip_norm", "optim.ema"),
    *("train.precision", "train.accumulate", "train.remat", "train.data"),
    *("model.conv", "model.backend"),
    *("data.csv_delimiter", "data.csv_decimal", "data.csv_header", "data.csv_columns"),
    *("data.sample_rate", "data.mono", "data.ignore_index", "data.normalise_dt"),
}
"""Options that the ``config.json`` of an older run lacks: it did what is their default."""
RECORDS = ("environment", "fingerprint", "resolved_data")
"""What ``config.json`` has besides the options: where a run ran, on which data, and what the data
made of options that leave something open."""
EARLIER = {"data.normalise_dt": False}
"""What an older run did where it is not the default."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimOptions:
    """Optimiser: AdamW, and Adam at its own rate for the state space's parameters."""

    lr: float = 1e-3
    """Peak learning rate."""
    ssm_lr: float = 1e-3
    """Peak learning rate of the groups "ssm" and "ssm_decay"."""
    weight_decay: float = 0.05
    """Decoupled weight decay, times the learning rate, of the groups "regular" and "ssm_decay"."""
    schedule: Literal["cosine", "s5_cosine", "constant"] = "cosine"
    """After the warm-up; s5_cosine is the published S5's, at zero in the last warm-up's worth."""
    warmup_steps: int = 0
    """Linear warm-up [steps]."""
    period_steps: int | None = None
    """Where the cosine reaches zero, to rise again after it; by default the run's end [steps]."""
    by_epoch: bool = False
    """The rate changes at the start of each epoch only, as in HOPE's scripts."""
    opt_config: OptConfig = "standard"
    """Which of A, B, C, D and h decay, and at which rate they learn; four have S5's names."""
    dt_group: Group = "ssm"
    """How the step sizes learn."""
    decay_all: bool = True
    """Biases, norms and embeddings decay, too, as with the published S5; with S4 they do not."""
    clip_norm: float | None = None
    """Global norm to which longer gradients are shortened; by default they are not."""
    ema: float | None = None
    """Evaluate and keep a moving average of the parameters, a step's share of which is 1 - ema."""

    def __post_init__(self) -> None:
        check_positive(self, lr=self.lr, ssm_lr=self.ssm_lr)
        if self.clip_norm is not None:
            check_positive(self, clip_norm=self.clip_norm)
        if self.ema is not None:
            check_share(self, ema=self.ema)
        if self.period_steps is not None and self.period_steps <= self.warmup_steps:
            raise ValueError(
                "OptimOptions: `period_steps` must exceed `warmup_steps`; got "
                f"{self.period_steps} and {self.warmup_steps}."
            )
        check_not_negative(self, weight_decay=self.weight_decay, warmup_steps=self.warmup_steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Training: how long, and how often to look."""

    steps: int = 10_000
    """Optimiser steps."""
    batch_size: int = 32
    """Examples a step, over all devices."""
    log_every: int = 100
    """Write the mean training loss [steps]."""
    eval_every: int = 1_000
    """Evaluate on the validation split [steps]; the end of the run always does."""
    checkpoint_every: int = 1_000
    """Write a checkpoint [steps]; each evaluation does, too."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of features and matrix products; recurrences, norms and losses are float32 always."""
    accumulate: int = 1
    """Parts of a batch, taken one after the other: less memory for as many examples a step."""
    remat: bool = False
    """Compute each block once more in the backward pass, instead of keeping it: less memory."""
    data: Literal["host", "device"] = "host"
    """Where the examples of files wait: devices get the rows of each batch, or hold them all."""

    def __post_init__(self) -> None:
        check_positive(self, steps=self.steps, batch_size=self.batch_size)
        check_positive(self, log_every=self.log_every, eval_every=self.eval_every)
        check_positive(self, checkpoint_every=self.checkpoint_every, accumulate=self.accumulate)
        if self.batch_size % self.accumulate:
            raise ValueError(
                "TrainOptions: `accumulate` must divide `batch_size`, so that all parts have as "
                f"many examples; got {self.accumulate} and {self.batch_size}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """All that decides the numbers of a run."""

    task: str
    preset: str
    seed: int = 0
    data: DataOptions
    model: ModelOptions
    optim: OptimOptions
    train: TrainOptions

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"Config: `seed` must lie in [0, 2**31); got {self.seed}.")
        if self.optim.warmup_steps >= self.train.steps:
            raise ValueError(
                "Config: `optim.warmup_steps` must be below `train.steps`; got "
                f"{self.optim.warmup_steps} of {self.train.steps}."
            )
        if 0 < self.data.n_train < self.train.batch_size:  # 0 is for the task's data to say
            raise ValueError(
                "Config: `train.batch_size` must not exceed `data.n_train`; got "
                f"{self.train.batch_size} of {self.data.n_train}."
            )

    def checked(self) -> "Config":
        """The same with values of the declared types, as ``config.json`` can hold them.

        Numbers of NumPy, paths and lists become numbers, texts and tuples of Python.

        Raises:
            UsageError: if a value is of another type.
        """
        sections = {name: getattr(self, name) for name in ("data", "model", "optim", "train")}
        checked = {name: _checked(section, name) for name, section in sections.items()}
        return dataclasses.replace(self, seed=_convert(int, _plain(self.seed), "seed"), **checked)

    @property
    def steps_per_epoch(self) -> int:
        """Steps that see each training example once; the ragged rest of an epoch is dropped."""
        return self.data.n_train // self.train.batch_size

    def to_dict(self) -> dict[str, Any]:
        """As ``config.json`` has it."""
        values = dataclasses.asdict(self)
        return {**values, "model": {"name": self.model.name, **values["model"]}}

    def to_json(self) -> str:
        """The text of ``config.json``."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """Reads what ``to_json`` wrote.

        Raises:
            UsageError: if a field is unknown, missing, or of another type.
        """
        try:
            return cls.from_dict(parse_json(text))
        except ValueError as error:
            raise UsageError(f"The configuration cannot be read: {shorten(error)}") from None

    @classmethod
    def from_dict(cls, values: Any) -> "Config":
        """Reads what ``to_dict`` gave; see `from_json`."""
        if not isinstance(values, dict) or not isinstance(values.get("model"), dict):
            raise UsageError("The configuration must be an object with a section `model`.")
        values, model = dict(values), dict(values["model"])
        sections = {
            "data": get_task(str(values.get("task"))).options_type,
            "model": pick("model", str(model.pop("name", None)), MODELS),
            "optim": OptimOptions,
            "train": TrainOptions,
        }
        values["model"] = model
        for name, section in sections.items():
            values[name] = _read(section, values.get(name), name)
        return _read(cls, values, "config")


def read_config(workdir: Path) -> Config:
    """The configuration of a run.

    Raises:
        UsageError: if the folder holds no valid ``config.json``.
    """
    path = Path(workdir) / "config.json"
    if not path.is_file():
        raise UsageError(f"No run in {workdir}: {path} does not exist.")
    values = read_json(path)
    if isinstance(values, dict):
        for name in RECORDS:
            values.pop(name, None)
    try:
        return Config.from_dict(values)
    except UsageError as error:
        raise UsageError(f"{path}: {shorten(error)}") from None


def read_fingerprint(workdir: Path) -> dict[str, Any]:
    """The fingerprint of a run's data; empty if the run is new, or older than fingerprints.

    Raises:
        UsageError: if ``config.json`` is not valid.
    """
    return _read_record(workdir, "fingerprint")


def read_resolved_config(workdir: Path) -> Config:
    """As `read_config`, with the data options that the run's data have resolved.

    Raises:
        UsageError: if the folder holds no valid ``config.json``.
    """
    config = read_config(workdir)
    resolved = _read_record(workdir, "resolved_data")
    if not resolved:
        return config
    return dataclasses.replace(config, data=_read(type(config.data), resolved, "data"))


def _read_record(workdir: Path, name: str) -> dict[str, Any]:
    path = Path(workdir) / "config.json"
    values = read_json(path) if path.is_file() else {}
    record = values.get(name) if isinstance(values, dict) else None
    return record if isinstance(record, dict) else {}


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """The fields in which two configurations differ, as ``{"data.size": (old, new)}``."""
    a, b = _flatten(old.to_dict()), _flatten(new.to_dict())
    names = [*a, *(name for name in b if name not in a)]
    return {name: (a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name)}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _read(section: type[Section], values: object, where: str) -> Section:
    """Builds a dataclass from JSON values; strict about names and types."""
    if isinstance(values, section):
        return values
    if not isinstance(values, Mapping):
        raise UsageError(f"`{where}` must be an object; got {reprlib.repr(values)}.")
    hints = _hints(section)
    names = [field.name for field in dataclasses.fields(section)]  # ty: ignore[invalid-argument-type]
    for name in values:
        if name not in names:
            valid = ", ".join(names)
            hint = nearest(str(name), names)
            raise UsageError(f"Unknown field `{where}.{name}`: choose from {valid}.{hint}")
    required = [name for name in names if f"{where}.{name}" not in LATER]
    if missing := [name for name in required if name not in values]:
        raise UsageError(f"Missing in `{where}`: {', '.join(missing)}.")
    values = {**{n: EARLIER[f"{where}.{n}"] for n in names if f"{where}.{n}" in EARLIER}, **values}
    read = {name: _convert(hints[name], value, f"{where}.{name}") for name, value in values.items()}
    with blaming_options():
        return section(**read)


@functools.cache
def _hints(section: type) -> dict[str, Any]:
    return typing.get_type_hints(section)


def _checked(section: Any, where: str) -> Any:
    hints = _hints(type(section))
    values = {field.name: getattr(section, field.name) for field in dataclasses.fields(section)}
    return dataclasses.replace(
        section,
        **{
            name: _convert(hints[name], _plain(value), f"{where}.{name}")
            for name, value in values.items()
        },
    )


def _plain(value: Any) -> Any:
    """A value of Python for one of NumPy or a path, and for those in a tuple."""
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _convert(kind: Any, value: Any, where: str) -> Any:
    """Checks a JSON value against an annotation; lists become tuples, integers floats."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list) and len(value) == _length(arguments, value):
        return tuple(_convert(arguments[0], item, where) for item in value)
    if origin is types.UnionType and type(None) in arguments:
        return None if value is None else _convert(arguments[0], value, where)
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


def _length(arguments: tuple[Any, ...], value: list[Any]) -> int:
    """How many items a tuple has that is annotated so; any number if the last argument is "..."."""
    return len(value) if arguments[-1] is ... else len(arguments)
