r"""Sums of exponentials: kernels and states of diagonal systems, from two small tables.

With :math:`l = a T + b` an exponential factors, :math:`e^{z l} = e^{z a T} e^{z b}`, so a table of
L lags is a product of one with :math:`L / T` and one with T.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from s5jax._promotion import default_promotion


@default_promotion
def vandermonde(
    c: Complex[Array, "*batch H N"],
    z: Complex[Array, "H N"] | Complex[Array, " N"],
    L: int,
) -> Float[Array, "*batch L H"]:
    r"""Sums exponentials over all lags: the kernel of a diagonal system.

    .. math:: K_l = \operatorname{Re} \sum_n c_n e^{z_n l}, \qquad l = 0, \dots, L - 1

    One real matrix product of two tables a feature, :math:`2 L N` multiply-adds, instead of L N
    complex exponentials. In float32 the phases are reduced modulo :math:`2 \pi` in integers, so
    that the error is 1e-6 of the sum of all :math:`|c_n|` at most, at any length; the direct form
    loses digits with :math:`|\operatorname{Im} z| l`, 1e-2 at a lag of a million for a mode that
    has not decayed.

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
        Gu, Gupta, Goel and Ré, "On the Parameterization and Initialization of Diagonal State Space
        Models", 2022, https://arxiv.org/abs/2206.11893.
    """
    _check("vandermonde", c, z, L=L)
    if z.ndim == 1:
        return _shared(c, z, L)
    T = block_length(L)
    left = c[..., None, :] * jnp.moveaxis(_exponentials(z, T, -(-L // T)), -1, -2)
    right = _exponentials(z, 1, T)
    product = functools.partial(jnp.einsum, "...han,hnb->...hab", precision="highest")
    K = product(left.real, right.real) - product(left.imag, right.imag)
    return jnp.moveaxis(K.reshape(*K.shape[:-2], math.prod(K.shape[-2:]))[..., :L], -1, -2)


def _shared(
    c: Complex[Array, "*batch H N"], z: Complex[Array, " N"], L: int
) -> Float[Array, "*batch L H"]:
    """`vandermonde` for exponents that all features share: one flat product, time before features.

    With real and imaginary parts stacked, and the lags of a block as rows, the gradient takes two
    products and no transposed copy of the kernel's: 24 ms forward and backward for 64 states, 128
    features and 16,384 lags on two CPU cores, where four products with features first took 110.
    """
    columns = c.reshape(-1, c.shape[-1]).T
    m = columns.shape[-1]
    T = block_length(L * max(m, 1) if isinstance(m, int) else L)
    A = -(-L // T)
    left = _exponentials(z, T, A)[..., None] * columns[:, None]
    right = _exponentials(z, 1, T)
    left = jnp.concatenate([left.real, -left.imag]).reshape(2 * len(z), A * m)
    right = jnp.concatenate([right.real, right.imag])
    K = jnp.einsum("nb,nm->bm", right, left, precision="highest")
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
    table = jnp.exp(jnp.arange(L)[:, None, None] * z)
    return (c[..., None, :, :] * table).sum(-1).real


@default_promotion
def vandermonde_state(
    u: Float[Array, "*batch L H"],
    z: Complex[Array, "H N"],
    B: Complex[Array, "H N"],
    x0: Complex[Array, "*batch H N"],
) -> Complex[Array, "*batch H N"]:
    r"""The last state of a diagonal system, without those before.

    .. math:: x = e^{z L} x_0 + B \sum_{l=0}^{L-1} e^{z (L - 1 - l)} u_l

    The transpose of `vandermonde`, by the same two tables.

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
        Gu, Gupta, Goel and Ré, "On the Parameterization and Initialization of Diagonal State Space
        Models", 2022, https://arxiv.org/abs/2206.11893.
    """
    _check_state("vandermonde_state", u, z, B, x0)
    *batch, L, H = u.shape
    T = block_length(L)
    A = -(-L // T)
    latest_first = jnp.moveaxis(jnp.flip(u, -2), -1, -2)
    blocks = jnp.pad(latest_first, [(0, 0)] * (u.ndim - 1) + [(0, A * T - L)])
    blocks = blocks.reshape(*batch, H, A, T)
    right = _exponentials(z, 1, T)
    product = functools.partial(jnp.einsum, "...hab,hnb->...han", precision="highest")
    sums = jax.lax.complex(product(blocks, right.real), product(blocks, right.imag))
    driven = (sums * jnp.moveaxis(_exponentials(z, T, A), -1, -2)).sum(-2)
    return _exponentials(z, L, 2)[..., 1] * x0 + B * driven


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
    x = x0
    for k in range(u.shape[-2]):
        x = jnp.exp(z) * x + B * u[..., k, :, None]
    return x


def block_length(n: int) -> int:
    """The smallest power of two that is at least the root of n; flat between 1 and 2 roots."""
    return 1 << math.ceil(math.log2(n) / 2)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _exponentials(z: Complex[Array, "*shape"], step: int, n: int) -> Complex[Array, "*shape {n}"]:
    r""":math:`e^{z l}` for the lags ``0, step, ..., (n - 1) step``, on a new last axis."""
    lags = jnp.asarray(step * np.arange(n), jnp.int32)
    if z.dtype != jnp.complex64:
        return jnp.exp(z[..., None] * lags)
    word, rest = (part[..., None] for part in _turns(z.imag))
    size = jnp.exp(z.real[..., None] * lags)
    cos, sin = _cos_sin(word * lags, rest * lags)
    return jax.lax.complex(size * cos, size * sin)


@_exponentials.defjvp
@default_promotion
def _exponentials_jvp(
    step: int, n: int, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    value = _exponentials(*primals, step, n)
    lags = jnp.asarray(step * np.arange(n), value.real.dtype)
    return value, lags * value * tangents[0][..., None]


def _cos_sin(word: Int[Array, "*shape"], rest: Float[Array, "*shape"]) -> tuple[Array, Array]:
    r"""Cosine and sine of an angle in units of :math:`2^{-32}` turns.

    The quadrant is the integer's upper bits; Taylor polynomials do the rest, to 3e-8. On a CPU XLA
    calls `cosf` and `sinf` for one number at a time, which took most of the time of a table.
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


