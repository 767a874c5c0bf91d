"""Long convolutions along time, one kernel per feature."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from s5jax._promotion import default_promotion, with_axes
from s5jax.ops._dft import cyclic_conv
from s5jax.ops._platform import target_platform
from s5jax.ops._tables import highest

_PARTS = 4
"""Parts of a long sequence on a CPU. Two or eight parts are about equally fast."""

_LONG = 1024
"""Length from which `fft_conv` convolves in parts, on a CPU and in one direction.

The shorter transforms stay in the processor's cache. Two directions share one transform of the
whole sequence, which is faster than separate parts.
"""

_DIRECT = 16
"""Longest blocks of `segment_conv` that are convolved by a matrix product instead of an FFT."""


@default_promotion
def fft_conv(
    u: Float[Array, "*batch L H"],
    k: Float[Array, "Lk H"],
    *,
    k_reverse: Float[Array, "Lr H"] | None = None,
) -> Float[Array, "*batch L H"]:
    r"""Convolves sequences with long kernels in :math:`O(L \log L)`.

    .. math:: y_t = \sum_{j \ge 0} k_j u_{t-j} + \sum_{j \ge 0} k^{rev}_j u_{t+1+j}, \qquad
              u_s = 0 \text{ outside } 0, \ldots, L-1

    The anticausal kernel starts at the *next* sample, as in all official layers of the S4 family,
    so that the current sample counts once. Transforms run in float32 or wider. Both directions
    share one transform.

    Args:
        u: inputs, shape ``(*batch, L, H)``.
        k: causal kernel, shape ``(Lk, H)``, of any length.
        k_reverse: anticausal kernel, shape ``(Lr, H)``, of any length; none if omitted.

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
        Gu et al., "Structured State Spaces" (S4), 2022, https://arxiv.org/abs/2111.00396.
    """
    _check_shapes("fft_conv", u, k, k_reverse)
    L, H = u.shape[-2:]
    dtype = _compute_dtype(u, k, k_reverse)
    behind = k[:L].astype(dtype)
    ahead = jnp.zeros((0, H), dtype) if k_reverse is None else k_reverse[: L - 1].astype(dtype)
    x = u.astype(dtype).reshape(-1, L, H)
    if L >= _LONG and not len(ahead) and target_platform() == "cpu":
        y = _in_parts(x, behind, _PARTS)
    else:
        y = _in_one(x, behind, ahead)
    return y.reshape(u.shape).astype(u.dtype)


def _in_one(
    x: Float[Array, "b L H"], behind: Float[Array, "Lk H"], ahead: Float[Array, "Lr H"]
) -> Float[Array, "b L H"]:
    """Convolves with both kernels by one transform of the whole sequence."""
    L, H = x.shape[1:]
    n = L + max(len(behind) - 1, len(ahead))
    by_products = target_platform() == "tpu"
    n = 1 << (n - 1).bit_length() if by_products else _fft_length(n)
    k = behind
    if len(ahead):  # modulo n, the lag -1-j is n-1-j
        gap = jnp.zeros((n - len(behind) - len(ahead), H), x.dtype)
        k = jnp.concatenate([behind, gap, jnp.flip(ahead, 0)])
    if by_products:
        x, k = (
            jnp.pad(v, [(0, 0)] * (v.ndim - 2) + [(0, n - v.shape[-2]), (0, 0)]) for v in (x, k)
        )
        return cyclic_conv(x, k)[:, :L]
    return jnp.fft.irfft(jnp.fft.rfft(k[None], n, 1) * jnp.fft.rfft(x, n, 1), n, 1)[:, :L]


def _in_parts(
    x: Float[Array, "b L H"], k: Float[Array, "Lk H"], n_parts: int
) -> Float[Array, "b L H"]:
    """Sums the convolutions of parts of the sequence with parts of the kernel.

    Part p of the sequence and part m of the kernel contribute to the parts p + m and p + m + 1 of
    the result. The total length of all transforms is the same as for one transform of the whole
    sequence, but each stays in the cache.
    """
    L = x.shape[1]
    B = -(-L // n_parts)
    n = _fft_length(B + min(B, len(k)))

    def transforms(v: Float[Array, "*b t H"]) -> list[Complex[Array, "*b H q"]]:
        v = jnp.moveaxis(v, -2, -1)
        return [jnp.fft.rfft(v[..., i : i + B], n) for i in range(0, v.shape[-1], B)]

    X, K = transforms(x), transforms(k[None])
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
    lag = t[:, None] - t[None]
    T = _taps(k.astype(dtype), lag)
    if k_reverse is not None:
        T = T + _taps(k_reverse.astype(dtype), -1 - lag)
    return highest("tsh,...sh->...th", T, u.astype(dtype)).astype(u.dtype)


@default_promotion
def segment_conv(
    u: Float[Array, "*batch L H"], k: Float[Array, "Lk H"], segments: Int[Array, "*batch L"]
) -> Float[Array, "*batch L H"]:
    r"""Causal convolution within segments: no output depends on another segment.

    .. math:: y_t = \sum_{j \ge 0} [c_{t-j} = c_t] \, k_j u_{t-j}, \qquad
              u_s = 0 \text{ outside } 0, \ldots, L-1

    Between two neighbouring blocks of time the condition is a product: the input is in the last
    segment of the first block, the output is in the first segment of the second block, and these
    two are the same segment. So pairs of blocks of 1, 2, 4, ... steps are convolved one after
    another, with the mask before the transform: not even rounding leaks, at any number of segments.
    The cost is a few times the cost of `fft_conv`.

    Args:
        u: inputs, shape ``(*batch, L, H)``, finite.
        k: causal kernel, shape ``(Lk, H)``, of any length.
        segments: number of each step's segment, shape ``(*batch, L)``. A segment is contiguous,
            and no two segments have the same number.

    Returns:
        Outputs, shape ``(*batch, L, H)``, in the dtype of ``u``.

    Raises:
        ValueError: if the shapes do not fit, ``u`` or ``k`` is not real floating point, or
            ``segments`` is not integer.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import segment_conv
        >>> y = segment_conv(jnp.ones((5, 1)), jnp.ones((5, 1)), jnp.array([0, 0, 1, 1, 1]))
        >>> print(y[:, 0])
        [1. 2. 1. 2. 3.]

    References:
        Gu et al., "Structured State Spaces" (S4), 2022, https://arxiv.org/abs/2111.00396
        (the convolution; the recursion is this library's own).
    """
    _check_segments("segment_conv", u, k, segments)
    L = u.shape[-2]
    dtype = _compute_dtype(u, k)
    n = 1 << (L - 1).bit_length()
    # Time last, so that the transforms need no transposition.
    x = _pad(jnp.moveaxis(u.astype(dtype), -2, -1), 0, n - L)
    c, k = _pad(segments[..., None, :], 0, n - L), k[:L].astype(dtype).T
    y = with_axes(k[:, :1], x) * x
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
    T = _taps(k.astype(dtype), t[:, None] - t[None])
    T = jnp.where((segments[..., :, None] == segments[..., None, :])[..., None], T, 0)
    return highest("...tsh,...sh->...th", T, u.astype(dtype)).astype(u.dtype)


def _between_blocks(
    x: Float[Array, "*batch H n"], k: Float[Array, "H Lk"], c: Int[Array, "*batch 1 n"], s: int
) -> Float[Array, "*batch H n"]:
    """Contribution of the first block to the second one, in all pairs of blocks of s steps."""
    reach = min(s, max(k.shape[-1] - 1, 1))
    pairs, c = (v.reshape(*v.shape[:-1], v.shape[-1] // (2 * s), 2 * s) for v in (x, c))
    before, after, border = slice(s - reach, s), slice(s, s + reach), slice(s - 1, s)
    tail = jnp.where(c[..., before] == c[..., border], pairs[..., before], 0)
    k = _pad(k, 0, max(0, 2 * reach - k.shape[-1]))
    if reach <= _DIRECT:
        T = k[:, reach + np.subtract.outer(np.arange(reach), np.arange(reach))]
        y = highest("hts,...hbs->...hbt", T, tail)
    else:
        m = _fft_length(2 * reach)
        K = with_axes(jnp.fft.rfft(k[:, None, : 2 * reach], m), tail)
        y = jnp.fft.irfft(K * jnp.fft.rfft(tail, m), m)[..., reach : 2 * reach]
    y = jnp.where(c[..., after] == c[..., border], y, 0)
    return _pad(y, s, s - reach).reshape(x.shape)


def _pad(x: Array, before: int, after: int) -> Array:
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(before, after)])


def _taps(k: Float[Array, "Lk H"], lag: Array) -> Float[Array, "L L H"]:
    """The kernel at these lags, zero outside of it."""
    return k.at[jnp.where(lag < 0, len(k), lag)].get(mode="fill", fill_value=0)


def _fft_length(n: int) -> int:
    """Smallest fast length of a real transform, a product of 2s, 3s and 5s, that is at least n."""
    from scipy.fft import next_fast_len  # not above: SciPy takes time to import

    return next_fast_len(n, real=True)


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
