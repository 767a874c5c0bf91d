"""Forecasts of time series: context rows, then rows of the future whose targets are not known.

An input row has, for each target and each column known in advance, the standardised value (zero
where it is missing or in the future) and a mark whether it is given; then sine and cosine of the
calendar. The model is causal; its outputs at the last ``horizon`` rows are the forecast.

References:
    Gu, Goel and Ré, "Efficiently Modeling Long Sequences with Structured State Spaces", 2022,
    https://arxiv.org/abs/2111.00396, section 4.3: the form of the input.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import s5jax
from experiments.data.sources import DEFAULT_PATHS, Batch, Files, Split, digest
from experiments.errors import UsageError
from experiments.tasks._task import Task
from experiments.tasks.series.losses import OUTPUTS, losses_of, target_moments
from experiments.tasks.series.options import ForecastOptions
from experiments.tasks.series.table import SeriesTable, read_series
from experiments.tasks.series.times import (
    CALENDAR,
    calendar_features,
    calendar_of,
    elapsed,
    find_step,
    season_of,
)
from experiments.tasks.series.windows import Prepared, Windows, find_origins, split_rows

BASELINES = ("", "_last", "_season")
ERRORS = tuple(
    f"{e}{unit}{b}" for unit in ("", "_units") for b in BASELINES for e in ("mse", "mae")
)
"""Errors of the model and of the two naive forecasts, standardised and in the units of the data."""
GAP = "gap"
EL_NINO = Path(__file__).with_name("el_nino.csv")
"""Monthly sea surface temperatures [°C] off Peru and Ecuador (Niño 1+2) from 1950 to 2010: the
version ERSST.V3B of the NOAA, in the public domain, as statsmodels 0.15 ships it."""


class Forecast(Task):
    """Forecasts the next ``horizon`` steps of a table's targets.

    Every result has the errors of two naive forecasts beside the model's: the last value, and the
    value one season ago. Missing values do not count. All means are over values, not over windows.

    Args:
        options: the options; automatic values are replaced by what they mean for the table.
        files: not used.

    Raises:
        UsageError: if the table cannot be read, breaks a rule, or is too short.
    """

    options_type = ForecastOptions
    head = "label"
    causal = True
    measures = ("loss", *ERRORS)
    shown = "loss", "mse", "mse_last", "mse_season"
    larger_is_better = False

    def __init__(self, options: ForecastOptions, files: Files = DEFAULT_PATHS) -> None:
        super().__init__(options, files)
        table = self.table
        self.step = find_step(table.times, table.starts)
        targets = options.targets or tuple(n for n in table.columns if n not in options.known)
        self.options = options = dataclasses.replace(
            options,
            time=options.time or table.time,
            targets=targets,
            season=options.season or season_of(self.step),
            gaps="dt" if options.gaps == "auto" and not self.step.uniform else options.gaps,
        )
        sizes = {f"n_{split}": len(self._origins(split)) for split in self.parts}
        self._check_columns()
        self.calendar = calendar_of(table.times[self.parts["train"]], self.step)
        self._set_sizes()
        self.options = dataclasses.replace(options, **sizes)

    @classmethod
    def for_prediction(
        cls, options: Any, files: Files, model: Any, preprocessing: s5jax.Preprocessing
    ) -> "Forecast":
        """Builds the task from its resolved options and preprocessing; needs no training file."""
        del model
        task = cls.without_data(options, files, preprocessing)
        task._fit_to(preprocessing)
        return task

    def use_preprocessing(self, preprocessing: s5jax.Preprocessing) -> None:
        """Takes statistics and calendar of a trained model, whatever times its new table has."""
        super().use_preprocessing(preprocessing)
        self._fit_to(preprocessing)
        names = preprocessing.features or ()
        if names != self._features():
            trained = [name for name in names if f"{name}_given" in names]
            raise UsageError(
                f"{self.path} has the columns {', '.join(self.table.columns)}, and the model was "
                f"trained on {', '.join(trained)}: evaluate it on a table with these columns."
            )

    def _fit_to(self, preprocessing: s5jax.Preprocessing) -> None:
        """Sets calendar and sizes of a trained model."""
        options = self.options
        names = (preprocessing.features or ())[2 * len((*options.targets, *options.known)) :]
        self.calendar = tuple(name for name in CALENDAR if f"{name}_sin" in names)
        self._set_sizes()

    def _set_sizes(self) -> None:
        options = self.options
        self.length = options.context + options.horizon
        self.d_input, self.d_output = len(self._features()), OUTPUTS[options.loss] * self.n_targets
        self.irregular = options.gaps == "dt"
        self.metric = "mse" if options.loss == "mse" else "loss"  # of which intervals are a part

    def _features(self) -> tuple[str, ...]:
        """Returns the names of the input features."""
        options = self.options
        calendar = [f"{name}_{part}" for name in self.calendar for part in ("sin", "cos")]
        columns = [
            f"{name}{mark}"
            for names in (options.targets, options.known)
            for mark in ("", "_given")
            for name in names
        ]
        return (*columns, *calendar, *([GAP] if options.gaps == "append" else []))

    @property
    def n_targets(self) -> int:
        """Number of series that are forecast together."""
        return len(self.options.targets)

    @functools.cached_property
    def path(self) -> Path:
        """The file of the table."""
        return Path(self.options.file) if self.options.file else EL_NINO

    @functools.cached_property
    def table(self) -> SeriesTable:
        """The series in the units of the file."""
        return read_series(self.path, self.options)

    @functools.cached_property
    def parts(self) -> dict[Split, np.ndarray]:
        """Whether a row belongs to a split, for each split."""
        return split_rows(self.table, self.options.shares)

    @functools.cached_property
    def preprocessing(self) -> s5jax.Preprocessing:
        """Mean and deviation of each column in the training part, and its step as a unit."""
        options, rows = self.options, self.parts["train"]
        moments = {
            name: _moments(self.table.columns[name][rows])
            for name in (*options.targets, *options.known)
        }
        mean, std = np.array([moments[name] for name in options.targets]).T
        input_moments = [moments.get(name, (0.0, 1.0)) for name in self._features()]
        input_mean, input_std = np.array(input_moments).T
        target_mean, target_std = target_moments(mean, std, options.loss)
        return s5jax.Preprocessing(
            input_mean=input_mean,
            input_std=input_std,
            target_mean=target_mean,
            target_std=target_std,
            dt_unit=self.step.length,
            features=self._features(),
        )

    def _check_columns(self) -> None:
        """Raises a UsageError unless each column has a value in the training part."""
        rows = self.parts["train"]
        for name in (*self.options.targets, *self.options.known):
            if np.isnan(self.table.columns[name][rows]).all():
                raise UsageError(
                    f"{self.path}: column `{name}` has no value in the training part, the "
                    f"first {self.options.shares[0]:g} of the times. Leave it out of "
                    "--data.targets and --data.known, or change --data.shares."
                )

    @functools.cached_property
    def series(self) -> Prepared:
        """The series as the model reads them."""
        return self.prepare(self.table)

    def prepare(self, table: SeriesTable) -> Prepared:
        """Standardises a table, and adds marks, calendar and step lengths."""
        options, p = self.options, self.preprocessing
        mean, std = np.asarray(p.input_mean), np.asarray(p.input_std)
        n, n_known = self.n_targets, len(options.known)
        names, places = (*options.targets, *options.known), [*range(n)]
        places += [2 * n + i for i in range(n_known)]
        raw = np.stack([table.columns[name] for name in names], axis=1)
        values = (raw - mean[places]) / std[places]
        given = ~np.isnan(values)
        values = np.where(given, values, 0)
        dt = self._steps(table) / (p.dt_unit or 1.0)
        parts = [values[:, :n], given[:, :n], values[:, n:], given[:, n:]]
        parts.append(calendar_features(table.times, self.calendar))
        if options.gaps == "append":
            parts.append(dt[:, None])
        return Prepared(
            features=np.concatenate(parts, axis=1).astype(np.float32),
            y=values[:, :n].astype(np.float32),
            observed=given[:, :n],
            filled=_fill(values[:, :n], given[:, :n], table.starts).astype(np.float32),
            dt=dt.astype(np.float32) if self.irregular else None,
            starts=table.starts,
        )

    def _steps(self, table: SeriesTable) -> np.ndarray:
        """Returns the time since the row before, the usual step at the start of a series."""
        steps = np.diff(elapsed(table.times), prepend=0)
        steps[table.starts[:-1]] = self.preprocessing.dt_unit
        return steps

    def source(self, split: Split, *, seed: int) -> Windows:
        """Returns the windows of a split, which are the same for every seed."""
        del seed
        o, origins = self.options, self._origins(split)
        return Windows(self.series, origins, context=o.context, horizon=o.horizon, season=o.season)

    def _origins(self, split: Split) -> np.ndarray:
        return find_origins(self.path, self.options, self.table, self.parts, split)

    def fingerprint(self, *, seed: int) -> dict[str, Any]:
        """Returns sizes, columns and a digest of the file."""
        del seed
        table = self.table
        columns = {**table.columns, "times": table.times.view(np.int64), "starts": table.starts}
        return {
            "rows": len(table.times),
            "series": len(table.groups),
            "columns": ", ".join(table.columns),
            "sha256": digest(columns),
        }

    @property
    def note(self) -> str:
        """How the table was read, and what is made of it."""
        options, step = self.options, self.step
        is_date = self.table.times.dtype.kind == "M"
        length = f"{step.length:g} s" if is_date else f"{step.length:g}"
        length = f"{step.months} months" if step.months else length
        regularity = "uniform" if step.uniform else "irregular"
        known, calendar = (", ".join(x) or "none" for x in (options.known, self.calendar))
        default = "El Niño, monthly sea temperatures: --data.file=FILE sets a table of your own."
        lines = [
            *([default] if self.path == EL_NINO else []),
            *self.table.remarks,
            f"Targets: {', '.join(options.targets)}; known in advance: {known}; calendar: "
            f"{calendar}.",
            f"Series: {len(self.table.groups)}; step {length}, {regularity}; season of "
            f"{options.season} steps; windows of {options.context} + {options.horizon} steps.",
        ]
        return "\n".join(lines)

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns ``u`` of shape ``(B, context + horizon, d_input)``, and ``dt`` if irregular."""
        return {"u": batch["x"], **({"dt": batch["dt"]} if self.irregular else {})}

    @property
    def quantities(self) -> dict[str, tuple[int, ...]]:
        """Sums over the values of a window, and its share of the mean loss of the batch."""
        return dict.fromkeys(("loss", "total", "count", *ERRORS), ())

    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        r"""Computes the mean loss over all observed values of the batch, and sums of errors.

        .. math:: \ell = \frac{\sum_{i, t} \ell_{it}}{\sum_i n_i}

        Window :math:`i` of :math:`B` has :math:`n_i` values; its ``loss`` is :math:`B` times its
        part of the sum.
        """
        y, observed = batch["y"], batch["observed"]
        outputs = outputs[:, -y.shape[1] :].astype(jnp.float32)
        losses, forecast = losses_of(outputs, y, self.options.loss)

        def add(values: jax.Array) -> jax.Array:
            return jnp.sum(values, axis=(1, 2), where=observed, dtype=jnp.float32)

        count, total = add(jnp.ones_like(y)), add(losses)
        values = {"loss": total / count.mean(), "total": total, "count": count}
        std = jnp.asarray(self.target_std, jnp.float32)
        naive = (forecast, batch["last"], batch["season"])
        for baseline, prediction in zip(BASELINES, naive, strict=True):
            for unit, scale in {"": jnp.ones_like(std), "_units": std}.items():
                error = (prediction - y) * scale[None, None]
                values[f"mse{unit}{baseline}"] = add(error**2)
                values[f"mae{unit}{baseline}"] = add(jnp.abs(error))
        return values

    @property
    def target_std(self) -> np.ndarray:
        """The deviation of each target in the training part, ``(T,)``."""
        return np.asarray(self.preprocessing.input_std)[: self.n_targets]

    def report(self, means: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Computes means over all observed values of the split."""
        sums = {"loss": means["total"], **{name: means[name] for name in ERRORS}}
        return {name: float(value / means["count"]) for name, value in sums.items()}


def _moments(values: np.ndarray) -> tuple[float, float]:
    """Returns mean and deviation of the values that are not missing."""
    mean, std = float(np.nanmean(values)), float(np.nanstd(values))
    return mean, std if std > 1e-12 * abs(mean) else 1.0  # a constant is not scaled


def _fill(values: np.ndarray, given: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Repeats the last given value of the series; zero, the training mean, before the first."""
    rows = np.where(given, np.arange(len(values))[:, None], -1)
    latest = np.maximum.accumulate(rows, axis=0)
    first = np.repeat(starts[:-1], np.diff(starts))[:, None]
    return np.where(latest >= first, np.take_along_axis(values, latest, axis=0), 0)
