"""What the training system needs to know of a task."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.errors import check_positive, pick

Split = Literal["train", "validation", "test"]
Batch = Mapping[str, Any]


class Source(Protocol):
    """Random access to the examples of one split; safe to read from many threads."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, np.ndarray | np.generic]: ...


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

    ``inputs`` and ``measure`` run on the device, inside the jitted step; ``source`` runs on the
    host, in the threads of the input pipeline.
    """

    options_type: ClassVar[type[DataOptions]]
    encoder: ClassVar[Literal["linear", "embedding"]] = "linear"
    measures: ClassVar[tuple[str, ...]] = ("loss", "accuracy")
    """The names of the measures."""
    metric: ClassVar[str] = "accuracy"
    """The measure by which the best checkpoint is chosen; larger is better."""

    d_input: int
    """Features of an input step, or the size of the vocabulary."""
    d_output: int
    """Outputs, for a classification task the number of classes."""
    length: int
    """The longest sequence [steps]."""

    @abc.abstractmethod
    def __init__(self, options: Any) -> None:
        """Takes options of the class ``options_type``."""

    @abc.abstractmethod
    def source(self, split: Split, *, seed: int) -> Source:
        """The examples of a split; example ``i`` is a pure function of (seed, split, i)."""

    @abc.abstractmethod
    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """The model's arguments: ``u`` and, where the task has them, ``lengths`` and ``dt``."""

    @abc.abstractmethod
    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """The measures, one value an example; ``loss`` is minimised."""


def measure_classification(logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    r"""Cross entropy and accuracy of each example.

    .. math:: \ell = -\log \mathrm{softmax}(z)_y

    Args:
        logits: scores :math:`z`, shape ``(B, d_output)``.
        labels: classes :math:`y`, integers of shape ``(B,)``.

    Returns:
        ``loss`` and ``accuracy``, each float32 of shape ``(B,)``.
    """
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    accuracy = jnp.argmax(logits, axis=-1) == labels
    return {"loss": loss.astype(jnp.float32), "accuracy": accuracy.astype(jnp.float32)}
