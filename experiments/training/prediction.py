"""Predictions of a trained model for the examples of a user's own file."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import jax
import numpy as np
from flax import nnx

from experiments.config import read_resolved_config
from experiments.data.sources import DEFAULT_PATHS, Batch, Files
from experiments.errors import UsageError, blaming_file, blaming_options
from experiments.files import user_path
from experiments.tasks import Task
from experiments.training.finished import load_run, task_for_prediction

Prediction = dict[str, int | float | str]


def predict(
    workdir: str | Path, file: str | Path, files: Files = DEFAULT_PATHS
) -> list[Prediction]:
    """Computes the predictions of a finished run's model for each example of a file.

    Args:
        workdir: the run's folder.
        file: the file, of a kind that the run's task reads.
        files: location of the data sets.

    Returns:
        A row for each example, or for each step if the task has a target per step. It has the
        entries ``example``, ``step``, the most probable ``class``, and the probability of every
        class as ``p_NAME``. Tasks without classes have values ``y0``, ``y1``, ...

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
        columns = task.read_examples(user_path(file))
        outputs = compute_outputs(trained.model, task, columns, batch_size=config.train.batch_size)
    return list(_rows(task.present(outputs), task.classes, columns.get("length")))


def compute_outputs(
    model: nnx.Module, task: Task, columns: dict[str, np.ndarray], *, batch_size: int
) -> np.ndarray:
    """Computes the model's outputs, of shape ``(N, d_output)`` or ``(N, L, d_output)``.

    Raises:
        UsageError: if a column is missing, there are no examples, or a token is not in the model's
            vocabulary.
    """
    graph, state = nnx.split(model)

    @jax.jit
    def compute(state: nnx.State, batch: Batch) -> jax.Array:
        return nnx.merge(graph, state)(**task.inputs(batch))

    sizes = {name: len(column) for name, column in columns.items()}
    n = min(sizes.values(), default=0)
    if n == 0:
        raise UsageError("The file holds no examples.")
    if max(sizes.values()) != n:
        raise UsageError(f"The file must have equally many rows of each column; got {sizes}.")
    columns = {"index": np.arange(n, dtype=np.int32), "epoch": np.zeros(n, np.int32), **columns}
    outputs = []
    for start in range(0, n, batch_size):
        batch = {name: column[start : start + batch_size] for name, column in columns.items()}
        if start == 0:
            _check_fit(compute, state, batch)
        if task.encoder == "tokens":
            _check_tokens(task, batch, start)
        outputs.append(np.asarray(compute(state, batch), np.float32))
    return np.concatenate(outputs)


def _check_fit(compute: Callable[..., jax.Array], state: nnx.State, batch: Batch) -> None:
    """Computes shapes only: whatever fails here is due to the file."""
    with blaming_file("The file", "set of examples for this model"):
        try:
            shape = jax.eval_shape(compute, state, batch).shape
        except KeyError as missing:
            raise UsageError(
                f"The file lacks the column {missing}; it has {', '.join(batch)}."
            ) from None
        if shape[0] != len(batch["index"]):
            raise ValueError(f"{len(batch['index'])} examples become {shape[0]}")


def _check_tokens(task: Task, batch: Batch, start: int) -> None:
    """Refuses tokens outside the vocabulary, for which the compiled model would return NaN."""
    inputs = task.inputs(batch)
    tokens = np.asarray(inputs["u"])
    wrong = (tokens < 0) | (tokens >= task.d_input)
    if "lengths" in inputs:
        wrong &= np.arange(tokens.shape[-1]) < np.asarray(inputs["lengths"])[..., None]
    if wrong.any():
        example, *place = np.argwhere(wrong)[0].tolist()
        raise UsageError(
            f"The file must hold tokens from 0 to {task.d_input - 1}, as in training; got "
            f"{tokens[(example, *place)]} in example {start + example} at {place}."
        )


def _rows(
    outputs: np.ndarray, classes: tuple[str, ...] | None, lengths: np.ndarray | None
) -> Iterator[Prediction]:
    for example, output in enumerate(outputs):
        if output.ndim == 1:
            yield {"example": example, **_describe(output, classes)}
            continue
        for step in range(len(output) if lengths is None else lengths[example]):
            yield {"example": example, "step": step, **_describe(output[step], classes)}


def _describe(output: np.ndarray, classes: tuple[str, ...] | None) -> Prediction:
    if classes is None:
        return {f"y{i}": value for i, value in enumerate(output.tolist())}
    share = np.exp(output - output.max())
    share /= share.sum()
    probabilities = {f"p_{name}": p for name, p in zip(classes, share.tolist(), strict=True)}
    return {"class": classes[np.argmax(output)], **probabilities}


def _write_csv(rows: list[Prediction], file: IO[str]) -> None:
    writer = csv.DictWriter(file, fieldnames=rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _write_json(rows: list[Prediction], file: IO[str]) -> None:
    file.write(json.dumps(rows, indent=2) + "\n")


WRITERS: dict[str, Callable[[list[Prediction], IO[str]], None]] = {
    ".csv": _write_csv,
    ".json": _write_json,
}
