r"""HOPE's powers: by squaring, and states that follow one after another.

All matrices are polynomials in the down-shift S, with the notation of `hope_kernel`. They commute,
and :math:`C A^l B = \sum_{i, m} h_{i + m} (A^{a T} B)_i (A^b B)_m` for :math:`l = a T + b`, counted
from zero. So the only matrix power that is needed is :math:`A^T`.
"""

import functools
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from s5jax._promotion import default_promotion, with_axes
from s5jax.ops._scan import linear_scan
from s5jax.ops._tables import block_length, dense_states, highest, lower_toeplitz


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def kernel_by_steps(
    h: Float[Array, "*batch H N"], Delta: Float[Array, " H"], L: int
) -> Float[Array, "*batch L H"]:
    r"""Kernel of `hope_kernel`.

    With a as the variable, :math:`A' = (I - S^2)(I + a S)^{-2}`, and the derivatives of B and C
    add :math:`-2 A / s^2`, so that

    .. math::
        \frac{\partial K_t}{\partial \Delta} = \frac{K_{t+1}}{\Delta}
        - \frac{2 (t - 1)}{(1 + \Delta)^2}\, C A^{t-2} A' B, \quad t \ge 1, \qquad
        \frac{\partial K_0}{\partial \Delta} = \frac{K_1}{2 \Delta}.
    """
    return _lags(h, Delta, *_tables(Delta, h.shape[-1], L))[..., :L, :]


