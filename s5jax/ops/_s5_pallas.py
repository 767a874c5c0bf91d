r"""The fused scan of S5 from its GPU kernels, with its gradient.

The first state of a chunk is not known in advance. A first kernel therefore computes the last state
of each chunk from zero, a scan over these states gives the true first states, and a second kernel
computes the outputs. Together they read u twice, write y once, and store one state in `STEPS`.

The adjoint is the same system with time reversed, so du follows from dy in the same way. For the
gradients of Lambda, B and C, three kernels recompute the states, the adjoint states or both for one
block of states at a time, and read u and dy for each block. Forward and backward pass together
take 12 matrix products of the size of B u. A layer that stores its states takes 6.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from s5jax._promotion import default_promotion
from s5jax.ops._complex import complex_to_pair, pair_to_complex
from s5jax.ops._s5_kernels import (
    STEPS,
    Plan,
    chunk_ends,
    outer_products,
    outputs,
    slopes,
    tile_rows,
)
from s5jax.ops._scan import linear_scan

_pair = functools.partial(complex_to_pair, axis=-2)
_complex = functools.partial(pair_to_complex, axis=-2)


def fused_scan(
    Lambda_bar: Complex[Array, " P"],
    B_bar: Complex[Array, "P H"],
    C: Complex[Array, "H P"],
    D: Float[Array, " H"],
    u: Float[Array, "*batch L H"],
    x0: Complex[Array, "*batch P"],
    *,
    reverse: bool,
    interpret: bool,
) -> tuple[Float[Array, "*batch L H"], Complex[Array, "*batch P"]]:
    """Runs the kernels on pairs of reals and padded sizes, and converts back."""
    (*batch, L, H), P = u.shape, Lambda_bar.shape[0]
    N, states, features = math.prod(batch), max(16, 1 << (P - 1).bit_length()), H + -H % 16

    def padded(x: Array, *shape: int) -> Array:
        return jnp.pad(x, [(0, new - old) for new, old in zip(shape, x.shape, strict=True)])

    plan = Plan(
        length=L,
        tile=tile_rows(N * -(-L // STEPS), states, u.dtype),
        reverse=reverse,
        interpret=interpret,
    )
    y, last = _fused_scan(
        plan,
        padded(_pair(Lambda_bar), 2, states),
        padded(jnp.stack([B_bar.real, B_bar.imag]), 2, states, features),
        padded(jnp.stack([C.real, -C.imag]), 2, features, states),
        padded(D.astype(jnp.float32), features),
        padded(u.reshape(N, L, H), N, L, features),
        padded(_pair(Lambda_bar[None] * x0.reshape(N, P)), N, 2, states),
    )
    return y[..., :H].reshape(u.shape), _complex(last)[:, :P].reshape(*batch, P)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _fused_scan(
    plan: Plan,
    a: Float[Array, "2 P"],
    B: Float[Array, "2 P H"],
    C: Float[Array, "2 H P"],
    D: Float[Array, " H"],
    u: Float[Array, "N L H"],
    start: Float[Array, "N 2 P"],
) -> tuple[Float[Array, "N L H"], Float[Array, "N 2 P"]]:
    """Outputs and last states.

    The adjoint of this map is the same map with time reversed, a conjugated, and B and C transposed
    and exchanged.
    """
    y, last, _ = _run(plan, a, B, C, D, u, start)
    return y, last


@default_promotion
def _forward(
    plan: Plan, a: Array, B: Array, C: Array, D: Array, u: Array, start: Array
) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    y, last, borders = _run(plan, a, B, C, D, u, start)
    return (y, last), (a, B, C, D, u, start, borders)


@default_promotion
def _backward(
    plan: Plan, residuals: tuple[Array, ...], cotangents: tuple[Array, Array]
) -> tuple[Array, ...]:
    a, B, C, D, u, start, borders = residuals
    dy, dlast = cotangents
    adjoint, a_conj, BT, CT = plan.adjoint, _pair(_complex(a).conj()), B.mT, C.mT
    du, dstart, adjoint_borders = _run(adjoint, a_conj, CT, BT, D, dy, dlast)

    starts = _starts(plan, a, borders, start)
    adjoint_starts = _starts(adjoint, a_conj, adjoint_borders, dlast)
    rows, adjoint_rows = _chunk_rows(plan, u), _chunk_rows(plan, dy)
    B, CT = B.astype(u.dtype), CT.astype(u.dtype)
    dC = outer_products(plan, a, B, rows, adjoint_rows, starts).mT
    dB = outer_products(adjoint, a_conj, CT, adjoint_rows, rows, adjoint_starts)
    da = slopes(plan, a, B, CT, rows, adjoint_rows, starts, adjoint_starts)
    earlier, later = slice(0, -1), slice(1, None)
    if plan.reverse:
        earlier, later = later, earlier
    across = adjoint_borders[:, later] * borders[:, earlier].conj()
    da += _pair(across.sum((0, 1)))
    dD = jnp.sum(dy.astype(D.dtype) * u.astype(D.dtype), (0, 1))
    return da, dB, dC, dD, du, dstart


_fused_scan.defvjp(_forward, _backward)


def _run(
    plan: Plan, a: Array, B: Array, C: Array, D: Array, u: Array, start: Array
) -> tuple[Array, Array, Array]:
    """Outputs, last states of the sequences, and last states of all chunks."""
    N, L, H = u.shape
    rows, B, C = _chunk_rows(plan, u), B.astype(u.dtype), C.astype(u.dtype)
    ends = chunk_ends(plan, a, B, rows)[: N * plan.chunks]
    ends = _complex(ends.reshape(N, plan.chunks, *a.shape))
    borders = _borders(plan, _complex(a), ends, _complex(start))
    y = outputs(plan, a, B, C, D, rows, _starts(plan, a, borders, start))
    y = y[: N * plan.chunks].reshape(N, -1, H)[:, :L]
    return y, _pair(borders[:, 0 if plan.reverse else -1]), borders


def _borders(
    plan: Plan,
    a: Complex[Array, " P"],
    ends: Complex[Array, "N chunks P"],
    start: Complex[Array, "N P"],
) -> Complex[Array, "N chunks P"]:
    """Last state of every chunk, from its last state if it starts from zero."""
    steps = [STEPS] * (plan.chunks - 1) + [plan.tail]
    first = -1 if plan.reverse else 0
    ends = ends.at[:, first].add(a[None] ** (steps[first] - 1) * start)
    decay = a**STEPS
    if plan.tail < STEPS:
        decay = jnp.broadcast_to(decay, (plan.chunks, *a.shape)).at[-1].set(a**plan.tail)
        decay = jnp.broadcast_to(decay, ends.shape)
    return linear_scan(decay, ends, reverse=plan.reverse)


def _starts(
    plan: Plan, a: Array, borders: Complex[Array, "N chunks P"], start: Array
) -> Float[Array, "rows 2 P"]:
    """Start of every row: a times the state before it."""
    others, first = _pair(_complex(a)[None, None] * borders), start[:, None]
    if plan.reverse:
        starts = jnp.concatenate([others[:, 1:], first], 1)
    else:
        starts = jnp.concatenate([first, others[:, :-1]], 1)
    return _whole_tiles(plan, starts.reshape(-1, *a.shape))


def _chunk_rows(plan: Plan, u: Float[Array, "N L H"]) -> Float[Array, "rows steps H"]:
    """Splits sequences into chunks, without a copy if L is a multiple of `STEPS`."""
    u = jnp.pad(u, ((0, 0), (0, STEPS - plan.tail), (0, 0)))
    return _whole_tiles(plan, u.reshape(-1, STEPS, u.shape[-1]))


def _whole_tiles(plan: Plan, rows: Array) -> Array:
    return jnp.pad(rows, ((0, -rows.shape[0] % plan.tile), (0, 0), (0, 0)))
