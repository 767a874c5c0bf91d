"""The plan of a run: a description printed before it starts."""

import functools
import itertools
import math
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from experiments.data.sources import Batch
from experiments.devices.mesh import replicated
from experiments.records import device_name
from experiments.training.compile import compile_step, format_bytes
from experiments.training.display import duration
from experiments.training.setup import Setup, count_parameters
from experiments.training.speed import Speed, measure_speed
from experiments.training.steps import Leaves

BUSY_SHARE = 0.1
"""Share of all cores that other programs may use before a plan mentions it."""
MEDIAN_FACTOR, EXTREME_FACTOR = 10, 1_000
"""Largest factor between the median step length and 1, and between a step and the median."""


class Plan(NamedTuple):
    """A compiled step, its batches and a description."""

    train_step: jax.stages.Compiled
    batches: Iterator[Batch]
    """Batches of the remaining steps."""
    text: str
    """Description of the run in a few lines."""


def make_plan(setup: Setup, leaves: Leaves, batches: Iterator[Batch], *, step: int = 0) -> Plan:
    """Compiles the train step, tries it on a copy of the state, and describes the run from a step.

    Raises:
        RunError: if the step needs more memory than there is.
    """
    batch = next(batches)
    train_step = compile_step(setup, leaves, batch)
    speed, batches = measure_speed(setup, train_step, leaves, itertools.chain([batch], batches))
    memory = train_step.memory_analysis()
    lines = [_describe(setup, memory, speed, step), *_describe_step_lengths(setup, batch)]
    return Plan(train_step, batches, "\n".join(lines))


def _describe(setup: Setup, memory: Any, speed: Speed, step: int) -> str:
    config, data, train = setup.config, setup.config.data, setup.config.train
    groups = count_parameters(setup)
    in_groups = ", ".join(f"{name} {n:,}" for name, n in sorted(groups.items()))
    batch = f"{train.batch_size} examples"
    if train.accumulate > 1:
        batch += f" in {train.accumulate} parts"
    epochs = train.steps / config.steps_per_epoch
    model: Any = setup.steps.model(setup.steps.initial)
    examples = train.batch_size // train.accumulate
    algorithm = model.layers[0].algorithm_for(setup.task.length, examples)
    lines = {
        "model": f"{config.model.name}, {config.model.n_layers} blocks of width "
        f"{config.model.d_model}, computed by {algorithm}; {sum(groups.values()):,} parameters "
        f"({in_groups})",
        "data": f"{config.task}, {data.n_train:,} / {data.n_validation:,} / {data.n_test:,} "
        f"examples to train / validate / test, {setup.task.length:,} time steps long",
        "steps": f"{train.steps:,} of {batch} ({epochs:.2g} epochs)"
        + (f", resuming at step {step:,}" if step else ""),
        "memory": f"{format_bytes(memory.argument_size_in_bytes)} state and batch, "
        f"{format_bytes(memory.temp_size_in_bytes)} temporary, per device",
        "time": _describe_time(setup, speed, step),
        "device": device_name(setup.mesh) + _division(setup.mesh),
    }
    notes = [f"{'note':<8}{note}" for note in setup.task.note.splitlines()]
    return "\n".join([*(f"{name:<8}{text}" for name, text in lines.items()), *notes])


def _describe_step_lengths(setup: Setup, batch: Batch) -> list[str]:
    """Compares the step lengths of a batch with the initial step sizes of the layers."""
    if not setup.task.irregular:
        return []

    @functools.partial(jax.jit, out_shardings=replicated(setup.mesh))
    def compute_quantiles(batch: Batch) -> jax.Array:
        inputs = setup.task.inputs(setup.task.expand(batch))
        dt, lengths = inputs["dt"], inputs.get("lengths")
        if lengths is not None:
            dt = jnp.where(jnp.arange(dt.shape[-1]) < lengths[..., None], dt, jnp.nan)
        return jnp.nanquantile(dt, jnp.array([0.0, 0.5, 1.0]))

    low, median, high = np.asarray(compute_quantiles(batch)).tolist()
    unit, model = setup.task.preprocessing.dt_unit, setup.config.model
    counted = f", in units of {unit:.4g}" if unit not in (None, 1.0) else ""
    first = {name: getattr(model, name) for name in ("dt_min", "dt_max")}
    lines = [
        f"{'dt':<8}{low:.3g} to {high:.3g}, median {median:.3g}{counted}; layers start with step "
        f"sizes from {first['dt_min']:g} to {first['dt_max']:g}, for steps of 1"
    ]
    if not 1 / MEDIAN_FACTOR < median < MEDIAN_FACTOR:
        scaled = [f"--model.{name}={value / median:.2g}" for name, value in first.items()]
        lines.append(
            f"{'warning':<8}the median step is {median:.3g}, not 1, and models may learn nothing: "
            f"give dt in units of its median, or set {', '.join(scaled)}"
        )
    elif low * EXTREME_FACTOR < median or high > EXTREME_FACTOR * median:
        lines.append(
            f"{'warning':<8}some steps differ from the median by a factor of more than "
            f"{EXTREME_FACTOR:,}: check that every dt is in the same unit"
        )
    return lines


def _describe_time(setup: Setup, speed: Speed, step: int) -> str:
    train, data = setup.config.train, setup.config.data
    evaluations = math.ceil(train.steps / train.eval_every) - step // train.eval_every
    validation, test = (math.ceil(n / train.batch_size) for n in (data.n_validation, data.n_test))
    evaluating = speed.evaluation_s * (evaluations * validation + test)
    total = speed.step_s * (train.steps - step) + evaluating
    text = f"{speed.step_s:.3g} s per step, {duration(total)} in total"
    if evaluating >= 1:
        text += f", of which {duration(evaluating)} for evaluations"
    if speed.busy_cores > BUSY_SHARE * (os.cpu_count() or 1):
        text += (
            f"; less on an idle machine: other programs now use {speed.busy_cores:.1f} of "
            f"{os.cpu_count()} cores"
        )
    return text


def _division(mesh: Mesh) -> str:
    n = mesh.shape.get("seq", 1)
    return f", of which {n} share each sequence" if n > 1 else ""
