"""Train steps: S5 compared with its published algorithm, the loop's overhead, and all models."""

import contextlib
import dataclasses
import io
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax

from experiments.bench import published
from experiments.bench.row import Row
from experiments.bench.timing import compiling_afresh, interleaved_medians, seconds_per_run
from experiments.config import Config
from experiments.config.models import LAYERS, S5Options
from experiments.devices.mesh import make_mesh
from experiments.recipes import get_recipe
from experiments.training.loop import fit
from experiments.training.setup import Setup, count_parameters, make_setup

STEP_TARGET = 4
MEMORY_TARGET = 2
COMPILE_LIMIT_S = 15
HOST_LIMIT = 1.5


class PublishedOptions(S5Options):
    """Options of S5 by the published algorithm."""

    layer = published.S5


class Step:
    """A compiled train step; every call takes a step on the same batch."""

    def __init__(self, setup: Setup) -> None:
        self.batch = next(setup.on_device("train"))
        self.leaves = setup.steps.initial
        start = time.perf_counter()
        self.compiled = setup.steps.train.lower(self.leaves, self.batch).compile()
        self.compile_s = time.perf_counter() - start

    def __call__(self) -> None:
        """Takes a step."""
        self.leaves, _ = self.compiled(self.leaves, self.batch)
        jax.block_until_ready(self.leaves)

    @property
    def temporary_mb(self) -> float:
        """Memory besides state and batch."""
        memory: Any = self.compiled.memory_analysis()
        return memory.temp_size_in_bytes / 1e6


def train_step_rows(config: Config) -> Iterator[Row]:
    """Compares the train step of an S5 with the published algorithm in the same model."""
    assert isinstance(config.model, S5Options)
    published_model = PublishedOptions(**vars(config.model))
    mesh = make_mesh("data=1", batch_size=config.train.batch_size)
    setups = {
        name: make_setup(dataclasses.replace(config, model=model), mesh)
        for name, model in {"ours": config.model, "published": published_model}.items()
    }
    with compiling_afresh():
        steps = {name: Step(setup) for name, setup in setups.items()}
    step_s = interleaved_medians(steps, rounds=6)
    temporary_mb = {name: step.temporary_mb for name, step in steps.items()}
    compile_s = {name: step.compile_s for name, step in steps.items()}
    ratio = step_s["published"] / step_s["ours"]
    yield Row("s5_train_step", ratio, STEP_TARGET, {"s a step": step_s})
    ratio = temporary_mb["published"] / temporary_mb["ours"]
    yield Row("s5_train_memory", ratio, MEMORY_TARGET, {"temporary MB": temporary_mb})
    yield Row("compile_time", COMPILE_LIMIT_S / compile_s["ours"], 1, {"s": compile_s})


def host_overhead_row(config: Config, *, steps: int) -> Row:
    """Compares steps in the training loop with the bare step, measured before and after.

    Evaluations and checkpoints do not count.
    """
    batch_size, n = config.train.batch_size, steps // 8
    every = {"log_every": n, "eval_every": steps, "checkpoint_every": steps}
    train = dataclasses.replace(config.train, steps=steps, **every)
    config = dataclasses.replace(config, train=train)
    mesh = make_mesh("data=1", batch_size=batch_size)
    step = Step(make_setup(config, mesh))
    step()
    before_s = seconds_per_run(step, n)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        samples_per_s = fit(config, folder, mesh=mesh)["samples_per_s"]
    bare_s = statistics.mean([before_s, seconds_per_run(step, n)])
    ms = {"loop": 1e3 * batch_size / samples_per_s, "bare": 1e3 * bare_s}
    return Row("host_overhead", HOST_LIMIT * ms["bare"] / ms["loop"], 1, {"ms a step": ms})


@dataclasses.dataclass(frozen=True)
class ModelSpeed:
    """Size and speed of a model's train step."""

    model: str
    parameters: int
    tokens_per_s: float
    temporary_mb: float
    compile_s: float

    def __str__(self) -> str:
        return (
            f"{self.model:<12}{self.parameters:>9,} parameters {self.tokens_per_s:>11,.0f} tokens/s"
            f" {self.temporary_mb:>8,.0f} MB temporary  compiled in {self.compile_s:.1f} s"
        )


def model_speeds(*, d_model: int, n_layers: int, batch_size: int) -> Iterator[ModelSpeed]:
    """Measures the models of one layer each on Pathfinder images.

    Width and depth are equal, and layers have 64 states. Attention covers the whole sequence of
    1,024 steps.
    """
    mesh = make_mesh("data=1", batch_size=batch_size)
    steps, setups = {}, {}
    for name, options in LAYERS.items():
        states: dict[str, Any] = (
            {"d_state": 64} if "d_state" in options.__dataclass_fields__ else {}
        )
        model = options(d_model=d_model, n_layers=n_layers, **states)
        config = get_recipe("pathfinder", name, "paper")
        train = dataclasses.replace(config.train, batch_size=batch_size)
        setups[name] = make_setup(dataclasses.replace(config, model=model, train=train), mesh)
        with compiling_afresh():
            steps[name] = Step(setups[name])
    seconds = interleaved_medians(steps, rounds=5)
    for name, step in steps.items():
        yield ModelSpeed(
            name,
            sum(count_parameters(setups[name]).values()),
            batch_size * setups[name].task.length / seconds[name],
            step.temporary_mb,
            step.compile_s,
        )
