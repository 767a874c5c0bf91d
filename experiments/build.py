"""From a configuration to its task, model, optimiser and steps; and what the model is worth."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

import s5jax
from experiments.config import Config
from experiments.data import eval_batches, hold, on_device, train_batches
from experiments.errors import RunError, UsageError, blaming_options
from experiments.mesh import own_rows
from experiments.optim import group_labels, make_optimizer
from experiments.steps import Leaves, Steps, make_steps
from experiments.tasks import HERE, Batch, Files, Split, Task, get_task

DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}
"""What a precision is to a model; None: that of inputs and parameters, which are float32."""


class Trained(NamedTuple):
    """The model of a finished run."""

    model: Any
    """In evaluation mode; takes inputs that the task has prepared."""
    preprocessing: s5jax.Preprocessing | None = None
    """How they were prepared; None if the task needs no more than its options, or the run is older
    than this."""


class Setup(NamedTuple):
    """What a configuration stands for on a mesh."""

    config: Config
    mesh: Mesh
    task: Task
    steps: Steps
    labels: Any
    """The optimiser group of every parameter."""
    rows: Callable[[Split], Batch | None]
    """All examples of a split, on the devices; None unless they are held there."""

    def batches(self, split: Split, rows: np.ndarray | None = None) -> grain.MapDataset:
        """The batches of a split on the host, or some of their rows; for training without end."""
        train = self.config.train
        options: dict[str, Any] = {
            "seed": self.config.seed,
            "batch_size": train.batch_size,
            "rows": rows,
            "indices_only": train.data == "device",
        }
        if split == "train":
            return train_batches(self.task, **options)
        return eval_batches(self.task, split, **options)

    def on_device(self, split: Split, *, start: int = 0) -> Iterator[Batch]:
        """The same on the devices, from any of them on."""
        batches = self.batches(split, own_rows(self.mesh, self.config.train.batch_size))
        return on_device(batches, self.mesh, start=start, rows=self.rows(split))


def prepare(
    config: Config,
    mesh: Mesh,
    trained: Trained | None = None,
    *,
    files: Files = HERE,
    dt: int | None = None,
    freeze: bool = True,
) -> Setup:
    """Builds task, model, optimiser and steps.

    Args:
        config: the run.
        mesh: devices.
        trained: a trained model; by default a new one, from the run's seed.
        files: where data sets lie.
        dt: evaluate on every so-many-th step of each sequence, for which steps are longer.
        freeze: whether a non-finite step keeps the state as it is up to the next logged step, which
            training does unless it skips such steps.

    Returns:
        All that is needed to train or evaluate.

    Raises:
        UsageError: if the options contradict each other.
    """
    with blaming_options():
        task = get_task(config.task)(config.data, files)
        if trained is not None and trained.preprocessing is not None:
            _use_preprocessing(task, trained.preprocessing)
        _check_decimation(config.task, task, dt)
        source = task.source("train", seed=config.seed)
        source[0]  # fails now if no example can be had
        if config.train.data == "device" and not source.in_memory:
            raise UsageError(
                f"--train.data=device needs examples that lie in memory; {config.task} draws or "
                "cuts them as they are read. Leave it out."
            )
    return build(config, task, mesh, trained and trained.model, dt=dt, freeze=freeze)


def build(
    config: Config,
    task: Task,
    mesh: Mesh,
    model: nnx.Module | None = None,
    *,
    dt: int | None = None,
    freeze: bool = True,
) -> Setup:
    """As :func:`prepare`, without looking at the data."""
    with blaming_options():
        config = dataclasses.replace(config, data=task.options)
        model = model or _new_model(config, task)
        labels = group_labels(model, config.optim)
    optimizer = make_optimizer(config, labels)
    steps = make_steps(model, task, optimizer, mesh, config, dt=dt, freeze=freeze)
    rows = functools.cache(functools.partial(_rows, config, task, mesh))
    return Setup(config, mesh, task, steps, labels, rows)


def load_trained(workdir: Path) -> Trained:
    """The model that a run ended with.

    Raises:
        UsageError: if there is none, or its files are corrupted.
    """
    try:
        loaded = s5jax.load(workdir / "model")
    except FileNotFoundError as error:
        raise UsageError(f"The run in {workdir} is not finished: {error}") from error
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    if isinstance(loaded, s5jax.Pipeline):
        return Trained(loaded.model, loaded.preprocessing)
    return Trained(loaded)


def task_for_prediction(config: Config, files: Files, trained: Trained) -> Task:
    """The task of a finished run, which prepares inputs by what the run saved with its model."""
    task = get_task(config.task)
    if trained.preprocessing is None:
        return task(config.data, files)
    return task.for_prediction(config.data, files, trained.model, trained.preprocessing)


def _use_preprocessing(task: Task, preprocessing: s5jax.Preprocessing) -> None:
    if task.classes != preprocessing.classes:
        raise UsageError(
            f"The data have the classes {', '.join(task.classes or ())}, and the model was trained "
            f"on {', '.join(preprocessing.classes or ())}: evaluate it on data with these."
        )
    task.preprocessing = preprocessing


def _rows(config: Config, task: Task, mesh: Mesh, split: Split) -> Batch | None:
    return hold(task, split, mesh, seed=config.seed) if config.train.data == "device" else None


def _new_model(config: Config, task: Task) -> nnx.Module:
    dtype, remat = DTYPES[config.train.precision], config.train.remat
    return config.model.build(task, dtype=dtype, remat=remat, rngs=nnx.Rngs(config.seed))


def _check_decimation(name: str, task: Task, dt: int | None) -> None:
    fits = task.encoder == "linear" and task.head in ("classify", "match")
    if dt is not None and not (fits and 1 <= dt <= task.length):
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
    sums: dict[str, np.ndarray] = {}
    computing = None
    for batch in itertools.chain(setup.on_device(split), [None]):
        between()
        finished, computing = computing, batch and setup.steps.evaluate(leaves, batch)
        for name, value in jax.device_get(finished or {}).items():
            sums[name] = sums.get(name, 0.0) + np.asarray(value, np.float64)
    examples = sums.pop("examples")
    measures = setup.task.report({name: total / examples for name, total in sums.items()})
    if not all(map(math.isfinite, measures.values())):
        raise RunError(
            f"Not every {split} measure is finite: {measures}. In training a lower --optim.lr may "
            "help; for a trained model look for extreme values in the data."
        )
    return measures
