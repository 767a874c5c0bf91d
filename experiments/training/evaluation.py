"""Evaluation of a model: the means of a task's measures over a split."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from experiments.config import Config
from experiments.data.sources import DEFAULT_PATHS, DataOptions, Files, Split
from experiments.devices.mesh import make_mesh
from experiments.errors import RunError, UsageError, blaming_options
from experiments.files import user_path
from experiments.records import Results
from experiments.training.fingerprint import OnChangedData, check_data
from experiments.training.finished import load_run
from experiments.training.setup import Setup, make_setup
from experiments.training.steps import Leaves


def evaluate(
    setup: Setup,
    leaves: Leaves,
    split: Split,
    *,
    between: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Computes the means of the task's measures over all examples of a split.

    The function calls ``between`` before each batch.

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


def evaluate_run(
    workdir: str | Path,
    mesh: str | None = None,
    files: Files = DEFAULT_PATHS,
    dt: int | None = None,
    *,
    file: str | Path | None = None,
    on_changed_data: OnChangedData = "stop",
) -> Results:
    """Evaluates the model of a finished run.

    ``dt`` evaluates at another sampling rate, which the model has not seen in training: it uses
    every ``dt``-th step of each sequence, without a filter, and multiplies step lengths by ``dt``.
    ``dt=2`` is the zero-shot experiment of S4 and S5 on speech at 8 kHz. The layers must have a
    step length.

    Args:
        workdir: the run's folder.
        mesh: devices; see `experiments.devices.mesh.make_mesh`.
        files: location of the data sets.
        dt: steps that become one; by default every step is used.
        file: new path of the run's own file, if it has moved.
        on_changed_data: whether to refuse data that have changed since the run started, or to use
            them with the preprocessing of training.

    Returns:
        The contents of ``results.json`` with the new figures, and ``dt`` if given.

    Raises:
        UsageError: if the folder holds no finished run, its data are missing or have changed, or
            the task or the model cannot change the rate.

    References:
        Gu, Goel and Ré, "Efficiently Modeling Long Sequences with Structured State Spaces", 2022,
        https://arxiv.org/abs/2111.00396, section 4.3.
    """
    config, recorded, trained = load_run(workdir)
    if file is not None:
        config = dataclasses.replace(config, data=_move(config, file))
    devices = make_mesh(mesh, batch_size=config.train.batch_size)
    setup = make_setup(config, devices, trained, files=files, dt=dt)
    fingerprint = setup.task.fingerprint(seed=config.seed)
    check_data(user_path(workdir), config.task, fingerprint, on_changed_data)
    with blaming_options():
        figures = {
            split: evaluate(setup, setup.steps.initial, split) for split in ("validation", "test")
        }
    return {**recorded, **figures, **({} if dt is None else {"dt": dt})}


def _move(config: Config, file: str | Path) -> DataOptions:
    if not hasattr(config.data, "file"):
        raise UsageError(
            f"--data.file is the path of a user's own file, which {config.task} does not have: "
            "leave it out, or give the folder of the data sets with --data-dir=DIR."
        )
    return dataclasses.replace(config.data, **{"file": str(file)})
