"""Command lines, read twice: first for the task, then with the options and defaults it has."""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import jax
import tyro

from experiments.config import Config, OptimOptions, TrainOptions
from experiments.distributed import connect
from experiments.errors import UsageError, blaming_options, nearest
from experiments.files import UserPath
from experiments.models import MODELS, ModelOptions
from experiments.recipes import PRESETS, RECIPES, get_recipe
from experiments.tasks import DATA_DIR, TASKS, DataOptions, Files, Split

Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]
Name = Annotated[str | None, tyro.conf.arg(metavar="NAME")]
MeshSpec = Annotated[str | None, tyro.conf.arg(metavar="data=N,seq=M")]
Chosen = TypeVar("Chosen", bound="Selection")
Flags = TypeVar("Flags")
HELP = ("-h", "--help")
DETERMINISTIC = "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileFlags:
    """Where data sets lie."""

    data_dir: Annotated[UserPath, tyro.conf.arg(metavar="DIR")] = DATA_DIR
    """Folder of the data sets, in the layout of tensorflow-datasets."""
    download: Switch = False
    """Fetch a missing data set from its publisher."""

    def files(self) -> Files:
        """As tasks take it."""
        return Files(self.data_dir, self.download)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection(FileFlags):
    """The flags that decide which other flags there are."""

    task: Name = None
    """What to learn."""
    model_name: Annotated[str, tyro.conf.arg(name="model", metavar="NAME")] = "s5"
    """What learns it."""
    preset: Name = None
    """Which recipe; without it, paper on an accelerator and cpu otherwise."""

    def recipe(self) -> Config:
        """The configuration that the flags choose.

        Raises:
            UsageError: if there is none.
        """
        if self.task is None:
            raise UsageError(f"Say what to learn with --task=NAME: {', '.join(TASKS)}.")
        preset = self.preset or _default_preset()
        key = (self.task, self.model_name)
        if self.preset is None and (*key, preset) not in RECIPES and (*key, "paper") in RECIPES:
            raise UsageError(
                f"{self.task} has no preset for a CPU: --preset=paper is the published recipe "
                "(python -m experiments.plan says what it takes), --preset=smoke a short trial."
            )
        return get_recipe(self.task, self.model_name, preset)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanSelection(Selection):
    """The flags of ``experiments.plan`` that do not depend on task and model."""

    seed: int = 0
    """Decides data, their order, first parameters and dropout."""
    mesh: MeshSpec = None
    """Devices: N share each batch, M each sequence; without it, all of them share each batch."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSelection(PlanSelection):
    """The flags of ``experiments.train`` that do not depend on task and model."""

    workdir: Annotated[UserPath | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of the run; without it, runs/TASK-MODEL-PRESET-seedSEED."""
    on_nan: Literal["stop", "skip", "rollback"] = "stop"
    """At a non-finite loss or gradient: end the run, leave the step out, or go back to the last
    checkpoint and go on from there with the batches after the bad one, three times at most."""
    on_changed_data: Literal["stop", "use"] = "stop"
    """If the data of the run to go on with have changed: end, or use the new ones."""
    deterministic: Switch = False
    """The same numbers each time on a GPU, too: no operations whose order varies, and no kernels
    chosen by timing them; slower there. On a CPU they are the same without it."""
    distributed: Switch = False
    """Run on many processes, as SLURM, Open MPI, Kubernetes or Cloud TPU start them."""
    coordinator: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT")] = None
    """With --distributed started by hand: where process 0 listens."""
    processes: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """With --distributed started by hand: how many processes there are."""
    process: Annotated[int | None, tyro.conf.arg(metavar="I")] = None
    """With --distributed started by hand: which one this is, from 0 to N - 1."""
    print_config: Switch = False
    """Print the configuration as JSON and leave."""

    def connect(self) -> None:
        """Joins the other processes, if there are any.

        Raises:
            UsageError: if the flags do not say which.
            RunError: if they cannot be reached.
        """
        by_hand = (self.coordinator, self.processes, self.process)
        if self.distributed:
            connect(*by_hand)
        elif by_hand != (None, None, None):
            raise UsageError("--coordinator, --processes and --process need --distributed.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanFlags(PlanSelection):
    """All flags of ``experiments.plan``."""

    data: tyro.conf.FlagConversionOff[DataOptions]
    model: tyro.conf.FlagConversionOff[ModelOptions]
    optim: tyro.conf.FlagConversionOff[OptimOptions]
    train: tyro.conf.FlagConversionOff[TrainOptions]

    def config(self) -> Config:
        """The configuration that the flags ask for.

        Raises:
            UsageError: if the sections do not fit together.
        """
        recipe = self.recipe()
        with blaming_options():
            return dataclasses.replace(
                recipe,
                seed=self.seed,
                data=self.data,
                model=self.model,
                optim=self.optim,
                train=self.train,
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainFlags(TrainSelection, PlanFlags):
    """All flags of ``experiments.train``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleSelection(Selection):
    """The flags of ``experiments.data sample`` that do not depend on the task."""

    preset: Name = "paper"
    """Which recipe."""
    seed: int = 0
    """The seed of the run."""
    split: Split = "train"
    """Which examples."""
    n: int = 100
    """How many examples."""
    out: UserPath = Path("sample.npz")
    """The file to write."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleFlags(SampleSelection):
    """All flags of ``experiments.data sample``."""

    data: tyro.conf.FlagConversionOff[DataOptions]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareFlags:
    """Puts a task's data set where the task looks for it.

    Example: python -m experiments.data prepare --task=smnist --data-dir=DIR
    """

    task: Annotated[str, tyro.conf.arg(metavar="NAME")]
    """Whose data set."""
    data_dir: Annotated[UserPath, tyro.conf.arg(metavar="DIR")] = DATA_DIR
    """Folder of the data sets, in the layout of tensorflow-datasets."""
    source: Annotated[UserPath | None, tyro.conf.arg(metavar="DIR")] = None
    """The publisher's files, packed or unpacked, or their folder; without it, a download."""


def parse_prepare(args: Sequence[str]) -> PrepareFlags:
    """Reads the command line of ``experiments.data prepare``."""
    prog = "python -m experiments.data prepare"
    return tyro.cli(PrepareFlags, args=args, prog=prog, use_underscores=True)


def parse_train(args: Sequence[str]) -> TrainFlags:
    """Reads the command line of ``experiments.train``."""

    def defaults(selection: TrainSelection) -> TrainFlags:
        if selection.deterministic:
            use_deterministic_operations()
        if not _wants_help(args):
            selection.connect()
        return TrainFlags(task=selection.task, **_sections(selection))

    return _parse(
        args,
        TrainSelection,
        defaults,
        prog="python -m experiments.train",
        description="Trains a model on a task, and goes on where a run was interrupted.",
        example="python -m experiments.train --task=pathx --model.d_state=64 --optim.lr=1e-3",
    )


def parse_plan(args: Sequence[str]) -> PlanFlags:
    """Reads the command line of ``experiments.plan``."""
    return _parse(
        args,
        PlanSelection,
        lambda selection: PlanFlags(task=selection.task, **_sections(selection)),
        prog="python -m experiments.plan",
        description="Says what a run would take, after a few steps: parameters, memory and time.",
        example="python -m experiments.plan --task=pathx --model=s4 --preset=paper",
    )


def parse_sample(args: Sequence[str]) -> SampleFlags:
    """Reads the command line of ``experiments.data sample``."""
    return _parse(
        args,
        SampleSelection,
        lambda selection: SampleFlags(task=selection.task, data=selection.recipe().data),
        prog="python -m experiments.data sample",
        description="Writes examples as training sees them, in its order, to a .npz file.",
        example="python -m experiments.data sample --task=pathx --n=300 --seed=7 --out=FILE.npz",
    )


def use_deterministic_operations() -> None:
    """Asks XLA for reproducible results on GPUs; before the first use of a device.

    The first flag excludes sums in any order (atomic scatters, some matrix products) and takes the
    first kernel that fits; the second stops timing kernels to choose the fastest.

    References:
        https://openxla.org/xla/determinism and https://github.com/openxla/xla/pull/12520.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} {DETERMINISTIC}".strip()


def _sections(selection: Selection) -> dict[str, Any]:
    recipe = selection.recipe()
    return {name: getattr(recipe, name) for name in ("data", "model", "optim", "train")}


def _parse(
    args: Sequence[str],
    selection_type: type[Chosen],
    defaults: Callable[[Chosen], Flags],
    *,
    prog: str,
    description: str,
    example: str,
) -> Flags:
    presets = "\n".join(f"  {name:<6} {text}" for name, text in PRESETS.items())
    text = (
        f"{description}\n\nTasks: {', '.join(TASKS)}\n\nModels: {', '.join(MODELS)}\n\n"
        f"Presets:\n{presets}\n\nExample: {example}\n\n"
    )
    wants_help = _wants_help(args)
    selecting = [arg for arg in args if arg not in HELP]
    read = functools.partial(
        tyro.cli, prog=prog, use_underscores=True, return_unknown_args=True, description=text
    )
    selection, others = read(selection_type, args=selecting)
    if selection.task is None and (unknown := [arg for arg in others if "." not in arg]):
        raise UsageError(_explain_unknown(unknown[0], selection))
    if selection.task is None and wants_help:
        more = "With --task=NAME, --help shows the options of its data, model and training, too."
        read(selection_type, args=["--help"], description=text + more)
    default = defaults(selection)
    flags, unknown = read(type(default), args=args, default=default)
    if unknown:
        raise UsageError(_explain_unknown(unknown[0], default))
    return flags


def _wants_help(args: Sequence[str]) -> bool:
    return any(arg in HELP for arg in args)


def _explain_unknown(arg: str, flags: object) -> str:
    """Names the valid flags, those of its section if it has one, and the nearest."""
    sections: dict[str, list[str]] = {"": []}
    for name, value in vars(flags).items():
        if dataclasses.is_dataclass(value):
            sections[name] = [f"--{name}.{field.name}" for field in dataclasses.fields(value)]
        else:
            sections[""].append(f"--{name.removesuffix('_name')}")
    flag = arg.partition("=")[0]
    section = flag.lstrip("-").partition(".")[0] if "." in flag else ""
    valid = sections.get(section) or [f"--{name}.*" for name in sections if name]
    everything = [name for names in sections.values() for name in names]
    return f"Unknown option {flag!r}: choose from {', '.join(valid)}.{nearest(flag, everything)}"


def _default_preset() -> str:
    return "cpu" if jax.default_backend() == "cpu" else "paper"
