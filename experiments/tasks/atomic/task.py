r"""The eleven atomic tasks of the DLR paper, drawn on the device, at any length.

The host passes one random key per example, and the step draws the example from it. In training the
epoch is folded into the key, so that no example is repeated. In evaluation the examples are always
the same.

The metric is the coefficient of determination of a whole split,

.. math:: R^2 = 1 - \frac{E\,(\hat y - y)^2}{\max(E\,y^2 - (E\,y)^2, 10^{-5})}

The official code averages the coefficients of batches, with the same bound.

References:
    Gupta et al., "DLR", 2022, https://arxiv.org/abs/2212.00768.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.sources import (
    DEFAULT_PATHS,
    Batch,
    DataOptions,
    DrawnSource,
    Files,
    Source,
    Split,
)
from experiments.errors import check_positive
from experiments.tasks._task import Task
from experiments.tasks.atomic import rules as rules
from experiments.tasks.atomic.rules import Example

MIN_VARIANCE = 1e-5
PRNG = "threefry2x32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AtomicOptions(DataOptions):
    """Data: the length and the number of signals."""

    n_train: int = 14_400
    """Training examples per epoch."""
    n_validation: int = 1_600
    n_test: int = 1_600
    length: int = 4_096
    """Length of a signal; the inputs of reverse and sort have the same number of zeros after it."""
    n_shifts: int = 8
    """Number of evenly spaced delays of shift."""
    n_marked: int = 32
    """Number of marked values of masked_select; its inputs are longer by twice that number."""
    d_mips: int = 4
    """Features of queries, keys and values of mips."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, n_shifts=self.n_shifts, n_marked=self.n_marked, d_mips=self.d_mips)
        if self.length < max(4, self.n_shifts):
            raise ValueError(
                "AtomicOptions: `length` must be at least 4 and at least `n_shifts`; got "
                f"length={self.length}, n_shifts={self.n_shifts}."
            )


