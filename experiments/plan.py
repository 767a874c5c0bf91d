"""What a run is about to do, said before it does it: ``python -m experiments.plan``."""

import collections
import functools
import itertools
import math
import os
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from experiments.build import Setup, prepare
from experiments.cli import parse_plan
from experiments.display import duration
from experiments.errors import RunError, blaming_options, run_command
from experiments.mesh import make_mesh, replicated
from experiments.process import set_up_process
from experiments.recipes import describe_changes
from experiments.results import device_name
from experiments.speed import Speed, measure_speed
from experiments.steps import Leaves
from experiments.tasks import Batch

BUSY_SHARE = 0.1
"""Of all cores, what other programs may use before a plan says so."""
MEDIAN_FACTOR, EXTREME_FACTOR = 10, 1_000
"""How far the median of step lengths may be from 1, and each of them from the median."""


class Plan(NamedTuple):
    """What a run needs to start."""

    train_step: jax.stages.Compiled
    batches: Iterator[Batch]
    """Those of the steps to come."""
    text: str
    """What is about to happen, in a few lines."""


def plan(setup: Setup, leaves: Leaves, batches: Iterator[Batch], *, step: int = 0) -> Plan:
    """Compiles the train step, tries it on a copy of the state, and describes the run.

    Args:
        setup: its parts.
        leaves: the state, which stays as it is.
        batches: those of the steps to come.
        step: the step from which the run continues.

    Returns:
        The compiled step, the same batches, and the description.

    Raises:
        RunError: if the step needs more memory than there is.
    """
    batch = next(batches)
    compiled = setup.steps.train.lower(leaves, batch).compile()
    memory: Any = compiled.memory_analysis()
    needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    available = memory_of(setup.mesh.local_devices[0])
    if needed > available:
        raise RunError(
            f"A step of {setup.config.train.batch_size} examples needs {_size(needed)} per device, "
            f"which has {_size(available)}: reduce --train.batch_size, try --train.remat=True or "
            "--train.accumulate=N, or --preset=cpu."
        )
    batches = itertools.chain([batch], batches)
    speed, batches = measure_speed(setup, compiled, leaves, batches)
    lines = [_describe(setup, memory, speed, step), *_describe_step_lengths(setup, batch)]
    return Plan(compiled, batches, "\n".join(lines))


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
    algorithm = model.blocks[0].layer.algorithm(setup.task.length, examples)
    lines = {
        "model": f"{config.model.name}, {config.model.n_layers} blocks of width "
        f"{config.model.d_model}, computed by {algorithm}; {sum(groups.values()):,} parameters "
        f"({in_groups})",
        "data": f"{config.task}, {data.n_train:,} / {data.n_validation:,} / {data.n_test:,} "
        f"examples to train / validate / test, {setup.task.length:,} time steps long",
        "steps": f"{train.steps:,} of {batch} ({epochs:.2g} epochs)"
        + (f", going on from step {step:,}" if step else ""),
        "memory": f"{_size(memory.argument_size_in_bytes)} state and batch, "
        f"{_size(memory.temp_size_in_bytes)} temporary, per device",
        "time": _describe_time(setup, speed, step),
        "device": device_name(setup.mesh) + _division(setup.mesh),
    }
    notes = [f"{'note':<8}{note}" for note in setup.task.note.splitlines()]
    return "\n".join([*(f"{name:<8}{text}" for name, text in lines.items()), *notes])


def _describe_step_lengths(setup: Setup, batch: Batch) -> list[str]:
    """How the step lengths of a batch compare with those that the layers are initialised for."""
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
    first = [getattr(model, name) for name in ("dt_min", "dt_max")]
    found = (
        f"{low:.3g} to {high:.3g}, median {median:.3g}{counted}; layers start with Delta from "
        f"{first[0]:g} to {first[1]:g}, made for steps of 1"
    )
    lines = [f"{'dt':<8}{found}"]
    if not 1 / MEDIAN_FACTOR < median < MEDIAN_FACTOR:
        scaled = ", ".join(
            f"--model.{name}={value / median:.2g}"
            for name, value in zip(("dt_min", "dt_max"), first, strict=True)
        )
        lines.append(
            f"{'warning':<8}the median step is {median:.3g}, not 1, and models may learn nothing: "
            f"give dt in units of its median, or set {scaled}"
        )
    elif low * EXTREME_FACTOR < median or high > EXTREME_FACTOR * median:
        lines.append(
            f"{'warning':<8}some steps are more than {EXTREME_FACTOR:,} times shorter or longer "
            "than the median: is every dt in the same unit?"
        )
    return lines


def _describe_time(setup: Setup, speed: Speed, step: int) -> str:
    train, data = setup.config.train, setup.config.data
    evaluations = math.ceil(train.steps / train.eval_every) - step // train.eval_every
    validation, test = (math.ceil(n / train.batch_size) for n in (data.n_validation, data.n_test))
    evaluating = speed.evaluation_s * (evaluations * validation + test)
    total = speed.step_s * (train.steps - step) + evaluating
    text = f"{speed.step_s:.3g} s a step, {duration(total)} in all"
    if evaluating >= 1:
        text += f", {duration(evaluating)} of it for evaluations"
    if speed.busy_cores > BUSY_SHARE * (os.cpu_count() or 1):
        text += (
            f"; less on an idle machine: other programs keep {speed.busy_cores:.1f} of "
            f"{os.cpu_count()} cores busy now"
        )
    return text


def _division(mesh: Mesh) -> str:
    n = mesh.shape.get("seq", 1)
    return f", of which {n} share each sequence" if n > 1 else ""


def count_parameters(setup: Setup) -> dict[str, int]:
    """The number of parameters in each optimiser group."""
    state = jax.tree.unflatten(setup.steps.treedef, setup.steps.initial)
    counts: dict[str, int] = collections.Counter()
    for label, parameter in zip(
        jax.tree.leaves(setup.labels), jax.tree.leaves(state.params), strict=True
    ):
        counts[label] += parameter.size
    return counts


def memory_of(device: jax.Device) -> int:
    """Bytes that a device can hold; of a CPU the machine's."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _size(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} GB"


def main() -> None:
    """Reads the command line, tries a few steps, and prints the plan."""
    set_up_process()
    flags = parse_plan(sys.argv[1:])
    config = flags.config()
    batch_size, parts = config.train.batch_size, config.train.accumulate
    mesh = make_mesh(flags.mesh, batch_size=batch_size, parts=parts)
    setup = prepare(config, mesh, files=flags.files())
    print(describe_changes(config), flush=True)
    with blaming_options():
        print(plan(setup, setup.steps.initial, setup.on_device("train")).text)


if __name__ == "__main__":
    run_command(main)
