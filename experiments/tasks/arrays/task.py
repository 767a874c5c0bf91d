"""Your own data: an archive of NumPy arrays, or a folder of CSV files or of sounds.

===========  ===============================================================================
``x``        numbers ``(N, L, d)``: d features per step; or integers ``(N, L)``: tokens
``y``        integers ``(N,)``: a class per sequence; integers ``(N, L)``: a class per step;
             floats ``(N,)`` or ``(N, d)``: values per sequence; ``(N, L, d)``: per step
``lengths``  integers ``(N,)``, if sequences are right-padded; padding may have any value
``dt``       numbers ``(N,)`` or ``(N, L)``: how long each step is, in any unit
===========  ===============================================================================

A folder ``CLASS/*.csv`` (one row a step, one column a feature) or of sounds (``CLASS/*.wav``,
``.flac``, ``.ogg`` or ``.mp3``) is equivalent: its sequences are padded to the longest, and its
classes have the names of the folders. All data are read into memory when the task is made, because
shapes, classes and sizes depend on them.
"""

import functools
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import s5jax
from experiments.data.held_out import RowsSource
from experiments.data.sounds import SUFFIXES
from experiments.data.sources import DEFAULT_PATHS, Batch, Files, Source, Split, digest
from experiments.errors import UsageError
from experiments.tasks._task import Task, measure_classification
from experiments.tasks.arrays.options import ArraysOptions, resolve
from experiments.tasks.arrays.tables import Table, read_arrays, read_sequence, read_table


