"""The plan of a run: a description printed before it starts."""

import functools
import itertools
import math
import os
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from experiments.config import Config
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
CHECKPOINT_S, ENDING_S = 0.2, 1.5
"""Allowances for a checkpoint, and for model and plot at the end [s]; long runs hide them."""
MEDIAN_FACTOR, EXTREME_FACTOR = 10, 1_000
"""Largest factor between the median step length and 1, and between a step and the median."""


class Plan(NamedTuple):
    """A compiled step and a description."""

    train_step: jax.stages.Compiled
    text: str
    """Description of the run in a few lines."""


def make_plan(setup: Setup, leaves: Leaves, *, step: int = 0, position: int = 0) -> Plan:
    """Compiles the train step, tries it on a copy of the state, and describes the run from a step.

    Args:
        setup: the run.
        leaves: its state.
        step: number of steps taken.
        position: index of the next batch.

    Raises:
        RunError: if the step needs more memory than there is.
    """
    start = time.monotonic()
    batches = setup.on_device("train", start=position)
    batch = next(batches)
    train_step = compile_step(setup, leaves, batch)
    speed = measure_speed(setup, train_step, leaves, itertools.chain([batch], batches))
    lines = [_describe(setup, train_step.memory_analysis(), step)]
    lines += [f"{'time':<8}{describe_time(setup.config, speed, step, time.monotonic() - start)}"]
    lines += [f"{'device':<8}{device_name(setup.mesh)}{_division(setup.mesh)}"]
    lines += [f"{'note':<8}{note}" for note in setup.task.note.splitlines()]
    return Plan(train_step, "\n".join([*lines, *_describe_step_lengths(setup, batch)]))


def _describe(setup: Setup, memory: Any, step: int) -> str:
    config, data, train = setup.config, setup.config.data, setup.config.train
    groups = count_parameters(setup)
    in_groups = ", ".join(f"{name} {n:,}" for name, n in sorted(groups.items()))
    batch = f"{train.batch_size} examples"
    if train.accumulate > 1:
        batch += f" in {train.accumulate} parts"
    epochs = train.steps / config.steps_per_epoch
    model: Any = setup.steps.model(setup.steps.initial)
    examples = train.batch_size // train.accumulate
    found = (layer.algorithm_for(setup.task.length, examples) for layer in model.layers)
    algorithms = ", ".join(dict.fromkeys(found))
    lines = {
        "model": f"{config.model.name}, {config.model.n_layers} blocks of width "
        f"{config.model.d_model}, computed by {algorithms}; {sum(groups.values()):,} parameters "
        f"({in_groups})",
        "data": f"{config.task}, {data.n_train:,} / {data.n_validation:,} / {data.n_test:,} "
        f"examples to train / validate / test, {setup.task.length:,} time steps long",
        "steps": f"{train.steps:,} of {batch} ({epochs:.2g} epochs)"
        + (f", resuming at step {step:,}" if step else ""),
        "memory": f"{format_bytes(memory.argument_size_in_bytes)} state and batch, "
        f"{format_bytes(memory.temp_size_in_bytes)} temporary, per device",
    }
    return "\n".join(f"{name:<8}{text}" for name, text in lines.items())


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


def estimate_time(config: Config, speed: Speed, step: int) -> dict[str, float]:
    """Returns the seconds that each part of a run takes from a step to its end.

    Args:
        config: the run, with the sizes of its splits.
        speed: measured speed.
        step: number of steps taken.
    """
    train, data = config.train, config.data

    def occasions(every: int) -> int:
        return math.ceil(train.steps / every) - step // every

    validations, others = occasions(train.eval_every), occasions(train.checkpoint_every)
    both = occasions(math.lcm(train.eval_every, train.checkpoint_every))
    validation, test = (math.ceil(n / train.batch_size) for n in (data.n_validation, data.n_test))
    return {
        "train": speed.step_s * (train.steps - step),
        "evaluate": validations * speed.evaluation_s(validation) + speed.evaluation_s(test),
        "save": (validations + others - both) * CHECKPOINT_S + ENDING_S,
    }


def describe_time(config: Config, speed: Speed, step: int, compiling_s: float) -> str:
    """Describes the time of a run; ``compiling_s`` of it have passed."""
    parts = {"compile and try the step": compiling_s, **estimate_time(config, speed, step)}
    text = f"{speed.step_s:.3g} s per step, {duration(sum(parts.values()))} in total: "
    text += ", ".join(f"{duration(seconds)} to {name}" for name, seconds in parts.items())
    if speed.busy_cores > BUSY_SHARE * (os.cpu_count() or 1):
        text += (
            f"; less on an idle machine: other programs now use {speed.busy_cores:.1f} of "
            f"{os.cpu_count()} cores"
        )
    return text


def _division(mesh: Mesh) -> str:
    n = mesh.shape.get("seq", 1)
    return f", of which {n} share each sequence" if n > 1 else ""
