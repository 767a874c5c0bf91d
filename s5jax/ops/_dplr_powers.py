"""Discrete DPLR systems over many steps; see `discretize_dplr`."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from s5jax._promotion import with_axes
from s5jax.ops._tables import highest


class DPLR(NamedTuple):
    r"""A discrete DPLR system; its leading axes are the axes of the step sizes.

    .. math:: x_k = x_{k-1} + d \odot x_{k-1} + U \operatorname{Re}(V x_{k-1}) + \bar B u_k

    The identity is kept apart: rounding :math:`\bar A` would cost a slow mode all its digits.
    """

    d: Complex[Array, "*batch H M"]
    U: Complex[Array, "*batch H M R"]
    V: Complex[Array, "*batch H R M"]
    B_bar: Complex[Array, "*batch H M"]


def dplr_change(system: DPLR, x: Complex[Array, "*batch H M"]) -> Complex[Array, "*batch H M"]:
    r"""Change of the state in a step without input, :math:`(\bar A - I) x`."""
    return with_axes(system.d, x) * x + low_rank(system.U, system.V, x)


def dense_change(system: DPLR) -> Float[Array, "H N N"]:
    r"""Matrix :math:`\bar A - I` on real and imaginary parts."""
    d = system.d[..., None]
    I = with_axes(jnp.eye(d.shape[-2], dtype=d.real.dtype), d)
    re, im = d.real * I, d.imag * I
    diagonal = jnp.concatenate([jnp.concatenate([re, -im], -1), jnp.concatenate([im, re], -1)], -2)
    U = jnp.concatenate([system.U.real, system.U.imag], -2)
    return diagonal + highest("...ir,...rj->...ij", U, real_state(system.V.conj()))


def dplr_powers(system: DPLR) -> Iterator[Float[Array, "H N N"]]:
    r"""Yields :math:`\bar A^{2^k} - I` for :math:`k = 0, 1, \ldots`; see `dense_change`."""
    M = dense_change(system)
    while True:
        yield M
        M = 2 * M + highest("hij,hjk->hik", M, M)


def dplr_jump(system: DPLR, x: Complex[Array, "H M"], T: int) -> tuple[Float[Array, "H N T"], DPLR]:
    r"""States of T steps without input, and T steps as one, by O(N) operations for each step.

    .. math::
        \bar A^T = D^T + \sum_{j < T} D^{T-1-j} U \operatorname{Re}(V \bar A^j),
        \qquad D = I + d

    The sum has rank R T. As a dense matrix it costs one product, and not :math:`\log_2 T` squares.

    Args:
        system: from `discretize_dplr`, with steps of shape ``(H,)``.
        x: first states, ``(H, M)``.
        T: number of steps.

    Returns:
        Real and imaginary parts of :math:`\bar A^j x` for :math:`j < T`, ``(H, N, T)``, and the
        system of T steps, whose ``B_bar`` is the one of a single step.
    """
    d, U, V = system.d, system.U, system.V

    def step(carry: tuple[Array, Array, Array], _: None) -> tuple[Any, Any]:
        x, rows, change = carry
        feedback = highest("hrm,hms->hrs", rows, U).real
        rows_after = rows + d[:, None] * rows + highest("hrs,hsm->hrm", feedback, V)
        return (x + dplr_change(system, x), rows_after, change + d + d * change), carry

    start = x, V, jnp.zeros_like(d)
    (_, _, change), (states, rows, changes) = jax.lax.scan(step, start, length=T)
    inputs = jnp.flip(U[None] + changes[..., None] * U[None], 0)
    H, M = d.shape
    jump = DPLR(
        change,
        jnp.moveaxis(inputs, 0, -2).reshape(H, M, -1),
        jnp.moveaxis(rows, 0, 1).reshape(H, -1, M),
        system.B_bar,
    )
    return jnp.swapaxes(real_state(jnp.moveaxis(states, 0, 1)), -1, -2), jump


def low_rank(U: Array, V: Array, x: Array) -> Array:
    return highest("...mr,...r->...m", U, highest("...rm,...m->...r", V, x).real)


def real_state(x: Complex[Array, "*shape M"]) -> Float[Array, "*shape N"]:
    return jnp.concatenate([x.real, x.imag], -1)


def complex_state(x: Float[Array, "*shape N"]) -> Complex[Array, "*shape M"]:
    return jax.lax.complex(*jnp.split(x, 2, -1))
