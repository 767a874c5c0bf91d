"""Layers whose state matrix is diagonal: every edit of a step fits into one linear scan."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact

from s5jax.nn._base import Edits, SequenceLayer
from s5jax.nn._split import last_state, split_scan
from s5jax.ops import Backend, linear_scan, scan_backend

_BLOCK = 4096


class DiagonalLayer(SequenceLayer):
    r"""Base class of layers with the recurrence :math:`x_k = \bar\Lambda_k x_{k-1} + b_k`.

    A family supplies ``coefficients``, with a field ``Lambda_bar``, and the two maps around the
    recurrence; both take coefficients with or without leading axes. Resets, padding and a ``dt``
    per step are then other coefficients of the same scan, in both directions.

    ==================================  =============================================
    ``drive(coefficients, u)``          inputs to the recurrence, :math:`b_k`
    ``readout(coefficients, x, u)``     outputs from states and inputs, :math:`y_k`
    ==================================  =============================================
    """

    backend: Backend

    feature_states: ClassVar[bool] = False
    """Whether each feature has states of its own, so that all of them in memory are too many."""

    def algorithm(self, L: int, batch: int = 1) -> str:
        """That of the scan, see `s5jax.ops.scan_backend`."""
        del L, batch
        return scan_backend(self.backend)

    def drive(self, coefficients: Any, u: Inexact[Array, "*batch H"]) -> Inexact[Array, "*batch P"]:
        """What a step adds to the state."""
        raise NotImplementedError(f"{type(self).__name__} must define `drive`.")

    def readout(
        self, coefficients: Any, x: Inexact[Array, "*batch P"], u: Inexact[Array, "*batch H"]
    ) -> Inexact[Array, "*batch H"]:
        """What a step puts out."""
        raise NotImplementedError(f"{type(self).__name__} must define `readout`.")

    def advance(self, coefficients: Any, state: Array, u: Array) -> tuple[Array, Array]:
        """One step of the recurrence."""
        x = coefficients.Lambda_bar * state + self.drive(coefficients, u)
        return self.readout(coefficients, x, u), x

    def parallel(self, coefficients: Any, state: Array, u: Array) -> tuple[Array, Array]:
        """One scan over a plain sequence; in blocks where that keeps to the cache.

        In blocks of 4,096 steps, of which the gradient keeps the first state and computes the rest
        again, S5 and LRU of 32 features took 0.9 and 0.6 to 0.7 of the time at 262,144 steps, with
        and without gradients, and a fifth of the memory. With eight sequences of 16,384 steps
        blocks were slower.
        """
        *batch, L, H = u.shape
        sequential = scan_backend(self.backend) == "sequential"
        if not sequential or L < 4 * _BLOCK * math.prod(batch):
            return self._one_scan(coefficients, state, u)

        @jax.checkpoint
        def run(state: Array, u: Array) -> tuple[Array, Array]:
            y, state = self._one_scan(coefficients, state, u)
            return state, y

        cut = L - L % _BLOCK
        blocks = u[..., :cut, :].reshape(*batch, cut // _BLOCK, _BLOCK, H)
        state, y = jax.lax.scan(run, state, jnp.moveaxis(blocks, -3, 0))
        y = jnp.moveaxis(y, 0, -3).reshape(*batch, cut, -1)
        if cut == L:
            return y, state
        y_tail, state = self._one_scan(coefficients, state, u[..., cut:, :])
        return jnp.concatenate([y, y_tail], -2), state

    def _one_scan(self, coefficients: Any, state: Array, u: Array) -> tuple[Array, Array]:
        b = self.drive(coefficients, u)
        x = linear_scan(coefficients.Lambda_bar, b, state, backend=self.backend)
        return self.readout(coefficients, x, u), x[..., -1, :]

    def two_sided(self, u: Array, dt: Array | float | None) -> Array:
        """A plain sequence in both directions, which share the drive."""
        return self.edited(self.init_state(u.shape[:-2]), u, dt, Edits())[0]

    def edited(
        self, state: Array, u: Array, scalar_dt: Array | float | None, edits: Edits
    ) -> tuple[Array, Array]:
        """Scans with the edited coefficients, or stepping where that needs less and is faster."""
        if self.feature_states and scan_backend(self.backend) == "sequential":
            return super().edited(state, u, scalar_dt, edits)
        y, x = self._scan(linear_scan, state, u, scalar_dt, edits)
        return y, _state_after(x, state, edits.valid)

    def on_chunk(
        self, state: Array | None, u: Array, scalar_dt: Array | float | None, edits: Edits
    ) -> tuple[Array, Array]:
        """Scans of this device's steps, corrected by the states that the others leave."""
        state = self.init_state(u.shape[:-2]) if state is None else state
        y, x = self._scan(split_scan, state, u, scalar_dt, edits)
        return y, last_state(_state_after(x, state, edits.valid), state, u, edits)

    def _scan(
        self,
        scan: Callable[..., Array],
        state: Array,
        u: Array,
        scalar_dt: Array | float | None,
        edits: Edits,
    ) -> tuple[Array, Array]:
        """Outputs and states of a sequence by `linear_scan`, or by `split_scan`."""
        dt = scalar_dt if edits.dt is None else edits.dt
        coefficients = self.coefficients(dt)
        b = self.drive(coefficients, u)
        options: dict[str, Any] = {"resets": edits.resets, "backend": self.backend}
        x = scan(coefficients.Lambda_bar, b, state, **options)
        y = self.readout(coefficients, x, u)
        if self.bidirectional:
            coefficients = self.coefficients(dt, backward=True)
            reverse = scan(coefficients.Lambda_bar, b, reverse=True, **options)
            y = y + self.deliver(self.readout(coefficients, reverse, u), edits.resets)
        return y, x


def _state_after(x: Array, state: Array, valid: Array | None) -> Array:
    """The last state, or the one after each sequence's own length."""
    if valid is None:
        return x[..., -1, :]
    length = valid.sum(-1)[..., None]
    last = jnp.take_along_axis(x, jnp.maximum(length - 1, 0)[..., None], axis=-2)[..., 0, :]
    return jnp.where(length > 0, last, state)
