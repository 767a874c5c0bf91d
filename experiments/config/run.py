"""The configuration of a run: typed, checked, and equivalent to ``config.json``."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from experiments.config.models import MODELS, ModelOptions
from experiments.config.strict import check_section, convert, read_section, to_plain
from experiments.data.sources import DEFAULT_PATHS, DataOptions, Files
from experiments.errors import (
    UsageError,
    check_not_negative,
    check_positive,
    check_share,
    choose,
    shorten,
)
from experiments.records import read_json
from experiments.tasks import Objective, Pretraining, Task, get_task

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
Part = Literal["encoder", "blocks", "layers", "ssm", "head"]
RECORDS = ("environment", "fingerprint", "resolved_data")
"""Entries of ``config.json`` besides the options: the environment, the identity of the data, and
the data options with automatic values resolved."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimOptions:
    """Optimiser: AdamW, and Adam with a separate learning rate for state-space parameters."""

    lr: float = 1e-3
    """Peak learning rate."""
    ssm_lr: float = 1e-3
    """Peak learning rate of the groups "ssm" and "ssm_decay"."""
    weight_decay: float = 0.05
    """Decoupled weight decay of the groups "regular" and "ssm_decay", times the learning rate."""
    schedule: Literal["cosine", "s5_cosine", "constant"] = "cosine"
    """Learning rate after the warm-up; s5_cosine is S5's, zero for the last warmup_steps steps."""
    warmup_steps: int = 0
    """Linear warm-up [steps]."""
    period_steps: int | None = None
    """Step at which the cosine reaches zero, and then rises; by default the last one [steps]."""
    by_epoch: bool = False
    """Change the rate only at the start of each epoch, as in HOPE's scripts."""
    opt_config: OptConfig = "standard"
    """Weight decay and learning rate of A, B, C, D and h; the first four names are S5's."""
    dt_group: Group = "ssm"
    """Optimiser group of the step sizes."""
    decay_all: bool = True
    """Decay biases, norms and embeddings, too, as the published S5; S4 does not."""
    freeze: tuple[Part, ...] = ()
    """Parts that are not trained: encoder, blocks (whole ones), layers, ssm (what the groups "ssm"
    and "ssm_decay" hold) and head."""
    clip_norm: float | None = None
    """Largest global norm of the gradients; by default they are not clipped."""
    ema: float | None = None
    """Decay of a moving average of the parameters, which is evaluated and saved instead of them."""

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
    """Training: length of the run, and intervals of records and evaluations."""

    steps: int = 10_000
    """Optimiser steps."""
    batch_size: int = 32
    """Examples per step, over all devices."""
    log_every: int = 100
    """Interval between records of the training loss [steps]."""
    eval_every: int = 1_000
    """Interval between evaluations on the validation split; the last step has one, too [steps]."""
    checkpoint_every: int = 1_000
    """Interval between checkpoints; each evaluation writes one, too [steps]."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of features and matrix products; recurrences, norms and losses are always float32."""
    accumulate: int = 1
    """Number of parts of a batch, processed one after another to save memory."""
    remat: bool = False
    """Recompute each block in the backward pass, to save memory."""
    data: Literal["host", "device"] = "host"
    """Where examples from files are stored: the host sends each batch, or devices hold all data."""
    logger: str = "experiments.training.writers:TensorBoard"
    """Writer of metrics besides metrics.jsonl, as module:name; docs/watching.md has examples."""

    def __post_init__(self) -> None:
        check_positive(self, steps=self.steps, batch_size=self.batch_size)
        check_positive(self, log_every=self.log_every, eval_every=self.eval_every)
        check_positive(self, checkpoint_every=self.checkpoint_every, accumulate=self.accumulate)
        if self.batch_size % self.accumulate:
            raise ValueError(
                "TrainOptions: `accumulate` must divide `batch_size`, so that all parts have "
                f"equal sizes; got {self.accumulate} and {self.batch_size}."
            )
        if not all(self.logger.partition(":")):
            raise ValueError(
                "TrainOptions: `logger` must be module:name, a class or function in a module; got "
                f"{self.logger!r}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that determines the numbers of a run."""

    task: str
    preset: str
    seed: int = 0
    data: DataOptions
    model: ModelOptions
    optim: OptimOptions
    train: TrainOptions
    init_from: str | None = None
    """A saved model whose values the parameters start from; by default random ones."""
    init_sha256: str | None = None
    """Checksum of that model."""
    pretrain: Objective | None = None
    """What is predicted of the task's inputs; by default the task's own targets."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"Config: `seed` must be in [0, 2**31); got {self.seed}.")
        if self.optim.warmup_steps >= self.train.steps:
            raise ValueError(
                "Config: `optim.warmup_steps` must be below `train.steps`; got "
                f"{self.optim.warmup_steps} of {self.train.steps}."
            )
        if 0 < self.data.n_train < self.train.batch_size:  # 0: the data determine it
            raise ValueError(
                "Config: `train.batch_size` must not exceed `data.n_train`; got "
                f"{self.train.batch_size} of {self.data.n_train}."
            )

    def checked(self) -> "Config":
        """Returns the configuration with values of the declared types, as JSON can represent them.

        NumPy numbers, paths and lists become Python numbers, strings and tuples.

        Raises:
            UsageError: if a value is of another type.
        """
        sections = {name: getattr(self, name) for name in ("data", "model", "optim", "train")}
        checked = {name: check_section(section, name) for name, section in sections.items()}
        checked["seed"] = convert(int, to_plain(self.seed), "seed")
        checked["init_from"] = convert(str | None, to_plain(self.init_from), "init_from")
        checked["pretrain"] = convert(Objective | None, self.pretrain, "pretrain")
        return dataclasses.replace(self, **checked)

    def make_task(self, files: Files = DEFAULT_PATHS) -> Task:
        """Builds the task, or the pretraining on its inputs.

        Raises:
            ValueError: if the task's examples cannot be pretrained on.
        """
        task = get_task(self.task)(self.data, files)
        return task if self.pretrain is None else Pretraining(task, self.pretrain)

    @property
    def run_name(self) -> str:
        """The name of the run, and of its folder unless the user chooses one."""
        of_task = (self.task, self.data.data_set, self.model.name)
        parts = (*of_task, self.preset, self.pretrain, f"seed{self.seed}")
        return "-".join(part for part in parts if part)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in the training examples; the rest of an epoch is dropped."""
        return self.data.n_train // self.train.batch_size

    def to_dict(self) -> dict[str, Any]:
        """Returns the contents of ``config.json``."""
        values = dataclasses.asdict(self)
        return {**values, "model": {"name": self.model.name, **values["model"]}}

    def to_json(self) -> str:
        """Returns the text of ``config.json``."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_dict(cls, values: Any) -> "Config":
        """Reads the output of `to_dict`.

        Raises:
            UsageError: if a field is unknown, missing, or of another type.
        """
        if not isinstance(values, dict) or not isinstance(values.get("model"), dict):
            raise UsageError("The configuration must be an object with a section `model`.")
        values, model = dict(values), dict(values["model"])
        sections = {
            "data": get_task(str(values.get("task"))).options_type,
            "model": choose("model", str(model.pop("name", None)), MODELS),
            "optim": OptimOptions,
            "train": TrainOptions,
        }
        values["model"] = model
        for name, section in sections.items():
            values[name] = read_section(section, values.get(name), name)
        return read_section(cls, values, "config")


def read_config(workdir: Path) -> Config:
    """Reads the configuration of a run.

    Raises:
        UsageError: if the folder holds no valid ``config.json``.
    """
    path = Path(workdir) / "config.json"
    if not path.is_file():
        raise UsageError(
            f"No run in {workdir}: {path} does not exist. Set --workdir to a folder that the "
            "command train has made, such as runs/digits-s5-cpu-seed0."
        )
    values = read_json(path)
    if isinstance(values, dict):
        for name in RECORDS:
            values.pop(name, None)
    try:
        return Config.from_dict(values)
    except UsageError as error:
        raise UsageError(f"{path}: {shorten(error)}") from None


def read_fingerprint(workdir: Path) -> dict[str, Any]:
    """Reads the fingerprint of a run's data; empty if the run is new, or older than fingerprints.

    Raises:
        UsageError: if ``config.json`` is not valid.
    """
    return _read_record(workdir, "fingerprint")


def read_resolved_config(workdir: Path) -> Config:
    """Reads the configuration of a run with the automatic values of its data options resolved.

    Raises:
        UsageError: if the folder holds no valid ``config.json``.
    """
    config, resolved = read_config(workdir), _read_record(workdir, "resolved_data")
    data = read_section(type(config.data), resolved, "data") if resolved else config.data
    return dataclasses.replace(config, data=data)


def _read_record(workdir: Path, name: str) -> dict[str, Any]:
    path = Path(workdir) / "config.json"
    values = read_json(path) if path.is_file() else {}
    record = values.get(name) if isinstance(values, dict) else None
    return record if isinstance(record, dict) else {}


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Returns the fields that differ, as ``{"data.size": (old, new)}``."""
    a, b = _flatten(old.to_dict()), _flatten(new.to_dict())
    names = [*a, *(name for name in b if name not in a)]
    return {name: (a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name)}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        nested = isinstance(value, Mapping)
        flat |= _flatten(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return flat
