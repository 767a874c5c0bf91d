"""Forecasts by a trained model: of a user's table, or of rows that arrive one by one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.config import read_resolved_config
from experiments.data.sources import DEFAULT_PATHS
from experiments.errors import UsageError, blaming_options, suggest
from experiments.files import user_path
from experiments.tasks import Forecast
from experiments.tasks.series.losses import Interval, interval_of
from experiments.tasks.series.options import ForecastOptions
from experiments.tasks.series.table import SeriesTable, read_series
from experiments.tasks.series.times import (
    Step,
    continue_times,
    find_step,
    format_times,
    parse_times,
)
from experiments.tasks.series.windows import hide_future
from experiments.training.finished import load_run, task_for_prediction
from experiments.training.outputs import compute_outputs

Row = dict[str, int | float | str]
MONTH = 365.25 / 12 * 86_400


class Outlook(NamedTuple):
    """The forecast of one series, in the units of the data."""

    group: str
    past_times: np.ndarray
    """The times of the context, ``(C,)``."""
    past: np.ndarray
    """The targets there, ``(C, T)``; missing ones are NaN."""
    times: np.ndarray
    """The times of the forecast, ``(horizon,)``."""
    zone: str
    """The offset of all times from UTC, or ""."""
    interval: Interval
    """Forecasts, each ``(horizon, T)``."""
    truth: np.ndarray | None
    """The targets there, ``(horizon, T)``, where the table has any; others are NaN."""


class Window(NamedTuple):
    """A series around the first row of a forecast."""

    table: SeriesTable
    """The series up to the end of the horizon; what is not known yet is NaN."""
    origin: int
    """The first row of the forecast."""
    columns: dict[str, np.ndarray]
    """The inputs of the model, each with one row per example."""


def forecast_table(
    model: nnx.Module, task: Forecast, path: Path, *, start: str | None, batch_size: int
) -> list[Outlook]:
    """Forecasts every series of a table.

    Args:
        model: the trained model.
        task: its task.
        path: the table, with the columns of training.
        start: the first time to forecast; by default the one after the last value.
        batch_size: series that are computed together.

    Raises:
        UsageError: if the table does not fit the model, or has no row before ``start``.
    """
    table = read_series(path, task.options)
    step = _check_step(path, task, table)
    windows = [
        _cut_window(path, task, _select(table, i), step, start) for i in range(len(table.groups))
    ]
    return _compute(model, task, windows, batch_size)


def forecast_test(
    model: nnx.Module, task: Forecast, *, n_series: int, batch_size: int
) -> list[Outlook]:
    """Forecasts the last test window of each series of the task's own table.

    Args:
        model: the trained model.
        task: its task.
        n_series: number of series, the first ones.
        batch_size: series that are computed together.
    """
    table, origins = task.table, task.source("test", seed=0).origins
    series = np.searchsorted(table.starts, origins, side="right") - 1
    windows = []
    for i in np.unique(series)[:n_series]:
        origin = int(origins[series == i][-1] - table.starts[i])
        windows.append(_make_window(str(task.path), task, _select(table, i), origin, task.step))
    return _compute(model, task, windows, batch_size)


def _compute(
    model: nnx.Module, task: Forecast, windows: Sequence[Window], batch_size: int
) -> list[Outlook]:
    """Forecasts windows, those of the same length together."""
    found: dict[int, Outlook] = {}
    for length in {window.columns["x"].shape[1] for window in windows}:
        places = [i for i, w in enumerate(windows) if w.columns["x"].shape[1] == length]
        names = windows[places[0]].columns
        columns = {n: np.concatenate([windows[i].columns[n] for i in places]) for n in names}
        outputs = compute_outputs(model, task, columns, batch_size=batch_size)
        for i, output in zip(places, outputs, strict=True):
            found[i] = _describe(task, windows[i], output)
    return [found[i] for i in range(len(windows))]


def forecast_rows(outlooks: Sequence[Outlook], options: ForecastOptions) -> Iterator[Row]:
    """Writes forecasts as rows of a table.

    Yields:
        For each series and step the group, the time, and for each target its forecast under the
        target's name, the quantiles 0.1 and 0.9 as ``NAME_low`` and ``NAME_high`` if the model has
        them, and the value in the table as ``NAME_true`` if any is there.
    """
    has_truth = any(outlook.truth is not None for outlook in outlooks)
    for outlook in outlooks:
        shown = {"": outlook.interval.mean, "_low": outlook.interval.low}
        shown |= {"_high": outlook.interval.high}
        if has_truth:
            nothing = np.full_like(outlook.interval.mean, np.nan)
            shown["_true"] = nothing if outlook.truth is None else outlook.truth
        for h, time in enumerate(format_times(outlook.times, outlook.zone)):
            row: Row = {options.group: outlook.group} if options.group else {}
            row[options.time] = time
            for j, target in enumerate(options.targets):
                for mark, values in shown.items():
                    if values is not None:
                        value = float(values[h, j])
                        row[f"{target}{mark}"] = "" if np.isnan(value) else value
            yield row


def _describe(task: Forecast, window: Window, output: np.ndarray) -> Outlook:
    table, origin, horizon = window.table, window.origin, task.options.horizon
    values = np.stack([table.columns[name] for name in task.options.targets], axis=1)
    restored = task.preprocessing.restore(output[-horizon:].astype(np.float64))
    first = max(0, origin - task.options.context)
    truth = values[origin:]
    return Outlook(
        group=table.groups[0],
        past_times=table.times[first:origin],
        past=values[first:origin],
        times=table.times[origin:],
        zone=table.zone,
        interval=interval_of(np.asarray(restored), task.options.loss),
        truth=None if np.isnan(truth).all() else truth,
    )


def _select(table: SeriesTable, i: int) -> SeriesTable:
    """Returns one series of a table."""
    rows = slice(table.starts[i], table.starts[i + 1])
    return table._replace(
        times=table.times[rows],
        columns={name: column[rows] for name, column in table.columns.items()},
        starts=np.array([0, rows.stop - rows.start]),
        groups=(table.groups[i],),
    )


def _check_step(path: Path, task: Forecast, table: SeriesTable) -> Step:
    """Returns the step of a table, which must be the step of training."""
    usual = usual_step(task)
    if len(table.times) == len(table.groups):
        return usual
    step = find_step(table.times, table.starts)
    if not 0.9 < step.length / usual.length < 1.1:
        raise UsageError(
            f"{path}: the time step must be about {usual.length:g}, as in training; got "
            f"{step.length:g}. Average or repeat rows, or train on this table."
        )
    if task.options.gaps == "auto" and not step.uniform:
        raise UsageError(
            f"{path}: times must be uniform, as in training; got steps of different lengths. Add "
            "the missing times with empty cells, or train with --data.gaps=dt."
        )
    return step


def usual_step(task: Forecast) -> Step:
    """Returns the step of the table that a model was trained on."""
    length, uniform = task.preprocessing.dt_unit or 1.0, task.options.gaps == "auto"
    months = round(length / MONTH)
    is_months = uniform and months > 0 and abs(length / MONTH - months) < 0.02 * months
    return Step(length, months if is_months else 0, uniform=uniform)


def _cut_window(
    path: Path, task: Forecast, table: SeriesTable, step: Step, start: str | None
) -> Window:
    """Finds the first row to forecast, and the window around it."""
    options = task.options
    where = f"{path}, {options.group} {table.groups[0]!r}" if options.group else str(path)
    targets = np.stack([table.columns[name] for name in options.targets], axis=1)
    given = np.flatnonzero(~np.isnan(targets).all(axis=1))
    if not len(given):
        raise UsageError(
            f"{where}: no target has a value, so there is nothing to forecast from. Fill in past "
            f"values of {', '.join(options.targets)}."
        )
    origin = int(given[-1]) + 1
    if start is not None:
        time = _read_start(start, table)
        origin = int(np.searchsorted(table.times, time))
        if not 0 < origin < len(table.times):
            first, last = format_times(table.times[[0, -1]], table.zone)
            raise UsageError(
                f"{where}: --start must be after the first row, {first}, and at most the last, "
                f"{last}; got {start}. Leave it out to forecast what follows the table."
            )
    return _make_window(where, task, table, origin, step)


def _make_window(where: str, task: Forecast, table: SeriesTable, origin: int, step: Step) -> Window:
    """Extends a series to the end of the horizon, and prepares the inputs."""
    table = _extend(where, task.options, table, origin, step)
    return Window(table, origin, _inputs(task, table, origin, task.options.context))


def _read_start(start: str, table: SeriesTable) -> np.generic:
    if table.times.dtype.kind == "M":
        return parse_times([start], lambda row: "--start")[0][0]
    try:
        return np.float64(start)
    except ValueError:
        raise UsageError(
            f"--start must be a number, as the times of the table are; got {start!r}."
        ) from None


def _extend(
    where: str, options: ForecastOptions, table: SeriesTable, origin: int, step: Step
) -> SeriesTable:
    """Cuts or extends a series to ``horizon`` rows from ``origin`` on."""
    end = origin + options.horizon
    more = max(end - len(table.times), 0)
    if more and options.known:
        raise UsageError(
            f"{where}: {', '.join(options.known)} must be given for {options.horizon} steps after "
            f"the last value; got {options.horizon - more}. Add rows whose targets are empty."
        )
    times = np.concatenate([table.times[:end], continue_times(table.times[-1], more, step)])
    columns = {n: np.append(c[:end], np.full(more, np.nan)) for n, c in table.columns.items()}
    return table._replace(times=times, columns=columns, starts=np.array([0, end]))


def _inputs(task: Forecast, table: SeriesTable, origin: int, context: int) -> dict[str, np.ndarray]:
    """Returns the inputs of one window, whose horizon is the end of the table."""
    series, first = task.prepare(table), max(0, origin - context)
    x = hide_future(series.features[None, first:], origin - first, task.n_targets)
    return {"x": x} if series.dt is None else {"x": x, "dt": series.dt[None, first:]}


class ForecastStream:
    """Forecasts that are renewed with every row, at a cost that does not grow.

    The recurrent state of the model stands for all rows so far. A forecast equals the model's on
    the whole sequence of these rows, of any length.

    Args:
        workdir: the folder of a finished run of the task forecast.

    Raises:
        UsageError: if there is no such run.
    """

    def __init__(self, workdir: str | Path) -> None:
        _, _, trained = load_run(workdir)
        config = read_resolved_config(user_path(workdir))
        with blaming_options():
            task = task_for_prediction(config, DEFAULT_PATHS, trained)
        if not isinstance(task, Forecast):
            raise UsageError(
                f"The run in {workdir} has the task {config.task}; a stream of forecasts needs one "
                "of the task forecast."
            )
        self.task, self._step = task, usual_step(task)
        graph, self._parameters = nnx.split(trained.model)
        self._state = trained.model.init_state((1,))
        self._advance = make_advance(graph)
        self._last: Mapping[str, Any] | None = None

    def step(self, row: Mapping[str, Any], future: Sequence[Mapping[str, Any]] = ()) -> Outlook:
        """Reads a row, and forecasts the steps after it.

        Args:
            row: the time and the values by name of column; missing values may be left out. A stream
                is one series: a table of several takes a stream for each.
            future: the times and the columns known in advance of the steps to forecast. Without
                such columns it may be left out; the usual time step then continues.

        Raises:
            UsageError: if a name is unknown, the times do not increase, or ``future`` has another
                length.
        """
        options = self.task.options
        if len(future) != options.horizon and (future or options.known):
            raise UsageError(
                f"ForecastStream: `future` must have {options.horizon} rows, the horizon; got "
                f"{len(future)}. Give the times and known columns of all steps to forecast."
            )
        past = [row] if self._last is None else [self._last, row]
        table = self._make_table([*past, *future])
        if not future:
            table = _extend("ForecastStream", options, table, len(past), self._step)
        if not (table.times[1:] > table.times[:-1]).all():
            raise UsageError(
                "ForecastStream: times must increase from row to row; got "
                f"{', '.join(format_times(table.times[:3], table.zone))}. Pass rows in the order "
                "of time."
            )
        columns = _inputs(self.task, table, len(past), 1)
        self._state, outputs = self._advance(self._parameters, self._state, columns)
        self._last = row
        return _describe(self.task, Window(table, len(past), columns), np.asarray(outputs))

    def _make_table(self, rows: Sequence[Mapping[str, Any]]) -> SeriesTable:
        options = self.task.options
        valid = (options.time, *options.targets, *options.known)
        for row in rows:
            unknown = [name for name in row if name not in valid]
            if unknown or options.time not in row:
                raise UsageError(
                    f"ForecastStream: a row must have the time as {options.time!r}, and values of "
                    f"{', '.join(valid[1:])}; got {', '.join(map(repr, row))}."
                    f"{suggest(unknown[0], valid) if unknown else ''}"
                )
        times, zone = np.array([row[options.time] for row in rows]), ""
        if times.dtype.kind == "U":
            times, zone = parse_times(times.tolist(), lambda i: f"ForecastStream, row {i + 1}")
        elif times.dtype.kind in "OM":
            times = times.astype("datetime64[us]")
        columns = {
            name: np.array([row.get(name, np.nan) for row in rows], np.float64)
            for name in (*options.targets, *options.known)
        }
        return SeriesTable(times, zone, columns, np.array([0, len(rows)]), ("",), options.time)


def make_advance(graph: nnx.GraphDef) -> Callable[..., tuple[Any, jax.Array]]:
    """Returns a function that reads the first row into the state, and forecasts the others."""

    @jax.jit
    def advance(parameters: Any, state: Any, columns: Mapping[str, Any]) -> tuple[Any, jax.Array]:
        model = nnx.merge(graph, parameters)

        def step(state: Any, row: Mapping[str, jax.Array]) -> tuple[Any, jax.Array]:
            y, state = model.step(row["x"], state, row.get("dt"))
            return state, y

        rows = {name: jnp.moveaxis(column, 1, 0) for name, column in columns.items()}
        state, _ = step(state, {name: column[0] for name, column in rows.items()})
        future = {name: column[1:] for name, column in rows.items()}
        return state, jax.lax.scan(step, state, future)[1][:, 0]

    return advance
