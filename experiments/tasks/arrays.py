"""Your own data: an archive of NumPy arrays, or a folder of CSV files or of sounds.

===========  ===============================================================================
``x``        numbers ``(N, L, d)``: d features a step; or integers ``(N, L)``: tokens
``y``        integers ``(N,)``: a class a sequence; integers ``(N, L)``: a class a step;
             floats ``(N,)`` or ``(N, d)``: values a sequence; floats ``(N, L, d)``: a step
``lengths``  integers ``(N,)``, if sequences are right-padded; padding may hold anything
``dt``       numbers ``(N,)`` or ``(N, L)``: how long each step is, for S4, S4D and S5
===========  ===============================================================================

A folder ``CLASS/*.csv`` (one row a step, one column a feature) or of sounds (``CLASS/*.wav``,
``.flac``, ``.ogg`` or ``.mp3``) stands for the same: its sequences are padded to the longest, and
its classes have the names of the folders. All is read into memory when the task is made, as only
the file knows shapes, classes and sizes.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.errors import UsageError, check_not_negative
from experiments.tasks._csv import CsvOptions
from experiments.tasks._held_out import RowsSource
from experiments.tasks._sounds import SUFFIXES, SoundOptions
from experiments.tasks._tables import Table, read_arrays, read_sequence, read_table
from experiments.tasks._task import (
    HERE,
    Batch,
    DataOptions,
    Files,
    Source,
    Split,
    Task,
    measure_classification,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArraysOptions(DataOptions):
    """Data: a file of yours, and how it is split."""

    file: str = ""
    """A .npz file with x, y and, if need be, lengths and dt; or a folder CLASS/*.wav or *.csv."""
    n_train: int = 0
    """Training examples; 0 is all that the other two leave."""
    n_validation: int = 0
    """Validation examples, by which the best checkpoint is chosen; 0 is a tenth of all."""
    n_test: int = 0
    """Test examples, used once, at the end; 0 is a tenth of all."""
    csv_delimiter: str | None = None
    """Character between the cells of CSV files, or "tab" or "space"; guessed by default."""
    csv_decimal: str | None = None
    """Decimal sign of CSV files, "." or ","; guessed by default."""
    csv_header: int | None = None
    """Lines of CSV files before the first row of numbers; guessed by default."""
    csv_columns: tuple[str, ...] = ()
    """Columns of CSV files, by name or by number from 1; by default all that hold numbers."""
    sample_rate: int | None = None
    """Resample sounds to this rate [samples/s]."""
    mono: bool = False
    """Average the channels of sounds."""
    standardise: bool = True
    """Give features of x, and targets that are values, mean 0 and deviation 1 in training."""

    def __post_init__(self) -> None:
        sizes = {"n_train": self.n_train, "n_validation": self.n_validation}
        check_not_negative(self, **sizes, n_test=self.n_test)
        _ = self.csv, self.sound  # checks their options

    @property
    def csv(self) -> CsvOptions:
        """How CSV files are read."""
        return CsvOptions(
            delimiter=self.csv_delimiter,
            decimal=self.csv_decimal,
            header=self.csv_header,
            columns=self.csv_columns,
        )

    @property
    def sound(self) -> SoundOptions:
        """How sounds are made alike."""
        return SoundOptions(sample_rate=self.sample_rate, mono=self.mono)


_UNCHANGED = np.zeros((), np.float32), np.ones((), np.float32)


class Arrays(Task):
    """Classes or values, a sequence or a step, whichever the file has.

    Classes are measured by cross entropy and accuracy; values by the mean squared error, of what
    ``standardise`` makes of them, and by R² over the whole split: one minus the error over the
    variance. Where targets are one a step, an example counts with the mean over its steps.

    Args:
        options: the file; sizes that are 0 are replaced by what they stand for.
        files: not used.

    Raises:
        UsageError: if the file is missing, breaks a rule, or has too few examples.
    """

    options_type = ArraysOptions

    def __init__(self, options: ArraysOptions, files: Files = HERE) -> None:
        if not options.file:
            raise UsageError(
                "Say where your data are: --data.file=FILE.npz with arrays x and y, or "
                "--data.file=FOLDER with CLASS/*.wav or CLASS/*.csv."
            )
        path = Path(options.file).expanduser()
        table = _single(read_table(path, csv=options.csv, sound=options.sound))
        super().__init__(_resolve_sizes(options, len(table.x)), files)
        assert table.y is not None, "read_table demands it"
        self.table, self.targets = table, table.y
        self.length = table.x.shape[1]
        self.irregular = table.dt is not None
        self.encoder = "tokens" if table.x.ndim == 2 else "linear"
        self.d_input = int(table.x.max()) + 1 if table.x.ndim == 2 else table.x.shape[2]
        y, is_label = table.y, np.issubdtype(table.y.dtype, np.integer)
        self.d_output = int(y.max()) + 1 if is_label else y.shape[-1]
        self.head = "label" if y.ndim == (2 if is_label else 3) else "classify"
        if not is_label:
            self.measures, self.metric = ("loss", "r2"), "r2"

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the folders, or numbers; None if targets are values."""
        return self.table.classes or super().classes

    def source(self, split: Split, *, seed: int) -> Source:
        """Rows of the table, by a fixed random order: validation, test, and the rest to train."""
        del seed
        optional = {"length": self.table.lengths, "dt": self.table.dt}
        columns = {"x": self.table.x, "y": self.targets, **optional}
        given = {name: column for name, column in columns.items() if column is not None}
        return RowsSource(self._rows(split), **given)

    def _rows(self, split: Split) -> np.ndarray:
        options = self.options
        order = np.random.default_rng(0).permutation(len(self.table.x))
        bounds = {
            "validation": (0, options.n_validation),
            "test": (options.n_validation, options.n_test),
            "train": (options.n_validation + options.n_test, options.n_train),
        }
        start, n = bounds[split]
        return np.sort(order[start : start + n])

    @functools.cached_property
    def input_moments(self) -> tuple[np.ndarray, np.ndarray]:
        """What is subtracted from the features, and what they are divided by then."""
        return self._moments(self.table.x) if self.encoder == "linear" else _UNCHANGED

    @functools.cached_property
    def target_moments(self) -> tuple[np.ndarray, np.ndarray]:
        """The same of targets that are values."""
        return self._moments(self.targets) if self.classes is None else _UNCHANGED

    def _moments(self, array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation over the training examples, and their steps if there are any."""
        if not self.options.standardise:
            return _UNCHANGED
        rows = self._rows("train")
        values = array[rows]
        if self.table.lengths is not None and array.ndim == 3:
            values = values[np.arange(self.length) < self.table.lengths[rows, None]]
        values = values.reshape(-1, array.shape[-1])
        mean, std = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
        std = np.where(std > 1e-6 * np.abs(mean), std, 1)  # a constant stays one
        return mean.astype(np.float32), std.astype(np.float32)

    def read_examples(self, path: Path) -> dict[str, np.ndarray]:
        """A ``.npz`` file with ``x`` and, if need be, ``lengths`` and ``dt``; a WAV or CSV file."""
        if path.suffix.lower() in (".csv", *SUFFIXES):
            csv = self.table.csv or self.options.csv
            x, rate, *_ = read_sequence(
                path, csv=csv, sound=self.options.sound, features=self.table.features
            )
            if None not in (rate, self.table.rate) and rate != self.table.rate:
                raise UsageError(
                    f"{path} must have {self.table.rate} samples a second, as in training; got "
                    f"{rate}."
                )
            table = Table(x[None], None)
        else:
            table = read_arrays(path)
        table = _single(table)
        columns = {"x": table.x, "length": table.lengths, "dt": table.dt}
        self._check_examples(path, table.x)
        return {name: column for name, column in columns.items() if column is not None}

    def _check_examples(self, path: Path, x: np.ndarray) -> None:
        if x.ndim != self.table.x.ndim or (x.ndim == 3 and x.shape[2] != self.d_input):
            shape = "(N, L)" if self.encoder == "tokens" else f"(N, L, {self.d_input})"
            raise UsageError(f"{path}: `x` must have shape {shape}, as in training; got {x.shape}.")
        if x.ndim == 2 and x.max() >= self.d_input:
            raise UsageError(
                f"{path}: tokens must lie below {self.d_input}, as in training; got {x.max()}."
            )

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """``u``, standardised if asked for, and ``lengths`` and ``dt`` where the file has them."""
        u = batch["x"]
        if self.encoder == "linear":
            mean, std = self.input_moments
            u = (u - mean) / std
        given = {"lengths": batch.get("length"), "dt": batch.get("dt")}
        return {"u": u, **{name: value for name, value in given.items() if value is not None}}

    @property
    def quantities(self) -> dict[str, tuple[int, ...]]:
        """For values also means of the targets and of their squares."""
        moments = {"target": (self.d_output,), "square": ()}
        return {"loss": (), **({"accuracy": ()} if self.classes else moments)}

    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Cross entropy and accuracy, or squared errors and moments of the targets."""
        y = batch["y"]
        if self.classes:
            values = measure_classification(outputs, y)
        else:
            mean, std = self.target_moments
            values = _errors(outputs, (y - mean) / std)
        if self.head == "classify":
            return values
        steps = jnp.arange(y.shape[1])
        valid = steps < batch["length"][:, None] if "length" in batch else steps[None] >= 0
        return {name: _mean_over(value, valid) for name, value in values.items()}

    def present(self, outputs: np.ndarray) -> np.ndarray:
        """Values in the units of the file."""
        mean, std = self.target_moments
        return outputs * std + mean

    def report(self, means: Mapping[str, np.ndarray]) -> dict[str, float]:
        """R² from the moments of the whole split."""
        if self.classes:
            return super().report(means)
        variance = float(means["square"] - np.mean(np.square(means["target"])))
        r2 = 1 - float(means["loss"]) / max(variance, 1e-12)
        return {"loss": float(means["loss"]), "r2": r2}


def _single(table: Table) -> Table:
    """The table in float32."""
    x, y = table.x, table.y
    x = x.astype(np.float32) if x.dtype.kind == "f" else x
    y = y.astype(np.float32) if y is not None and y.dtype.kind == "f" else y
    return table._replace(x=x, y=y)


def _resolve_sizes(options: ArraysOptions, n: int) -> ArraysOptions:
    """Replaces sizes that are 0."""
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
    return dataclasses.replace(options, n_train=train, n_validation=validation, n_test=test)


def _errors(outputs: jax.Array, targets: jax.Array) -> dict[str, jax.Array]:
    return {
        "loss": jnp.mean((outputs - targets) ** 2, axis=-1),
        "target": targets,
        "square": jnp.mean(targets**2, axis=-1),
    }


def _mean_over(value: jax.Array, valid: jax.Array) -> jax.Array:
    """The mean over the valid steps, axis 1."""
    valid = valid.reshape(*valid.shape, *[1] * (value.ndim - 2))
    return jnp.sum(jnp.where(valid, value, 0), axis=1) / jnp.sum(valid, axis=1)
