"""From a configuration to its task, model, optimiser and steps; and what the model is worth."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from experiments.config import Config
from experiments.data import eval_batches, on_device
from experiments.errors import RunError, UsageError, blaming_options
from experiments.optim import group_labels, make_optimizer
from experiments.steps import Leaves, Steps, make_steps
from experiments.tasks import HERE, Files, Split, Task, get_task


class Setup(NamedTuple):
    """What a configuration stands for on a mesh."""

    config: Config
    mesh: Mesh
    task: Task
    steps: Steps
    labels: Any
    """The optimiser group of every parameter."""


def prepare(
    config: Config,
    mesh: Mesh,
    model: nnx.Module | None = None,
    *,
    files: Files = HERE,
    dt: int | None = None,
) -> Setup:
    """Builds task, model, optimiser and steps.

    Args:
        config: the run.
        mesh: devices.
        model: a trained model; by default a new one, from the run's seed.
        files: where data sets lie.
        dt: evaluate on every so-many-th step of each sequence, for which steps are longer.

    Returns:
        All that is needed to train or evaluate.

    Raises:
        UsageError: if the options contradict each other.
    """
    with blaming_options():
        task = get_task(config.task)(config.data, files)
        _check_decimation(config.task, task, dt)
        task.source("train", seed=config.seed)[0]  # fails now if no example can be had
    return build(config, task, mesh, model, dt=dt)


def build(
    config: Config,
    task: Task,
    mesh: Mesh,
    model: nnx.Module | None = None,
    *,
    dt: int | None = None,
) -> Setup:
    """As :func:`prepare`, without looking at the data."""
    with blaming_options():
        config = dataclasses.replace(config, data=task.options)
        model = model or config.model.build(task, rngs=nnx.Rngs(config.seed))
        labels = group_labels(model, config.optim)
    optimizer = make_optimizer(config, labels)
    log_every = config.train.log_every
    steps = make_steps(model, task, optimizer, mesh, seed=config.seed, log_every=log_every, dt=dt)
    return Setup(config, mesh, task, steps, labels)


def _check_decimation(name: str, task: Task, dt: int | None) -> None:
    fits = task.encoder == "linear" and task.head in ("classify", "match")
    if dt is not None and not (fits and dt >= 1):
        steps = "tokens" if task.encoder == "tokens" else "numbers"
        raise UsageError(
            "`dt` takes every so-many-th step (1, 2, ...) of sequences of numbers that have one "
            f"target each; {name} has {steps} and the head {task.head!r}, and `dt` is {dt}. Leave "
            "--dt out."
        )


def evaluate(
    setup: Setup,
    leaves: Leaves,
    split: Split,
    *,
    between: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """The means of the measures over all examples of a split.

    Args:
        setup: what :func:`prepare` gave.
        leaves: the flat state whose parameters are evaluated.
        split: which examples.
        between: called before each batch.

    Returns:
        A value for each of the task's measures.

    Raises:
        RunError: if a value is not finite.
    """
    config = setup.config
    dataset = eval_batches(setup.task, split, seed=config.seed, batch_size=config.train.batch_size)
    sums: dict[str, np.ndarray] = {}
    computing = None
    for batch in itertools.chain(on_device(dataset, setup.mesh), [None]):
        between()
        finished, computing = computing, batch and setup.steps.evaluate(leaves, batch)
        for name, value in jax.device_get(finished or {}).items():
            sums[name] = sums.get(name, 0.0) + np.asarray(value, np.float64)
    examples = sums.pop("examples")
    measures = setup.task.report({name: total / examples for name, total in sums.items()})
    if not all(map(math.isfinite, measures.values())):
        raise RunError(
            f"Not every {split} measure is finite: {measures}. A lower --optim.lr may help."
        )
    return measures
