"""Initial step sizes, the distance of two samples in continuous time."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from s5jax._promotion import default_promotion


@default_promotion
def log_uniform_step(
    key: PRNGKeyArray,
    shape: tuple[int, ...],
    dt_min: float,
    dt_max: float,
    *,
    dtype: DTypeLike = jnp.float32,
) -> Float[Array, "*shape"]:
    r"""Draws ``log_step``, the logarithm of step sizes that are log-uniformly distributed.

    .. math:: \log \Delta \sim \mathcal{U}[\log \Delta_{min}, \log \Delta_{max}]

    Args:
        key: random key.
        shape: shape of the result.
        dt_min: smallest step, positive.
        dt_max: largest step, at least ``dt_min``.
        dtype: real dtype of the result.

    Returns:
        ``log_step``, shape ``shape``. The step sizes are its exponential.

    Raises:
        ValueError: unless ``0 < dt_min <= dt_max``.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from s5jax.init import log_uniform_step
        >>> Delta = jnp.exp(log_uniform_step(jax.random.key(0), (1000,), 1e-3, 1e-1))
        >>> print(f"{Delta.min():.3f} {jnp.median(Delta):.2f} {Delta.max():.2f}")
        0.001 0.01 0.10

    References:
        Gu et al., "Structured State Spaces" (S4), 2022, https://arxiv.org/abs/2111.00396.
    """
    if not 0 < dt_min <= dt_max:
        raise ValueError(
            f"log_uniform_step: needs 0 < `dt_min` <= `dt_max`; got {dt_min} and {dt_max}."
        )
    low, high = np.log([dt_min, dt_max])
    return jax.random.uniform(key, shape, dtype, low, high)
