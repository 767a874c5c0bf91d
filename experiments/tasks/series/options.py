"""Options of forecasts: the table, its columns, the windows and the loss."""

import dataclasses
import math
from typing import Literal

from experiments.data.csv_options import CsvOptions
from experiments.data.sources import DataOptions, absolute_path
from experiments.errors import check_not_negative, check_positive

Loss = Literal["mse", "gaussian", "quantile"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForecastOptions(DataOptions):
    """Data: a table of time series, its columns, and the windows of a forecast."""

    file: str = ""
    """A CSV or Parquet table with a column of times; by default the monthly
    temperatures of El Niño."""
    time: str = ""
    """Column of times, which must increase; by default the only column of times."""
    targets: tuple[str, ...] = ()
    """Columns to forecast; by default all columns of numbers."""
    known: tuple[str, ...] = ()
    """Columns of numbers that are known in advance, such as a tariff or a weather forecast."""
    group: str = ""
    """Column that names the series of a row; by default the table is one series."""
    context: int = 168
    """Past steps that the model reads."""
    horizon: int = 24
    """Future steps that it forecasts."""
    stride: int = 1
    """Steps from one window to the next."""
    shares: tuple[float, float, float] = (0.7, 0.1, 0.2)
    """Shares of training, validation and test, one after another in time."""
    season: int = 0
    """Steps of a season, for the seasonal baseline; 0 derives it from the time step."""
    loss: Loss = "mse"
    """What is forecast: the mean; mean and variance; or the quantiles 0.1, 0.5 and 0.9."""
    gaps: Literal["auto", "dt", "append"] = "auto"
    """Use of irregular times: as step lengths, or as a feature; by default step lengths where the
    times are irregular."""
    n_train: int = 0
    """Training windows, evenly spaced; 0 means all."""
    n_validation: int = 0
    """Validation windows, by which the best checkpoint is chosen; 0 means all."""
    n_test: int = 0
    """Test windows, used once, at the end; 0 means all."""
    csv_delimiter: str | None = None
    """Character between the cells of a CSV file, or "tab" or "space"; guessed by default."""
    csv_decimal: str | None = None
    """Decimal sign of a CSV file, "." or ","; guessed by default."""

    def __post_init__(self) -> None:
        sizes = {"n_train": self.n_train, "n_validation": self.n_validation, "n_test": self.n_test}
        check_not_negative(self, **sizes, season=self.season)
        check_positive(self, context=self.context, horizon=self.horizon, stride=self.stride)
        in_order = all(0 < share < 1 for share in self.shares)
        if len(self.shares) != 3 or not in_order or math.fsum(self.shares) > 1 + 1e-9:
            raise ValueError(
                "ForecastOptions: `shares` must be three numbers above 0 whose sum is at most 1; "
                f"got {self.shares}."
            )
        if self.file:  # valid in any folder
            object.__setattr__(self, "file", absolute_path(self.file))
        _ = self.csv  # checks its options

    @property
    def csv(self) -> CsvOptions:
        """How a CSV file is read: its first line has the names of the columns."""
        return CsvOptions(delimiter=self.csv_delimiter, decimal=self.csv_decimal, header=1)
