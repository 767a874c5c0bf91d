"""The sets of the Informer paper: their files, targets and splits.

======= ========= ============= ================ =============================================
task    file      target        rows a day       training / validation / test [rows]
======= ========= ============= ================ =============================================
etth1   ETTh1.csv OT            24               8,640 / 2,880 / 2,880: 12, 4 and 4 months
etth2   ETTh2.csv OT            24               as etth1
ettm1   ETTm1.csv OT            96               34,560 / 11,520 / 11,520
ettm2   ETTm2.csv OT            96               as ettm1
weather WTH.csv   WetBulbCelsius 24              24,544 / 3,508 / 7,012: 70, 10 and 20 %
ecl     ECL.csv   MT_320        24               18,412 / 2,632 / 5,260: 70, 10 and 20 %
======= ========= ============= ================ =============================================

References:
    Zhou et al., "Informer: Beyond Efficient Transformer for Long Sequence Time-Series
    Forecasting", 2021, https://arxiv.org/abs/2012.07436.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, get_args

import numpy as np

from experiments.data.sources import DEFAULT_PATHS, Files, Split
from experiments.data.tfds import missing
from experiments.errors import UsageError
from experiments.tasks._task import Task
from experiments.tasks.series.options import ForecastOptions
from experiments.tasks.series.table import SeriesTable, read_series
from experiments.tasks.series.task import Forecast
from experiments.tasks.series.times import CALENDAR, Step, season_of

FOLDER = "informer"


class Published(NamedTuple):
    """A published set."""

    task: str
    file: str
    target: str
    sizes: tuple[int, int, int]
    """Rows of training, validation and test."""
    step: float
    """Seconds of a step."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class InformerOptions(ForecastOptions):
    """Data: a set of the Informer paper, and the windows of a forecast.

    The published splits hold, whatever ``shares`` says.
    """

    context: int = 384
    """Past steps that the model reads."""
    time: str = "date"
    """Column of times."""


class InformerSet(Forecast):
    """Forecasts of one published set, by default of its one published target.

    Sizes, steps and splits are known, so that the constructor reads no file.

    Args:
        options: the options.
        files: the folder of data sets.
    """

    options_type = InformerOptions
    published: ClassVar[Published]

    def __init__(self, options: InformerOptions, files: Files = DEFAULT_PATHS) -> None:
        Task.__init__(self, options, files)
        self.step, self.calendar = Step(self.published.step, 0, uniform=True), tuple(CALENDAR)
        targets, season = options.targets or (self.published.target,), season_of(self.step)
        self.options = dataclasses.replace(
            options, targets=targets, season=options.season or season
        )
        self._set_sizes()
        sizes = {f"n_{split}": self._count(split) for split in get_args(Split)}
        self.options = dataclasses.replace(self.options, **sizes)

    def _ends(self, split: Split) -> tuple[int, int]:
        """Returns the first row of a split, and the row after its last one."""
        i = get_args(Split).index(split)
        return sum(self.published.sizes[:i]), sum(self.published.sizes[: i + 1])

    def _count(self, split: Split) -> int:
        """Returns the number of windows, by default of all whose horizon is inside a split."""
        options, (start, end) = self.options, self._ends(split)
        first, last = max(start, options.context), end - options.horizon
        origins = range(options.context, last + 1, options.stride)
        available = len(origins) - len(range(options.context, first, options.stride))
        chosen = options.n_examples(split)
        if available < max(chosen, 1):
            raise ValueError(
                f"InformerOptions: `n_{split}` must not exceed the {max(available, 0):,} windows "
                f"of {options.context} + {options.horizon} steps; got {chosen:,}. Lower it, or "
                "shorten the windows."
            )
        return chosen or available

    @functools.cached_property
    def path(self) -> Path:
        """The file.

        Raises:
            UsageError: if it is missing.
        """
        if self.options.file:
            return Path(self.options.file)
        path = self.files.data_dir / FOLDER / self.published.file
        if not path.is_file():
            what = f"The file {path.name}"
            raise missing(what, path.parent, self.files, task=self.published.task)
        return path

    @functools.cached_property
    def table(self) -> SeriesTable:
        """The series in the units of the file."""
        table, rows = read_series(self.path, self.options), sum(self.published.sizes)
        if len(table.times) < rows or not np.array_equal(
            np.diff(table.times[:rows]) / np.timedelta64(1, "s"),
            np.full(rows - 1, self.published.step),
        ):
            raise UsageError(
                f"{self.path} must have {rows:,} rows or more, {self.published.step:g} s apart, "
                f"as published; got {len(table.times):,} rows. Copy the file again."
            )
        return table

    @functools.cached_property
    def parts(self) -> dict[Split, np.ndarray]:
        """Whether a row belongs to a split, for each split."""
        row = np.arange(len(self.table.times))
        ends = {split: self._ends(split) for split in get_args(Split)}
        return {split: (row >= start) & (row < end) for split, (start, end) in ends.items()}


def _make(task: str, file: str, target: str, sizes: tuple[int, int, int], step: float) -> Any:
    published = Published(task, file, target, sizes, step)
    return type(task, (InformerSet,), {"published": published})


ETT_HOURS, ETT_QUARTERS = (8_640, 2_880, 2_880), (34_560, 11_520, 11_520)
INFORMER: dict[str, type[InformerSet]] = {
    "etth1": _make("etth1", "ETTh1.csv", "OT", ETT_HOURS, 3_600.0),
    "etth2": _make("etth2", "ETTh2.csv", "OT", ETT_HOURS, 3_600.0),
    "ettm1": _make("ettm1", "ETTm1.csv", "OT", ETT_QUARTERS, 900.0),
    "ettm2": _make("ettm2", "ETTm2.csv", "OT", ETT_QUARTERS, 900.0),
    "weather": _make("weather", "WTH.csv", "WetBulbCelsius", (24_544, 3_508, 7_012), 3_600.0),
    "ecl": _make("ecl", "ECL.csv", "MT_320", (18_412, 2_632, 5_260), 3_600.0),
}
"""The sets by the name of their task."""