class KeySource(DrawnSource):
    """One random key per example.

    Example:
        >>> KeySource(None, seed=0, split="test", n_examples=9)[3]
        {'key': array([3842683572, 1451993361], dtype=uint32)}
    """

    def draw_columns(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Draws two words for each example."""
        streams = [(self.seed, self.stream, index) for index in indices.tolist()]
        return {"key": np.stack([np.random.SeedSequence(s).generate_state(2) for s in streams])}


class Atomic(Task):
    """Base class of regressions on the last ``l_output`` outputs of a causal model."""

    options_type = AtomicOptions
    head = "label"
    causal = True
    measures = ("loss", "r2")
    metric = "r2"
    d_input = 3
    d_output = 1
    rule: ClassVar[Callable[[jax.Array], Example]]
    """Maps a signal to an example, for tasks that draw nothing else."""

    def __init__(self, options: AtomicOptions, files: Files = DEFAULT_PATHS) -> None:
        super().__init__(options, files)
        self.length = self.l_output = options.length

    def draw(self, key: jax.Array) -> Example:
        """Draws an example: ``(length, d_input)`` and ``(l_output, d_output)``."""
        return self.rule(draw_signal(key, self.l_output))

    @property
    def quantities(self) -> dict[str, tuple[int, ...]]:
        """The squared error and two moments of the targets."""
        return {"loss": (), "y": (), "y_squared": ()}

    def source(self, split: Split, *, seed: int) -> Source:
        """Returns the keys of the examples."""
        n_examples = self.options.n_examples(split)
        return KeySource(self.options, seed=seed, split=split, n_examples=n_examples)

    def expand(self, batch: Batch) -> Batch:
        """Draws ``x`` of shape ``(B, length, d_input)`` and ``y``, ``(B, l_output, d_output)``."""
        keys = jax.random.wrap_key_data(batch["key"], impl=PRNG)
        x, y = jax.vmap(self.draw)(jax.vmap(jax.random.fold_in)(keys, batch["epoch"]))
        return {**batch, "x": x, "y": y}

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns the drawn input."""
        return {"u": batch["x"]}

    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Returns the mean squared error, target and squared target of each example."""
        y = batch["y"]
        error = outputs[:, -self.l_output :] - y
        values = {"loss": error**2, "y": y, "y_squared": y**2}
        return {name: value.mean((1, 2), dtype=jnp.float32) for name, value in values.items()}

    def report(self, means: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Computes the coefficient of determination from all examples of a split."""
        variance = max(float(means["y_squared"]) - float(means["y"]) ** 2, MIN_VARIANCE)
        loss = float(means["loss"])
        return {"loss": loss, "r2": 1 - loss / variance}


class Shift(Atomic):
    """The signal under several delays."""

    def __init__(self, options: AtomicOptions, files: Files = DEFAULT_PATHS) -> None:
        super().__init__(options, files)
        self.d_output = options.n_shifts

    def draw(self, key: jax.Array) -> Example:
        """Draws a signal and its delays."""
        return rules.shift(draw_signal(key, self.length), self.d_output)


class ContextShift(Atomic):
    """The signal under a delay that is in the input."""

    def draw(self, key: jax.Array) -> Example:
        """Draws a signal and a delay from 0 to L - 3."""
        signal_key, delay_key = jax.random.split(key)
        delay = jax.random.randint(delay_key, (), 0, self.length - 2)
        return rules.context_shift(draw_signal(signal_key, self.length - 2), delay)


class Cumsum(Atomic):
    """Running sums of the signal, divided by the square root of the number of terms."""

    rule = staticmethod(rules.cumsum)


class Cummax(Atomic):
    """Running maxima of the signal."""

    rule = staticmethod(rules.cummax)


class Reverse(Atomic):
    """The reversed signal, after its end."""

    rule = staticmethod(rules.reverse)

    def __init__(self, options: AtomicOptions, files: Files = DEFAULT_PATHS) -> None:
        super().__init__(options, files)
        self.length = 2 * options.length


class Sort(Reverse):
    """The signal sorted by the distance from its first value, after its end."""

    rule = staticmethod(rules.sort)


class MaskedSelect(Atomic):
    """The marked values of the signal in their order, after its end."""

    d_input = 4
    fixed: ClassVar[bool] = False
    """Whether the same values are marked in all examples of all runs."""

    def __init__(self, options: AtomicOptions, files: Files = DEFAULT_PATHS) -> None:
        super().__init__(options, files)
        self.l_output = options.n_marked
        self.length = options.length + 2 * options.n_marked

    def draw(self, key: jax.Array) -> Example:
        """Draws a signal and the marked positions."""
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

    The official code takes the orthogonal factor of the polar decomposition of a Gaussian matrix,
    which is uniform on the orthogonal group. `jax.random.orthogonal` has the same distribution and
    is cheaper: it takes the factor of the QR decomposition with a positive diagonal.
    """

    fixed: ClassVar[bool] = False
    """Whether the matrix is the same in all examples of all runs."""

    def __init__(self, options: AtomicOptions, files: Files = DEFAULT_PATHS) -> None:
        super().__init__(options, files)
        self.l_output = math.isqrt(options.length + 1) - 1  # the largest N with N (N + 2) <= L

    def draw(self, key: jax.Array) -> Example:
        """Draws a matrix and a solution."""
        matrix_key, solution_key = jax.random.split(key)
        matrix_key = jax.random.key(0, impl=PRNG) if self.fixed else matrix_key
        A = jax.random.orthogonal(matrix_key, self.l_output)
        return rules.solve(A, draw_unit_vectors(solution_key, self.l_output), self.length)


class SolveFixed(Solve):
    """Linear equations with the same matrix in all examples of all runs."""

    fixed = True


class Mips(Atomic):
    """Maximum inner product search: the value of the previous key that is nearest to a query."""

    def __init__(self, options: AtomicOptions, files: Files = DEFAULT_PATHS) -> None:
        super().__init__(options, files)
        self.d_input, self.d_output = 3 * options.d_mips + 2, options.d_mips

    def draw(self, key: jax.Array) -> Example:
        """Draws queries, keys and values."""
        vectors = draw_unit_vectors(key, 3, self.length, self.d_output)
        return rules.mips(*vectors)


def draw_signal(key: jax.Array, length: int) -> jax.Array:
    """Draws normal noise of shape ``(length,)``, divided by its largest magnitude."""
    s = jax.random.normal(key, (length,))
    return s / jnp.max(jnp.abs(s))


def draw_unit_vectors(key: jax.Array, *shape: int) -> jax.Array:
    """Draws vectors along the last axis of ``shape``, uniform on the unit sphere."""
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
