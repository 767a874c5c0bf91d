"""The parts of a run, built from its configuration: task, model, optimiser and steps."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from experiments.config import Config
from experiments.data.sources import DEFAULT_PATHS, Batch, Files, Split
from experiments.devices.mesh import own_rows
from experiments.errors import UsageError, blaming_options
from experiments.tasks import Task
from experiments.training.finished import Trained
from experiments.training.initial import initialize
from experiments.training.optim import group_labels, make_optimizer
from experiments.training.pipeline import load_split, make_batches, on_device
from experiments.training.steps import Steps, make_steps

DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}
"""The model's ``dtype`` by precision; None: the type of inputs and parameters, float32."""


class Setup(NamedTuple):
    """The parts of a run on a mesh."""

    config: Config
    mesh: Mesh
    task: Task
    steps: Steps
    labels: Any
    """The optimiser group of every parameter."""
    rows: Callable[[Split], Batch | None]
    """All examples of a split on the devices; None if the host sends each batch."""

    def batches(self, split: Split, rows: np.ndarray | None = None) -> grain.MapDataset:
        """Builds the batches of a split on the host, or some of their rows."""
        train = self.config.train
        return make_batches(
            self.task,
            split,
            seed=self.config.seed,
            batch_size=train.batch_size,
            rows=rows,
            indices_only=train.data == "device",
        )

    def on_device(self, split: Split, *, start: int = 0) -> Iterator[Batch]:
        """Sends the batches of a split to the devices, from the index ``start``."""
        batches = self.batches(split, own_rows(self.mesh, self.config.train.batch_size))
        return on_device(batches, self.mesh, start=start, rows=self.rows(split))


def make_setup(
    config: Config,
    mesh: Mesh,
    trained: Trained | None = None,
    *,
    files: Files = DEFAULT_PATHS,
    dt: int | None = None,
    freeze: bool = True,
) -> Setup:
    """Builds task, model, optimiser and steps.

    Args:
        config: the run.
        mesh: devices.
        trained: a trained model; by default a new one, from the run's seed.
        files: location of the data sets.
        dt: evaluate on every ``dt``-th step of each sequence, with longer steps.
        freeze: keep the state after a non-finite step, up to the next logged step. Training does,
            unless it skips such steps.

    Raises:
        UsageError: if the options contradict each other.
    """
    with blaming_options():
        task = config.make_task(files)
        if trained is not None and trained.preprocessing is not None:
            task.use_preprocessing(trained.preprocessing)
        _check_decimation(config.task, task, dt)
        source = task.source("train", seed=config.seed)
        source[0]  # fails early if there are no examples
        if config.train.data == "device" and not source.in_memory:
            raise UsageError(
                f"--train.data=device needs examples in memory; {config.task} draws or cuts them "
                "as they are read. Leave it out."
            )
    return build_setup(config, task, mesh, trained and trained.model, dt=dt, freeze=freeze)


def build_setup(
    config: Config,
    task: Task,
    mesh: Mesh,
    model: nnx.Module | None = None,
    *,
    dt: int | None = None,
    freeze: bool = True,
) -> Setup:
    """Builds model, optimiser and steps for a task, as `make_setup`, without reading data."""
    train, seed = config.train, config.seed
    with blaming_options():
        config = dataclasses.replace(config, data=task.options)
        if model is None:
            dtype, rngs = DTYPES[train.precision], nnx.Rngs(seed)
            model = config.model.build(task, dtype=dtype, remat=train.remat, rngs=rngs)
            if config.init_from is not None:
                initialize(model, config.init_from)
        labels = group_labels(model, config.optim)
    optimizer = make_optimizer(config, labels)
    steps = make_steps(model, task, optimizer, mesh, config, dt=dt, freeze=freeze)

    @functools.cache
    def rows(split: Split) -> Batch | None:
        return load_split(task, split, mesh, seed=seed) if train.data == "device" else None

    return Setup(config, mesh, task, steps, labels, rows)


def _check_decimation(name: str, task: Task, dt: int | None) -> None:
    fits = task.encoder == "linear" and task.head in ("classify", "match")
    if dt is not None and not (fits and 1 <= dt <= task.length):
        steps = "tokens" if task.encoder == "tokens" else "numbers"
        raise UsageError(
            "`dt` selects every n-th step (n = 1, 2, ...) of sequences of numbers that have one "
            f"target each; {name} has {steps} and the head {task.head!r}, and `dt` is {dt}. Leave "
            "--dt out."
        )


def count_parameters(setup: Setup) -> dict[str, int]:
    """Counts the parameters of each optimiser group."""
    state = jax.tree.unflatten(setup.steps.treedef, setup.steps.initial)
    counts: dict[str, int] = collections.Counter()
    labels, parameters = jax.tree.leaves(setup.labels), jax.tree.leaves(state.params)
    for label, parameter in zip(labels, parameters, strict=True):
        counts[label] += parameter.size
    return counts
