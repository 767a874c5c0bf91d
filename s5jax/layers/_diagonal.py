"""Layers whose state matrix is diagonal: every edit of a step fits into one linear scan."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float, Inexact

from s5jax._promotion import with_axes
from s5jax.layers._base import SequenceLayer
from s5jax.layers._devices import last_state, split_scan
from s5jax.layers._edits import Edits
from s5jax.ops import ScanAlgorithm, complex_to_pair, pair_scan, pair_to_complex, scan_algorithm

DiagonalState = Complex[Array, "*batch P"]


@runtime_checkable
class Diagonal(Protocol):
    r"""What a layer defines of the recurrence :math:`x_k = \bar\Lambda_k x_{k-1} + b_k`.

    ``coefficients`` have a field ``Lambda_bar``. The other two methods take coefficients with or
    without leading axes; both have the real and imaginary parts of :math:`b_k` and :math:`x_k` on
    an axis before the last one.
    """

    bidirectional: bool

    def coefficients(self, dt: Array | float | None = None, *, backward: bool = False) -> Any:
        """Returns the parameters of one step."""

    def drive(self, coefficients: Any, u: Inexact[Array, "*batch H"]) -> Float[Array, "*batch 2 P"]:
        """Returns the inputs to the recurrence, :math:`b_k`."""
        ...

    def readout(
        self, coefficients: Any, x: Float[Array, "*batch 2 P"], u: Inexact[Array, "*batch H"]
    ) -> Inexact[Array, "*batch H"]:
        """Returns outputs from states and inputs, :math:`y_k`."""
        ...

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> DiagonalState:
        """Returns the state before the first step."""
        ...

    def align_backward(self, y: Array, resets: Bool[Array, "*batch L"] | None = None) -> Array:
        """Moves the outputs of the backward map to their steps."""
        ...


@dataclasses.dataclass(frozen=True)
class DiagonalRecurrence:
    """Runs a diagonal recurrence by scans, in either direction, whatever differs between steps."""

    layer: Diagonal
    algorithm: ScanAlgorithm = "auto"

    def advance(self, coefficients: Any, state: Array, u: Array) -> tuple[Array, Array]:
        """Takes one step."""
        b = pair_to_complex(self.layer.drive(coefficients, u), axis=-2)
        x = with_axes(coefficients.Lambda_bar, state) * state + b
        return self.layer.readout(coefficients, complex_to_pair(x, axis=-2), u), x

    def run(
        self, state: Array | None, u: Array, edits: Edits, *, reverse: bool = False
    ) -> tuple[Array, Array | None]:
        """Runs a sequence; see `SequenceLayer.run`."""
        coefficients = self.layer.coefficients(edits.dt, backward=reverse)
        b = self.layer.drive(coefficients, u)
        x = self._scan(pair_scan, coefficients, b, state, edits, reverse=reverse)
        last = None if state is None else _last(x, state, edits.valid, reverse=reverse)
        return self.layer.readout(coefficients, x, u), last

    def run_both(self, u: Array, edits: Edits) -> Array:
        """Runs a sequence in both directions, which share the drive."""
        return self._both(pair_scan, None, u, edits)[0]

    def run_shard(self, state: Array | None, u: Array, edits: Edits) -> tuple[Array, Array | None]:
        """Scans this device's steps, and adds what the states of the other devices contribute."""
        first = self.layer.init_state(u.shape[:-2]) if state is None else state
        y, x = self._both(split_scan, first, u, edits)
        if state is None:
            return y, None
        return y, last_state(_last(x, state, edits.valid), state, u, edits)

    def _both(
        self, scan: Callable[..., Array], state: Array | None, u: Array, edits: Edits
    ) -> tuple[Array, Array]:
        """Returns the outputs of all maps that the layer has, and the states of the forward one."""
        layer = self.layer
        forward = layer.coefficients(edits.dt)
        b = layer.drive(forward, u)
        x = self._scan(scan, forward, b, state, edits)
        y = layer.readout(forward, x, u)
        if layer.bidirectional:
            backward = layer.coefficients(edits.dt, backward=True)
            reverse = self._scan(scan, backward, b, None, edits, reverse=True)
            y = y + layer.align_backward(layer.readout(backward, reverse, u), edits.resets)
        return y, x

    def _scan(
        self,
        scan: Callable[..., Array],
        coefficients: Any,
        b: Array,
        state: Array | None,
        edits: Edits,
        *,
        reverse: bool = False,
    ) -> Float[Array, "*batch L 2 P"]:
        algorithm = self.algorithm if isinstance(b.shape[-3], int) else "sequential"
        return scan(
            coefficients.Lambda_bar,
            b,
            state,
            reverse=reverse,
            resets=edits.resets,
            algorithm=algorithm,
        )


class DiagonalLayer(SequenceLayer):
    r"""Base class of layers with one recurrence :math:`x_k = \bar\Lambda_k x_{k-1} + b_k`.

    A layer implements ``coefficients`` with a field ``Lambda_bar``, ``init_state``, and the two
    maps around the recurrence, `drive` and `readout`. Resets, padding and a ``dt`` per step are
    then other coefficients of the same scan, in both directions.
    """

    algorithm: str

    @property
    def recurrence(self) -> DiagonalRecurrence:
        """What runs the layer."""
        return DiagonalRecurrence(self, scan_algorithm(self.algorithm))

    def algorithm_for(self, L: int, batch: int = 1) -> str:
        """Returns the algorithm of the scan, see `s5jax.ops.scan_algorithm`."""
        del L, batch
        return scan_algorithm(self.algorithm)

    def drive(self, coefficients: Any, u: Inexact[Array, "*batch H"]) -> Float[Array, "*batch 2 P"]:
        """Returns what a step adds to the state."""
        raise NotImplementedError(f"{type(self).__name__} must define `drive`.")

    def readout(
        self, coefficients: Any, x: Float[Array, "*batch 2 P"], u: Inexact[Array, "*batch H"]
    ) -> Inexact[Array, "*batch H"]:
        """Returns what a step outputs."""
        raise NotImplementedError(f"{type(self).__name__} must define `readout`.")

    def advance(self, coefficients: Any, state: Array, u: Array) -> tuple[Array, Array]:
        """Takes one step of the recurrence."""
        return self.recurrence.advance(coefficients, state, u)

    def run(
        self, state: Array | None, u: Array, edits: Edits, *, reverse: bool = False
    ) -> tuple[Array, Array | None]:
        """Scans a sequence."""
        return self.recurrence.run(state, u, edits, reverse=reverse)

    def run_both(self, u: Array, edits: Edits) -> Array:
        """Scans a sequence in both directions."""
        return self.recurrence.run_both(u, edits)

    def run_shard(self, state: Array | None, u: Array, edits: Edits) -> tuple[Array, Array | None]:
        """Scans the steps of one device."""
        return self.recurrence.run_shard(state, u, edits)


def _last(x: Array, state: Array, valid: Array | None, *, reverse: bool = False) -> Array:
    """Returns the last state, or the one after each sequence's own length."""
    if reverse:
        return pair_to_complex(x[..., 0, :, :], axis=-2)
    if valid is None:
        return pair_to_complex(x[..., -1, :, :], axis=-2)
    length = valid.sum(-1)[..., None]
    last = jnp.maximum(length - 1, 0)[..., None, None]
    x = jnp.take_along_axis(x, last, axis=-3)[..., 0, :, :]
    return jnp.where(length > 0, pair_to_complex(x, axis=-2), state)
