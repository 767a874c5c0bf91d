r"""Losses of forecasts, and the intervals that their outputs mean.

Outputs are grouped by what they mean: all means, then all log variances; or all quantiles 0.1, then
all medians, then all quantiles 0.9.

==========  =====================================================================================
mse         :math:`(y - \hat y)^2`
gaussian    :math:`\tfrac12 (\log 2\pi + s + (y - \mu)^2 e^{-s})`, s the log variance, |s| <= 14
quantile    :math:`\tfrac13 \sum_q \max(q (y - \hat y_q), (q - 1) (y - \hat y_q))`
==========  =====================================================================================

References:
    Koenker and Bassett, "Regression Quantiles", 1978, https://doi.org/10.2307/1913643.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.tasks.series.options import Loss

LEVELS = (0.1, 0.5, 0.9)
OUTPUTS: dict[Loss, int] = {"mse": 1, "gaussian": 2, "quantile": len(LEVELS)}
"""Outputs for each target."""
MAX_LOG_VARIANCE = 14.0
NORMAL_90 = 1.2815515655446004
"""The quantile 0.9 of the standard normal distribution."""


class Interval(NamedTuple):
    """Forecasts with the interval from the quantile 0.1 to the quantile 0.9, if there is one."""

    mean: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


def losses_of(outputs: jax.Array, y: jax.Array, loss: Loss) -> tuple[jax.Array, jax.Array]:
    """Computes the loss of each value, and the forecast of the value itself.

    Args:
        outputs: the model's outputs, ``(*batch, n * T)``.
        y: the targets, ``(*batch, T)``.
        loss: the kind of loss.

    Returns:
        Losses and forecasts, each of the shape of ``y``.
    """
    first, *more = jnp.split(outputs, OUTPUTS[loss], axis=-1)
    if loss == "mse":
        return (y - first) ** 2, first
    if loss == "gaussian":
        s = jnp.clip(more[0], -MAX_LOG_VARIANCE, MAX_LOG_VARIANCE)
        return 0.5 * (math.log(2 * math.pi) + s + (y - first) ** 2 * jnp.exp(-s)), first
    errors = [y - quantile for quantile in (first, *more)]
    pinball = [jnp.maximum(q * e, (q - 1) * e) for q, e in zip(LEVELS, errors, strict=True)]
    return sum(pinball[1:], pinball[0]) / len(LEVELS), more[0]


def target_moments(mean: np.ndarray, std: np.ndarray, loss: Loss) -> tuple[np.ndarray, np.ndarray]:
    """Returns what restores outputs to the units of the targets; log variances become theirs."""
    if loss == "gaussian":
        return np.concatenate([mean, 2 * np.log(std)]), np.concatenate([std, np.ones_like(std)])
    return np.tile(mean, OUTPUTS[loss]), np.tile(std, OUTPUTS[loss])


def interval_of(outputs: np.ndarray, loss: Loss) -> Interval:
    """Returns forecasts and interval, each ``(*batch, T)``, from outputs in the units of the data.

    Quantiles that cross are sorted.
    """
    parts = np.split(outputs, OUTPUTS[loss], axis=-1)
    if loss == "mse":
        return Interval(parts[0])
    if loss == "gaussian":
        half = NORMAL_90 * np.exp(parts[1] / 2)
        return Interval(parts[0], parts[0] - half, parts[0] + half)
    low, median, high = np.sort(np.stack(parts), axis=0)
    return Interval(median, low, high)