def _turns(angle: Float[Array, "*shape"]) -> tuple[Array, Array]:
    r"""An angle in units of :math:`2^{-32}` turns, modulo a turn: an integer and a small rest.

    Wrapping integer products with the integer are then exact reductions modulo a turn. The quotient
    by :math:`2 \pi` is a sum of exact products of halves of 12 bits.
    """
    whole = 1 / (2 * np.pi)
    first = np.float32(whole)
    second = np.float32(whole - np.float64(first))
    high, low = _halves(angle)
    first_high, first_low = _halves(jnp.asarray(first))
    products = (high * first_high, high * first_low, low * first_high, low * first_low)
    word, rest = jnp.zeros(angle.shape, jnp.int32), jnp.zeros(angle.shape, jnp.float32)
    for turns in (*products, angle * second):
        scaled = (turns - jnp.round(turns)) * 2**16
        upper = jnp.round(scaled)
        scaled = (scaled - upper) * 2**16
        lower = jnp.round(scaled)
        word += upper.astype(jnp.int32) * 2**16 + lower.astype(jnp.int32)
        rest += scaled - lower
    return word, rest


def _halves(x: Float[Array, "*shape"]) -> tuple[Array, Array]:
    """Splits float32 numbers into two of 12 bits, by masking, which no compiler reorders."""
    bits = jax.lax.bitcast_convert_type(x, jnp.int32) & ~0xFFF
    high = jax.lax.bitcast_convert_type(bits, jnp.float32)
    return high, x - high


def _check(where: str, c: Array, z: Array, **length: int) -> None:
    if c.ndim < 2 or z.shape not in (c.shape[-2:], c.shape[-1:]):
        raise ValueError(
            f"{where}: `c` must have shape (*batch, H, N) and `z` shape (H, N) or (N,); got "
            f"{c.shape} and {z.shape}."
        )
    for name, n in length.items():
        if n < 1:
            raise ValueError(f"{where}: `{name}` must be at least 1; got {n}.")


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
