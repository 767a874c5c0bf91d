r"""Systems whose state matrix is diagonal plus low rank (DPLR), the form of S4.

The state matrix is :math:`A = \Lambda - P P^*` on conjugate pairs of states. Only one state of each
pair is stored, so :math:`P^* x` means :math:`2 \operatorname{Re} \sum_n \bar P_n x_n`.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from s5jax._errors import check_choice, check_positive
from s5jax._promotion import default_promotion, with_axes
from s5jax.ops._chunked import ChunkTables, dense_chunks
from s5jax.ops._dplr_powers import (
    DPLR,
    complex_state,
    dense_change,
    dplr_change,
    dplr_jump,
    dplr_powers,
    low_rank,
    real_state,
)
from s5jax.ops._tables import (
    block_length,
    by_steps,
    free_response,
    highest,
    last_state,
    response_by_blocks,
)

KernelAlgorithm = Literal["auto", "two_table", "cauchy"]


@default_promotion
def discretize_dplr(
    Lambda: Complex[Array, "H M"],
    P: Complex[Array, "H R M"],
    B: Complex[Array, "H M"],
    Delta: Float[Array, "*batch H"],
) -> DPLR:
    r"""Bilinear rule for a DPLR system, by the Woodbury identity.

    .. math::
        \bar A = (I - \tfrac{\Delta}{2} A)^{-1} (I + \tfrac{\Delta}{2} A)
               = I + \Delta (e \Lambda - 2\, e p\, g^{-1} p^\top e), \qquad
        e = \frac{1}{1 - \Delta \Lambda / 2}, \quad g = I + \Delta\, p^\top e p

    with :math:`p = [\operatorname{Re} P; \operatorname{Im} P]`, and with :math:`e, \Lambda` as real
    matrices that act on real and imaginary parts. A step costs O(N).

    Args:
        Lambda: diagonal part, ``(H, M)``.
        P: low-rank factor, ``(H, R, M)``.
        B: input vector, ``(H, M)``.
        Delta: positive step sizes, ``(*batch, H)``.

    Returns:
        The discrete system, with the leading axes of ``Delta``.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import discretize_dplr
        >>> one = jnp.ones((1, 1), complex)
        >>> system = discretize_dplr(-one, 0 * one[None], one, jnp.array([0.5]))
        >>> print(1 + system.d.real, system.B_bar.real)
        [[0.6]] [[0.4]]

    References:
        Gu et al., "Structured State Spaces" (S4), 2022, https://arxiv.org/abs/2111.00396,
        appendix C.2.
    """
    t = Delta[..., None]
    Lambda, B, P = with_axes(Lambda, t), with_axes(B, t), with_axes(P, t[..., None])
    e = 1 / (1 - t * Lambda / 2)
    V = P.conj() * e[..., None, :]
    change = t[..., None] * highest("...am,...bm->...ab", V, P).real
    g = with_axes(jnp.eye(P.shape[-2], dtype=t.dtype), change) + change
    U = -2 * t[..., None] * _solve_right(e[..., None] * jnp.swapaxes(P, -1, -2), g)
    B_bar = t * e * B + t / 2 * low_rank(U, V, B)
    return DPLR(t * e * Lambda, U, V, B_bar)


@default_promotion
def dplr_step(
    system: DPLR, x: Complex[Array, "*batch H M"], u: Float[Array, "*batch H"]
) -> Complex[Array, "*batch H M"]:
    r"""Advances a discrete DPLR system by one step, in O(N).

    .. math:: x' = \bar A x + \bar B u

    Args:
        system: from `discretize_dplr`.
        x: state, ``(*batch, H, M)``.
        u: input, ``(*batch, H)``.

    Returns:
        The next state, ``(*batch, H, M)``.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import discretize_dplr, dplr_step
        >>> one = jnp.ones((1, 1), complex)
        >>> system = discretize_dplr(-one, 0 * one[None], one, jnp.array([0.5]))
        >>> print(dplr_step(system, one, jnp.array([0.5])).real)
        [[0.8]]

    References:
        Gu et al., "Structured State Spaces" (S4), 2022, https://arxiv.org/abs/2111.00396.
    """
    return x + dplr_change(system, x) + with_axes(system.B_bar, x) * u[..., None]


@default_promotion
def dplr_kernel(
    Lambda: Complex[Array, "H M"],
    P: Complex[Array, "H R M"],
    B: Complex[Array, "H M"],
    C: Complex[Array, "*batch H M"],
    Delta: Float[Array, " H"],
    L: int,
    *,
    algorithm: KernelAlgorithm = "auto",
) -> Float[Array, "*batch L H"]:
    r"""Kernel of S4 under the bilinear rule.

    .. math:: K_l = 2 \operatorname{Re}(C \bar A^l \bar B), \qquad l = 0, \ldots, L - 1

    ``"two_table"`` forms :math:`K_{aT+b} = (C \bar A^{aT})(\bar A^b \bar B)` from dense real powers
    of the contraction :math:`\bar A`. The tables grow by doubling, with powers from
    :math:`M \leftarrow 2 M + M^2` and :math:`M = \bar A - I`. On a CPU and up to 2,048 lags their
    vectors follow one after another instead, those of the second table by steps of O(N).

    ``"cauchy"`` is the published algorithm. It samples the generating function at the L-th roots of
    unity, through Cauchy sums and the Woodbury identity, and applies an inverse FFT. Its kernels
    are about three times more accurate, but it is much slower and needs Re Lambda < 0. Its
    gradients lose their digits in float32 if modes have hardly decayed after L steps, such as the
    slowest modes of the Fourier measure. Gradients in Im Lambda were then wrong by several times
    their size, while ``"two_table"`` had errors of 3e-7.

    Args:
        Lambda: diagonal part of the state matrix, ``(H, M)``.
        P: low-rank factor, ``(H, R, M)``.
        B: input vector, ``(H, M)``.
        C: output vectors, ``(*batch, H, M)``.
        Delta: positive step sizes, ``(H,)``.
        L: number of lags.
        algorithm: ``"two_table"``, ``"cauchy"`` or ``"auto"``, which is ``"two_table"``.

    Returns:
        Kernels, ``(*batch, L, H)``.

    Raises:
        ValueError: if ``algorithm`` is unknown or ``L`` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import dplr_kernel
        >>> one = jnp.ones((1, 1), complex)
        >>> print(dplr_kernel(-one, 0 * one[None], one, one, jnp.array([6.0]), 3)[:, 0])
        [ 3.   -1.5   0.75]

    References:
        Gu et al., "Structured State Spaces" (S4), 2022, https://arxiv.org/abs/2111.00396.
    """
    check_choice("dplr_kernel", "algorithm", algorithm, get_args(KernelAlgorithm))
    check_positive("dplr_kernel", L=L)
    if algorithm == "cauchy":
        return _cauchy_kernel(Lambda, P, B, C, Delta, L)
    system = discretize_dplr(Lambda, P, B, Delta)
    if not by_steps(L):
        return dplr_response(system, C, system.B_bar, L)
    table, jump = dplr_jump(system, system.B_bar, block_length(L))
    return response_by_blocks(table, dense_change(jump), real_state(2 * C.conj()), L)


@default_promotion
def dplr_kernel_ref(
    Lambda: Complex[Array, "H M"],
    P: Complex[Array, "H R M"],
    B: Complex[Array, "H M"],
    C: Complex[Array, "*batch H M"],
    Delta: Float[Array, " H"],
    L: int,
) -> Float[Array, "*batch L H"]:
    """`dplr_kernel` by powers of dense matrices on all states, conjugates included; for tests.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import dplr_kernel_ref
        >>> one = jnp.ones((1, 1), complex)
        >>> print(dplr_kernel_ref(-one, 0 * one[None], one, one, jnp.array([6.0]), 3)[:, 0])
        [ 3.   -1.5   0.75]
    """
    check_positive("dplr_kernel_ref", L=L)
    Lambda, P, B, C = (jnp.concatenate([v, v.conj()], -1) for v in (Lambda, P, B, C))
    I, t = jnp.eye(Lambda.shape[-1])[None], Delta[:, None, None]
    A = Lambda[..., None] * I - jnp.swapaxes(P, -1, -2) @ P.conj()
    A_bar = jnp.linalg.solve(I - t / 2 * A, I + t / 2 * A)
    x, K = jnp.linalg.solve(I - t / 2 * A, t * B[..., None])[..., 0], []
    for _ in range(L):
        K.append((C * with_axes(x, C)).sum(-1).real)
        x = (A_bar @ x[..., None])[..., 0]
    return jnp.stack(K, -2)


@default_promotion
def dplr_response(
    system: DPLR, C: Complex[Array, "*#batch H M"], x: Complex[Array, "*#batch H M"], L: int
) -> Float[Array, "*batch L H"]:
    r"""Free response of a discrete DPLR system: its outputs without inputs.

    .. math:: y_l = 2 \operatorname{Re}(C \bar A^l x), \qquad l = 0, \ldots, L - 1

    The outputs come from the two-table product of `dplr_kernel`, which is the special case
    :math:`x = \bar B`.

    Args:
        system: from `discretize_dplr`, with steps of shape ``(H,)``.
        C: output vectors, ``(*batch, H, M)``.
        x: first states, ``(*batch, H, M)``; their leading axes broadcast with ``C``.
        L: number of outputs.

    Returns:
        Outputs, ``(*batch, L, H)``.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import discretize_dplr, dplr_response
        >>> one = jnp.ones((1, 1), complex)
        >>> system = discretize_dplr(-one, 0 * one[None], one, jnp.array([0.5]))
        >>> print(dplr_response(system, one, one, 3)[:, 0])
        [2.   1.2  0.72]

    References:
        Gu et al., "Structured State Spaces" (S4), 2022, https://arxiv.org/abs/2111.00396.
    """
    return free_response(dplr_powers(system), real_state(2 * C.conj()), real_state(x), L)


@default_promotion
def dplr_state(
    system: DPLR, u: Float[Array, "*batch L H"], x0: Complex[Array, "*batch H M"]
) -> Complex[Array, "*batch H M"]:
    r"""Last state of a discrete DPLR system, without the earlier states.

    .. math:: x = \bar A^L x_0 + \sum_{l=0}^{L-1} \bar A^{L-1-l} \bar B u_l

    Args:
        system: from `discretize_dplr`, with steps of shape ``(H,)``.
        u: inputs, ``(*batch, L, H)``.
        x0: state before the first input, ``(*batch, H, M)``.

    Returns:
        States, ``(*batch, H, M)``.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import discretize_dplr, dplr_state
        >>> one = jnp.ones((1, 1), complex)
        >>> system = discretize_dplr(-one, 0 * one[None], one, jnp.array([0.5]))
        >>> print(dplr_state(system, jnp.ones((2, 1)), one).real)
        [[1.]]

    References:
        Gu et al., "Structured State Spaces" (S4), 2022, https://arxiv.org/abs/2111.00396.
    """
    return complex_state(
        last_state(dplr_powers(system), real_state(system.B_bar), u, real_state(x0))
    )


@default_promotion
def dplr_chunks(system: DPLR, C: Complex[Array, "H M"], T: int) -> ChunkTables:
    """Builds the tables of `chunked_conv` for the kernel of `dplr_kernel`.

    Args:
        system: from `discretize_dplr`, with steps of shape ``(H,)``.
        C: output vectors, ``(H, M)``.
        T: length of a chunk, a power of two.

    Returns:
        The tables, with 2 M real states.

    Raises:
        ValueError: if ``T`` is not a power of two.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import discretize_dplr, dplr_chunks
        >>> one = jnp.ones((1, 1), complex)
        >>> system = discretize_dplr(-one, 0 * one[None], one, jnp.array([6.0]))
        >>> print(dplr_chunks(system, one, 4).taps)
        [[ 3.    -1.5    0.75  -0.375]]

    References:
        Gu et al., "Structured State Spaces" (S4), 2022, https://arxiv.org/abs/2111.00396.
    """
    row, B_bar = real_state(2 * C.conj()), real_state(system.B_bar)
    after = row + highest("hi,hij->hj", row, dense_change(system))
    first = (row * B_bar).sum(-1)
    return dense_chunks("dplr_chunks", dplr_powers(system), B_bar, after, first, T)


def _cauchy_kernel(Lambda: Array, P: Array, B: Array, C: Array, Delta: Array, L: int) -> Array:
    r"""The kernel from its generating function, truncated to L lags.

    Numerator and denominator of :math:`\frac{2}{1 + w}` and :math:`\frac{1}{z - \Delta\Lambda}`
    at :math:`w = e^{-i \theta}, z = 2 \frac{1 - w}{1 + w}` are multiplied by
    :math:`\cos \frac\theta2`, which keeps the node :math:`w = -1` finite.
    """
    half = np.pi * np.arange(L // 2 + 1) / L
    sine, cosine = (jnp.asarray(v, Delta.dtype) for v in (np.sin(half), np.cos(half)))
    C = _truncated(discretize_dplr(Lambda, P, B, Delta), C, L)
    z = Delta[:, None, None] * Lambda[..., None] * cosine[None, None]
    node = 2j * sine[None, None]
    above, below = 1 / (node - z), 1 / (node - z.conj())

    def cauchy(x: Array, y: Array) -> Array:
        v = with_axes(Delta[:, None], x) * x * y
        return highest("...hm,hmj->...hj", v, above) + highest("...hm,hmj->...hj", v.conj(), below)

    # The vectors of all pairs, with the rank as the first axis.
    C, P = C[None], jnp.moveaxis(P, -2, 0)
    P_all = P.reshape(len(P), *(1,) * (C.ndim - P.ndim), *P.shape[1:])
    BC, BQ, PC = cauchy(with_axes(B, C), C)[0], cauchy(B[None], P.conj()), cauchy(P_all, C)
    G = jnp.moveaxis(cauchy(P[:, None], P[None].conj()), (0, 1), (-2, -1))
    I = jnp.eye(len(P), dtype=cosine.dtype)
    inner = I[None, None] + cosine[None, :, None, None] * G
    row = _solve_right(jnp.moveaxis(BQ, 0, -1)[..., None, :], inner)[..., 0, :]
    cosine, sine = with_axes(cosine, BC), with_axes(sine, BC)
    spectrum = jax.lax.complex(cosine, sine) * (BC - cosine * highest("hjr,r...hj->...hj", row, PC))
    return jnp.moveaxis(jnp.fft.irfft(spectrum, L, axis=-1), -1, -2)


def _truncated(system: DPLR, C: Array, L: int) -> Array:
    r"""Output vectors :math:`C (I - \bar A^L)`, whose infinite kernel ends after L lags.

    The powers carry the difference itself, which is small where little has decayed.
    """
    row, powers = real_state(2 * C.conj()), dplr_powers(system)
    change = jnp.zeros_like(row)
    while L:
        M = next(powers)
        if L & 1:
            change = change + highest("...hi,hij->...hj", row + change, M)
        L = L // 2
    return complex_state(-change).conj() / 2


def _solve_right(X: Array, g: Array) -> Array:
    r"""Solution :math:`X g^{-1}` for a small square g."""
    if g.shape[-1] == 1:
        return X / g
    solution = jnp.linalg.solve(jnp.swapaxes(g, -1, -2).astype(X.dtype), jnp.swapaxes(X, -1, -2))
    return jnp.swapaxes(solution, -1, -2)
