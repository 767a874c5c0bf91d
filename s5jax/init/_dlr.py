"""Initial eigenvalues of DLR and DSS."""

from typing import Literal, get_args

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Complex, Complex128, PRNGKeyArray

from s5jax._errors import check_choice, check_positive
from s5jax._promotion import default_promotion
from s5jax.init._hippo import hippo
from s5jax.init._time_scale import log_uniform_step

DSSInit = Literal["lin", "hippo"]


@default_promotion
def dlr_eigenvalues(
    key: PRNGKeyArray, N: int, dt_min: float, dt_max: float, *, dtype: DTypeLike = jnp.float32
) -> Complex[Array, " N"]:
    r"""Draws the logarithms of DLR's eigenvalues, which are just inside the N-th roots of unity.

    .. math::
        \Lambda_n = -\tfrac{1}{2} \Delta_n + \tfrac{2 \pi i n}{N}, \qquad
        \log \Delta_n \sim \mathcal{U}[\log \Delta_{min}, \log \Delta_{max}]

    Args:
        key: random key.
        N: number of eigenvalues.
        dt_min: twice the smallest decay rate per step, positive.
        dt_max: twice the largest decay rate per step, at least ``dt_min``.
        dtype: real dtype of each part of the result.

    Returns:
        ``Lambda``, shape ``(N,)``.

    Raises:
        ValueError: unless ``0 < dt_min <= dt_max`` and ``N`` is positive.

    Example:
        >>> import jax
        >>> from s5jax.init import dlr_eigenvalues
        >>> Lambda = dlr_eigenvalues(jax.random.key(0), 4, 0.1, 0.1)
        >>> print(" ".join(f"{x:.2f}" for x in Lambda.tolist()))
        -0.05+0.00j -0.05+1.57j -0.05+3.14j -0.05+4.71j

    References:
        Gupta et al., "Diagonal Linear RNNs" (DLR), 2022, https://arxiv.org/abs/2212.00768.
    """
    (N,) = check_positive("dlr_eigenvalues", N=N)
    decay = 0.5 * jnp.exp(log_uniform_step(key, (N,), dt_min, dt_max, dtype=dtype))
    return -decay + 1j * jnp.asarray(2 * np.pi * np.arange(N) / N, dtype)


@default_promotion
def dss_eigenvalues(method: DSSInit, N: int) -> Complex128[np.ndarray, " N"]:
    r"""Eigenvalues of DSS in continuous time.

    .. math:: \Lambda_n = -\tfrac{1}{2} + i\, \omega_n, \qquad n = 0, \ldots, N - 1

    - ``"lin"``: :math:`\omega_n = \pi n`;
    - ``"hippo"``: the positive frequencies of the skew-symmetric part of HiPPO-LegS of size 2 N,
      largest first.

    Args:
        method: one of the names above.
        N: number of eigenvalues.

    Returns:
        ``Lambda``, shape ``(N,)``.

    Raises:
        ValueError: if ``method`` is unknown or ``N`` is not positive.

    Example:
        >>> from s5jax.init import dss_eigenvalues
        >>> print(dss_eigenvalues("lin", 3).round(2))
        [-0.5+0.j   -0.5+3.14j -0.5+6.28j]

    References:
        Gupta et al., "Diagonal State Spaces" (DSS), 2022, https://arxiv.org/abs/2203.14343.
    """
    check_choice("dss_eigenvalues", "method", method, get_args(DSSInit))
    (N,) = check_positive("dss_eigenvalues", N=N)
    if method == "lin":
        return -0.5 + 1j * np.pi * np.arange(N)
    A, _ = hippo("legs", 2 * N)
    return -0.5 + 1j * np.linalg.eigvalsh(-0.5j * (A - A.T))[: N - 1 : -1]
