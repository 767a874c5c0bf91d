r"""Recurrences with constant coefficients, one step after another: the sequential scan of a CPU.

Complex values are stored as ``[re, im]``, the layout in which real matrix products write and read
them. Multiplying by :math:`a = a_r + i a_i` is then a real 2 x 2 product,

.. math::
    \begin{pmatrix} a_r & -a_i \\ a_i & a_r \end{pmatrix}
    \begin{pmatrix} x_r \\ x_i \end{pmatrix} =
    \begin{pmatrix} a_r \\ a_r \end{pmatrix} \odot \begin{pmatrix} x_r \\ x_i \end{pmatrix} +
    \begin{pmatrix} -a_i \\ a_i \end{pmatrix} \odot \begin{pmatrix} x_i \\ x_r \end{pmatrix} .

The *factor* A of a stacks these two columns, so the product is ``A[0] * x + A[1] * flip(x)``. The
factor of a real number has only the first of them.

The states overwrite the inputs. XLA would fill a separate array with zeros first, which doubles the
memory traffic. The derivative with respect to a is summed in the loop that runs backward over the
states, where each state is loaded anyway.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, Inexact

from s5jax._promotion import default_promotion, with_axes

_BLOCK = 128
"""Rows of a block."""

_LONG = 4096
_ROW_BYTES = range(513, 2048)
"""Row sizes that a backward loop over more than `_LONG` rows reads in blocks.

Memory delivers single rows of these sizes slowly in descending order. A block is copied in
ascending order, and its rows are then read from the cache. For shorter rows the copy costs more
than it saves.
"""


def real_factor(a: Inexact[Array, "*shape P"]) -> Float[Array, "k *parts P"]:
    """The factor A of a, see the top of this file."""
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
    """All states of :math:`x_k = a x_{k-1} + b_k` with the factor A of a; time leads.

    Derivatives of any order, in forward or reverse mode, run the same loop.
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
        return x, jnp.zeros_like(x) if b_dot is None else _driven(reverse, A, b_dot)
    if b_dot is None:
        return x, _driven(reverse, A, _times(A_dot, _before(x, x0, reverse)))
    return x, _driven_jointly(reverse, A, x, x0, A_dot, b_dot)


recur.defjvp(_recur_jvp, symbolic_zeros=True)


def _driven(reverse: bool, A: Array, b: Array) -> Array:
    """All states of the recurrence from zero, as a linear function of the inputs.

    Only derivatives evaluate ``matvec``. Without `jax.checkpoint` its own residuals would stay in
    memory.
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


def _driven_jointly(
    reverse: bool, A: Array, x: Array, x0: Array, A_dot: Array, b_dot: Array
) -> Array:
    r"""Derivative of the states, as a linear function of the derivatives of a and of the inputs.

    .. math:: \dot x_k = a \dot x_{k-1} + \dot a x_{k-1} + \dot b_k

    Together with :math:`\dot a = \dot a` this is one linear system, so its transpose is one loop.
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
    """Product a x with the factor A of a."""
    y = with_axes(A[0], x) * x
    return y if len(A) == 1 else y + with_axes(A[1], x) * jnp.flip(x, -2)


def _transpose(A: Array) -> Array:
    """Factor of the transposed product."""
    return A if len(A) == 1 else jnp.stack([A[0], jnp.flip(A[1], -2)])


def _add_products(sums: Sequence[Array], w: Array, x: Array) -> tuple[Array, ...]:
    """Adds the contribution of ``_times(A, x)``, with the cotangent w, to the gradient of A."""
    factors = (x,) if len(sums) == 1 else (x, jnp.flip(x, -2))
    return tuple(s + w * factor for s, factor in zip(sums, factors, strict=True))


def _before(x: Array, x0: Array, reverse: bool) -> Array:
    """State that each step reads."""
    return jnp.concatenate([x[1:], x0[None]] if reverse else [x0[None], x[:-1]])


Step = Callable[..., tuple[Any, Array]]
"""Maps the carry, the row to overwrite and rows of other arrays to the carry and the new row."""


def _sweep(
    step: Step, carry: Any, rows: Array, others: tuple[Array, ...], reverse: bool
) -> tuple[Any, Array]:
    """Overwrites all rows by running a step over them, forward or backward in time."""
    L, row_bytes = rows.shape[0], math.prod(rows.shape[1:]) * rows.dtype.itemsize
    known = isinstance(L, int) and isinstance(row_bytes, int)
    if not known or not reverse or L <= _LONG or row_bytes not in _ROW_BYTES:
        return _update_rows(step, carry, rows, others, reverse, 0, L)
    n_blocks = L // _BLOCK
    carry, rows = _update_rows(step, carry, rows, others, reverse, n_blocks * _BLOCK, L % _BLOCK)

    def block(j: Array, state: tuple[Any, Array]) -> tuple[Any, Array]:
        carry, rows = state
        start = (n_blocks - 1 - j) * _BLOCK
        own, *rest = (jax.lax.dynamic_slice_in_dim(v, start, _BLOCK) for v in (rows, *others))
        carry, own = _update_rows(step, carry, own, tuple(rest), reverse, 0, _BLOCK)
        carry, own, rows = jax.lax.optimization_barrier((carry, own, rows))
        return carry, jax.lax.dynamic_update_slice_in_dim(rows, own, start, 0)

    return jax.lax.fori_loop(0, n_blocks, block, (carry, rows))


def _update_rows(
    step: Step,
    carry: Any,
    rows: Array,
    others: tuple[Array, ...],
    reverse: bool,
    start: int,
    n: int,
) -> tuple[Any, Array]:
    """Overwrites n rows, the first of which is ``start``, by running a step over them.

    The barrier keeps XLA from reading a row in the operation that writes it. XLA would copy the
    whole array for such an operation.
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
