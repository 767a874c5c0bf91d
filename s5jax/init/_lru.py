"""Initial eigenvalues of the LRU, on a ring in the complex plane."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from s5jax._promotion import default_promotion


@default_promotion
def lru_ring(
    key: PRNGKeyArray,
    d_state: int,
    *,
    r_min: float = 0.0,
    r_max: float = 1.0,
    max_phase: float = 6.28,
    dtype: DTypeLike = jnp.float32,
) -> tuple[Float[Array, " d_state"], Float[Array, " d_state"], Float[Array, " d_state"]]:
    r"""Draws the eigenvalues of an LRU and the factors that normalise its inputs.

    .. math::
        \lambda = e^{-\nu + i\theta}, \quad |\lambda|^2 \sim \mathcal{U}[r_{min}^2, r_{max}^2],
        \quad \theta \sim \mathcal{U}[0, \theta_{max}], \quad \gamma = \sqrt{1 - |\lambda|^2}

    With ``max_phase`` :math:`2 \pi` the eigenvalues are uniform over the ring. If the input is
    white noise times :math:`\gamma`, every state has the variance of the noise.

    Args:
        key: random key.
        d_state: number of eigenvalues.
        r_min: inner radius of the ring.
        r_max: outer radius of the ring.
        max_phase: largest phase, in radians.
        dtype: real dtype of the results.

    Returns:
        ``nu_log``, ``theta_log`` and ``gamma_log``: the logarithms of :math:`\nu`, :math:`\theta`
        and :math:`\gamma`, each of shape ``(d_state,)``.

    Raises:
        ValueError: unless ``0 <= r_min < r_max <= 1`` and ``max_phase > 0``.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from s5jax.init import lru_ring
        >>> nu_log, theta_log, _ = lru_ring(jax.random.key(0), 1000, r_min=0.8, r_max=0.9)
        >>> radius = jnp.exp(-jnp.exp(nu_log))
        >>> print(f"{radius.min():.2f} {radius.max():.2f} {jnp.exp(theta_log).max():.2f}")
        0.80 0.90 6.28

    References:
        Orvieto et al., "Resurrecting RNNs" (LRU), 2023, https://arxiv.org/abs/2303.06349,
        lemma 3.2.
    """
    if not 0 <= r_min < r_max <= 1:
        raise ValueError(f"lru_ring: needs 0 <= `r_min` < `r_max` <= 1; got {r_min} and {r_max}.")
    if not max_phase > 0:
        raise ValueError(f"lru_ring: `max_phase` must be positive; got {max_phase}.")
    # The open interval keeps every logarithm finite.
    eps = jnp.finfo(dtype).eps
    radial, angular = jax.random.uniform(key, (2, d_state), dtype, eps, 1)
    gamma_squared = jnp.minimum(1 - r_max**2 + radial * (r_max**2 - r_min**2), 1 - eps)
    nu = -0.5 * jnp.log1p(-gamma_squared)
    return jnp.log(nu), jnp.log(max_phase * angular), 0.5 * jnp.log(gamma_squared)
