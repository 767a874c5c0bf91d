"""What a run is about to do, said before it does it."""

import collections
from typing import Any

import jax

from experiments.build import Setup
from experiments.display import duration
from experiments.results import device_name


def plan(setup: Setup, compiled: jax.stages.Compiled, seconds: float, step: int) -> str:
    """Describes a run.

    Args:
        setup: its parts.
        compiled: the train step, which knows its memory.
        seconds: time of one step [s].
        step: the step from which it goes on.

    Returns:
        A few lines of text.
    """
    config, data, train = setup.config, setup.config.data, setup.config.train
    groups = count_parameters(setup)
    in_groups = ", ".join(f"{name} {n:,}" for name, n in sorted(groups.items()))
    memory: Any = compiled.memory_analysis()
    batch = f"{train.batch_size} examples"
    epochs = train.steps / config.steps_per_epoch
    left = duration(seconds * (train.steps - step))
    lines = {
        "model": f"{config.model.name}, {config.model.n_layers} blocks of width "
        f"{config.model.d_model}; {sum(groups.values()):,} parameters ({in_groups})",
        "data": f"{config.task}, {data.n_train:,} / {data.n_validation:,} / {data.n_test:,} "
        f"examples to train / validate / test, {setup.task.length:,} time steps long",
        "steps": f"{train.steps:,} of {batch} ({epochs:.2g} epochs)"
        + (f", going on from step {step:,}" if step else ""),
        "memory": f"{_size(memory.argument_size_in_bytes)} state and batch, "
        f"{_size(memory.temp_size_in_bytes)} temporary, per device",
        "time": f"{seconds:.3g} s a step, {left} to the last one, evaluations not counted",
        "device": device_name(setup.mesh),
    }
    if setup.task.note:
        lines["note"] = setup.task.note
    return "\n".join(f"{name:<8}{text}" for name, text in lines.items())


def count_parameters(setup: Setup) -> dict[str, int]:
    """The number of parameters in each optimiser group."""
    state = jax.tree.unflatten(setup.steps.treedef, setup.steps.initial)
    counts: dict[str, int] = collections.Counter()
    for label, parameter in zip(
        jax.tree.leaves(setup.labels), jax.tree.leaves(state.params), strict=True
    ):
        counts[label] += parameter.size
    return counts


def _size(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} GB"
