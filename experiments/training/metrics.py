"""The record of a run: ``metrics.jsonl``, and a copy for a writer of the user's choice."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.config import Config
from experiments.devices.distributed import is_main
from experiments.errors import RunError, UsageError, shorten
from experiments.records import MAX_JSON, parse_json
from experiments.tasks import Task
from experiments.training.steps import Meter
from experiments.training.writers import GuardedWriter

MetricsRow = dict[str, Any]


def read_rows(workdir: Path) -> list[MetricsRow]:
    """Reads the rows of ``metrics.jsonl``, without an incomplete last row of an interrupted run.

    Raises:
        UsageError: if another line is not a valid row.
    """
    return list(_rows(workdir / "metrics.jsonl"))


def _rows(path: Path) -> Iterator[MetricsRow]:
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_JSON), b""), start=1):
            try:
                row = parse_json(line.decode())
                step, values = row["step"], row.values()
                are_numbers = all(isinstance(value, float | int | None) for value in values)
                if not isinstance(step, int) or not are_numbers:
                    raise ValueError(f"got {line[:80]!r}")
            except (ValueError, TypeError, KeyError) as error:
                if not line.endswith(b"\n") and len(line) < MAX_JSON:
                    return
                raise UsageError(
                    f"{path}, line {number}: not a valid row of a run ({shorten(error)}). Delete "
                    "the line; the run continues without it."
                ) from None
            yield row


class MetricsLog:
    """Writes the rows of a run, in process 0; a context manager.

    A checkpoint is written after the training row of its step and before the evaluation. A run that
    resumes from ``step`` therefore retains earlier rows and the training row of the step itself,
    and writes the others again.

    Args:
        config: the run.
        workdir: its folder.
        step: number of steps taken.
        report: called with a sentence when the writer of ``train.logger`` fails.

    Raises:
        UsageError: if that writer cannot be found or made.
    """

    def __init__(
        self, config: Config, workdir: Path, *, step: int, report: Callable[[str], None]
    ) -> None:
        self._workdir, self._writes = workdir, is_main()
        if self._writes:
            self._writer = GuardedWriter(
                config.train.logger, workdir, config.to_dict(), step, report
            )
            self._open(step)

    def _open(self, step: int) -> None:
        path = self._workdir / "metrics.jsonl"
        shorter = self._workdir / "metrics.jsonl.tmp"
        with shorter.open("w", encoding="utf-8") as file:
            for row in _rows(path):
                if row["step"] < step or (row["step"] == step and "loss" in row):
                    file.write(_line(row))
        shorter.replace(path)
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writes:
            self._close()
            self._writer.close()

    def _close(self) -> None:
        with contextlib.suppress(OSError):  # already reported
            self._file.close()

    def go_back(self, step: int) -> None:
        """Resumes from an earlier step."""
        if self._writes:
            self._close()
            self._open(step)
            self._writer.go_back(step)

    def write(self, row: MetricsRow, **timing: float) -> None:
        """Adds a row; ``timing`` goes to the writer only, as it differs from run to run.

        Raises:
            RunError: if it cannot be written.
        """
        if not self._writes:
            return
        try:
            self._file.write(_line(row))
        except OSError as error:
            raise RunError(f"Could not write to {self._file.name}: {error}") from error
        metrics = {k: v for k, v in {**row, **timing}.items() if k != "step" and v is not None}
        self._writer.write(row["step"], metrics)


class BadSteps(NamedTuple):
    """The non-finite steps since the last logged one."""

    count: int
    step: int
    """Index of the first one, from zero."""
    loss: float
    grad_norm: float


def summarize(meter: Meter, task: Task) -> tuple[MetricsRow, BadSteps | None]:
    """Reads the meter that a train step returned.

    Returns:
        The measures over the finite steps since the last logged one, None if there were none; and
        the non-finite steps, if there were any.
    """
    meter = jax.device_get(meter)
    row: MetricsRow = dict.fromkeys((*task.measures, "grad_norm"))
    if meter.finite:
        means = {name: total / np.float32(meter.finite) for name, total in meter.totals.items()}
        row = {**task.report(means), "grad_norm": float(means["grad_norm"])}
    first = {name: value.item() for name, value in meter.first_bad.items()}
    return row, BadSteps(int(meter.bad), **first) if meter.bad else None


def _line(row: MetricsRow) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
