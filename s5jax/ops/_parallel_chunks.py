r"""Long convolutions by matrix products over all chunks of time together, for GPUs.

With the T inputs u of a chunk and the N states s before it in one row, the outputs of the chunk and
the states after it are

.. math:: \begin{pmatrix} y \\ s' \end{pmatrix} = M \begin{pmatrix} u \\ s \end{pmatrix}.

A short scan finds the states before all chunks and writes them beside the inputs. The gradient
treats the outputs alike, so one product of two arrays of rows is the gradient of M. Only rows of
length T + N, for each of the L / T chunks, are ever in memory.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from s5jax._promotion import default_promotion
from s5jax.ops._complex import halves, times
from s5jax.ops._tables import highest

_RADIX = 8
"""Chunks whose states one pass of the scan over chunks finds from the first of them."""

Carry = Float[Array, "H N N"] | tuple[Float[Array, "H P"], Float[Array, "H P"]]
"""A - I for a matrix A, or real and imaginary parts of the factors of complex states."""


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def convolve_chunks(
    diagonal: bool, M: Float[Array, "H TN TN"], u: Float[Array, "*batch n T H"]
) -> Float[Array, "*batch n T H"]:
    r"""Outputs of n consecutive chunks, from zero.

    The part of M that leads from states to states is A - I or, if it is ``diagonal``, the product
    with complex numbers whose real parts are followed by the imaginary parts. Derivatives of any
    order run the same products.
    """
    return _outputs(diagonal, M, u)[0]


@default_promotion
def _convolve_chunks_jvp(
    diagonal: bool, primals: tuple[Array, Array], tangents: tuple[Any, Any]
) -> tuple[Array, Array]:
    M, u = primals
    M_dot, u_dot = tangents
    T = u.shape[-2]
    y, rows = _outputs(diagonal, M, u)
    driven = []
    if not isinstance(u_dot, SymbolicZero):
        driven.append(_matmul(M[..., :T], jnp.moveaxis(u_dot, -1, 0)))
    if not isinstance(M_dot, SymbolicZero):
        driven.append(_matmul(M_dot, rows))
    if not driven:
        return y, jnp.zeros_like(y)
    solution = _solve(diagonal, M, functools.reduce(jnp.add, driven), T)
    return y, jnp.moveaxis(solution, 0, -1)[..., :T, :]


convolve_chunks.defjvp(_convolve_chunks_jvp, symbolic_zeros=True)


def _outputs(diagonal: bool, M: Array, u: Array) -> tuple[Array, Array]:
    """Outputs, and the rows of inputs and states.

    Inputs are padded before they are transposed, which makes it one kernel. The barrier keeps XLA
    from transposing them once more inside the product.
    """
    T = u.shape[-2]
    wide = [(0, 0)] * (u.ndim - 2) + [(0, M.shape[-1] - T), (0, 0)]
    rows = jax.lax.optimization_barrier(jnp.moveaxis(jnp.pad(u, wide), -1, 0))
    states = _entering(diagonal, False, M[:, T:, T:], _matmul(M[:, T:], rows))
    rows = jax.lax.dynamic_update_slice_in_dim(rows, states, T, -1)
    return jnp.moveaxis(_matmul(M[:, :T], rows), 0, -1), rows


def _solve(
    diagonal: bool, M: Array, right: Float[Array, "H *batch n TN"], T: int
) -> Float[Array, "H *batch n TN"]:
    r"""Solution of :math:`x_j = r_j + M_s s_{j-1}`, s the last numbers of x, as a function of r.

    M_s are the columns of M for the states. The transpose solves
    :math:`w_j = v_j + (0, M_s^\top w_{j+1})`.
    """
    carry, leading = M[:, T:, T:], M[..., T:]
    if not diagonal:
        leading = leading + jnp.eye(M.shape[-1], M.shape[-1] - T, -T, M.dtype)[None]

    @jax.checkpoint
    def matvec(x: Array) -> Array:
        before = jnp.pad(x[..., :-1, T:], [(0, 0)] * (x.ndim - 2) + [(1, 0), (0, 0)])
        return x - _matmul(leading, before)

    def solve(_: object, right: Array) -> Array:
        return right + _matmul(leading, _entering(diagonal, False, carry, right[..., T:]))

    def transpose_solve(_: object, right: Array) -> Array:
        rows = jax.lax.optimization_barrier(right)
        later = _entering(diagonal, True, carry, _matmul(jnp.swapaxes(leading, -1, -2), rows))
        return jax.lax.dynamic_update_slice_in_dim(rows, rows[..., T:] + later, T, -1)

    return jax.lax.custom_linear_solve(matvec, right, solve, transpose_solve)


def _entering(
    diagonal: bool, transposed: bool, A: Float[Array, "H N N"], e: Float[Array, "H *batch n N"]
) -> Float[Array, "H *batch n N"]:
    r"""States before each chunk, :math:`s_{j+1} = A s_j + e_j`.

    If ``transposed``, those after each chunk, :math:`s_{j-1} = A^\top s_j + e_j`.
    """
    if not diagonal:
        return _scan(transposed, A, e)
    P = A.shape[-1] // 2
    re, im = (jnp.diagonal(v, 0, -2, -1) for v in (A[:, :P, :P], A[:, P:, :P]))
    return _scan(transposed, (re, -im if transposed else im), e)


def _scan(transposed: bool, carry: Carry, e: Array) -> Array:
    """States before each of n chunks, by way of those before every eighth chunk.

    The barriers keep XLA from computing the states of one level again for every level above it.
    """
    *batch, n, N = e.shape
    rest = (-n % _RADIX, 0) if transposed else (0, -n % _RADIX)
    groups = jnp.pad(e, [(0, 0)] * (e.ndim - 2) + [rest, (0, 0)])
    g = -(-n // _RADIX)
    groups = groups.reshape(*batch, g, _RADIX, N)
    first = jnp.zeros_like(groups[..., 0, :])
    if n > _RADIX:
        ends = jax.lax.optimization_barrier(_ends(transposed, carry, groups))
        eighth = carry
        for _ in range(3):
            eighth = _squared(eighth)
        first = jax.lax.optimization_barrier(_scan(transposed, eighth, ends))
    states = _unrolled(transposed, carry, groups[..., 1:, :] if transposed else groups, first)
    states = jnp.stack(states[::-1] if transposed else states, -2).reshape(*batch, g * _RADIX, N)
    return states[..., slice(-n, None) if transposed else slice(n), :]


def _ends(transposed: bool, carry: Carry, e: Array) -> Array:
    """States after each group of chunks from zero; complex ones as one sum, which is one kernel."""
    if not isinstance(carry, tuple):
        first, rest = (-1, slice(-1)) if transposed else (0, slice(1, None))
        return _unrolled(transposed, carry, e[..., rest, :], e[..., first, :], last=True)[-1]
    powers = [(jnp.ones_like(carry[0]), jnp.zeros_like(carry[1]))]
    for _ in range(_RADIX - 1):
        powers.append(times(carry, powers[-1]))
    powers = powers if transposed else powers[::-1]
    a = [jnp.stack(v, -2) for v in zip(*powers, strict=True)]
    re, im = times((_rows(a[0], e), _rows(a[1], e)), halves(e))
    return jnp.concatenate([re.sum(-2), im.sum(-2)], -1)


def _unrolled(
    transposed: bool, carry: Carry, e: Array, s: Array, *, last: bool = False
) -> list[Array]:
    """States from s on, in the order in which they follow each other."""
    states = [s]
    order = range(e.shape[-2]) if last or transposed else range(e.shape[-2] - 1)
    for j in reversed(order) if transposed else order:
        if isinstance(carry, tuple):
            a = _rows(carry[0], s), _rows(carry[1], s)
            s = jnp.concatenate(times(a, halves(s)), -1)
        else:
            A = carry + jnp.eye(carry.shape[-1], dtype=carry.dtype)[None]
            s = _matmul(jnp.swapaxes(A, -1, -2) if transposed else A, s)
        s = s + e[..., j, :]
        states.append(s)
    return states


def _squared(carry: Carry) -> Carry:
    if isinstance(carry, tuple):
        return times(carry, carry)
    return 2 * carry + highest("hij,hjk->hik", carry, carry)


def _rows(a: Float[Array, "H *k P"], like: Array) -> Array:
    """Adds axes of length 1 behind that of features."""
    return a.reshape(a.shape[0], *(1,) * (like.ndim - a.ndim), *a.shape[1:])


def _matmul(M: Float[Array, "H m n"], x: Float[Array, "H *rows n"]) -> Float[Array, "H *rows m"]:
    return highest("hmn,h...n->h...m", M, x)
