"""Long convolutions along time, one kernel per feature."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from s5jax._promotion import default_promotion

_PARTS = 4
_LONG = 1024
"""Steps from which on `fft_conv` takes one direction in four parts on a CPU.

Shares of the time of one transform of all steps, which is padded to twice the length, on two CPU
cores, forward, and forward and backward:

=========  ========  =======  ==========
sequences  features  steps    share
=========  ========  =======  ==========
8          128         1,024  0.73, 0.71
1          128         4,096  0.82, 0.88
8          128         4,096  0.86, 0.75
1          128        16,384  0.71, 0.83
4          128        16,384  0.75, 0.79
1          128        65,536  0.89, 0.94
1          32        262,144  0.58, 0.70
=========  ========  =======  ==========

Two parts and eight were within a fifth of four. Both directions share one transform of all steps,
and took longer in parts.
"""


@default_promotion
def fft_conv(
    u: Float[Array, "*batch L H"],
    k: Float[Array, "Lk H"],
    *,
    k_reverse: Float[Array, "Lr H"] | None = None,
) -> Float[Array, "*batch L H"]:
    r"""Convolves sequences with long kernels in :math:`O(L \log L)`.

    .. math:: y_t = \sum_{j \ge 0} k_j u_{t-j} + \sum_{j \ge 0} k^{rev}_j u_{t+1+j}, \qquad
              u_s = 0 \text{ outside } 0, \dots, L-1

    The kernel that looks ahead starts at the *next* sample, as in all official layers of the S4
    family, so that the current one counts once. Transforms run in float32 or wider, and both
    directions share one.

    Args:
        u: inputs, shape ``(*batch, L, H)``.
        k: causal kernel, shape ``(Lk, H)``, of any length.
        k_reverse: kernel that looks ahead, shape ``(Lr, H)``, of any length; none if omitted.

    Returns:
        Outputs, shape ``(*batch, L, H)``, in the dtype of ``u``.

    Raises:
        ValueError: if ``u`` is not real floating point with time and feature axes, or a kernel does
            not have shape ``(length, H)`` with at least one lag.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import fft_conv
        >>> y = fft_conv(jnp.ones((4, 1)), jnp.array([[1.0], [0.5]]))
        >>> print(y[:, 0].round(4))
        [1.  1.5 1.5 1.5]

    References:
        Gu, Goel and Ré, "Efficiently Modeling Long Sequences with Structured State Spaces", 2022,
        https://arxiv.org/abs/2111.00396.
    """
    _check_shapes("fft_conv", u, k, k_reverse)
    L, H = u.shape[-2:]
    dtype = _compute_dtype(u, k, k_reverse)
    behind = k[:L].astype(dtype)
    ahead = jnp.zeros((0, H), dtype) if k_reverse is None else k_reverse[: L - 1].astype(dtype)
    x = u.astype(dtype).reshape(-1, L, H)
    if L >= _LONG and not len(ahead) and jax.default_backend() == "cpu":
        y = _in_parts(x, behind, _PARTS)
    else:
        y = _at_once(x, behind, ahead)
    return y.reshape(u.shape).astype(u.dtype)


def _at_once(
    x: Float[Array, "b L H"], behind: Float[Array, "Lk H"], ahead: Float[Array, "Lr H"]
) -> Float[Array, "b L H"]:
    """One transform of all steps, and of both kernels."""
    L, H = x.shape[1:]
    n = _fft_length(L + max(len(behind) - 1, len(ahead)))
    k = behind
    if len(ahead):  # on a circle of n samples the lag -1-j lies at n-1-j
        gap = jnp.zeros((n - len(behind) - len(ahead), H), x.dtype)
        k = jnp.concatenate([behind, gap, jnp.flip(ahead, 0)])
    return jnp.fft.irfft(jnp.fft.rfft(k[None], n, 1) * jnp.fft.rfft(x, n, 1), n, 1)[:, :L]


def _in_parts(
    x: Float[Array, "b L H"], k: Float[Array, "Lk H"], n_parts: int
) -> Float[Array, "b L H"]:
    """Sums the products of parts of the sequence and of the kernel.

    What part p of one and part m of the other give lies in the part p + m and the one after it. In
    all, transforms are as long as those of the whole, but each stays in the cache.
    """
    L = x.shape[1]
    B = -(-L // n_parts)
    n = _fft_length(B + min(B, len(k)))

    def transforms(v: Float[Array, "*b t H"]) -> list[Complex[Array, "*b H q"]]:
        v = jnp.moveaxis(v, -2, -1)
        return [jnp.fft.rfft(v[..., i : i + B], n) for i in range(0, v.shape[-1], B)]

    X, K = transforms(x), transforms(k)
    y: list[Array] = []
    after = jnp.zeros((), x.dtype)
    for i in range(len(X)):
        spectrum = sum(K[m] * X[i - m] for m in range(min(i + 1, len(K))))
        both = jnp.fft.irfft(spectrum, n)
        y.append(both[..., :B] + after)
        after = both[..., B : 2 * B]
        after = _pad(after, 0, B - after.shape[-1])
    return jnp.moveaxis(jnp.concatenate(y, -1)[..., :L], -1, -2)


@default_promotion
def fft_conv_ref(
    u: Float[Array, "*batch L H"],
    k: Float[Array, "Lk H"],
    *,
    k_reverse: Float[Array, "Lr H"] | None = None,
) -> Float[Array, "*batch L H"]:
    """`fft_conv` as a product with the dense Toeplitz matrix of each feature; for tests.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import fft_conv_ref
        >>> y = fft_conv_ref(jnp.ones((3, 1)), jnp.ones((1, 1)), k_reverse=jnp.ones((1, 1)))
        >>> print(y[:, 0])
        [2. 2. 1.]
    """
    _check_shapes("fft_conv_ref", u, k, k_reverse)
    dtype = _compute_dtype(u, k, k_reverse)
    t = jnp.arange(u.shape[-2])
    lag = t[:, None] - t
    T = _taps(k.astype(dtype), lag)
    if k_reverse is not None:
        T = T + _taps(k_reverse.astype(dtype), -1 - lag)
    return jnp.einsum("tsh,...sh->...th", T, u.astype(dtype), precision="highest").astype(u.dtype)


@default_promotion
def segment_conv(
    u: Float[Array, "*batch L H"], k: Float[Array, "Lk H"], segments: Int[Array, "*batch L"]
) -> Float[Array, "*batch L H"]:
    r"""A causal convolution in which nothing crosses from one segment to another.

    .. math:: y_t = \sum_{j \ge 0} [c_{t-j} = c_t] \, k_j u_{t-j}, \qquad
              u_s = 0 \text{ outside } 0, \dots, L-1

    Between two neighbouring blocks of time the condition is a product: the input lies in the last
    segment of the first block, the output in the first of the second, and these are the same. So
    pairs of blocks of 1, 2, 4, ... steps are convolved one after the other, with the mask before
    the transform: not even rounding leaks, at any number of segments. It costs a few times
    `fft_conv`.

    Args:
        u: inputs, shape ``(*batch, L, H)``, finite.
        k: causal kernel, shape ``(Lk, H)``, of any length.
        segments: a number for each step, shape ``(*batch, L)``, the same within a segment
            and another in every other.

    Returns:
        Outputs, shape ``(*batch, L, H)``, in the dtype of ``u``.

    Raises:
        ValueError: if shapes do not fit or ``u`` or ``k`` is not real floating point.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import segment_conv
        >>> y = segment_conv(jnp.ones((5, 1)), jnp.ones((5, 1)), jnp.array([0, 0, 1, 1, 1]))
        >>> print(y[:, 0])
        [1. 2. 1. 2. 3.]

    References:
        Gu, Goel and Ré, "Efficiently Modeling Long Sequences with Structured State Spaces", 2022,
        https://arxiv.org/abs/2111.00396, for the convolution; the recursion is this library's own.
    """
    _check_segments("segment_conv", u, k, segments)
    L = u.shape[-2]
    dtype = _compute_dtype(u, k)
    n = 1 << (L - 1).bit_length()
    # Time last, so that the transforms need no transposition.
    x = _pad(jnp.moveaxis(u.astype(dtype), -2, -1), 0, n - L)
    c, k = _pad(segments[..., None, :], 0, n - L), k[:L].astype(dtype).T
    y = k[:, :1] * x
    s = 1
    while s < n:
        y += _between_blocks(x, k, c, s)
        s *= 2
    return jnp.moveaxis(y[..., :L], -1, -2).astype(u.dtype)


@default_promotion
def segment_conv_ref(
    u: Float[Array, "*batch L H"], k: Float[Array, "Lk H"], segments: Int[Array, "*batch L"]
) -> Float[Array, "*batch L H"]:
    """`segment_conv` as a product with dense masked Toeplitz matrices; for tests.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import segment_conv_ref
        >>> y = segment_conv_ref(jnp.ones((3, 1)), jnp.ones((3, 1)), jnp.array([0, 1, 1]))
        >>> print(y[:, 0])
        [1. 1. 2.]
    """
    _check_segments("segment_conv_ref", u, k, segments)
    dtype = _compute_dtype(u, k)
    t = jnp.arange(u.shape[-2])
    T = _taps(k.astype(dtype), t[:, None] - t)
    T = jnp.where((segments[..., :, None] == segments[..., None, :])[..., None], T, 0)
    y = jnp.einsum("...tsh,...sh->...th", T, u.astype(dtype), precision="highest")
    return y.astype(u.dtype)


_DIRECT = 16
"""Blocks of up to this many steps are multiplied with a matrix, longer ones by FFT."""


def _between_blocks(
    x: Float[Array, "*batch H n"], k: Float[Array, "H Lk"], c: Int[Array, "*batch 1 n"], s: int
) -> Float[Array, "*batch H n"]:
    """From the first to the second of each pair of blocks of s steps, as far as the kernel goes."""
    reach = min(s, max(k.shape[-1] - 1, 1))
    pairs, c = (v.reshape(*v.shape[:-1], v.shape[-1] // (2 * s), 2 * s) for v in (x, c))
    before, after, border = slice(s - reach, s), slice(s, s + reach), slice(s - 1, s)
    tail = jnp.where(c[..., before] == c[..., border], pairs[..., before], 0)
    k = _pad(k, 0, max(0, 2 * reach - k.shape[-1]))
    if reach <= _DIRECT:
        T = k[:, reach + np.subtract.outer(np.arange(reach), np.arange(reach))]
        y = jnp.einsum("hts,...hbs->...hbt", T, tail, precision="highest")
    else:
        m = _fft_length(2 * reach)
        K = jnp.fft.rfft(k[:, None, : 2 * reach], m)
        y = jnp.fft.irfft(K * jnp.fft.rfft(tail, m), m)[..., reach : 2 * reach]
    y = jnp.where(c[..., after] == c[..., border], y, 0)
    return _pad(y, s, s - reach).reshape(x.shape)


def _pad(x: Array, before: int, after: int) -> Array:
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(before, after)])


def _taps(k: Float[Array, "Lk H"], lag: Array) -> Float[Array, "L L H"]:
    return k.at[jnp.where(lag < 0, len(k), lag)].get(mode="fill", fill_value=0)


@functools.cache
def _fft_length(n: int) -> int:
    """The smallest product of 2s, 3s and 5s that is at least n.

    Measured on two CPU cores against the next power of two: 2.7 times faster where that is far away
    (20,000), equal to it where it is near.
    """
    best = 1 << (n - 1).bit_length()
    five = 1
    while five < best:
        three = five
        while three < best:
            two = 1 << (-(-n // three) - 1).bit_length()
            best = min(best, three * two)
            three *= 3
        five *= 5
    return best


def _compute_dtype(*arrays: Array | None) -> jnp.dtype:
    return jnp.result_type(jnp.float32, *(a.dtype for a in arrays if a is not None))


def _check_shapes(where: str, u: Array, k: Array, k_reverse: Array | None) -> None:
    if u.ndim < 2 or 0 in u.shape[-2:] or not jnp.issubdtype(u.dtype, jnp.floating):
        raise ValueError(
            f"{where}: `u` must be real floating point of shape (*batch, L, H) with L, H >= 1; got "
            f"{u.dtype} of shape {u.shape}."
        )
    for name, kernel in (("k", k), ("k_reverse", k_reverse)):
        if kernel is None:
            continue
        if kernel.ndim != 2 or kernel.shape[0] < 1 or kernel.shape[1] != u.shape[-1]:
            raise ValueError(
                f"{where}: `{name}` must have shape (length >= 1, {u.shape[-1]}), because `u` has "
                f"shape {u.shape}; got {kernel.shape}."
            )
        if not jnp.issubdtype(kernel.dtype, jnp.floating):
            raise ValueError(f"{where}: `{name}` must be real floating point; got {kernel.dtype}.")


def _check_segments(where: str, u: Array, k: Array, segments: Array) -> None:
    _check_shapes(where, u, k, None)
    if segments.shape != u.shape[:-1] or not jnp.issubdtype(segments.dtype, jnp.integer):
        raise ValueError(
            f"{where}: `segments` must be integers of shape {u.shape[:-1]}, one per step; got "
            f"{segments.dtype} of shape {segments.shape}."
        )
