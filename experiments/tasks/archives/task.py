"""Sets of the UEA, UCR and TSER archives of time series, read from ``.ts`` files.

The protocol is that of the tables in which S5, LRU and LinOSS are compared: both files of a set are
merged, equal series are left out, and the seed of the run splits the rest into 70 % for training,
15 % for validation and 15 % for the test. Inputs are not scaled, and time is an input or not,
depending on set and model. The permutation of a seed is not that of the published runs.

References:
    Walker et al., "Log Neural Controlled Differential Equations: The Lie Brackets Make a
    Difference", 2024, https://arxiv.org/abs/2402.18512 (the protocol).
    Rusch and Rus, "Oscillatory State-Space Models" (LinOSS), 2025,
    https://arxiv.org/abs/2410.03943.
    Bagnall et al., "The UEA Multivariate Time Series Classification Archive", 2018,
    https://arxiv.org/abs/1811.00075.
    Tan et al., "Monash University, UEA, UCR Time Series Extrinsic Regression Archive", 2020,
    https://arxiv.org/abs/2006.10996.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, get_args

import jax
import jax.numpy as jnp
import numpy as np

import s5jax
from experiments.data.held_out import RowsSource
from experiments.data.sources import DEFAULT_PATHS, Batch, Files, Source, Split, digest
from experiments.data.tfds import missing
from experiments.data.time_series import read_time_series
from experiments.errors import UsageError
from experiments.tasks._task import Task, measure_classification
from experiments.tasks.archives.options import ArchiveOptions
from experiments.tasks.archives.sets import SeriesSet, has_missing, pad, read_set

TIME, OBSERVED = "time", " observed"


class Archive(Task):
    """Base class of sets of an archive, in the folder ``archive/NAME`` of the data.

    The inputs are, in this order, time (an option), the dimensions, and for sets with missing
    values a mask for each dimension, 1 where a value was observed. Missing values are zero; after
    standardisation, that is the mean.

    Args:
        options: the options; sizes that are 0 are replaced by their meaning.
        files: the folder of data sets.

    Raises:
        UsageError: if there is no name or no set of this name, if a file breaks a rule, or if the
            set is too small.
    """

    options_type = ArchiveOptions
    archive: ClassVar[str]
    """The name of the task, and the folder of its sets."""
    example: ClassVar[str]
    """The name of a set."""
    drop_repeated: ClassVar[bool]
    """Whether only the first of equal series is kept."""

    def __init__(self, options: ArchiveOptions, files: Files = DEFAULT_PATHS) -> None:
        super().__init__(options, files)
        self._fitted: int | None = None
        if not options.name:
            raise UsageError(
                "No set: choose one by its name, for example --data.name="
                f"{self.example}. `python -m experiments.data prepare --task={self.archive}` says "
                "where to get it."
            )
        self.options = self._resolve(options)
        self.length = self.series.x.shape[1]
        self.d_input = len(self._features)
        self.d_output = 1 if self.series.classes is None else len(self.series.classes)

    @classmethod
    def for_prediction(
        cls, options: Any, files: Files, model: Any, preprocessing: s5jax.Preprocessing
    ) -> "Archive":
        """Builds the task from the model and its preprocessing; needs no training file."""
        task = cls.without_data(options, files, preprocessing)
        task.d_input, task.d_output = model.d_input, model.d_output
        return task

    @functools.cached_property
    def series(self) -> SeriesSet:
        """All series of the set."""
        folder = self.files.data_dir / self.archive / self.options.name
        for part in ("TRAIN", "TEST"):
            name = f"{folder.name}_{part}.ts"
            if not (folder / name).is_file():
                raise missing(f"The file {name}", folder, self.files, task=self.archive)
        found = read_set(folder, drop_repeated=self.drop_repeated)
        if (found.classes is None) == ("accuracy" in self.measures):
            kinds = {True: ("values", "tser"), False: ("classes", "uea")}
            kind, task = kinds[found.classes is None]
            raise UsageError(
                f"{folder.name} has {kind} to learn, so it is a set of the task {task}: move "
                f"{folder} to {folder.parents[1] / task}, and set --task={task}."
            )
        return found

    @property
    def _features(self) -> tuple[str, ...]:
        """Names of the inputs."""
        if "preprocessing" in vars(self):
            return self.preprocessing.features or ()
        dimensions = [f"x{i + 1}" for i in range(self.series.x.shape[2])]
        masks = [name + OBSERVED for name in dimensions] if self.series.has_missing else []
        return (*([TIME] if self.options.time else []), *dimensions, *masks)

    def _resolve(self, options: ArchiveOptions) -> ArchiveOptions:
        """Replaces sizes that are 0 by shares of the set."""
        shares = {split: len(rows) for split, rows in self._shares(seed=0).items()}
        sizes = {split: options.n_examples(split) or n for split, n in shares.items()}
        if any(not 0 < sizes[split] <= shares[split] for split in shares):
            n = len(self.series.x)
            raise UsageError(
                f"{options.name} has {n} series, of which {_join(shares)} can be used, at least "
                f"one each; got {_join(sizes)}. Lower --data.n_train, --data.n_validation and "
                "--data.n_test, or leave them out."
            )
        return dataclasses.replace(options, **{f"n_{split}": n for split, n in sizes.items()})

    def _shares(self, *, seed: int) -> dict[Split, np.ndarray]:
        """Returns the rows of each split."""
        n = len(self.series.x)
        order = np.random.default_rng(seed).permutation(n)
        parts = np.split(order, [n * 70 // 100, n * 85 // 100])
        return dict(zip(get_args(Split), parts, strict=True))

    def _rows(self, split: Split, seed: int) -> np.ndarray:
        return np.sort(self._shares(seed=seed)[split][: self.options.n_examples(split)])

    @functools.cached_property
    def preprocessing(self) -> s5jax.Preprocessing:
        """Statistics of the training series: those of the latest source, at first of seed 0."""
        self._fitted = 0
        return self._fit(seed=0)

    def _fit(self, *, seed: int) -> s5jax.Preprocessing:
        known: dict[str, Any] = {"classes": self.series.classes, "features": self._features}
        if not self.options.standardise:
            return s5jax.Preprocessing(**known)
        rows, values = self._rows("train", seed), self.series.x
        mean, std = _moments(values[rows].reshape(-1, values.shape[2]))
        n_masks = sum(name.endswith(OBSERVED) for name in self._features)
        edges = (int(self.options.time), n_masks)
        if self.series.classes is None:
            targets = _moments(self.series.labels[rows, None])
            known |= dict(zip(("target_mean", "target_std"), targets, strict=True))
        return s5jax.Preprocessing(
            input_mean=np.pad(mean, edges), input_std=np.pad(std, edges, constant_values=1), **known
        )

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes in the order of the header; None for regression."""
        known = "preprocessing" in vars(self)
        return self.preprocessing.classes if known else self.series.classes

    @property
    def note(self) -> str:
        """The sizes of the set, and its classes."""
        series, options = self.series, self.options
        splits = {split: options.n_examples(split) for split in get_args(Split)}
        lines = [f"{options.name}: {_join(splits)} series of up to {self.length:,} steps"]
        if series.n_repeated:
            lines.append(f"{series.n_repeated} series that are equal to others are left out")
        if series.classes:
            counts = np.bincount(series.labels, minlength=len(series.classes)).tolist()
            counted = _join(dict(zip(series.classes, counts, strict=True)))
            lines.append(f"series of each class: {counted}")
        return "\n".join(lines)

    def fingerprint(self, *, seed: int) -> dict[str, Any]:
        """Returns sizes and a digest of all series."""
        del seed
        x, labels = self.series.x, self.series.labels
        return {"examples": len(x), "steps": self.length, "sha256": digest({"x": x, "y": labels})}

    def source(self, split: Split, *, seed: int) -> Source:
        """Returns the series of a split, which depends on the seed; fits the preprocessing to it.

        A preprocessing that was saved with a model stays as it is.
        """
        if "preprocessing" not in vars(self) or self._fitted not in (None, seed):
            vars(self).pop("preprocessing", None)
            self._fitted, self.preprocessing = seed, self._fit(seed=seed)
            vars(self).pop("_columns", None)
        return RowsSource(self._rows(split, seed), **self._columns)

    @functools.cached_property
    def _columns(self) -> dict[str, np.ndarray]:
        """All series as columns for training."""
        series, p = self.series, self.preprocessing
        y = series.labels
        if series.classes is None:
            y = ((y[:, None] - p.target_mean) / np.asarray(p.target_std)).astype(np.float32)
        return {**self._inputs_of(series.x, series.lengths), "y": y}

    def _inputs_of(self, x: np.ndarray, lengths: np.ndarray | None) -> dict[str, np.ndarray]:
        """Standardises padded series, and puts zeros in the place of NaN."""
        p, dimensions = self.preprocessing, self._dimensions
        columns = {} if lengths is None else {"length": lengths}
        if self._features[-1].endswith(OBSERVED):
            columns["observed"] = ~np.isnan(x)
        if p.input_mean != 0.0 or p.input_std != 1.0:
            mean, std = np.asarray(p.input_mean)[dimensions], np.asarray(p.input_std)[dimensions]
            x = np.stack([((row - mean) / std).astype(np.float32) for row in x])
        return {"x": np.nan_to_num(x) if np.isnan(x).any() else x, **columns}

    @property
    def _dimensions(self) -> np.ndarray:
        """The indices of the inputs that are dimensions of the series."""
        names = self._features
        return np.array([i for i, n in enumerate(names) if n != TIME and OBSERVED not in n])

    def read_examples(self, path: Path) -> dict[str, np.ndarray]:
        """Reads series from a ``.ts`` file, with or without labels."""
        values = read_time_series(path).values
        if values[0].shape[1] != len(self._dimensions):
            raise UsageError(
                f"{path} must have {len(self._dimensions)} dimensions, as in training; got "
                f"{values[0].shape[1]}."
            )
        x, lengths = pad(path, values)
        if has_missing(x, lengths) and not self._features[-1].endswith(OBSERVED):
            raise UsageError(
                f"{path} must have no missing values, as there were none in training: fill them in."
            )
        return self._inputs_of(x, lengths)

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns ``u``, and ``lengths`` if the series have different ones."""
        x, lengths = batch["x"], batch.get("length")
        L = x.shape[1]
        parts = [x]
        if self._features[0] == TIME:
            ends = jnp.full(len(x), L) if lengths is None else lengths
            time = jnp.arange(L, dtype=x.dtype) / ends[:, None].astype(x.dtype)
            parts = [jnp.minimum(time, 1)[..., None], x]
        if "observed" in batch:
            parts.append(batch["observed"].astype(x.dtype))
        u = jnp.concatenate(parts, axis=-1)
        return {"u": u} if lengths is None else {"u": u, "lengths": lengths}

    def present(self, outputs: np.ndarray) -> np.ndarray:
        """Converts values to the units of the set."""
        return np.asarray(self.preprocessing.restore(np.asarray(outputs, np.float64)))


class UEA(Archive):
    """Classification of a series: the sets of the UEA and UCR archives."""

    archive, example, drop_repeated = "uea", "EigenWorms", True

    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Returns cross entropy and accuracy."""
        return measure_classification(outputs, batch["y"])


class TSER(Archive):
    """Regression of a value per series: the sets of the TSER archive.

    The loss is the mean squared error of the targets, standardised if the options say so; ``rmse``
    is its root in the units of the set.
    """

    archive, example, drop_repeated = "tser", "BIDMC32HR", False
    measures, metric, larger_is_better = ("loss", "rmse"), "rmse", False

    @property
    def quantities(self) -> dict[str, tuple[int, ...]]:
        """The squared error."""
        return {"loss": ()}

    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Returns the squared error of each series."""
        return {"loss": jnp.mean((outputs - batch["y"]) ** 2, axis=-1)}

    def report(self, means: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Computes the root of the mean squared error in the units of the set."""
        loss = float(means["loss"])
        return {"loss": loss, "rmse": loss**0.5 * np.asarray(self.preprocessing.target_std).item()}


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and deviation of each column without its NaN; a constant is not scaled."""
    known = ~np.isnan(values)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.sum(values, axis=0, dtype=np.float64, where=known) / count
    std = np.sqrt(np.sum((values - mean) ** 2, axis=0, dtype=np.float64, where=known) / count)
    return mean, np.where(std > 8 * np.finfo(np.float32).eps * np.abs(mean), std, 1.0)


def _join(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in counts.items())