@kernel_by_steps.defjvp
@default_promotion
def _kernel_jvp(
    L: int, primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    (h, Delta), (h_dot, Delta_dot) = primals, tangents
    early, late = _tables(Delta, h.shape[-1], L)
    K = _lags(h, Delta, early, late)
    section = lower_toeplitz(_slope_of_section(Delta, h.shape[-1]))
    driven = _products(h, highest("hij,hjb->hib", section, early), late)[..., : max(L - 2, 0), :]
    driven = jnp.concatenate([jnp.zeros_like(K[..., : min(L, 2), :]), driven], -2)
    t = with_axes(jnp.arange(L, dtype=K.dtype)[:, None], K)
    warp = with_axes(Delta[None], K)
    slope = jnp.where(t == 0, 0.5, 1) * K[..., 1 : L + 1, :] / warp
    slope = slope - 2 * (t - 1) / (1 + warp) ** 2 * driven
    K_dot = _lags(h_dot, Delta, early, late)[..., :L, :] + slope * with_axes(Delta_dot[None], K)
    return K[..., :L, :], K_dot


def _slope_of_section(Delta: Float[Array, " H"], n: int) -> Float[Array, "H n"]:
    """First column of A', in a form that keeps its digits: neighbours nearly cancel."""
    a, k = ((1 - Delta) / (1 + Delta))[:, None], jnp.arange(2, n)[None]
    later = jnp.where(k % 2 == 0, 1, -1) * a ** (k - 2) * (2 * a**2 - (k - 1) * (1 - a**2))
    return jnp.concatenate([jnp.ones_like(a), -2 * a, later], -1)[:, :n]


def _tables(
    Delta: Float[Array, " H"], n: int, L: int
) -> tuple[Float[Array, "H n T"], Float[Array, "A H n"]]:
    r"""States :math:`A^b B` and :math:`A^{a T} B`.

    :math:`A^T - I = -\sqrt\Delta (I - S) \sum_{b < T} A^b B`, which keeps the digits of a small
    :math:`\Delta`. A large one has the states of :math:`1 / \Delta` with alternating signs, in both
    time and sections.
    """
    T, large = block_length(L), Delta > 1
    Delta = jnp.where(large, 1 / Delta, Delta)
    early = _first_states(Delta, n, T)
    total = early.sum(-1)
    total = total - jnp.pad(total, [(0, 0), (1, 0)])[:, :-1]
    M = lower_toeplitz(-jnp.sqrt(Delta)[:, None] * total)
    none = jnp.zeros((-(-L // T), *total.shape), total.dtype)
    late = dense_states(M, none, early[..., 0])[0]

    def signs(steps: np.ndarray) -> Array:
        return jnp.where(large[:, None, None] & (steps % 2 == 1)[None], -1, 1).astype(early.dtype)

    k, b, blocks = np.arange(n), np.arange(T), T * np.arange(len(late))
    early = early * signs(np.add.outer(k, b))
    return early, late * jnp.swapaxes(signs(np.add.outer(blocks, k)), 0, 1)


def _first_states(Delta: Float[Array, " H"], n: int, T: int) -> Float[Array, "H n T"]:
    r"""States :math:`x_b = A^b B` for b < T, along the diagonals of constant :math:`b + k`.

    .. math:: x_{b,k} = a (x_{b-1,k} - x_{b,k-1}) + x_{b-1,k-1}

    Each diagonal follows from the two before it, in one operation on all sections.
    """
    decay, s = 2 * Delta / (1 + Delta), 2 * jnp.sqrt(Delta) / (1 + Delta)
    start = jnp.zeros((n, len(s)), s.dtype).at[0].set(s)

    def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        before, last = carry
        kept = last - decay[None] * last
        after = kept + jnp.pad(before - kept, [(1, 0), (0, 0)])[:-1]
        return (last, after), last

    W = n + T - 1
    _, diagonals = jax.lax.scan(step, (jnp.zeros_like(start), start), length=W)
    # Rows of one more entry shift each section by one.
    flat = jnp.moveaxis(diagonals, (0, 1), (2, 1)).reshape(len(s), n * W)
    return jnp.pad(flat, [(0, 0), (0, n)]).reshape(len(s), n, W + 1)[..., :T]


def _lags(
    h: Float[Array, "*batch H N"],
    Delta: Float[Array, " H"],
    early: Float[Array, "H N T"],
    late: Float[Array, "A H N"],
) -> Float[Array, "*batch Lp H"]:
    """Lags 0 to at least L; linear in h."""
    minus_a = (Delta - 1) / (2 * jnp.sqrt(Delta))
    first = (h * with_axes(minus_a[:, None] * early[..., 0], h)).sum(-1)
    return jnp.concatenate([first[..., None, :], _products(h, early, late)], -2)


def _products(
    h: Float[Array, "*batch H N"], early: Float[Array, "H N T"], late: Float[Array, "A H N"]
) -> Float[Array, "*batch Lp H"]:
    """Sums of h[i + m] over products of states."""
    batch, (H, n) = h.shape[:-2], h.shape[-2:]
    shifted = lower_toeplitz(jnp.flip(h, -1).reshape(-1, n)).reshape(*batch, H, n, n)
    columns = highest("...hij,hjb->...hib", jnp.flip(shifted, -2), early)
    y = highest("ahn,...hnb->...hab", late, columns)
    return jnp.moveaxis(y.reshape(*y.shape[:-2], math.prod(y.shape[-2:])), -1, -2)


def hope_section(Delta: Float[Array, " H"]) -> tuple[Float[Array, " H"], Float[Array, " H"]]:
    """Coefficients -a and s of a section."""
    return (Delta - 1) / (Delta + 1), 2 * jnp.sqrt(Delta) / (Delta + 1)


def hope_drive(Delta: Float[Array, " H"], n: int) -> Float[Array, "H n"]:
    """Input vector B, the state of the sections after an impulse."""
    minus_a, s = hope_section(Delta)
    impulse = jnp.zeros((n, len(s)), s.dtype).at[0].set(s)
    return linear_scan(minus_a, impulse).T


def hope_readout(
    h: Float[Array, "*batch H N"], Delta: Float[Array, " H"]
) -> tuple[Float[Array, "*batch H N"], Float[Array, "*batch H"]]:
    """Output vector C and feedthrough d."""
    minus_a, s = hope_section(Delta)
    sums = jnp.moveaxis(linear_scan(minus_a, jnp.moveaxis(h, -1, -2), reverse=True), -2, -1)
    return with_axes(s[:, None], sums) * sums, with_axes(minus_a, sums[..., 0]) * sums[..., 0]


def hope_powers(Delta: Float[Array, " H"], n: int) -> Iterator[Float[Array, "H n n"]]:
    r"""Yields :math:`A^{2^k} - I` for :math:`k = 0, 1, \ldots`.

    All of these matrices are polynomials in the down-shift. Squaring by
    :math:`M \leftarrow 2 M + M^2` keeps the digits of a small :math:`\Delta`. A large
    :math:`\Delta` puts the eigenvalue of A near -1. There the first square is formed as
    :math:`(A - I)(A + I)`, with both factors written in :math:`\Delta`; its eigenvalue is near 1.
    """
    tail = hope_section(Delta)[1][:, None] * hope_drive(Delta, n)[:, :-1]
    below, above = (
        jnp.concatenate([first[:, None], tail], -1)
        for first in (-2 * Delta / (1 + Delta), 2 / (1 + Delta))
    )
    M = lower_toeplitz(below)
    yield M
    near_minus_1 = highest("hij,hj->hi", M, above)
    near_1 = 2 * below + highest("hij,hj->hi", M, below)
    below = jnp.where(Delta[:, None] > 1, near_minus_1, near_1)
    while True:
        M = lower_toeplitz(below)
        yield M
        below = 2 * below + highest("hij,hj->hi", M, below)