class Arrays(Task):
    """Classification or regression of sequences or steps, depending on the file.

    The measures of classes are cross entropy and accuracy. The measures of values are the mean
    squared error of the standardised values, and R² over the whole split: one minus the error over
    the variance. With targets per step, an example counts with the mean over its steps.

    Features and values are standardised on the host, in float64, with the statistics of the
    training examples. The trained model is saved with these statistics.

    Args:
        options: the options; sizes that are 0 are replaced by their meaning.
        files: not used.

    Raises:
        UsageError: if the file is missing, breaks a rule, or has too few examples.
    """

    options_type = ArraysOptions

    def __init__(self, options: ArraysOptions, files: Files = DEFAULT_PATHS) -> None:
        super().__init__(options, files)
        if not options.file:
            raise UsageError(
                "No data: set --data.file=FILE.npz with arrays x and y, or --data.file=FOLDER with "
                "CLASS/*.wav or CLASS/*.csv."
            )
        x, y = self.table.x, self.targets
        self.options = resolve(options, self.table)
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
        """Builds the task from the model and its preprocessing; needs no training file."""
        task = cls.without_data(options, files, preprocessing)
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
        """The examples in the units of the file."""
        options = self.options
        return read_table(
            Path(options.file),
            csv=options.csv,
            sound=options.sound,
            ignore_index=options.ignore_index,
        )

    @property
    def targets(self) -> np.ndarray:
        """The targets of all examples in the units of the file."""
        assert self.table.y is not None, "read_table requires it"
        return self.table.y

    @functools.cached_property
    def preprocessing(self) -> s5jax.Preprocessing:
        """Statistics of the training examples, and names of the classes."""
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
        """The names of the folders, or numbers; None for regression."""
        if "preprocessing" in self.__dict__:
            return self.preprocessing.classes
        return self.table.classes or super().classes

    @property
    def note(self) -> str:
        """Remarks on the file, and the number of examples or steps of each class."""
        lines = [*self.table.remarks]
        unit = self.preprocessing.dt_unit
        if unit is not None and not self.irregular:
            lines.append(f"every step has the length {unit:.6g}, which is the unit")
        if self.classes:
            unit = "steps" if self.head == "label" else "examples"
            lines.append(f"{unit} of each class: {_join(self._count_classes())}")
        return "\n".join(lines)

    def fingerprint(self, *, seed: int) -> dict[str, Any]:
        """Returns sizes, classes, moments and a digest of the file."""
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
        """Returns rows in a fixed random order: first validation, then test, then training."""
        del seed
        return RowsSource(self._rows(split), **self._columns)

    @functools.cached_property
    def _columns(self) -> dict[str, np.ndarray]:
        """All examples as columns for training."""
        table, p, y = self.table, self.preprocessing, self.targets
        if self.metric == "r2":
            y = _standardise(y, p.target_mean, p.target_std)
        return {"x": self._prepare(table.x), "y": y, **self._optional(table)}

    def _prepare(self, x: np.ndarray) -> np.ndarray:
        p = self.preprocessing
        return x if self.encoder == "tokens" else _standardise(x, p.input_mean, p.input_std)

    def _optional(self, table: Table) -> dict[str, np.ndarray]:
        """Returns lengths, and step lengths in the unit of training unless all are one."""
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
        """Returns the entries of an array at valid steps."""
        lengths = self.table.lengths
        if lengths is None:
            return array[rows].reshape(-1, *array.shape[2:])
        return array[rows][np.arange(array.shape[1]) < lengths[rows, None]]

    def _moments(self, array: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns mean and deviation of each feature over examples and valid steps."""
        values = self._valid(array, rows) if array.ndim == 3 else array[rows]
        mean, std = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
        rounding = 8 * np.finfo(array.dtype).eps * np.abs(mean)
        return mean, np.where(std > rounding, std, 1.0)  # a constant is not scaled

    def _count_classes(self) -> dict[str, int]:
        """Counts the occurrences of each class, by name."""
        y, ignored = self.targets, self.options.ignore_index
        labels = self._valid(y) if y.ndim == 2 else y
        counts = np.bincount(labels if ignored is None else labels[labels != ignored])
        names = self.table.classes or map(str, range(len(counts)))
        return dict(zip(names, counts.tolist(), strict=True))

    def read_examples(self, path: Path) -> dict[str, np.ndarray]:
        """Reads a ``.npz`` file with ``x`` and optional ``lengths`` and ``dt``, a WAV or a CSV."""
        if path.suffix.lower() in (".csv", *SUFFIXES):
            options, known = self.options, self.preprocessing
            x, rate = read_sequence(
                path, csv=options.csv, sound=options.sound, features=known.features
            )
            if None not in (rate, known.sample_rate) and rate != known.sample_rate:
                raise UsageError(
                    f"{path} must have {known.sample_rate} samples per second, as in training; got "
                    f"{rate}."
                )
            table = Table(x[None], None)
        else:
            table = read_arrays(path)
        unit = self.preprocessing.dt_unit
        if unit is not None and table.dt is None:
            raise UsageError(
                f"{path} must have an array `dt` with the lengths of its steps, in units of the "
                f"training file, where one step was {unit:.6g}; got none."
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
                f"{path}: tokens must be below {self.d_input}, as in training; got {x.max()}."
            )

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns ``u``, and ``lengths`` and ``dt`` if the file has them."""
        given = {"u": batch["x"], "lengths": batch.get("length"), "dt": batch.get("dt")}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def quantities(self) -> dict[str, tuple[int, ...]]:
        """The measures; for regression also two moments of the targets."""
        moments = {"target": (self.d_output,), "square": ()}
        return {"loss": (), **({"accuracy": ()} if self.classes else moments)}

    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Returns cross entropy and accuracy, or squared errors and moments of the targets."""
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
        """Converts values to the units of the file."""
        return np.asarray(self.preprocessing.restore(np.asarray(outputs, np.float64)))

    def report(self, means: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Computes R² from the moments of the whole split."""
        if self.classes:
            return super().report(means)
        variance = float(means["square"] - np.mean(np.square(means["target"])))
        r2 = 1 - float(means["loss"]) / max(variance, 1e-12)
        return {"loss": float(means["loss"]), "r2": r2}


def _errors(outputs: jax.Array, targets: jax.Array) -> dict[str, jax.Array]:
    return {
        "loss": jnp.mean((outputs - targets) ** 2, axis=-1),
        "target": targets,
        "square": jnp.mean(targets**2, axis=-1),
    }


def _mean_over(value: jax.Array, valid: jax.Array) -> jax.Array:
    """Averages over the valid steps, axis 1."""
    valid = valid.reshape(*valid.shape, *[1] * (value.ndim - 2))
    count = jnp.maximum(jnp.sum(valid, axis=1), 1)
    return jnp.sum(jnp.where(valid, value, 0), axis=1) / count


def _standardise(values: np.ndarray, mean: Any, std: Any) -> np.ndarray:
    """Standardises in float64 to float32, some examples at a time, as a table may be large."""
    found = np.empty(values.shape, np.float32)
    for start in range(0, len(values), 256):
        rows = np.s_[start : start + 256]
        found[rows] = (values[rows].astype(np.float64) - mean) / np.asarray(std)
    return found


def _join(counts: Mapping[str, int]) -> str:
    shown = [f"{name} {n:,}" for name, n in itertools.islice(counts.items(), 20)]
    return ", ".join(shown) + (f" and {len(counts) - 20} more" if len(counts) > 20 else "")
