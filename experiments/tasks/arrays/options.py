"""Options of a user's own data: the file, how to read it, and how to split it."""

import dataclasses

from experiments.data.csv_options import CsvOptions
from experiments.data.sounds import SoundOptions
from experiments.data.sources import DataOptions, absolute_path
from experiments.errors import UsageError, check_not_negative
from experiments.tasks.arrays.tables import Table


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArraysOptions(DataOptions):
    """Data: a file of yours, and its splits."""

    file: str = ""
    """A .npz file with x, y and optionally lengths and dt; or a folder CLASS/*.wav or *.csv."""
    n_train: int = 0
    """Training examples; 0 means all that remain."""
    n_validation: int = 0
    """Validation examples, which select the best checkpoint; 0 means a tenth of all."""
    n_test: int = 0
    """Test examples, used once, at the end; 0 means a tenth of all."""
    csv_delimiter: str | None = None
    """Character between the cells of CSV files, or "tab" or "space"; guessed by default."""
    csv_decimal: str | None = None
    """Decimal sign of CSV files, "." or ","; guessed by default."""
    csv_header: int | None = None
    """Lines of CSV files before the first row of numbers; guessed by default."""
    csv_columns: tuple[str, ...] = ()
    """Columns of CSV files, by name or by number from 1; by default all columns of numbers."""
    sample_rate: int | None = None
    """Resample sounds to this rate [samples/s]."""
    mono: bool = False
    """Average the channels of sounds."""
    standardise: bool = True
    """Standardise features of x, and targets that are values, by the training examples."""
    normalise_dt: bool = True
    """Measure step lengths in units of their training median, which suits the initial Delta."""
    ignore_index: int | None = None
    """A label of y that is ignored, for example -100; by default there is none."""

    def __post_init__(self) -> None:
        sizes = {"n_train": self.n_train, "n_validation": self.n_validation}
        check_not_negative(self, **sizes, n_test=self.n_test)
        if self.file:  # valid in any folder
            object.__setattr__(self, "file", absolute_path(self.file))
        _ = self.csv, self.sound  # checks their options

    @property
    def csv(self) -> CsvOptions:
        """How CSV files are read."""
        names = [field.name for field in dataclasses.fields(CsvOptions)]
        return CsvOptions(**{name: getattr(self, f"csv_{name}") for name in names})

    @property
    def sound(self) -> SoundOptions:
        """How sounds are converted."""
        return SoundOptions(sample_rate=self.sample_rate, mono=self.mono)


def resolve(options: ArraysOptions, table: Table) -> ArraysOptions:
    """Replaces sizes that are 0, and fills in what was guessed about CSV files."""
    n = len(table.x)
    validation = options.n_validation or max(n // 10, 1)
    test = options.n_test or max(n // 10, 1)
    left = n - validation - test
    train = options.n_train or left
    if left < 1 or train > left:
        raise UsageError(
            f"ArraysOptions: `n_train`, `n_validation` and `n_test` must not exceed the {n} "
            f"examples of {options.file}, with one or more to train; got {train}, {validation} and "
            f"{test}."
        )
    csv = {} if table.csv is None else dataclasses.asdict(table.csv)
    return dataclasses.replace(
        options,
        n_train=train,
        n_validation=validation,
        n_test=test,
        **{f"csv_{name}": value for name, value in csv.items()},
    )
