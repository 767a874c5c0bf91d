"""Command lines, parsed twice: first for the task, then with the task's options and defaults."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import jax
import tyro

from experiments.cli.flags import FileFlags, Flags, MeshSpec, Name, Switch, read_flags
from experiments.cli.process import use_deterministic_operations
from experiments.config import Config, OptimOptions, TrainOptions
from experiments.config.models import MODELS, ModelOptions
from experiments.config.strict import RENAMED
from experiments.data.sources import DATA_DIR, DataOptions, Split
from experiments.devices.distributed import connect
from experiments.errors import UsageError, blaming_options, suggest
from experiments.recipes import OF_DATA_SETS, PRESETS, RECIPES, find_recipe, get_recipe
from experiments.tasks import TASKS, Objective

Chosen = TypeVar("Chosen", bound="Selection")
HELP = ("-h", "--help")
SECTIONS = ("data", "model", "optim", "train")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection(FileFlags):
    """Flags that determine the other flags."""

    task: Name = None
    """The task to learn."""
    model_name: Annotated[str, tyro.conf.arg(name="model", metavar="NAME")] = "s5"
    """The model to train."""
    preset: Name = None
    """The recipe; by default paper on an accelerator and cpu otherwise."""

    def recipe(self) -> Config:
        """Returns the recipe that the flags select.

        Raises:
            UsageError: if it does not exist.
        """
        if self.task is None:
            raise UsageError(f"Choose a task with --task=NAME: {', '.join(TASKS)}.")
        preset = self.preset or _default_preset()
        key = (self.task, self.model_name)
        if self.preset is None and (*key, preset) not in RECIPES and (*key, "paper") in RECIPES:
            raise UsageError(
                f"{self.task} has no preset for a CPU: --preset=paper is the published recipe "
                "(python -m experiments.plan estimates its cost), --preset=smoke a short trial."
            )
        return get_recipe(self.task, self.model_name, preset)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanSelection(Selection):
    """Flags of ``experiments.plan`` that do not depend on task and model."""

    seed: int = 0
    """Seed of the data, their order, the initial parameters and dropout."""
    mesh: MeshSpec = None
    """Devices: N share each batch, M each sequence; by default all devices share each batch."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSelection(PlanSelection):
    """Flags of ``experiments.train`` that do not depend on task and model."""

    workdir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of the run; by default runs/TASK-MODEL-PRESET-seedSEED. With --seeds, the folder of
    the runs' folders."""
    seeds: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Number of runs: with --seed, and with the N - 1 seeds after it. Runs that are finished, or
    that another process is training, are not trained again."""
    init_from: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None
    """Model to start from: the folder of a finished run or of a saved model, the name of a
    pretrained one, or hf://OWNER/NAME. The model options must make the same blocks; encoder and
    head may differ."""
    pretrain: Objective | None = None
    """Learn the task's inputs instead of its targets: the next step of a causal model, or masked
    steps. --init-from of a later run takes what was learnt."""
    on_nan: Literal["stop", "skip", "rollback"] = "stop"
    """At a non-finite loss or gradient: end the run, skip the step, or return to the last
    checkpoint and continue with the batches after the bad one, three times at most."""
    on_changed_data: Literal["stop", "use"] = "stop"
    """If the data of the run to resume have changed: stop, or use the new data."""
    profile: Annotated[int | None, tyro.conf.arg(metavar="STEPS")] = None
    """Trace this many steps after a warm-up, for a browser, into the folder profile of the run."""
    deterministic: Switch = False
    """Reproducible numbers on a GPU: no operations whose order varies, and no kernels selected by
    timing; slower. Numbers on a CPU are always reproducible."""
    distributed: Switch = False
    """Run on many processes, started by SLURM, Open MPI, Kubernetes, Cloud TPU or by hand."""
    coordinator: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT")] = None
    """With --distributed by hand: the address at which process 0 listens."""
    processes: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """With --distributed by hand: the number of processes."""
    process: Annotated[int | None, tyro.conf.arg(metavar="I")] = None
    """With --distributed by hand: the number of this process, from 0 to N - 1."""
    print_config: Switch = False
    """Print the configuration as JSON and exit."""

    def connect(self) -> None:
        """Joins the other processes of a distributed run.

        Raises:
            UsageError: if the flags contradict each other.
            RunError: if the other processes cannot be reached.
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
        """Returns the configuration that the flags describe.

        Raises:
            UsageError: if the sections do not fit together.
        """
        recipe = self.recipe()
        with blaming_options():
            sections = {name: getattr(self, name) for name in SECTIONS}
            return dataclasses.replace(recipe, seed=self.seed, **sections)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainFlags(TrainSelection, PlanFlags):
    """All flags of ``experiments.train``."""

    def configs(self) -> list[Config]:
        """Returns the configuration of each seed.

        Raises:
            UsageError: if there is none, or the sections do not fit together.
        """
        if self.seeds < 1:
            raise UsageError(f"--seeds must be at least 1; got {self.seeds}.")
        first = self.config()
        with blaming_options():
            seeds = range(first.seed, first.seed + self.seeds)
            return [
                dataclasses.replace(
                    first, seed=seed, init_from=self.init_from, pretrain=self.pretrain
                )
                for seed in seeds
            ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleSelection(Selection):
    """Flags of ``experiments.data sample`` that do not depend on the task."""

    preset: Name = "paper"
    """The recipe."""
    seed: int = 0
    """The seed of the run."""
    split: Split = "train"
    """The split of the data."""
    n: int = 100
    """Number of examples."""
    out: Path = Path("sample.npz")
    """The file to write."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleFlags(SampleSelection):
    """All flags of ``experiments.data sample``."""

    data: tyro.conf.FlagConversionOff[DataOptions]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareFlags:
    """Installs a task's data set in the folder where the task looks for it.

    Example: python -m experiments.data prepare --task=smnist --data-dir=DIR
    """

    task: Annotated[str, tyro.conf.arg(metavar="NAME")]
    """Task to prepare."""
    data_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = DATA_DIR
    """Folder of the data sets, in the layout of tensorflow-datasets."""
    source: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The publisher's files, packed or unpacked, or their folder; by default a download."""


def parse_prepare(args: Sequence[str]) -> PrepareFlags:
    """Reads the command line of ``experiments.data prepare``."""
    prog = "python -m experiments.data prepare"
    return read_flags(PrepareFlags, args=args, prog=prog, use_underscores=True)


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
        description="Trains a model on a task, or resumes an interrupted run.",
        example="python -m experiments.train --task=pathx --model.d_state=64 --optim.lr=1e-3",
    )


