r"""Irregular sampling: the angle of a pendulum, from noisy images at irregular times.

The model sees 50 of 100 frames. For each it outputs mean and variance of the sine and the cosine of
the angle. The loss is the negative Gaussian log likelihood,

.. math:: \ell = \frac12 \sum_d \Big( \log 2\pi\sigma_d^2
    + \frac{(y_d - \mu_d)^2}{\sigma_d^2} \Big), \qquad \sigma_d^2 \ge 10^{-6},

averaged over the frames; the metric is the mean squared error of :math:`\mu`.

References:
    Smith et al., "S5", 2023, https://arxiv.org/abs/2208.04933, section 6.3.
    Schirmer et al., "CRU", 2022, https://arxiv.org/abs/2111.11344.
"""

import dataclasses
import functools
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.sources import (
    DEFAULT_PATHS,
    ArraySource,
    Batch,
    DataOptions,
    Files,
    Source,
    Split,
)
from experiments.errors import check_positive
from experiments.tasks._task import Task
from experiments.tasks.pendulum.simulator import SIZE, simulate

MIN_VARIANCE = 1e-6
AT_A_TIME = 100  # sequences


@dataclasses.dataclass(frozen=True, kw_only=True)
class PendulumOptions(DataOptions):
    """Data: the number of sequences and frames, and the use of the gaps."""

    n_train: int = 2_000
    """Training sequences."""
    n_validation: int = 1_000
    """Validation sequences, by which the best checkpoint is chosen."""
    n_test: int = 1_000
    """Test sequences, used once, at the end."""
    n_frames: int = 100
    """Frames of a sequence."""
    n_kept: int = 50
    """Frames of a sequence that the model sees."""
    gaps: Literal["dt", "append", "ignore"] = "dt"
    """Use of the time since the last frame: as step length, as one more feature, or not at all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, n_kept=self.n_kept)
        if self.n_kept > self.n_frames:
            raise ValueError(
                "PendulumOptions: `n_kept` must not exceed `n_frames`; got "
                f"{self.n_kept} of {self.n_frames}."
            )


class Pendulum(Task):
    """Regression of sine and cosine of a pendulum's angle, from images at irregular times."""

    options_type = PendulumOptions
    head = "image_regression"
    causal = True
    measures = ("loss", "mse")
    metric = "mse"
    larger_is_better = False
    d_output = 2

    def __init__(self, options: PendulumOptions, files: Files = DEFAULT_PATHS) -> None:
        super().__init__(options, files)
        self.length = options.n_kept
        self.d_input = SIZE**2 + (options.gaps == "append")
        self.irregular = options.gaps == "dt"
        scale = np.full(self.d_input, 255.0)
        scale[SIZE**2 :] = 1.0
        self.input_moments = 0.0, scale

    def fingerprint(self, *, seed: int) -> dict[str, Any]:
        """Returns nothing: simulated data may differ between machines in their last digits."""
        del seed
        return {}

    def source(self, split: Split, *, seed: int) -> Source:
        """Returns images, gaps and targets, which are simulated at the first call and cached."""
        n = self.options.n_examples(split)
        return ArraySource(**_simulate_split(self.length, self.options.n_frames, n, split, seed))

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns pixels from 0 to 1, ``u`` of shape ``(B, n_kept, 576)``, and the gaps."""
        image, gap = batch["image"], batch["gap"]
        u = image.reshape(*gap.shape, -1).astype(jnp.float32) / 255
        if self.options.gaps == "append":
            u = jnp.concatenate([u, gap[..., None]], axis=-1)
        return {"u": u, "dt": gap} if self.irregular else {"u": u}

    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Returns the negative log likelihood and the mean squared error of each sequence."""
        mean, variance = jnp.split(outputs.astype(jnp.float32), 2, axis=-1)
        variance = jnp.maximum(variance, MIN_VARIANCE)
        error = (mean - batch["target"]) ** 2
        loss = 0.5 * jnp.sum(jnp.log(2 * jnp.pi * variance) + error / variance, axis=-1)
        return {"loss": loss.mean(-1), "mse": error.mean((-2, -1))}


@functools.lru_cache(maxsize=len(get_args(Split)))
def _simulate_split(
    n_kept: int, n_frames: int, n: int, split: Split, seed: int
) -> dict[str, np.ndarray]:
    streams = [(seed, get_args(Split).index(split), i) for i in range(n)]
    parts = [
        simulate(streams[start : start + AT_A_TIME], n_frames=n_frames, n_kept=n_kept)
        for start in range(0, n, AT_A_TIME)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
