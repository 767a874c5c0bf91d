r"""The eleven atomic tasks of the DLR paper, drawn on the device, at any length.

The host hands out one random key an example; the step draws the example from it. In training the
epoch is folded in, so that no example comes twice; in evaluation examples are always the same.

The metric is the coefficient of determination of a whole split,

.. math:: R^2 = 1 - \frac{E\,(\hat y - y)^2}{\max(E\,y^2 - (E\,y)^2, 10^{-5})}

where the official code takes it batch by batch, with the same bound, and averages.

References:
    Gupta, Mehta and Berant, "Simplifying and Understanding State Space Models with Diagonal Linear
    RNNs", 2022, https://arxiv.org/abs/2212.00768.
"""

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar, get_args

import jax
import jax.numpy as jnp
import numpy as np

from experiments.errors import check_positive
from experiments.tasks import _atomic_rules as rules
from experiments.tasks._atomic_rules import Example
from experiments.tasks._task import HERE, Batch, DataOptions, Files, Source, Split, Task

MIN_VARIANCE = 1e-5
PRNG = "threefry2x32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AtomicOptions(DataOptions):
    """Data: how long the signals are, and how many."""

    n_train: int = 14_400
    """Training examples of an epoch."""
    n_validation: int = 1_600
    """Validation examples, by which the best checkpoint is chosen."""
    n_test: int = 1_600
    """Test examples, used once, at the end."""
    length: int = 4_096
    """Values of a signal; reverse and sort read as many zeros after it."""
    n_shifts: int = 8
    """Delays of shift, evenly spaced."""
    n_marked: int = 32
    """Marked values of masked_select, which has that many steps more at both ends."""
    d_mips: int = 4
    """Features of the queries, keys and values of mips."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, n_shifts=self.n_shifts, n_marked=self.n_marked, d_mips=self.d_mips)
        if self.length < max(4, self.n_shifts):
            raise ValueError(
                "AtomicOptions: `length` must be at least 4 and at least `n_shifts`; got "
                f"length={self.length}, n_shifts={self.n_shifts}."
            )


class KeySource(Source):
    """One key an example, a pure function of (seed, split, i).

    Args:
        seed: seed of the whole data set.
        split: which of three independent streams.
        n_examples: number of examples.

    Example:
        >>> KeySource(seed=0, split="test", n_examples=9)[3]
        {'key': array([3842683572, 1451993361], dtype=uint32)}
    """

    def __init__(self, *, seed: int, split: Split, n_examples: int) -> None:
        self._stream, self._n_examples = (seed, get_args(Split).index(split)), n_examples

    def __len__(self) -> int:
        return self._n_examples

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"key": np.random.SeedSequence((*self._stream, index)).generate_state(2)}


class Atomic(Task):
    """Base class: regression of the last ``l_output`` outputs of a causal model."""

    options_type = AtomicOptions
    head = "label"
    causal = True
    measures = ("loss", "r2")
    metric = "r2"
    d_input = 3
    d_output = 1

    def __init__(self, options: AtomicOptions, files: Files = HERE) -> None:
        super().__init__(options, files)
        self.length = self.l_output = options.length

    @abc.abstractmethod
    def draw(self, key: jax.Array) -> Example:
        """One example: ``(length, d_input)`` and ``(l_output, d_output)``."""

    @property
    def quantities(self) -> dict[str, tuple[int, ...]]:
        """The squared error, and two moments of the targets."""
        return {"loss": (), "y": (), "y_squared": ()}

    def source(self, split: Split, *, seed: int) -> Source:
        """Keys of the examples."""
        return KeySource(seed=seed, split=split, n_examples=self.options.n_examples(split))

    def expand(self, batch: Batch) -> Batch:
        """Draws ``x`` of shape ``(B, length, d_input)`` and ``y``, ``(B, l_output, d_output)``."""
        keys = jax.random.wrap_key_data(batch["key"], impl=PRNG)
        x, y = jax.vmap(self.draw)(jax.vmap(jax.random.fold_in)(keys, batch["epoch"]))
        return {**batch, "x": x, "y": y}

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """The drawn input."""
        return {"u": batch["x"]}

    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Mean squared error, mean target and mean squared target of each example."""
        y = batch["y"]
        error = outputs[:, -self.l_output :] - y
        values = {"loss": error**2, "y": y, "y_squared": y**2}
        return {name: value.mean((1, 2), dtype=jnp.float32) for name, value in values.items()}

    def report(self, means: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The loss, and from all examples together the coefficient of determination."""
        variance = max(float(means["y_squared"]) - float(means["y"]) ** 2, MIN_VARIANCE)
        loss = float(means["loss"])
        return {"loss": loss, "r2": 1 - loss / variance}


class Shift(Atomic):
    """The signal under several delays at once."""

    def __init__(self, options: AtomicOptions, files: Files = HERE) -> None:
        super().__init__(options, files)
        self.d_output = options.n_shifts

    def draw(self, key: jax.Array) -> Example:
        """A signal and its delays."""
        return rules.shift(draw_signal(key, self.length), self.d_output)


class ContextShift(Atomic):
    """The signal under the delay that its beginning tells."""

    def draw(self, key: jax.Array) -> Example:
        """A signal and a delay from 0 to L - 3."""
        signal_key, delay_key = jax.random.split(key)
        delay = jax.random.randint(delay_key, (), 0, self.length - 2)
        return rules.context_shift(draw_signal(signal_key, self.length - 2), delay)


class Cumsum(Atomic):
    """Sums of the signal so far, divided by the root of their number."""

    def draw(self, key: jax.Array) -> Example:
        """A signal and its sums."""
        return rules.cumsum(draw_signal(key, self.length))


class Cummax(Atomic):
    """Maxima of the signal so far."""

    def draw(self, key: jax.Array) -> Example:
        """A signal and its maxima."""
        return rules.cummax(draw_signal(key, self.length))


class Reverse(Atomic):
    """The signal backward, after it has ended."""

    def __init__(self, options: AtomicOptions, files: Files = HERE) -> None:
        super().__init__(options, files)
        self.length = 2 * options.length

    def draw(self, key: jax.Array) -> Example:
        """A signal and its reversal."""
        return rules.reverse(draw_signal(key, self.l_output))


class Sort(Reverse):
    """The signal in the order of the distances from its first value, after it has ended."""

    def draw(self, key: jax.Array) -> Example:
        """A signal and what it is when sorted."""
        return rules.sort(draw_signal(key, self.l_output))


class MaskedSelect(Atomic):
    """Marked values of the signal, in their order, after it has ended."""

    d_input = 4
    fixed: ClassVar[bool] = False
    """Whether the same values are marked in all examples of all runs."""

    def __init__(self, options: AtomicOptions, files: Files = HERE) -> None:
        super().__init__(options, files)
        self.l_output = options.n_marked
        self.length = options.length + 2 * options.n_marked

    def draw(self, key: jax.Array) -> Example:
        """A signal and which of its values are marked."""
        signal_key, mark_key = jax.random.split(key)
        mark_key = jax.random.key(0, impl=PRNG) if self.fixed else mark_key
        n = self.length - self.l_output
        _, positions = jax.lax.top_k(jax.random.bits(mark_key, (n,)), self.l_output)
        return rules.masked_select(draw_signal(signal_key, n), jnp.sort(positions))


class MaskedSelectFixed(MaskedSelect):
    """Masked selection with the same marks in all examples of all runs."""

    fixed = True


class Solve(Atomic):
    """Linear equations with an orthogonal matrix.

    The official code takes the orthogonal factor of a Gaussian matrix's polar decomposition. It is
    uniform on the orthogonal group, and so is that of its QR decomposition with a positive
    diagonal, which is cheaper: `jax.random.orthogonal`.
    """

    fixed: ClassVar[bool] = False
    """Whether the matrix is the same in all examples of all runs."""

    def __init__(self, options: AtomicOptions, files: Files = HERE) -> None:
        super().__init__(options, files)
        self.l_output = math.isqrt(options.length + 1) - 1  # the largest N with N (N + 2) <= L

    def draw(self, key: jax.Array) -> Example:
        """A matrix and a solution."""
        matrix_key, solution_key = jax.random.split(key)
        matrix_key = jax.random.key(0, impl=PRNG) if self.fixed else matrix_key
        A = jax.random.orthogonal(matrix_key, self.l_output)
        return rules.solve(A, draw_unit_vectors(solution_key, self.l_output), self.length)


class SolveFixed(Solve):
    """Linear equations with the same matrix in all examples of all runs."""

    fixed = True


class Mips(Atomic):
    """Maximum inner product search: the value of the key so far that is nearest to a query."""

    def __init__(self, options: AtomicOptions, files: Files = HERE) -> None:
        super().__init__(options, files)
        self.d_input, self.d_output = 3 * options.d_mips + 2, options.d_mips

    def draw(self, key: jax.Array) -> Example:
        """Queries, keys and values."""
        vectors = draw_unit_vectors(key, 3, self.length, self.d_output)
        return rules.mips(*vectors)


def draw_signal(key: jax.Array, length: int) -> jax.Array:
    """Normal noise of shape ``(length,)``, divided by its largest magnitude."""
    s = jax.random.normal(key, (length,))
    return s / jnp.max(jnp.abs(s))


def draw_unit_vectors(key: jax.Array, *shape: int) -> jax.Array:
    """Vectors along the last axis of ``shape``, uniform on the unit sphere."""
    v = jax.random.normal(key, shape)
    return v / jnp.linalg.norm(v, axis=-1, keepdims=True)


ATOMIC: dict[str, type[Atomic]] = {
    "shift": Shift,
    "context_shift": ContextShift,
    "cumsum": Cumsum,
    "cummax": Cummax,
    "reverse": Reverse,
    "sort": Sort,
    "masked_select": MaskedSelect,
    "masked_select_fixed": MaskedSelectFixed,
    "solve": Solve,
    "solve_fixed": SolveFixed,
    "mips": Mips,
}
