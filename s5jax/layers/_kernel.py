"""Layers that run plain sequences as convolutions with a kernel per feature."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Inexact, PyTree

from s5jax.layers._base import Edits, SequenceLayer
from s5jax.layers._dense import feedthrough
from s5jax.layers._devices import check_shares, exchange, gather, own_share
from s5jax.ops import CHUNK, ChunkTables, chunked_conv, conv_backend, fft_conv


class KernelLayer(SequenceLayer):
    """Base class of layers with one state space a feature, whose kernel is cheap to form.

    A family supplies ``convolution_kernel(coefficients, L)``, coefficients with a field ``D``, the
    skip connection, which is None backward in time, and ``feature_axes``. One that runs by chunks,
    too, has an option ``conv`` and supplies ``chunk_tables(coefficients, T)``.
    """

    backward_delay = 1
    feature_axes: ClassVar[Mapping[str, int]]
    """The axis of features in each parameter that has one; fewer than H entries serve in turn."""

    conv: str
    d_state: int

    def convolution_kernel(self, coefficients: Any, L: int) -> Float[Array, "L H"]:
        """Impulse response without the skip connection."""
        raise NotImplementedError(f"{type(self).__name__} must define `convolution_kernel`.")

    def chunk_tables(self, coefficients: Any, T: int) -> ChunkTables:
        """What T steps do, without the skip connection."""
        raise NotImplementedError(f"{type(self).__name__} must define `chunk_tables`.")

    def algorithm(self, L: int, batch: int = 1) -> str:
        """``"fft"`` or ``"chunked"``."""
        two_sided = self.bidirectional
        return conv_backend(self.conv, L, self.d_state, batch=batch, two_sided=two_sided)

    def convolve(
        self, coefficients: Any, u: Inexact[Array, "*batch L H"]
    ) -> Float[Array, "*batch L H"]:
        """A plain sequence from rest, without the skip connection."""
        v, L = self._wide(u), u.shape[-2]
        if self._chunked(u):
            return chunked_conv(v, self.chunk_tables(coefficients, CHUNK))
        return fft_conv(v, self.convolution_kernel(coefficients, L))

    def from_rest(
        self, coefficients: Any, u: Inexact[Array, "*batch L H"]
    ) -> Inexact[Array, "*batch L H"]:
        """A convolution."""
        return self._skip(coefficients, self.convolve(coefficients, u), u)

    def two_sided(
        self, u: Inexact[Array, "*batch L H"], dt: Array | float | None
    ) -> Inexact[Array, "*batch L H"]:
        """One transform for both kernels, or two passes over chunks."""
        forward, backward = self.coefficients(dt), self.coefficients(dt, backward=True)
        if self._chunked(u):
            reverse = jnp.flip(self.convolve(backward, jnp.flip(u, -2)), -2)
            return self._skip(forward, self.convolve(forward, u) + self.deliver(reverse), u)
        K, K_reverse = (self.convolution_kernel(c, u.shape[-2]) for c in (forward, backward))
        return self._skip(forward, fft_conv(self._wide(u), K, k_reverse=K_reverse), u)

    def on_chunk(
        self,
        state: PyTree[Array] | None,
        u: Inexact[Array, "*batch L H"],
        scalar_dt: Array | float | None,
        edits: Edits,
    ) -> tuple[Inexact[Array, "*batch L out"], PyTree[Array]]:
        """All steps of a share of the features, for which devices exchange what they have."""
        n = check_shares(self, "d_model", self.d_model)
        share = self._share(n)
        start, part = self.init_state(u.shape[:-2]), share.init_state(u.shape[:-2])
        axes = jax.tree.map(_differing_axis, start, part)
        own = None if state is None else jax.tree.map(own_share, state, axes)
        edits = jax.tree.map(lambda edit: gather(edit, -1), edits)
        y, last = share.whole(own, exchange(u, split=-1, join=-2), scalar_dt, edits)
        y = y.reshape(*y.shape[:-1], y.shape[-1] // share.d_model, share.d_model)
        y = exchange(y, split=-3, join=-1).reshape(*u.shape[:-1], self.d_output)
        return y, jax.tree.map(gather, last, axes)

    def _share(self, n: int) -> Self:
        """This device's share of the layer."""
        share = nnx.clone(self)
        share.d_model = self.d_model // n
        for name, axis in self.feature_axes.items():
            variable = getattr(share, name)
            if variable is not None:
                v = variable[...]
                v = jnp.concatenate([v] * (self.d_model // v.shape[axis]), axis)
                variable.set_value(own_share(v, axis))
        return share

    def _chunked(self, u: Array) -> bool:
        *batch, L, _ = u.shape
        return self.algorithm(L, math.prod(batch)) == "chunked"

    def _impulse_response(self, coefficients: Any, L: int) -> Array:
        K = self.convolution_kernel(coefficients, L)
        return K if coefficients.D is None else K.at[0].add(coefficients.D)

    def _skip(self, coefficients: Any, y: Array, u: Array) -> Array:
        if coefficients.D is not None:
            y = y + feedthrough(coefficients.D, u)
        return y.astype(self._compute_dtype(u))

    def _wide(self, u: Array) -> Array:
        dtype = self._compute_dtype(u)
        return u.astype(dtype).astype(jnp.promote_types(dtype, jnp.float32))


def _differing_axis(whole: Array, share: Array) -> int:
    return next(i for i, size in enumerate(whole.shape) if size != share.shape[i])
