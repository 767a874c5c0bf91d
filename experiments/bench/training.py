"""Train steps: those of the papers' models against published algorithms, and of all models."""

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
from experiments.bench.timing import compiling_afresh, interleaved_medians
from experiments.build import Setup, prepare
from experiments.config import Config
from experiments.data import on_device, train_batches
from experiments.loop import fit
from experiments.mesh import make_mesh
from experiments.models import MODELS, S5Options
from experiments.plan import count_parameters
from experiments.recipes import get_recipe

STEP_TARGET = 4
MEMORY_TARGET = 2
COMPILE_LIMIT_S = 15
HOST_LIMIT = 1.5


class PublishedOptions(S5Options):
    """S5's options, for the published algorithm."""

    layer = published.S5


class Step:
    """A compiled train step; a call takes one step on always the same batch."""

    def __init__(self, setup: Setup) -> None:
        config = setup.config
        batches = train_batches(setup.task, seed=config.seed, batch_size=config.train.batch_size)
        self.batch = next(on_device(batches, setup.mesh))
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
        """Memory beside state and batch."""
        memory: Any = self.compiled.memory_analysis()
        return memory.temp_size_in_bytes / 1e6


def train_step_rows(config: Config) -> Iterator[Row]:
    """The train step of an S5 against a port of the published algorithm, in the same model."""
    assert isinstance(config.model, S5Options)
    published_model = PublishedOptions(**vars(config.model))
    mesh = make_mesh("data=1", batch_size=config.train.batch_size)
    setups = {
        name: prepare(dataclasses.replace(config, model=model), mesh)
        for name, model in {"ours": config.model, "published": published_model}.items()
    }
    with compiling_afresh():
        steps = {name: Step(setup) for name, setup in setups.items()}
    step_s = interleaved_medians(steps, turns=6)
    temporary_mb = {name: step.temporary_mb for name, step in steps.items()}
    compile_s = {name: step.compile_s for name, step in steps.items()}
    ratio = step_s["published"] / step_s["ours"]
    yield Row("s5_train_step", ratio, STEP_TARGET, {"s a step": step_s})
    ratio = temporary_mb["published"] / temporary_mb["ours"]
    yield Row("s5_train_memory", ratio, MEMORY_TARGET, {"temporary MB": temporary_mb})
    yield Row("compile_time", COMPILE_LIMIT_S / compile_s["ours"], 1, {"s": compile_s})


def host_overhead_row(config: Config, *, steps: int) -> Row:
    """Steps in the training loop, evaluations and checkpoints left out, against the bare step.

    That is measured before and after.
    """
    batch_size, n = config.train.batch_size, steps // 8
    train = dataclasses.replace(
        config.train, steps=steps, log_every=n, eval_every=steps, checkpoint_every=steps
    )
    config = dataclasses.replace(config, train=train)
    mesh = make_mesh("data=1", batch_size=batch_size)
    step = Step(prepare(config, mesh))
    step()
    before_s = _seconds_a_step(step, n)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        samples_per_s = fit(config, folder, mesh=mesh)["samples_per_s"]
    bare_s = statistics.mean([before_s, _seconds_a_step(step, n)])
    ms = {"loop": 1e3 * batch_size / samples_per_s, "bare": 1e3 * bare_s}
    return Row("host_overhead", HOST_LIMIT * ms["bare"] / ms["loop"], 1, {"ms a step": ms})


def _seconds_a_step(step: Step, n: int) -> float:
    start = time.perf_counter()
    for _ in range(n):
        step()
    return (time.perf_counter() - start) / n


@dataclasses.dataclass(frozen=True)
class ModelSpeed:
    """The train step of a model."""

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
    """All models on Pathfinder images, of one width and depth, with 64 states where they have any.

    Attention sees the whole sequence of 1,024 steps.
    """
    mesh = make_mesh("data=1", batch_size=batch_size)
    steps, setups = {}, {}
    for name, options in MODELS.items():
        shape: dict[str, Any] = {"d_model": d_model, "n_layers": n_layers}
        if "d_state" in options.__dataclass_fields__:
            shape["d_state"] = 64
        config = get_recipe("pathfinder", name, "paper")
        setups[name] = prepare(
            dataclasses.replace(
                config,
                model=options(**shape),
                train=dataclasses.replace(config.train, batch_size=batch_size),
            ),
            mesh,
        )
        with compiling_afresh():
            steps[name] = Step(setups[name])
    seconds = interleaved_medians(steps, turns=5)
    for name, step in steps.items():
        yield ModelSpeed(
            name,
            sum(count_parameters(setups[name]).values()),
            batch_size * setups[name].task.length / seconds[name],
            step.temporary_mb,
            step.compile_s,
        )