def parse_plan(args: Sequence[str]) -> PlanFlags:
    """Reads the command line of ``experiments.plan``."""
    return _parse(
        args,
        PlanSelection,
        lambda selection: PlanFlags(task=selection.task, **_sections(selection)),
        prog="python -m experiments.plan",
        description="Estimates parameters, memory and time of a run, after a few steps.",
        example="python -m experiments.plan --task=pathx --model=s4 --preset=paper",
    )


def parse_sample(args: Sequence[str]) -> SampleFlags:
    """Reads the command line of ``experiments.data sample``."""
    return _parse(
        args,
        SampleSelection,
        lambda selection: SampleFlags(task=selection.task, data=selection.recipe().data),
        prog="python -m experiments.data sample",
        description="Writes examples to a .npz file, in the form and order of training.",
        example="python -m experiments.data sample --task=pathx --n=300 --seed=7 --out=FILE.npz",
    )


def _sections(selection: Selection) -> dict[str, Any]:
    recipe = selection.recipe()
    return {name: getattr(recipe, name) for name in SECTIONS}


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
    args = [_rename(arg) for arg in args]
    wants_help = _wants_help(args)
    selecting = [arg for arg in args if arg not in HELP]
    read = functools.partial(
        read_flags, prog=prog, use_underscores=True, return_unknown_args=True, description=text
    )
    selection, others = read(selection_type, args=selecting)
    if selection.task is None and (unknown := [arg for arg in others if "." not in arg]):
        raise UsageError(_explain_unknown(unknown[0], selection))
    if selection.task is None and wants_help:
        more = "--task=NAME --help also shows the options of its data, model and training."
        read(selection_type, args=["--help"], description=text + more)
    default = defaults(selection)
    if selection.task in {key[0] for key in OF_DATA_SETS}:
        flags, _ = read(type(default), args=selecting, default=default)
        default = _use_data_set(default, flags)
    flags, unknown = read(type(default), args=args, default=default)
    if unknown:
        raise UsageError(_explain_unknown(unknown[0], default))
    return flags


def _use_data_set(default: Flags, flags: Any) -> Flags:
    """Replaces the defaults by those of the recipe for the data set that the flags choose."""
    config = flags.recipe()
    recipe = find_recipe(config.task, config.model.name, config.preset, flags.data.data_set)
    assert recipe is not None, "the task has one"
    sections = {name: getattr(recipe.config, name) for name in SECTIONS if hasattr(default, name)}
    return dataclasses.replace(cast(Any, default), **sections)


def _rename(arg: str) -> str:
    """Replaces an earlier name of an option by its current name."""
    flag, equals, value = arg.partition("=")
    old = flag.removeprefix("--")
    return f"--{RENAMED[old]}{equals}{value}" if old in RENAMED else arg


def _wants_help(args: Sequence[str]) -> bool:
    return any(arg in HELP for arg in args)


def _explain_unknown(arg: str, flags: object) -> str:
    """Names the valid flags of the same section, and the nearest valid flag."""
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
    return f"Unknown option {flag!r}: choose from {', '.join(valid)}.{suggest(flag, everything)}"


def _default_preset() -> str:
    return "cpu" if jax.default_backend() == "cpu" else "paper"
