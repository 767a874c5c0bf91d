"""``python -m experiments.predict``: what a trained model says of a user's own file."""

import csv
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Annotated

import jax
import numpy as np
import tyro
from flax import nnx

from experiments.build import task_for_prediction
from experiments.cli import FileFlags
from experiments.config import read_resolved_config
from experiments.errors import UsageError, blaming_file, blaming_options, pick, run_command
from experiments.evaluate import load_run
from experiments.files import UserPath, check_output, replacing, user_path
from experiments.process import set_up_process
from experiments.tasks import HERE, Batch, Files, Task

Row = dict[str, int | float | str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictData:
    """Data: what to look at."""

    file: UserPath
    """The file; with most tasks a .npz as `experiments.data sample` writes it, or one WAV, CSV or
    PNG file."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictFlags(FileFlags):
    """Writes what the model of a finished run says of each example of a file.

    Example: python -m experiments.predict --workdir=runs/sc35-s5-paper-seed0 --data.file=yes.wav
    """

    workdir: UserPath
    """Folder of the run."""
    data: PredictData
    out: Annotated[UserPath | None, tyro.conf.arg(metavar="FILE")] = None
    """File to write, .csv or .json; without it, CSV to the standard output."""


def predict(workdir: str | Path, file: str | Path, files: Files = HERE) -> list[Row]:
    """What the model of a finished run says of each example of a file.

    Args:
        workdir: the run's folder.
        file: the file, of a kind that the run's task reads.
        files: where data sets lie.

    Returns:
        A row an example, or a row a step of it where the task has a target a step: ``example``,
        ``step``, the most probable ``class``, and under ``p_NAME`` the probability of each; or
        values ``y0``, ``y1``, ... where the task has no classes.

    Raises:
        UsageError: if the folder holds no finished run, or the file is not one for its task.
    """
    _, _, trained = load_run(workdir)
    config = read_resolved_config(user_path(workdir))
    with blaming_options():
        task = task_for_prediction(config, files, trained)
        if task.head == "language":
            raise UsageError(
                f"A model of {config.task} goes on with a text and has no classes to predict: see "
                "`python -m experiments.generate --help`."
            )
        columns = task.read_examples(user_path(file))
        outputs = compute_outputs(trained.model, task, columns, batch_size=config.train.batch_size)
    return list(_rows(task.present(outputs), task.classes, columns.get("length")))


def compute_outputs(
    model: nnx.Module, task: Task, columns: dict[str, np.ndarray], *, batch_size: int
) -> np.ndarray:
    """The model's outputs, shape ``(N, d_output)`` or ``(N, L, d_output)``.

    Args:
        model: in evaluation mode.
        task: turns columns into the model's arguments.
        columns: arrays with one row an example.
        batch_size: examples at a time.

    Raises:
        UsageError: if a column is missing, there is no example, or a token is not in the model's
            vocabulary.
    """
    graph, state = nnx.split(model)

    @jax.jit
    def compute(state: nnx.State, batch: Batch) -> jax.Array:
        return nnx.merge(graph, state)(**task.inputs(batch))

    sizes = {name: len(column) for name, column in columns.items()}
    n = min(sizes.values(), default=0)
    if n == 0:
        raise UsageError("The file holds no example.")
    if max(sizes.values()) != n:
        raise UsageError(f"The file must hold equally many rows of each column; got {sizes}.")
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
    """Asks for shapes only, so that what does not fit is the fault of the file."""
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
    """Refuses tokens that the compiled model, which cannot see values, would make NaN of."""
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
) -> Iterator[Row]:
    for example, output in enumerate(outputs):
        if output.ndim == 1:
            yield {"example": example, **_describe(output, classes)}
            continue
        for step in range(len(output) if lengths is None else lengths[example]):
            yield {"example": example, "step": step, **_describe(output[step], classes)}


def _describe(output: np.ndarray, classes: tuple[str, ...] | None) -> Row:
    if classes is None:
        return {f"y{i}": value for i, value in enumerate(output.tolist())}
    share = np.exp(output - output.max())
    share /= share.sum()
    probabilities = {f"p_{name}": p for name, p in zip(classes, share.tolist(), strict=True)}
    return {"class": classes[output.argmax()], **probabilities}


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


def main() -> None:
    """Reads the command line, predicts and writes."""
    set_up_process()
    flags = tyro.cli(PredictFlags, prog="python -m experiments.predict", use_underscores=True)
    suffix = ".csv" if flags.out is None else flags.out.suffix
    write = pick("ending of --out", suffix, WRITERS)
    if flags.out is not None:
        check_output(flags.out, "--out")
    rows = predict(flags.workdir, flags.data.file, flags.files())
    if flags.out is None:
        write(rows, sys.stdout)
    else:
        with replacing(flags.out) as file:
            write(rows, file)


if __name__ == "__main__":
    run_command(main)
