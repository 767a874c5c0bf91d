"""Kernels of DLR and DSS: sums of complex exponentials, reduced to real numbers in four ways."""

from collections.abc import Callable
from typing import Literal, get_args

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from s5jax._errors import check_choice
from s5jax._promotion import default_promotion, with_axes
from s5jax.ops._vandermonde import vandermonde, vandermonde_ref

KernelToReal = Literal["real", "imag", "sum", "prod"]

_FACTORS = {"real": 1, "imag": -1j, "sum": 1 - 1j}


@default_promotion
def dlr_kernel(
    W: Complex[Array, "*batch H N"],
    z: Complex[Array, " N"] | Complex[Array, "H N"],
    L: int,
    *,
    kernel_to_real: KernelToReal = "real",
) -> Float[Array, "*batch L H"]:
    r"""Kernel of a diagonal linear recurrence with complex weights.

    .. math:: K_l = f\left( \sum_n W_n e^{z_n l} \right), \qquad l = 0, \ldots, L - 1

    where f takes the real part, the imaginary part, their sum or their product. The first three
    cost one `vandermonde` and inherit its accuracy at large phases. The product costs two.

    Args:
        W: weights, ``(*batch, H, N)``.
        z: exponents, ``(N,)`` if all features share them, or ``(H, N)``.
        L: number of lags.
        kernel_to_real: ``"real"``, ``"imag"``, ``"sum"`` or ``"prod"``.

    Returns:
        Kernels, ``(*batch, L, H)``.

    Raises:
        ValueError: if the shapes do not fit, ``L`` is not positive or ``kernel_to_real`` is
            unknown.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import dlr_kernel
        >>> W, z = jnp.ones((1, 1), complex), 0.5j * jnp.pi * jnp.ones(1)
        >>> print(jnp.abs(dlr_kernel(W, z, 4, kernel_to_real="imag")[:, 0].round(3)))
        [0. 1. 0. 1.]

    References:
        Gupta et al., "Diagonal Linear RNNs" (DLR), 2022, https://arxiv.org/abs/2212.00768.
    """
    check_choice("dlr_kernel", "kernel_to_real", kernel_to_real, get_args(KernelToReal))
    return _made_real(lambda c: vandermonde(c, z, L), W, kernel_to_real)


@default_promotion
def dlr_kernel_ref(
    W: Complex[Array, "*batch H N"],
    z: Complex[Array, " N"] | Complex[Array, "H N"],
    L: int,
    *,
    kernel_to_real: KernelToReal = "real",
) -> Float[Array, "*batch L H"]:
    """`dlr_kernel` by its definition, with every exponential; for tests.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import dlr_kernel_ref
        >>> W, z = jnp.ones((1, 1), complex), 0.5j * jnp.pi * jnp.ones(1)
        >>> print(jnp.abs(dlr_kernel_ref(W, z, 4, kernel_to_real="sum")[:, 0].round(3)))
        [1. 1. 1. 1.]
    """
    check_choice("dlr_kernel_ref", "kernel_to_real", kernel_to_real, get_args(KernelToReal))
    # Re(-i c) is Im c.
    return _combined(*(vandermonde_ref(c, z, L) for c in (W, -1j * W)), kernel_to_real)


@default_promotion
def dlr_modes(
    W: Complex[Array, "H N"],
    z: Complex[Array, " N"] | Complex[Array, "H N"],
    kernel_to_real: KernelToReal,
) -> tuple[Complex[Array, "H P"], Complex[Array, " P"] | Complex[Array, "H P"]]:
    r"""Weights and exponents of a diagonal recurrence with the kernel of `dlr_kernel`.

    .. math::
        K_l = \operatorname{Re} \sum_p w_p e^{v_p l}, \qquad
        \operatorname{Re} k \operatorname{Im} k = \operatorname{Re} (-\tfrac{i}{2} k^2)

    By the second identity the product of real and imaginary part has :math:`P = N^2` modes, with
    :math:`v_{nm} = z_n + z_m`. In the other cases P = N.

    Args:
        W: weights, ``(H, N)``.
        z: exponents, ``(N,)`` or ``(H, N)``.
        kernel_to_real: as in `dlr_kernel`.

    Returns:
        ``w``, ``(H, P)``, and ``v``, ``(P,)`` or ``(H, P)``.

    Raises:
        ValueError: if ``kernel_to_real`` is unknown.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import dlr_modes
        >>> w, v = dlr_modes(jnp.ones((1, 3), complex), jnp.zeros((1, 3), complex), "prod")
        >>> w.shape, v.shape
        ((1, 9), (1, 9))

    References:
        Gupta et al., "Diagonal Linear RNNs" (DLR), 2022, https://arxiv.org/abs/2212.00768.
    """
    check_choice("dlr_modes", "kernel_to_real", kernel_to_real, get_args(KernelToReal))
    if kernel_to_real != "prod":
        return _FACTORS[kernel_to_real] * W, z
    w = -0.5j * W[..., :, None] * W[..., None, :]
    v = z[..., :, None] + z[..., None, :]
    return w.reshape(*w.shape[:-2], -1), v.reshape(*v.shape[:-2], -1)


