r"""Recurrences with constant coefficients, one step after the other: the scan of a CPU.

Complex numbers are rows of real and imaginary parts, as matrix products take and leave them, and
a product with a is one with a table of two rows, of which the second meets the parts exchanged.
Real numbers have tables of one row.

States overwrite the inputs: with an array of their own, XLA fills that with zeros first, and
twice as much memory passes by. The derivative in a is summed up in the loop that goes back over the
states, where they are at hand. With this, and one product instead of two on either side of the
scan, Path-X's train step took 0.78 of its time and 0.75 of its memory on two CPU cores.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, Inexact

from s5jax._promotion import default_promotion

_BLOCK = 128
_LONG = 4096
_ROW_BYTES = range(513, 2048)
"""Backward in time, more than so many rows of these sizes are taken in blocks, which are copied the
right way round: read one by one they came from memory at half of the speed, or less. Blocks took
0.70 to 0.77 of the time of rows of 768, 1,024 and 1,536 bytes, and 1.5 of shorter ones.
"""


def table(a: Inexact[Array, "*shape P"]) -> Float[Array, "k *parts P"]:
    """The table that stands for products with a."""
    if not jnp.iscomplexobj(a):
        return a[None]
    both = (a.real, a.real), (-a.imag, a.imag)
    return jnp.stack([jnp.stack(parts, -2) for parts in both])


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def recur(
    reverse: bool,
    A: Float[Array, "k *parts P"],
    b: Float[Array, "L *batch P"],
    x0: Float[Array, "*batch P"],
) -> Float[Array, "L *batch P"]:
    """All states of the recurrence with this table, time leading.

    Derivatives of any order and mode run the same loop.
    """

    def advance(x: Array, b_k: Array) -> tuple[Array, Array]:
        x = _times(A, x) + b_k
        return x, x

    return _sweep(advance, x0, b, (), reverse)[1]


@default_promotion
def _recur_jvp(reverse: bool, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    A, b, x0 = primals
    A_dot, b_dot, x0_dot = (None if isinstance(t, SymbolicZero) else t for t in tangents)
    x = recur(reverse, A, b, x0)
    if x0_dot is not None:
        b_dot = jnp.zeros_like(b) if b_dot is None else b_dot
        b_dot = b_dot.at[-1 if reverse else 0].add(_times(A, x0_dot))
    if A_dot is None:
        return x, jnp.zeros_like(x) if b_dot is None else _solve(reverse, A, b_dot)
    if b_dot is None:
        return x, _solve(reverse, A, _times(A_dot, _before(x, x0, reverse)))
    return x, _solve_jointly(reverse, A, x, x0, A_dot, b_dot)


recur.defjvp(_recur_jvp, symbolic_zeros=True)


def _solve(reverse: bool, A: Array, b: Array) -> Array:
    """The recurrence from zero, as a linear function of its inputs.

    Only derivatives evaluate ``matvec``; what its own keep would stay in memory but for the
    `jax.checkpoint`.
    """
    zero = jnp.zeros_like(b[0])

    @jax.checkpoint
    def matvec(x: Array) -> Array:
        return x - _times(A, _before(x, zero, reverse))

    def solve(_: Any, b: Array) -> Array:
        return recur(reverse, A, b, zero)

    def transpose_solve(_: Any, g: Array) -> Array:
        return recur(not reverse, _transpose(A), g, zero)

    return jax.lax.custom_linear_solve(matvec, b, solve, transpose_solve)


def _solve_jointly(
    reverse: bool, A: Array, x: Array, x0: Array, A_dot: Array, b_dot: Array
) -> Array:
    r"""The derivative of the states, as a linear function of those of a and of the inputs.

    .. math:: \dot x_k = a \dot x_{k-1} + \dot a x_{k-1} + \dot b_k

    This and :math:`\dot a = \dot a` are one linear system, so that its transpose is one loop.
    """
    zero = jnp.zeros_like(x0)

    @jax.checkpoint
    def matvec(unknowns: tuple[Array, Array]) -> tuple[Array, Array]:
        x_dot, A_dot = unknowns
        before = _before(x, x0, reverse)
        right = _times(A, _before(x_dot, zero, reverse)) + _times(A_dot, before)
        return x_dot - right, A_dot

    def solve(_: Any, right: tuple[Array, Array]) -> tuple[Array, Array]:
        b_dot, A_dot = right

        def advance(x_dot: Array, b_dot: Array, x: Array) -> tuple[Array, Array]:
            x_dot = x_dot + b_dot
            return _times(A, x_dot) + _times(A_dot, x), x_dot

        return _sweep(advance, _times(A_dot, x0), b_dot, (x,), reverse)[1], A_dot

    def transpose_solve(_: Any, right: tuple[Array, Array]) -> tuple[Array, Array]:
        g, A_bar = right
        A_T = _transpose(A)

        def retreat(carry: tuple[Array, Any], g: Array, x: Array) -> tuple[Any, Array]:
            w, sums = carry
            w, sums = g + _times(A_T, w), _add_products(sums, w, x)
            return (w, sums), w

        start = zero, (zero,) * len(A)
        (w, sums), b_bar = _sweep(retreat, start, g, (x,), not reverse)
        sums = jnp.stack(_add_products(sums, w, x0))
        batch = tuple(range(1, 1 + sums.ndim - A.ndim))
        return b_bar, A_bar + sums.sum(batch)

    return jax.lax.custom_linear_solve(matvec, (b_dot, A_dot), solve, transpose_solve)[0]


def _times(A: Array, x: Array) -> Array:
    """Products of numbers with the one that a table stands for."""
    return A[0] * x if len(A) == 1 else A[0] * x + A[1] * jnp.flip(x, -2)


def _transpose(A: Array) -> Array:
    """The table of the transposed map."""
    return A if len(A) == 1 else jnp.stack([A[0], jnp.flip(A[1], -2)])


def _add_products(sums: Sequence[Array], w: Array, x: Array) -> tuple[Array, ...]:
    """What `_times` contributes to the gradient of its table."""
    factors = (x,) if len(sums) == 1 else (x, jnp.flip(x, -2))
    return tuple(s + w * factor for s, factor in zip(sums, factors, strict=True))


def _before(x: Array, x0: Array, reverse: bool) -> Array:
    """The state that each step reads."""
    return jnp.concatenate([x[1:], x0[None]] if reverse else [x0[None], x[:-1]])


Step = Callable[..., tuple[Any, Array]]
"""From the carry, a row to be overwritten and other rows to the next carry and the new row."""


def _sweep(
    step: Step, carry: Any, rows: Array, others: tuple[Array, ...], reverse: bool
) -> tuple[Any, Array]:
    """Runs a step over all rows, which it replaces, forward or backward in time."""
    L, row_bytes = rows.shape[0], math.prod(rows.shape[1:]) * rows.dtype.itemsize
    known = isinstance(L, int) and isinstance(row_bytes, int)
    if not known or not reverse or L <= _LONG or row_bytes not in _ROW_BYTES:
        return _rows(step, carry, rows, others, reverse, 0, L)
    n_blocks = L // _BLOCK
    carry, rows = _rows(step, carry, rows, others, reverse, n_blocks * _BLOCK, L % _BLOCK)

    def block(j: Array, state: tuple[Any, Array]) -> tuple[Any, Array]:
        carry, rows = state
        start = (n_blocks - 1 - j) * _BLOCK
        own, *rest = (jax.lax.dynamic_slice_in_dim(v, start, _BLOCK) for v in (rows, *others))
        carry, own = _rows(step, carry, own, tuple(rest), reverse, 0, _BLOCK)
        carry, own, rows = jax.lax.optimization_barrier((carry, own, rows))
        return carry, jax.lax.dynamic_update_slice_in_dim(rows, own, start, 0)

    return jax.lax.fori_loop(0, n_blocks, block, (carry, rows))


def _rows(
    step: Step,
    carry: Any,
    rows: Array,
    others: tuple[Array, ...],
    reverse: bool,
    start: int,
    n: int,
) -> tuple[Any, Array]:
    """The same for the n rows from ``start`` on.

    The barrier keeps XLA from reading rows in the operation that writes them, for which it would
    copy all.
    """
    if n == 0:
        return carry, rows

    def one(k: Array, state: tuple[Any, Array]) -> tuple[Any, Array]:
        carry, rows = state
        k = start + (n - 1 - k if reverse else k)
        read = (jax.lax.dynamic_index_in_dim(v, k, 0, keepdims=False) for v in (rows, *others))
        carry, row = step(carry, *read)
        carry, row, rows = jax.lax.optimization_barrier((carry, row, rows))
        return carry, jax.lax.dynamic_update_index_in_dim(rows, row, k, 0)

    return jax.lax.fori_loop(0, n, one, (carry, rows))
