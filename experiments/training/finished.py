"""Finished runs: their configuration, results and model."""

from pathlib import Path
from typing import Any, NamedTuple

import s5jax
from experiments.config import Config, read_config
from experiments.data.sources import Files
from experiments.errors import UsageError
from experiments.files import user_path
from experiments.records import Results, read_results
from experiments.tasks import Task, get_task


class Trained(NamedTuple):
    """The model of a finished run."""

    model: Any
    """The model in evaluation mode, for inputs that the task has prepared."""
    preprocessing: s5jax.Preprocessing | None = None
    """How the inputs were prepared; None if the task's options determine it, or in older runs."""


def load_trained(workdir: Path) -> Trained:
    """Loads the final model of a run.

    Raises:
        UsageError: if it does not exist, or its files are corrupted.
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
    """Builds the task of a finished run, with the preprocessing saved with its model."""
    if trained.preprocessing is None or config.pretrain is not None:
        return config.make_task(files)
    task = get_task(config.task)
    return task.for_prediction(config.data, files, trained.model, trained.preprocessing)


def load_run(workdir: str | Path) -> tuple[Config, Results, Trained]:
    """Loads configuration, results and model of a finished run.

    Raises:
        UsageError: if the folder does not hold a finished run.
    """
    workdir = user_path(workdir)
    config = read_config(workdir)
    results = read_results(workdir)
    if results is None:
        raise UsageError(f"The run in {workdir} is not finished: start it again to resume it.")
    return config, results, load_trained(workdir)
