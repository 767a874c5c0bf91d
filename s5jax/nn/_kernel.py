"""Layers that run plain sequences as convolutions with a kernel per feature."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from s5jax.nn._base import SequenceLayer
from s5jax.ops import fft_conv


class KernelLayer(SequenceLayer):
    """Base class of layers with one state space a feature, whose kernel is cheap to form.

    A family supplies ``convolution_kernel(coefficients, L)``, and coefficients with a field ``D``,
    the skip connection, which is None backward in time.
    """

    backward_delay = 1

    def convolution_kernel(self, coefficients: Any, L: int) -> Float[Array, "L H"]:
        """Impulse response without the skip connection."""
        raise NotImplementedError(f"{type(self).__name__} must define `convolution_kernel`.")

    def from_rest(
        self, coefficients: Any, u: Inexact[Array, "*batch L H"]
    ) -> Inexact[Array, "*batch L H"]:
        """A convolution with the kernel."""
        K = self.convolution_kernel(coefficients, u.shape[-2])
        return self._skip(coefficients, fft_conv(self._wide(u), K), u)

    def two_sided(
        self, u: Inexact[Array, "*batch L H"], dt: Array | float | None
    ) -> Inexact[Array, "*batch L H"]:
        """One convolution with both kernels."""
        forward, backward = self.coefficients(dt), self.coefficients(dt, backward=True)
        K, K_reverse = (self.convolution_kernel(c, u.shape[-2]) for c in (forward, backward))
        return self._skip(forward, fft_conv(self._wide(u), K, k_reverse=K_reverse), u)

    def _impulse_response(self, coefficients: Any, L: int) -> Array:
        K = self.convolution_kernel(coefficients, L)
        return K if coefficients.D is None else K.at[0].add(coefficients.D)

    def _skip(self, coefficients: Any, y: Array, u: Array) -> Array:
        if coefficients.D is not None:
            y = y + coefficients.D * u
        return y.astype(self._compute_dtype(u))

    def _wide(self, u: Array) -> Array:
        dtype = self._compute_dtype(u)
        return u.astype(dtype).astype(jnp.promote_types(dtype, jnp.float32))
