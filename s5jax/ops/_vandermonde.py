r"""Sums of exponentials: kernels and states of diagonal systems, from two small tables.

With :math:`l = a T + b` an exponential factors, :math:`e^{z l} = e^{z a T} e^{z b}`, so a table of
L lags is the product of a table with :math:`L / T` lags and a table with T lags.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from s5jax._errors import check_positive
from s5jax._promotion import default_promotion, with_axes
from s5jax.ops._tables import block_length, highest


@default_promotion
def vandermonde(
    c: Complex[Array, "*batch H N"],
    z: Complex[Array, "H N"] | Complex[Array, " N"],
    L: int,
) -> Float[Array, "*batch L H"]:
    r"""Sums exponentials over all lags: the kernel of a diagonal system.

    .. math:: K_l = \operatorname{Re} \sum_n c_n e^{z_n l}, \qquad l = 0, \ldots, L - 1

    One real matrix product of two tables per feature, with :math:`2 L N` multiply-adds, replaces
    L N complex exponentials. In float32 the phases are reduced modulo :math:`2 \pi` in integers,
    so the error is at most 1e-6 of the sum of all :math:`|c_n|`, at any length. The direct form
    loses digits as :math:`|\operatorname{Im} z| l` grows: at a lag of a million, the error of a
    mode that has not decayed is 1e-2.

    Args:
        c: weights, ``(*batch, H, N)``.
        z: exponents, ``(H, N)``, or ``(N,)`` if all features share them.
        L: number of lags.

    Returns:
        Kernels, ``(*batch, L, H)``.

    Raises:
        ValueError: if the shapes do not fit or ``L`` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import vandermonde
        >>> z = jnp.log(jnp.array([[0.5 + 0.0j]]))
        >>> print(vandermonde(jnp.ones((1, 1), complex), z, 4)[:, 0])
        [1.    0.5   0.25  0.125]

    References:
        Gu et al., "Diagonal State Space Models" (S4D), 2022, https://arxiv.org/abs/2206.11893.
    """
    _check("vandermonde", c, z, L=L)
    if z.ndim == 1:
        return _shared(c, z, L)
    T = block_length(L)
    c = c[..., None, :]
    left = c * with_axes(jnp.moveaxis(_exponentials(z, T, -(-L // T)), -1, -2), c)
    right = _exponentials(z, 1, T)
    re, im = (
        highest("...han,hnb->...hab", *parts)
        for parts in ((left.real, right.real), (left.imag, right.imag))
    )
    K = re - im
    return jnp.moveaxis(K.reshape(*K.shape[:-2], math.prod(K.shape[-2:]))[..., :L], -1, -2)


def _shared(
    c: Complex[Array, "*batch H N"], z: Complex[Array, " N"], L: int
) -> Float[Array, "*batch L H"]:
    """`vandermonde` for exponents that all features share: one product, with time first.

    Real and imaginary parts are stacked, and the lags of a block are the rows. The gradient then
    takes two products and no transposed copy of the cotangent. With features first it would take
    four products and such a copy.
    """
    columns = c.reshape(-1, c.shape[-1]).T
    m = columns.shape[-1]
    T = block_length(L * max(m, 1) if isinstance(m, int) else L)
    A = -(-L // T)
    left = _exponentials(z, T, A)[..., None] * columns[:, None]
    right = _exponentials(z, 1, T)
    left = jnp.concatenate([left.real, -left.imag]).reshape(2 * len(z), A * m)
    right = jnp.concatenate([right.real, right.imag])
    K = highest("nb,nm->bm", right, left)
    K = jnp.swapaxes(K.reshape(T, A, m), 0, 1).reshape(A * T, *c.shape[:-1])
    return jnp.moveaxis(K[:L], 0, -2)


@default_promotion
def vandermonde_ref(
    c: Complex[Array, "*batch H N"],
    z: Complex[Array, "H N"] | Complex[Array, " N"],
    L: int,
) -> Float[Array, "*batch L H"]:
    """`vandermonde` by its definition, with every exponential; for tests.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import vandermonde_ref
        >>> z = jnp.log(jnp.array([[0.5 + 0.0j]]))
        >>> print(vandermonde_ref(jnp.ones((1, 1), complex), z, 4)[:, 0])
        [1.    0.5   0.25  0.125]
    """
    _check("vandermonde_ref", c, z, L=L)
    lags, c = jnp.arange(L)[:, None, None], c[..., None, :, :]
    table = jnp.exp(lags * with_axes(z, lags))
    return (c * with_axes(table, c)).sum(-1).real


@default_promotion
def vandermonde_state(
    u: Float[Array, "*batch L H"],
    z: Complex[Array, "H N"],
    B: Complex[Array, "H N"],
    x0: Complex[Array, "*batch H N"],
) -> Complex[Array, "*batch H N"]:
    r"""Last state of a diagonal system, without the earlier states.

    .. math:: x = e^{z L} x_0 + B \sum_{l=0}^{L-1} e^{z (L - 1 - l)} u_l

    The transpose of `vandermonde`, computed from the same two tables.

    Args:
        u: inputs, ``(*batch, L, H)``.
        z: exponents, ``(H, N)``.
        B: input weights, ``(H, N)``.
        x0: state before the first input, ``(*batch, H, N)``.

    Returns:
        States, ``(*batch, H, N)``.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import vandermonde_state
        >>> one = jnp.ones((1, 1), complex)
        >>> print(vandermonde_state(jnp.ones((3, 1)), jnp.log(0.5 * one), one, 8 * one).real)
        [[2.75]]

    References:
        Gu et al., "Diagonal State Space Models" (S4D), 2022, https://arxiv.org/abs/2206.11893.
    """
    _check_state("vandermonde_state", u, z, B, x0)
    *batch, L, H = u.shape
    T = block_length(L)
    A = -(-L // T)
    latest_first = jnp.moveaxis(jnp.flip(u, -2), -1, -2)
    blocks = jnp.pad(latest_first, [(0, 0)] * (u.ndim - 1) + [(0, A * T - L)])
    blocks = blocks.reshape(*batch, H, A, T)
    right = _exponentials(z, 1, T)
    sums = jax.lax.complex(
        *(highest("...hab,hnb->...han", blocks, part) for part in (right.real, right.imag))
    )
    left = jnp.moveaxis(_exponentials(z, T, A), -1, -2)
    driven = (sums * with_axes(left, sums)).sum(-2)
    decay, B = (with_axes(v, x0) for v in (_exponentials(z, L, 2)[..., 1], B))
    return decay * x0 + B * driven


@default_promotion
def vandermonde_state_ref(
    u: Float[Array, "*batch L H"],
    z: Complex[Array, "H N"],
    B: Complex[Array, "H N"],
    x0: Complex[Array, "*batch H N"],
) -> Complex[Array, "*batch H N"]:
    """`vandermonde_state` step by step; for tests.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import vandermonde_state_ref
        >>> one = jnp.ones((1, 1), complex)
        >>> print(vandermonde_state_ref(jnp.ones((3, 1)), jnp.log(0.5 * one), one, 8 * one).real)
        [[2.75]]
    """
    _check_state("vandermonde_state_ref", u, z, B, x0)
    x, z, B = x0, with_axes(z, x0), with_axes(B, x0)
    for k in range(u.shape[-2]):
        x = jnp.exp(z) * x + B * u[..., k, :, None]
    return x


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _exponentials(z: Complex[Array, "*shape"], step: int, n: int) -> Complex[Array, "*shape {n}"]:
    r""":math:`e^{z l}` for the lags ``0, step, ..., (n - 1) step``, on a new last axis."""
    lags = with_axes(jnp.asarray(step * np.arange(n), jnp.int32), z[..., None])
    if z.dtype != jnp.complex64:
        return jnp.exp(z[..., None] * lags)
    word, rest = (part[..., None] for part in _revolutions(z.imag))
    size = jnp.exp(z.real[..., None] * lags)
    cos, sin = _cos_sin(word * lags, rest * lags)
    return jax.lax.complex(size * cos, size * sin)


@_exponentials.defjvp
@default_promotion
def _exponentials_jvp(
    step: int, n: int, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    value = _exponentials(*primals, step, n)
    lags = with_axes(jnp.asarray(step * np.arange(n), value.real.dtype), value)
    return value, lags * value * tangents[0][..., None]


def _cos_sin(word: Int[Array, "*shape"], rest: Float[Array, "*shape"]) -> tuple[Array, Array]:
    r"""Cosine and sine of an angle in units of :math:`2^{-32}` revolutions.

    The upper bits of the integer are the quadrant. Taylor polynomials give the rest, with an error
    of 3e-8. XLA on a CPU would call `cosf` and `sinf` for one number at a time, and spend most of
    the time of a table in them.
    """
    quadrant = (word + (1 << 29)) >> 30
    x = ((word - (quadrant << 30)).astype(jnp.float32) + rest) * np.float32(2 * np.pi / 2**32)
    square = x * x
    cos = sin = jnp.zeros_like(x)
    for even, uneven in ((40320, 362880), (720, 5040), (24, 120), (2, 6), (1, 1)):
        cos, sin = 1 / even - square * cos, 1 / uneven - square * sin
    sin, odd = x * sin, quadrant & 1 == 1
    first, second = jnp.where(odd, sin, cos), jnp.where(odd, cos, sin)
    return (
        jnp.where((quadrant + 1) & 2 == 2, -first, first),
        jnp.where(quadrant & 2 == 2, -second, second),
    )


def _revolutions(angle: Float[Array, "*shape"]) -> tuple[Array, Array]:
    r"""An angle modulo one revolution, as an integer and a small rest in units of :math:`2^{-32}`.

    Products with the integer wrap around, so they are reduced modulo a revolution exactly. The
    quotient of the angle and :math:`2 \pi` is a sum of exact products of 12-bit halves.
    """
    whole = 1 / (2 * np.pi)
    first = np.float32(whole)
    second = np.float32(whole - np.float64(first))
    high, low = _halves(angle)
    first_high, first_low = _halves(jnp.asarray(first))
    products = (high * first_high, high * first_low, low * first_high, low * first_low)
    word, rest = jnp.zeros(angle.shape, jnp.int32), jnp.zeros(angle.shape, jnp.float32)
    for revolutions in (*products, angle * second):
        scaled = (revolutions - jnp.round(revolutions)) * 2**16
        upper = jnp.round(scaled)
        scaled = (scaled - upper) * 2**16
        lower = jnp.round(scaled)
        word += upper.astype(jnp.int32) * 2**16 + lower.astype(jnp.int32)
        rest += scaled - lower
    return word, rest


def _halves(x: Float[Array, "*shape"]) -> tuple[Array, Array]:
    """Splits float32 numbers into two halves of 12 bits, by a mask that no compiler reorders."""
    bits = jax.lax.bitcast_convert_type(x, jnp.int32) & ~0xFFF
    high = jax.lax.bitcast_convert_type(bits, jnp.float32)
    return high, x - high


def _check(where: str, c: Array, z: Array, **length: int) -> None:
    if c.ndim < 2 or z.shape not in (c.shape[-2:], c.shape[-1:]):
        raise ValueError(
            f"{where}: `c` must have shape (*batch, H, N) and `z` shape (H, N) or (N,); got "
            f"{c.shape} and {z.shape}."
        )
    check_positive(where, **length)


def _check_state(where: str, u: Array, z: Array, B: Array, x0: Array) -> None:
    if u.ndim < 2 or u.shape[-2] < 1 or z.shape != B.shape or z.ndim != 2:
        raise ValueError(
            f"{where}: `u` must have shape (*batch, L, H) with L >= 1, `z` and `B` shape (H, N); "
            f"got {u.shape}, {z.shape} and {B.shape}."
        )
    expected = (*u.shape[:-2], *z.shape)
    if u.shape[-1] != len(z) or x0.shape != expected:
        raise ValueError(
            f"{where}: for `u` of shape {u.shape} and `z` of shape {z.shape}, `u` must have "
            f"{len(z)} features and `x0` shape {expected}; got `x0` of shape {x0.shape}."
        )
