"""Windows of time series: context and horizon around the first step of each forecast."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np

from experiments.data.sources import BatchSource, Split
from experiments.errors import UsageError
from experiments.tasks.series.options import ForecastOptions
from experiments.tasks.series.table import SeriesTable


class Prepared(NamedTuple):
    """Series in the form of the model, standardised; see `SeriesTable` for their order."""

    features: np.ndarray
    """float32 ``(N, d)``: targets, whether they were observed, then what is known in advance."""
    y: np.ndarray
    """Targets, zero where missing, float32 ``(N, T)``."""
    observed: np.ndarray
    """Whether a target was observed, ``(N, T)``."""
    filled: np.ndarray
    """Targets whose missing values repeat the last one of the series, float32 ``(N, T)``."""
    dt: np.ndarray | None
    """Step lengths in units of the usual step, float32 ``(N,)``; None for uniform times."""
    starts: np.ndarray
    """The first row of each series, and N."""


class Windows(BatchSource):
    """Windows by index; example i forecasts from the row ``origins[i]`` on.

    Args:
        series: the series.
        origins: the first row of each horizon, integers of shape ``(n,)``.
        context: steps before it.
        horizon: steps from it on.
        season: steps of a season.
    """

    def __init__(
        self, series: Prepared, origins: np.ndarray, *, context: int, horizon: int, season: int
    ) -> None:
        self.series, self.origins = series, origins
        self.context, self.horizon, self.season = context, horizon, season

    def __len__(self) -> int:
        return len(self.origins)

    def batch(self, indices: np.ndarray, *, epoch: int) -> dict[str, np.ndarray]:
        """Returns inputs, targets, and the two naive forecasts."""
        del epoch
        series, origins = self.series, self.origins[indices, None]
        rows = origins + np.arange(-self.context, self.horizon)
        future = rows[:, self.context :]
        columns = {
            "x": hide_future(series.features[rows], self.context, series.y.shape[1]),
            "y": series.y[future],
            "observed": series.observed[future],
            "last": series.filled[origins - 1],
            "season": series.filled[self._season_ago(origins)],
        }
        return columns if series.dt is None else {**columns, "dt": series.dt[rows]}

    def _season_ago(self, origins: np.ndarray) -> np.ndarray:
        """Returns the latest known row at the same place of a season, ``(B, horizon)``."""
        h = np.arange(self.horizon)
        rows = origins + h - self.season * (h // self.season + 1)
        starts = self.series.starts
        first = starts[np.searchsorted(starts, origins, side="right") - 1]
        return np.where(rows >= first, rows, origins - 1)


def hide_future(x: np.ndarray, context: int, n_targets: int) -> np.ndarray:
    """Returns inputs ``(B, L, d)`` whose targets and their marks are zero after the context."""
    x = x.copy()
    x[:, context:, : 2 * n_targets] = 0
    return x


def split_rows(table: SeriesTable, shares: tuple[float, float, float]) -> dict[Split, np.ndarray]:
    """Splits the rows of all series at the same two times.

    Returns:
        For each split, whether a row belongs to it, ``(N,)``.
    """
    times = np.unique(table.times)
    ends = np.rint(np.cumsum((0.0, *shares)) * len(times)).astype(int)
    place = np.searchsorted(times, table.times)
    return {
        split: (place >= start) & (place < end)
        for split, start, end in zip(get_args(Split), ends[:-1], ends[1:], strict=True)
    }


def find_origins(
    path: Path,
    options: ForecastOptions,
    table: SeriesTable,
    parts: Mapping[Split, np.ndarray],
    split: Split,
) -> np.ndarray:
    """Returns the first rows of all horizons that are inside a split, and have an observed target.

    Raises:
        UsageError: if there are none.
    """
    context, horizon, starts = options.context, options.horizon, table.starts
    inside = np.concatenate([[0], np.cumsum(parts[split])])
    values = np.stack([table.columns[name] for name in options.targets])
    seen = np.concatenate([[0], np.cumsum(~np.isnan(values).all(axis=0))])
    found = []
    for start, end in itertools.pairwise(starts):
        origins = np.arange(start + context, end - horizon + 1, options.stride)
        whole = inside[origins + horizon] - inside[origins] == horizon
        if split == "train":  # evaluation may reach back for its context, training has none before
            whole &= inside[origins] - inside[origins - context] == context
        found.append(origins[whole & (seen[origins + horizon] > seen[origins])])
    origins = np.concatenate(found)
    if not len(origins):
        _refuse_short(path, options, table, parts, split)
    n = options.n_examples(split)
    if n > len(origins):
        raise UsageError(
            f"ForecastOptions: `n_{split}` must not exceed the {len(origins):,} windows of the "
            f"{split} part; got {n:,}. Lower it, or set it to 0 for all."
        )
    return origins[np.linspace(0, len(origins) - 1, n).astype(int)] if n else origins


def _refuse_short(
    path: Path,
    options: ForecastOptions,
    table: SeriesTable,
    parts: Mapping[Split, np.ndarray],
    split: Split,
) -> None:
    rows = max(
        int(parts[split][start:end].sum()) for start, end in itertools.pairwise(table.starts)
    )
    share = dict(zip(get_args(Split), options.shares, strict=True))[split]
    if split == "train":
        need = options.context + options.horizon
        rule = f"--data.context plus --data.horizon, {need} steps"
    else:
        need, rule = options.horizon, f"--data.horizon, {options.horizon} steps"
    if rows < need:
        raise UsageError(
            f"{path}: the {split} part must be at least as long as {rule}; got {rows} rows "
            f"({share:g} of {len(np.unique(table.times))} times). Shorten the windows, or change "
            "--data.shares."
        )
    raise UsageError(
        f"{path}: the {split} part has no window of {options.context} + {options.horizon} steps "
        "with an observed target. Shorten the windows, or change --data.shares."
    )
