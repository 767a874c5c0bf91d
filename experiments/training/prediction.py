"""Predictions of a trained model for the examples of a user's own file."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from experiments.config import read_resolved_config
from experiments.data.sources import DEFAULT_PATHS, Files
from experiments.errors import UsageError, blaming_options
from experiments.files import user_path
from experiments.tasks import Forecast
from experiments.training.finished import load_run, task_for_prediction
from experiments.training.forecasting import Row, forecast_rows, forecast_table
from experiments.training.outputs import compute_outputs
from experiments.training.plot import plot_forecasts


def predict(
    workdir: str | Path,
    file: str | Path,
    files: Files = DEFAULT_PATHS,
    *,
    start: str | None = None,
    picture: Path | None = None,
) -> list[Row]:
    """Computes the predictions of a finished run's model for each example of a file.

    Args:
        workdir: the run's folder.
        file: the file, of a kind that the run's task reads.
        files: location of the data sets.
        start: for forecasts, the first time to forecast; by default the one after the last value.
        picture: for forecasts, a file for a picture of them.

    Returns:
        A row for each example, or for each step if the task has a target per step. It has the
        entries ``example``, ``step``, the most probable ``class``, and the probability of every
        class as ``p_NAME``. Tasks without classes have values ``y0``, ``y1``, ... For forecasts see
        `experiments.training.forecasting.forecast_rows`.

    Raises:
        UsageError: if the folder holds no finished run, or the file does not fit its task.
    """
    _, _, trained = load_run(workdir)
    config = read_resolved_config(user_path(workdir))
    with blaming_options():
        task = task_for_prediction(config, files, trained)
        if task.head == "language":
            raise UsageError(
                f"A model of {config.task} continues a text and has no classes to predict: see "
                "`python -m experiments.generate --help`."
            )
        batch_size = config.train.batch_size
        if isinstance(task, Forecast):
            path = user_path(file)
            forecasts = forecast_table(
                trained.model, task, path, start=start, batch_size=batch_size
            )
            if picture is not None:
                plot_forecasts(forecasts, task.options.targets, picture)
            return list(forecast_rows(forecasts, task.options))
        if start is not None:
            raise UsageError(
                f"--start is the first time to forecast, and {config.task} forecasts nothing: "
                "leave it out."
            )
        columns = task.read_examples(user_path(file))
        outputs = compute_outputs(trained.model, task, columns, batch_size=batch_size)
    return list(_rows(task.present(outputs), task.classes, columns.get("length")))


def _rows(
    outputs: np.ndarray, classes: tuple[str, ...] | None, lengths: np.ndarray | None
) -> Iterator[Row]:
    for example, output in enumerate(outputs):
        if output.ndim == 1:
            yield {"example": example, **describe_output(output, classes)}
            continue
        for step in range(len(output) if lengths is None else lengths[example]):
            yield {"example": example, "step": step, **describe_output(output[step], classes)}


def describe_output(output: np.ndarray, classes: tuple[str, ...] | None) -> Row:
    """Returns the most probable class and the probability of each; or the values, by name."""
    if classes is None:
        return {f"y{i}": value for i, value in enumerate(output.tolist())}
    share = np.exp(output - output.max())
    share /= share.sum()
    probabilities = {f"p_{name}": p for name, p in zip(classes, share.tolist(), strict=True)}
    return {"class": classes[np.argmax(output)], **probabilities}


def _write_csv(rows: list[Row], file: IO[str]) -> None:
    writer = csv.DictWriter(file, fieldnames=rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _write_json(rows: list[Row], file: IO[str]) -> None:
    file.write(json.dumps(rows, indent=2) + "\n")


WRITERS: dict[str, Callable[[list[Row], IO[str]], None]] = {
    ".csv": _write_csv,
    ".json": _write_json,
}
