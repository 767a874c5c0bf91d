"""The interface between tasks and the training system."""

import abc
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax

import s5jax
from experiments.data.readers import read_npz
from experiments.data.sources import DEFAULT_PATHS, Batch, DataOptions, Files, Source, Split, digest
from experiments.errors import UsageError

Head = Literal["classify", "match", "label", "language", "image_regression"]


class Task(abc.ABC):
    """The data of a task, the inputs of the model, and the measures.

    ``source`` runs on the host, in the threads of the input pipeline; ``expand``, ``inputs`` and
    ``measure`` run on the device, inside the jitted step; ``report`` runs on the host again.

    Args:
        options: an instance of ``options_type``.
        files: the folder of data sets.
    """

    options_type: ClassVar[type[DataOptions]]
    head: Head = "classify"
    """The output of the model: one vector per sequence, one per pair of sequences, one per step,
    the logits of the next token, or the mean and variance at each image."""
    encoder: Literal["linear", "tokens"] = "linear"
    """The kind of input steps: vectors or integers."""
    causal: bool = False
    """Whether outputs must not depend on later inputs."""
    measures: tuple[str, ...] = ("loss", "accuracy")
    """The names of the reported measures."""
    metric: str = "accuracy"
    """The measure that selects the best checkpoint."""
    larger_is_better: bool = True
    """Whether a larger metric is better."""

    d_input: int
    """The number of features of an input step, or the size of the vocabulary."""
    d_output: int
    """The number of outputs, which is the number of classes in a classification task."""
    length: int
    """The longest sequence [steps]."""
    irregular: bool = False
    """Whether ``inputs`` has step lengths ``dt``, for continuous-time layers."""
    mask_share: ClassVar[float] = 0.5
    """The share of steps that pretraining masks."""
    full_scale: ClassVar[float] = 1.0
    """The number that stands for the loudest sample of a sound."""
    input_moments: tuple[Any, Any] = (0.0, 1.0)
    """The mean and the deviation by which ``inputs`` standardises the values of the data set."""

    def __init__(self, options: Any, files: Files = DEFAULT_PATHS) -> None:
        self.options, self.files = options, files

    @classmethod
    def for_prediction(
        cls, options: Any, files: Files, model: Any, preprocessing: s5jax.Preprocessing
    ) -> "Task":
        """Builds the task of a finished run, which prepares inputs without the training data.

        Args:
            options: the options of the run.
            files: the folder of data sets.
            model: the trained model.
            preprocessing: the preprocessing that was saved with the model.
        """
        del model
        task = cls(options, files)
        task.preprocessing = preprocessing
        return task

    @classmethod
    def without_data(cls, options: Any, files: Files, preprocessing: s5jax.Preprocessing) -> Self:
        """Builds a task whose constructor reads data, without them; the caller sets the sizes."""
        task = cls.__new__(cls)
        Task.__init__(task, options, files)
        task.preprocessing = preprocessing
        return task

    @functools.cached_property
    def preprocessing(self) -> s5jax.Preprocessing:
        """The preprocessing that the trained model needs, and is saved with."""
        mean, std = self.input_moments
        return s5jax.Preprocessing(input_mean=mean, input_std=std, classes=self.classes)

    def use_preprocessing(self, preprocessing: s5jax.Preprocessing) -> None:
        """Prepares inputs as a trained model needs them, instead of by the task's own data.

        Raises:
            UsageError: if the data do not fit the model.
        """
        if self.classes != preprocessing.classes:
            raise UsageError(
                f"The data have the classes {', '.join(self.classes or ())}, and the model was "
                f"trained on {', '.join(preprocessing.classes or ())}: evaluate it on data with "
                "these classes."
            )
        self.preprocessing = preprocessing

    def fingerprint(self, *, seed: int) -> dict[str, Any]:
        """Returns values that identify the data; empty for synthetic data.

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
        """Returns the examples of a split; example ``i`` is a function of (seed, split, i)."""

    @property
    def note(self) -> str:
        """A remark on the results, printed before training."""
        return ""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes, or None if the outputs are not logits of classes."""
        return tuple(map(str, range(self.d_output))) if "accuracy" in self.measures else None

    @property
    def quantities(self) -> dict[str, tuple[int, ...]]:
        """The shape of each quantity of ``measure``, without the axis of examples."""
        return dict.fromkeys(self.measures, ())

    def read_examples(self, path: Path) -> dict[str, np.ndarray]:
        """Reads the columns that ``inputs`` needs from a user's file, without labels.

        By default a task reads files that ``experiments.data sample`` writes.

        Raises:
            UsageError: if the file cannot be read, or has other contents.
        """
        arrays = read_npz(path).items()
        return {name.removesuffix("s"): array for name, array in arrays if array.ndim > 0}

    def present(self, outputs: np.ndarray) -> np.ndarray:
        """Converts outputs for the user: logits, or values in the units of the data."""
        return outputs

    def expand(self, batch: Batch) -> Batch:
        """Expands a batch on the device, for tasks that draw their data there."""
        return batch

    @abc.abstractmethod
    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns the model's arguments: ``u``, and ``lengths`` and ``dt`` if there are any."""

    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Returns quantities with one entry per example, axis 0; by default for classification.

        The mean of ``loss`` is minimised. In evaluation ``batch["mask"]`` is False for repeated
        examples that only fill the batch.
        """
        return measure_classification(outputs, batch["label"])

    @property
    def shown(self) -> tuple[str, ...]:
        """The measures in the lines of a run's progress; all of them are recorded."""
        return self.measures

    def report(self, means: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Computes the ``measures`` from the means of all quantities over the examples."""
        return {name: float(means[name]) for name in self.measures}


def token_inputs(batch: Batch) -> dict[str, jax.Array]:
    """Returns tokens ``u`` of shape ``(B, length)``, and ``lengths`` without padding."""
    return {"u": batch["token"].astype(jnp.int32), "lengths": batch["length"]}


def measure_classification(logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    r"""Computes cross entropy and accuracy of each example.

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
    r"""Computes the cross entropy of integer labels; NaN for a label that is not a class.

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
    """Lowers the sampling rate without a filter: keeps every n-th step, with a longer ``dt``.

    Args:
        inputs: the result of ``Task.inputs``, with ``u`` of shape ``(*batch, L, d_input)``.
        every: the number n.

    Returns:
        The inputs with ``ceil(L / every)`` steps, and with ``dt``.

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
