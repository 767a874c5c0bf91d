"""Layers whose state matrix is diagonal: every edit of a step fits into one linear scan."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from s5jax.layers._base import Edits, SequenceLayer
from s5jax.layers._devices import last_state, split_scan
from s5jax.ops import Backend, complex_to_pair, pair_scan, pair_to_complex, scan_backend


class DiagonalLayer(SequenceLayer):
    r"""Base class of layers with the recurrence :math:`x_k = \bar\Lambda_k x_{k-1} + b_k`.

    A family supplies ``coefficients``, with a field ``Lambda_bar``, and the two maps around the
    recurrence; both take coefficients with or without leading axes, and give and take the real and
    imaginary parts of :math:`b_k` and :math:`x_k` on an axis before the last one. Resets, padding
    and a ``dt`` per step are then other coefficients of the same scan, in both directions.

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

    def drive(self, coefficients: Any, u: Inexact[Array, "*batch H"]) -> Float[Array, "*batch 2 P"]:
        """What a step adds to the state."""
        raise NotImplementedError(f"{type(self).__name__} must define `drive`.")

    def readout(
        self, coefficients: Any, x: Float[Array, "*batch 2 P"], u: Inexact[Array, "*batch H"]
    ) -> Inexact[Array, "*batch H"]:
        """What a step puts out."""
        raise NotImplementedError(f"{type(self).__name__} must define `readout`.")

    def advance(self, coefficients: Any, state: Array, u: Array) -> tuple[Array, Array]:
        """One step of the recurrence."""
        b = pair_to_complex(self.drive(coefficients, u), axis=-2)
        x = coefficients.Lambda_bar * state + b
        return self.readout(coefficients, complex_to_pair(x, axis=-2), u), x

    def parallel(self, coefficients: Any, state: Array, u: Array) -> tuple[Array, Array]:
        """One scan over a plain sequence."""
        b = self.drive(coefficients, u)
        x = pair_scan(coefficients.Lambda_bar, b, state, backend=self.backend)
        return self.readout(coefficients, x, u), _state_after(x, state, None)

    def two_sided(self, u: Array, dt: Array | float | None) -> Array:
        """A plain sequence in both directions, which share the drive."""
        return self.edited(self.init_state(u.shape[:-2]), u, dt, Edits())[0]

    def edited(
        self, state: Array, u: Array, scalar_dt: Array | float | None, edits: Edits
    ) -> tuple[Array, Array]:
        """Scans with the edited coefficients, or stepping where that needs less and is faster."""
        if self.feature_states and scan_backend(self.backend) == "sequential":
            return super().edited(state, u, scalar_dt, edits)
        y, x = self._scan(pair_scan, state, u, scalar_dt, edits)
        return y, _state_after(x, state, edits.valid)

    def any_length(
        self, state: Array, u: Array, scalar_dt: Array | float | None, edits: Edits
    ) -> tuple[Array, Array]:
        """Sequential scans, between products over all steps unless these need too much memory."""
        if self.feature_states:
            return super().any_length(state, u, scalar_dt, edits)
        y, x = self._scan(pair_scan, state, u, scalar_dt, edits)
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
        """Outputs and states of a sequence by `pair_scan`, or by `split_scan`."""
        dt = scalar_dt if edits.dt is None else edits.dt
        coefficients = self.coefficients(dt)
        b = self.drive(coefficients, u)
        backend = self.backend if isinstance(u.shape[-2], int) else "sequential"
        options: dict[str, Any] = {"resets": edits.resets, "backend": backend}
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
        return pair_to_complex(x[..., -1, :, :], axis=-2)
    length = valid.sum(-1)[..., None]
    last = jnp.maximum(length - 1, 0)[..., None, None]
    x = jnp.take_along_axis(x, last, axis=-3)[..., 0, :, :]
    return jnp.where(length > 0, pair_to_complex(x, axis=-2), state)
