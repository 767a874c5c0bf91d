"""Your own data: an archive of NumPy arrays, or a folder of CSV files or of sounds.

===========  ===============================================================================
``x``        numbers ``(N, L, d)``: d features a step; or integers ``(N, L)``: tokens
``y``        integers ``(N,)``: a class a sequence; integers ``(N, L)``: a class a step;
             floats ``(N,)`` or ``(N, d)``: values a sequence; floats ``(N, L, d)``: a step
``lengths``  integers ``(N,)``, if sequences are right-padded; padding may hold anything
``dt``       numbers ``(N,)`` or ``(N, L)``: how long each step is, in any unit
===========  ===============================================================================

A folder ``CLASS/*.csv`` (one row a step, one column a feature) or of sounds (``CLASS/*.wav``,
``.flac``, ``.ogg`` or ``.mp3``) stands for the same: its sequences are padded to the longest, and
its classes have the names of the folders. All is read into memory when the task is made, as only
the file knows shapes, classes and sizes.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import s5jax
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
    absolute_path,
    digest,
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
    normalise_dt: bool = True
    """Measure step lengths in units of their median in training; one unit suits the first Delta."""
    ignore_index: int | None = None
    """A label of y that does not count, for example -100; without it, every label does."""

    def __post_init__(self) -> None:
        sizes = {"n_train": self.n_train, "n_validation": self.n_validation}
        check_not_negative(self, **sizes, n_test=self.n_test)
        if self.file:  # found from any folder
            object.__setattr__(self, "file", absolute_path(self.file))
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


class Arrays(Task):
    """Classes or values, a sequence or a step, whichever the file has.

    Classes are measured by cross entropy and accuracy; values by the mean squared error, of what
    ``standardise`` makes of them, and by R² over the whole split: one minus the error over the
    variance. Where targets are one a step, an example counts with the mean over its steps.

    Features and values are standardised on the host, in float64, with the statistics of the
    training examples, which the trained model is saved with.

    Args:
        options: the file; sizes that are 0 are replaced by what they stand for.
        files: not used.

    Raises:
        UsageError: if the file is missing, breaks a rule, or has too few examples.
    """

    options_type = ArraysOptions

    def __init__(self, options: ArraysOptions, files: Files = HERE) -> None:
        super().__init__(options, files)
        if not options.file:
            raise UsageError(
                "Say where your data are: --data.file=FILE.npz with arrays x and y, or "
                "--data.file=FOLDER with CLASS/*.wav or CLASS/*.csv."
            )
        x, y = self.table.x, self.targets
        self.options = _resolve(options, self.table)
        self.length = x.shape[1]
        self.encoder = "tokens" if x.ndim == 2 else "linear"
        self.d_input = int(x.max()) + 1 if x.ndim == 2 else x.shape[2]
        is_label = np.issubdtype(y.dtype, np.integer)
        self.d_output = len(self._count_classes()) if is_label else y.shape[-1]
        self.head = "label" if y.ndim == (2 if is_label else 3) else "classify"
        self._set_measures(is_label=is_label)
        self.irregular = "dt" in self._optional(self.table)

    @classmethod
    def for_prediction(
        cls, options: Any, files: Files, model: Any, preprocessing: s5jax.Preprocessing
    ) -> "Arrays":
        """Shapes, classes and statistics are the model's; the training file may be gone."""
        task = cls.__new__(cls)
        Task.__init__(task, options, files)
        task.preprocessing = preprocessing
        task.d_input, task.d_output = model.d_input, model.d_output
        task.encoder = "linear" if model.encoder == "linear" else "tokens"
        task.head = "label" if isinstance(model, s5jax.SequenceLabeler) else "classify"
        task._set_measures(is_label=preprocessing.classes is not None)
        return task

    def _set_measures(self, *, is_label: bool) -> None:
        if not is_label:
            self.measures, self.metric = ("loss", "r2"), "r2"

    @functools.cached_property
    def table(self) -> Table:
        """The file's examples, in its units."""
        options = self.options
        return read_table(
            Path(options.file),
            csv=options.csv,
            sound=options.sound,
            ignore_index=options.ignore_index,
        )

    @property
    def targets(self) -> np.ndarray:
        """The targets of all examples, in the file's units."""
        assert self.table.y is not None, "read_table demands it"
        return self.table.y

    @functools.cached_property
    def preprocessing(self) -> s5jax.Preprocessing:
        """Statistics of the training examples and names of the classes."""
        options, dt = self.options, self.table.dt
        rows = self._rows("train")
        unit = np.median(self._valid(dt, rows)) if dt is not None and options.normalise_dt else 1.0
        constant = (0.0, 1.0)
        scaled = options.standardise and self.encoder == "linear"
        input_mean, input_std = self._moments(self.table.x, rows) if scaled else constant
        scaled = options.standardise and self.metric == "r2"
        target_mean, target_std = self._moments(self.targets, rows) if scaled else constant
        return s5jax.Preprocessing(
            input_mean=input_mean,
            input_std=input_std,
            target_mean=target_mean,
            target_std=target_std,
            dt_unit=None if dt is None else float(unit),
            classes=self.classes,
            features=self.table.features,
            sample_rate=self.table.rate,
        )

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the folders, or numbers; None if targets are values."""
        if "preprocessing" in self.__dict__:
            return self.preprocessing.classes
        return self.table.classes or super().classes

    @property
    def note(self) -> str:
        """How the file was read, and how many examples, or steps, each class has."""
        lines = [*self.table.remarks]
        unit = self.preprocessing.dt_unit
        if unit is not None and not self.irregular:
            lines.append(f"every step has the length {unit:.6g}, which counts as one")
        if self.classes:
            unit = "steps" if self.head == "label" else "examples"
            lines.append(f"{unit} of each class: {_join(self._count_classes())}")
        return "\n".join(lines)

    def fingerprint(self, *, seed: int) -> dict[str, Any]:
        """Sizes, classes, moments and a digest of all that the file holds."""
        del seed
        table = self.table
        found: dict[str, Any] = {"examples": len(table.x), "steps": self.length}
        if self.classes:
            found["classes"] = self._count_classes()
        for name, values in {"x": table.x, "y": self.targets}.items():
            if np.issubdtype(values.dtype, np.floating):
                moments = self._moments(values, np.arange(len(values)))
                found |= {
                    f"{what} of {name}": [float(f"{v:.6g}") for v in moment]
                    for what, moment in zip(("mean", "deviation"), moments, strict=True)
                }
        columns = {"x": table.x, "y": table.y, "lengths": table.lengths, "dt": table.dt}
        given = {name: column for name, column in columns.items() if column is not None}
        return {**found, "sha256": digest(given)}

    def source(self, split: Split, *, seed: int) -> Source:
        """Rows of the table, by a fixed random order: validation, test, and the rest to train."""
        del seed
        return RowsSource(self._rows(split), **self._columns)

    @functools.cached_property
    def _columns(self) -> dict[str, np.ndarray]:
        """What training sees of all examples."""
        table, p, y = self.table, self.preprocessing, self.targets
        if self.metric == "r2":
            y = _standardise(y, p.target_mean, p.target_std)
        return {"x": self._prepare(table.x), "y": y, **self._optional(table)}

    def _prepare(self, x: np.ndarray) -> np.ndarray:
        p = self.preprocessing
        return x if self.encoder == "tokens" else _standardise(x, p.input_mean, p.input_std)

    def _optional(self, table: Table) -> dict[str, np.ndarray]:
        """Lengths, and step lengths in units of the training data's, unless all are one unit."""
        columns = {} if table.lengths is None else {"length": table.lengths}
        if table.dt is not None:
            unit = self.preprocessing.dt_unit or 1.0
            dt = np.where(table.dt > 0, table.dt / unit, 1).astype(np.float32)  # 0 is padding
            columns |= {"dt": dt} if (dt != 1).any() else {}
        return columns

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

    def _valid(self, array: np.ndarray, rows: np.ndarray | slice = np.s_[:]) -> np.ndarray:
        """What an array with one entry a step has at the steps that count."""
        lengths = self.table.lengths
        if lengths is None:
            return array[rows].reshape(-1, *array.shape[2:])
        return array[rows][np.arange(array.shape[1]) < lengths[rows, None]]

    def _moments(self, array: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of each feature over examples, and over steps if there are any."""
        values = self._valid(array, rows) if array.ndim == 3 else array[rows]
        mean, std = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
        rounding = 8 * np.finfo(array.dtype).eps * np.abs(mean)
        return mean, np.where(std > rounding, std, 1.0)  # a constant stays one

    def _count_classes(self) -> dict[str, int]:
        """How often each class occurs, by name."""
        y, ignored = self.targets, self.options.ignore_index
        labels = self._valid(y) if y.ndim == 2 else y
        counts = np.bincount(labels if ignored is None else labels[labels != ignored])
        names = self.table.classes or map(str, range(len(counts)))
        return dict(zip(names, counts.tolist(), strict=True))

    def read_examples(self, path: Path) -> dict[str, np.ndarray]:
        """A ``.npz`` file with ``x`` and, if need be, ``lengths`` and ``dt``; a WAV or CSV file."""
        if path.suffix.lower() in (".csv", *SUFFIXES):
            options, known = self.options, self.preprocessing
            x, rate, *_ = read_sequence(
                path, csv=options.csv, sound=options.sound, features=known.features
            )
            if None not in (rate, known.sample_rate) and rate != known.sample_rate:
                raise UsageError(
                    f"{path} must have {known.sample_rate} samples a second, as in training; got "
                    f"{rate}."
                )
            table = Table(x[None], None)
        else:
            table = read_arrays(path)
        unit = self.preprocessing.dt_unit
        if unit is not None and table.dt is None:
            raise UsageError(
                f"{path} must have an array `dt` with the lengths of its steps, in units of the "
                f"training file, where {unit:.6g} counted as one step; got none."
            )
        self._check_examples(path, table.x)
        return {"x": self._prepare(table.x), **self._optional(table)}

    def _check_examples(self, path: Path, x: np.ndarray) -> None:
        is_token = self.encoder == "tokens"
        if x.ndim != 3 - is_token or (x.ndim == 3 and x.shape[2] != self.d_input):
            shape = "(N, L)" if is_token else f"(N, L, {self.d_input})"
            raise UsageError(f"{path}: `x` must have shape {shape}, as in training; got {x.shape}.")
        if is_token and x.max() >= self.d_input:
            raise UsageError(
                f"{path}: tokens must lie below {self.d_input}, as in training; got {x.max()}."
            )

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """``u``, and ``lengths`` and ``dt`` where the file has them."""
        given = {"u": batch["x"], "lengths": batch.get("length"), "dt": batch.get("dt")}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def quantities(self) -> dict[str, tuple[int, ...]]:
        """For values also means of the targets and of their squares."""
        moments = {"target": (self.d_output,), "square": ()}
        return {"loss": (), **({"accuracy": ()} if self.classes else moments)}

    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Cross entropy and accuracy, or squared errors and moments of the targets."""
        y, ignored = batch["y"], self.options.ignore_index
        counts = jnp.ones(y.shape, bool) if ignored is None else y != ignored
        if self.classes:
            values = measure_classification(outputs, jnp.where(counts, y, 0))
        else:
            values = _errors(outputs, y)
        if self.head == "classify":
            return values
        steps = jnp.arange(y.shape[1])
        valid = steps < batch["length"][:, None] if "length" in batch else steps[None] >= 0
        if self.classes:
            valid = valid & counts
        return {name: _mean_over(value, valid) for name, value in values.items()}

    def present(self, outputs: np.ndarray) -> np.ndarray:
        """Values in the units of the file."""
        return np.asarray(self.preprocessing.restore(np.asarray(outputs, np.float64)))

    def report(self, means: Mapping[str, np.ndarray]) -> dict[str, float]:
        """R² from the moments of the whole split."""
        if self.classes:
            return super().report(means)
        variance = float(means["square"] - np.mean(np.square(means["target"])))
        r2 = 1 - float(means["loss"]) / max(variance, 1e-12)
        return {"loss": float(means["loss"]), "r2": r2}


def _resolve(options: ArraysOptions, table: Table) -> ArraysOptions:
    """Replaces sizes that are 0, and what was guessed of CSV files."""
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


def _errors(outputs: jax.Array, targets: jax.Array) -> dict[str, jax.Array]:
    return {
        "loss": jnp.mean((outputs - targets) ** 2, axis=-1),
        "target": targets,
        "square": jnp.mean(targets**2, axis=-1),
    }


def _mean_over(value: jax.Array, valid: jax.Array) -> jax.Array:
    """The mean over the valid steps, axis 1."""
    valid = valid.reshape(*valid.shape, *[1] * (value.ndim - 2))
    count = jnp.maximum(jnp.sum(valid, axis=1), 1)
    return jnp.sum(jnp.where(valid, value, 0), axis=1) / count


def _standardise(values: np.ndarray, mean: Any, std: Any) -> np.ndarray:
    """Float32 from a difference in float64, some examples at a time: a table may be large."""
    found = np.empty(values.shape, np.float32)
    for start in range(0, len(values), 256):
        rows = np.s_[start : start + 256]
        found[rows] = (values[rows].astype(np.float64) - mean) / np.asarray(std)
    return found


def _join(counts: Mapping[str, int]) -> str:
    shown = [f"{name} {n:,}" for name, n in itertools.islice(counts.items(), 20)]
    return ", ".join(shown) + (f" and {len(counts) - 20} more" if len(counts) > 20 else "")