@default_promotion
def dss_softmax_kernel(
    W: Complex[Array, "*batch H N"],
    Lambda: Complex[Array, " N"],
    Delta: Float[Array, " H"],
    L: int,
    *,
    kernel_to_real: KernelToReal = "real",
) -> Float[Array, "*batch L H"]:
    r"""Kernel of DSS-softmax, with exponentials normalised over the length of the kernel.

    .. math::
        K_l = f\left( \sum_n \frac{W_n}{\Lambda_n} \frac{e^{z_n l}}{\sum_{r<L} e^{z_n r}} \right),
        \qquad z = \Delta \Lambda

    with f as in `dlr_kernel` and :math:`1/q` regularised to :math:`\bar q / (|q|^2 + 10^{-7})`.
    Growing modes are scaled by their last term, so that nothing overflows.

    Args:
        W: weights, ``(*batch, H, N)``.
        Lambda: exponents in continuous time, ``(N,)``; real parts of either sign.
        Delta: step sizes, ``(H,)``.
        L: number of lags.
        kernel_to_real: ``"real"``, ``"imag"``, ``"sum"`` or ``"prod"``.

    Returns:
        Kernels, ``(*batch, L, H)``.

    Raises:
        ValueError: if the shapes do not fit, ``L`` is not positive or ``kernel_to_real`` is
            unknown.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import dss_softmax_kernel
        >>> W, Lambda = jnp.ones((1, 1), complex), jnp.ones(1, complex)
        >>> K = dss_softmax_kernel(W, Lambda, jnp.log(jnp.array([2.0])), 3)
        >>> print((7 * K[:, 0]).round(3))
        [1. 2. 4.]

    References:
        Gupta et al., "Diagonal State Spaces" (DSS), 2022, https://arxiv.org/abs/2203.14343.
    """
    where = "dss_softmax_kernel"
    check_choice(where, "kernel_to_real", kernel_to_real, get_args(KernelToReal))
    growing, z, w = _softmax_weights(where, W, Lambda, Delta, L)

    def weighted_sum(w: Array) -> Array:
        decay = vandermonde(jnp.where(growing, 0, w), z, L)
        return decay + jnp.flip(vandermonde(jnp.where(growing, w, 0), z, L), -2)

    return _made_real(weighted_sum, w, kernel_to_real)


@default_promotion
def dss_softmax_kernel_ref(
    W: Complex[Array, "*batch H N"],
    Lambda: Complex[Array, " N"],
    Delta: Float[Array, " H"],
    L: int,
    *,
    kernel_to_real: KernelToReal = "real",
) -> Float[Array, "*batch L H"]:
    """`dss_softmax_kernel` by its definition, with every exponential; for tests.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import dss_softmax_kernel_ref
        >>> W, Lambda = jnp.ones((1, 1), complex), jnp.ones(1, complex)
        >>> K = dss_softmax_kernel_ref(W, Lambda, jnp.log(jnp.array([2.0])), 3)
        >>> print((7 * K[:, 0]).round(3))
        [1. 2. 4.]
    """
    where = "dss_softmax_kernel_ref"
    check_choice(where, "kernel_to_real", kernel_to_real, get_args(KernelToReal))
    growing, z, w = _softmax_weights(where, W, Lambda, Delta, L)
    lag, w = jnp.arange(L)[:, None, None], w[..., None, :, :]
    table = jnp.exp(z[None] * jnp.where(growing, L - 1 - lag, lag))
    K = (w * with_axes(table, w)).sum(-1)
    return _combined(K.real, K.imag, kernel_to_real)


def _softmax_weights(
    where: str, W: Array, Lambda: Array, Delta: Array, L: int
) -> tuple[Array, Array, Array]:
    """Mask of the growing modes, decaying exponents of all modes, and normalised weights."""
    if W.ndim < 2 or Delta.shape != W.shape[-2:-1] or Lambda.shape != W.shape[-1:] or L < 1:
        raise ValueError(
            f"{where}: `W` must have shape (*batch, H, N), `Lambda` (N,), `Delta` (H,), and `L` "
            f"must be at least 1; got {W.shape}, {Lambda.shape}, {Delta.shape} and {L}."
        )
    growing = Lambda.real > 0
    z = Delta[:, None] * jnp.where(growing, -Lambda, Lambda)[None]
    change, q = (with_axes(v, W) for v in (jnp.expm1(z), jnp.expm1(z * L) * Lambda[None]))
    return growing, z, W * change * q.conj() / (q.real**2 + q.imag**2 + 1e-7)


def _made_real(weighted_sum: Callable[[Array], Array], W: Array, kernel_to_real: str) -> Array:
    """The kernel, from a function that returns the real part of the sum with given weights."""
    if kernel_to_real == "prod":
        return weighted_sum(W) * weighted_sum(-1j * W)
    return weighted_sum(_FACTORS[kernel_to_real] * W)


def _combined(re: Array, im: Array, kernel_to_real: str) -> Array:
    return {"real": re, "imag": im, "sum": re + im, "prod": re * im}[kernel_to_real]
