"""What the training system needs to know of a task."""

import abc
import dataclasses
import functools
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

import s5jax
from experiments.errors import check_positive, pick
from experiments.files import user_path
from experiments.tasks._readers import read_npz

Split = Literal["train", "validation", "test"]
Head = Literal["classify", "match", "label", "language", "image_regression"]
Batch = Mapping[str, Any]
DATA_DIR = Path(os.path.expanduser(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"))


@dataclasses.dataclass(frozen=True)
class Files:
    """Where data sets lie on this machine; no number of a run depends on it.

    Attributes:
        data_dir: folder of the data sets.
        download: whether what is missing may be fetched from its publisher.
    """

    data_dir: Path = DATA_DIR
    download: bool = False

    def __post_init__(self) -> None:
        if self.data_dir != DATA_DIR:
            object.__setattr__(self, "data_dir", user_path(self.data_dir))


HERE = Files()


class Source(abc.ABC):
    """Random access to the examples of one split; safe to read from many threads.

    Names of columns are singular: ``image``, ``label``. Every batch also gets the columns ``index``
    and ``epoch``, int32, from the input pipeline.
    """

    ordered: ClassVar[bool] = False
    """Whether training takes the examples in their own order, not in a new one each epoch."""
    in_memory: ClassVar[bool] = False
    """Whether they lie in memory, the same in each epoch, so that a device may hold them all."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """The number of examples."""

    @abc.abstractmethod
    def __getitem__(self, index: int, /) -> Mapping[str, np.ndarray | np.generic]:
        """One example."""

    def batch(self, indices: np.ndarray, *, epoch: int) -> dict[str, np.ndarray]:
        """Several examples, stacked along a new first axis.

        Args:
            indices: which examples, integers of shape ``(B,)``.
            epoch: how often the run has gone through the split; for sources that draw anew.
        """
        del epoch
        examples = [self[i] for i in indices.tolist()]
        return {name: np.stack([example[name] for example in examples]) for name in examples[0]}


class BatchSource(Source):
    """A source that defines batches; one example is a batch of one."""

    def __getitem__(self, index: int, /) -> Mapping[str, np.ndarray | np.generic]:
        return {name: column[0] for name, column in self.batch(np.array([index]), epoch=0).items()}

    @abc.abstractmethod
    def batch(self, indices: np.ndarray, *, epoch: int) -> dict[str, np.ndarray]:
        """Several examples."""


class ArraySource(BatchSource):
    """Examples that are rows of arrays in memory.

    Args:
        **columns: arrays with one row an example.

    Example:
        >>> source = ArraySource(x=np.arange(6).reshape(3, 2), label=np.arange(3))
        >>> source.batch(np.array([2, 0]), epoch=0)["x"].tolist()
        [[4, 5], [0, 1]]
    """

    in_memory = True

    def __init__(self, **columns: np.ndarray) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def batch(self, indices: np.ndarray, *, epoch: int) -> dict[str, np.ndarray]:
        """Rows of the arrays."""
        del epoch
        return {name: column[indices] for name, column in self.columns.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Data: what every task has."""

    n_train: int
    """Training examples."""
    n_validation: int
    """Validation examples, by which the best checkpoint is chosen."""
    n_test: int
    """Test examples, used once, at the end."""

    def __post_init__(self) -> None:
        sizes = {f"n_{split}": self.n_examples(split) for split in get_args(Split)}
        check_positive(self, **sizes)

    def n_examples(self, split: Split) -> int:
        """The number of examples of a split."""
        sizes = {"train": self.n_train, "validation": self.n_validation, "test": self.n_test}
        return pick("split", split, sizes)


class Task(abc.ABC):
    """Where data come from, how a batch enters the model, and what is measured.

    ``source`` runs on the host, in the threads of the input pipeline; ``expand``, ``inputs`` and
    ``measure`` run on the device, inside the jitted step; ``report`` runs on the host again.

    Args:
        options: options of the class ``options_type``.
        files: where data sets lie.
    """

    options_type: ClassVar[type[DataOptions]]
    head: Head = "classify"
    """What the model puts out: one vector a sequence, one of two sequences, one a step, the logits
    of the next token, or mean and variance of a step that is an image."""
    encoder: Literal["linear", "tokens"] = "linear"
    """Whether input steps are vectors or integers."""
    causal: ClassVar[bool] = False
    """Whether outputs must not depend on later inputs."""
    measures: tuple[str, ...] = ("loss", "accuracy")
    """The names of what is reported."""
    metric: str = "accuracy"
    """The measure by which the best checkpoint is chosen."""
    larger_is_better: bool = True
    """Of the metric."""

    d_input: int
    """Features of an input step, or the size of the vocabulary."""
    d_output: int
    """Outputs, for a classification task the number of classes."""
    length: int
    """The longest sequence [steps]."""
    irregular: bool = False
    """Whether ``inputs`` has step lengths ``dt``, which continuous-time layers take."""
    input_moments: tuple[Any, Any] = (0.0, 1.0)
    """What ``inputs`` subtracts from the values of the data set, and what it then divides by."""

    def __init__(self, options: Any, files: Files = HERE) -> None:
        self.options, self.files = options, files

    @classmethod
    def for_prediction(
        cls, options: Any, files: Files, model: Any, preprocessing: s5jax.Preprocessing
    ) -> "Task":
        """The task of a finished run; prepares inputs as in training, without training data.

        Args:
            options: those of the run.
            files: where data sets lie.
            model: the trained model.
            preprocessing: what the run saved with it.
        """
        del model
        task = cls(options, files)
        task.preprocessing = preprocessing
        return task

    @functools.cached_property
    def preprocessing(self) -> s5jax.Preprocessing:
        """What the trained model needs to know of its data, and is saved with."""
        mean, std = self.input_moments
        return s5jax.Preprocessing(input_mean=mean, input_std=std, classes=self.classes)

    def fingerprint(self, *, seed: int) -> dict[str, Any]:
        """What tells these data from others; empty if they are drawn.

        Args:
            seed: the seed of the run.
        """
        source = self.source("train", seed=seed)
        if not source.in_memory:
            return {}
        rows = np.linspace(0, len(source) - 1, min(len(source), 16)).astype(int)
        return {"examples": len(source), "sha256": digest(source.batch(rows, epoch=0))}

    @abc.abstractmethod
    def source(self, split: Split, *, seed: int) -> Source:
        """The examples of a split; example ``i`` is a pure function of (seed, split, i)."""

    @property
    def note(self) -> str:
        """What a reader of the figures must know; said before training."""
        return ""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the outputs if they are logits of classes, else None."""
        return tuple(map(str, range(self.d_output))) if "accuracy" in self.measures else None

    @property
    def quantities(self) -> dict[str, tuple[int, ...]]:
        """What ``measure`` returns: the shape of each quantity, without the axis of examples."""
        return dict.fromkeys(self.measures, ())

    def read_examples(self, path: Path) -> dict[str, np.ndarray]:
        """What ``inputs`` needs of a user's own file: columns with one row an example, no labels.

        Without a method of its own a task reads what ``experiments.data sample`` writes.

        Raises:
            UsageError: if the file cannot be read, or holds something else.
        """
        arrays = read_npz(path).items()
        return {name.removesuffix("s"): array for name, array in arrays if array.ndim > 0}

    def present(self, outputs: np.ndarray) -> np.ndarray:
        """The outputs as a user wants to see them: logits, or values in the units of the data."""
        return outputs

    def expand(self, batch: Batch) -> Batch:
        """What the device makes of a batch first: for tasks that draw their data there."""
        return batch

    @abc.abstractmethod
    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """The model's arguments: ``u`` and, where the task has them, ``lengths`` and ``dt``."""

    @abc.abstractmethod
    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Quantities with one entry an example, axis 0; the mean of ``loss`` is minimised.

        In evaluation ``batch["mask"]`` is False for repeated examples that only fill the batch.
        """

    def report(self, means: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The ``measures``, from the means of all quantities over the examples."""
        return {name: float(means[name]) for name in self.measures}


def absolute_path(path: str) -> str:
    """A path that is the same from any folder; a leading ``~`` stands for the home folder."""
    return os.path.abspath(os.path.expanduser(path))  # Path.expanduser fails where there is no home


def digest(columns: Mapping[str, np.ndarray]) -> str:
    """The SHA-256 of named arrays: of their types, shapes and values."""
    found = hashlib.sha256()
    for name, column in sorted(columns.items()):
        found.update(f"{name} {column.dtype.str} {column.shape}".encode())
        found.update(np.ascontiguousarray(column).data)
    return found.hexdigest()


def measure_classification(logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    r"""Cross entropy and accuracy of each example.

    .. math:: \ell = -\log \mathrm{softmax}(z)_y

    Args:
        logits: scores :math:`z`, shape ``(B, d_output)``.
        labels: classes :math:`y`, integers of shape ``(B,)``.

    Returns:
        ``loss`` and ``accuracy``, each float32 of shape ``(B,)``; NaN for a label that is not a
        class.
    """
    loss = cross_entropy(logits, labels)
    accuracy = jnp.argmax(logits, axis=-1) == labels
    accuracy = jnp.where(_is_class(labels, logits), accuracy, jnp.nan)
    return {"loss": loss.astype(jnp.float32), "accuracy": accuracy.astype(jnp.float32)}


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    r"""Cross entropy of integer labels; NaN, with its gradient, of a label that is not a class.

    Args:
        logits: scores, shape ``(*batch, n)``.
        labels: classes, integers of shape ``(*batch,)``.

    Returns:
        Losses, shape ``(*batch,)``.

    Example:
        >>> jnp.isnan(cross_entropy(jnp.zeros((3, 2)), jnp.array([1, 2, -1]))).tolist()
        [False, True, True]
    """
    known = _is_class(labels, logits)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(known, labels, 0))
    return losses * jnp.where(known, 1, jnp.nan)


def _is_class(labels: jax.Array, logits: jax.Array) -> jax.Array:
    labels = labels.astype(int)
    return (labels >= 0) & (labels < logits.shape[-1])


def decimate(inputs: Mapping[str, jax.Array], every: int) -> dict[str, jax.Array]:
    """Another sampling rate, without a filter: some steps of each sequence, and the others' time.

    Args:
        inputs: what ``Task.inputs`` gave, ``u`` of shape ``(*batch, L, d_input)``.
        every: of how many steps the first one is kept.

    Returns:
        The same with ``ceil(L / every)`` steps, and with ``dt``.

    Example:
        >>> inputs = decimate({"u": jnp.arange(5.0)[None, :, None]}, every=2)
        >>> inputs["u"][0, :, 0].tolist(), inputs["dt"]
        ([0.0, 2.0, 4.0], 2.0)
    """
    kept: dict[str, Any] = {**inputs, "u": inputs["u"][..., ::every, :], "dt": float(every)}
    if "lengths" in inputs:
        kept["lengths"] = -(-inputs["lengths"] // every)
    if "dt" in inputs:
        times = jnp.cumsum(inputs["dt"], axis=-1)[..., ::every]
        kept["dt"] = jnp.diff(times, prepend=0)
    return kept


@functools.lru_cache(maxsize=4)
def published_order(n: int, seed: int = 42) -> np.ndarray:
    """The permutation of ``torch.randperm(n)`` under ``torch.manual_seed(seed)``.

    The loaders of S4, S5, SGConv and HOPE split with it: the first part is for training, the rest
    for validation.

    Args:
        n: number of examples.
        seed: seed of the Mersenne Twister.

    Returns:
        Integers of shape ``(n,)``.

    Example:
        >>> published_order(10).tolist()
        [2, 6, 1, 8, 4, 5, 0, 9, 3, 7]
    """
    bits = np.random.MT19937()
    bits._legacy_seeding(seed)
    draws = bits.random_raw(n - 1).astype(np.int64) % np.arange(n, 1, -1)
    order = np.arange(n)
    for i, draw in enumerate(draws.tolist()):
        order[i], order[i + draw] = order[i + draw], order[i]
    return order
