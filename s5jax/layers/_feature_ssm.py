"""What S4 and S4D share: a continuous-time system for each feature."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Complex, Float

from s5jax._errors import check_positive
from s5jax._promotion import with_axes
from s5jax.init import log_uniform_step
from s5jax.layers._kernel import KernelLayer
from s5jax.ops import complex_to_pair, pair_to_complex

Transform = Literal["exp", "softplus"]

TRANSFORM = {"exp": jnp.exp, "softplus": jax.nn.softplus}


class FeatureSSM(KernelLayer):
    """Base class of layers with step sizes, and S systems of which feature h uses h modulo S."""

    continuous_time = True
    dt_transform: Transform
    real_transform: Transform
    dt_min: float
    dt_max: float

    def _make_parameters(
        self,
        Lambda: Complex[np.ndarray, "S M"] | Complex[Array, "S M"],
        B: Complex[np.ndarray, "S M"] | Complex[Array, "S M"],
        rngs: nnx.Rngs,
        dt_range: tuple[float, float],
    ) -> None:
        """Makes the shared parameters, with step sizes that are drawn from a range."""
        H, dtype = self.d_model, self.param_dtype
        decay = invert(self.real_transform, -Lambda.real)
        C = jax.random.normal(
            rngs.params(), (1 + self.bidirectional, H, Lambda.shape[-1], 2), dtype
        )
        raw_step = initial_raw_step(rngs, H, *dt_range, self.dt_transform, dtype)
        self.raw_decay = nnx.Param(jnp.asarray(decay, dtype), group="ssm", feature_axis=0)
        self.Lambda_im = nnx.Param(jnp.asarray(Lambda.imag, dtype), group="ssm", feature_axis=0)
        B_pair = complex_to_pair(jnp.asarray(B)).astype(dtype)
        self.B = nnx.Param(B_pair, group="ssm", feature_axis=0)
        self.raw_step = nnx.Param(raw_step, group="ssm", feature_axis=0)
        self.C = nnx.Param(C / np.sqrt(2).astype(C.dtype), feature_axis=1)
        self.D = nnx.Param(jax.random.normal(rngs.params(), (H,), dtype), feature_axis=0)

    def _continuous(
        self, dt: Array | float | None
    ) -> tuple[Complex[Array, "H M"], Complex[Array, "H M"], Float[Array, "*batch H"]]:
        """Returns Lambda, B and the step sizes of every feature."""
        wide = jnp.promote_types(self.param_dtype, jnp.float32)
        decay = TRANSFORM[self.real_transform](self.raw_decay[...].astype(wide))
        Lambda = jax.lax.complex(-decay, self.Lambda_im[...].astype(wide))
        Delta = TRANSFORM[self.dt_transform](self.raw_step[...].astype(wide))
        if dt is not None:
            dt = jnp.asarray(dt, wide)[..., None]
            Delta = dt * with_axes(Delta, dt)
        return self._per_feature(Lambda), self._per_feature(pair_to_complex(self.B[...])), Delta

    def _per_feature(self, v: Complex[Array, "S ..."]) -> Complex[Array, "H ..."]:
        return jnp.tile(v, (self.d_model // len(v), *(1,) * (v.ndim - 1)))


def check_sizes(where: str, d_model: int, d_state: int, n_ssm: int | None) -> tuple[int, int, int]:
    """Returns the sizes and the number of systems; raises a ValueError if they do not fit."""
    S = d_model if n_ssm is None else n_ssm
    d_model, d_state, S = check_positive(where, d_model=d_model, d_state=d_state, n_ssm=S)
    if d_state % 2:
        raise ValueError(
            f"{where}: `d_state` must be even, to keep one of each conjugate pair; got {d_state}, "
            f"use {d_state + 1}."
        )
    if d_model % S:
        raise ValueError(f"{where}: `n_ssm` must divide `d_model`; got {S} and {d_model}.")
    return d_model, d_state, S


def away_from_zero(Lambda: Any) -> Any:
    """Returns eigenvalues of which, as published, no decay or frequency is zero."""
    xp = jnp if isinstance(Lambda, jax.Array) else np  # constants keep their float64
    return xp.minimum(Lambda.real, -1e-4) + 1j * xp.minimum(Lambda.imag, -1e-4)


def invert(transform: Transform, y: Any) -> Any:
    """Returns the stored parameter of a value, an array of NumPy or of JAX."""
    xp = jnp if isinstance(y, jax.Array) else np
    return xp.log(y) if transform == "exp" else y + xp.log(-xp.expm1(-y))


def initial_raw_step(
    rngs: nnx.Rngs, H: int, dt_min: float, dt_max: float, transform: Transform, dtype: DTypeLike
) -> Float[Array, " H"]:
    """Draws step sizes that are equally likely at every scale, before their transform."""
    log_step = log_uniform_step(rngs.params(), (H,), dt_min, dt_max, dtype=dtype)
    return log_step if transform == "exp" else jnp.log(jnp.expm1(jnp.exp(log_step)))
