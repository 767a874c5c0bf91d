"""Layers that run uniform sequences as convolutions with one kernel per feature."""

import math
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, PyTree

from s5jax.layers._base import SequenceLayer
from s5jax.layers._dense import feedthrough
from s5jax.layers._devices import (
    check_shares,
    exchange,
    feature_share,
    gather,
    gather_edits,
    own_share,
)
from s5jax.layers._diagonal import DiagonalRecurrence
from s5jax.layers._edits import Edits
from s5jax.ops import (
    ChunkTables,
    ConvAlgorithm,
    ScanAlgorithm,
    chunk_length,
    chunked_conv,
    conv_algorithm,
    fft_conv,
    scan_algorithm,
)

NamedScan = Literal["sequential", "associative"]
KernelOrScan = Literal[ConvAlgorithm, "scan", NamedScan]
"""Values of ``algorithm`` for layers that are a convolution and a recurrence alike."""

SCANS = ("scan", *get_args(NamedScan))
"""The values that run uniform sequences, too, as a recurrence."""


class KernelLayer(SequenceLayer):
    """Base class of layers with one state space per feature, whose kernel is cheap to form.

    A layer implements, besides ``advance``, the parts of a convolution. ``coefficients`` have a
    field ``D``, the skip connection, which is None backward in time. The layer runs by an FFT, by
    chunks, or, if it has a diagonal `recurrence`, by scans. Parameters name their axis of features
    in ``feature_axis``, so that devices which split time can exchange steps for features.

    ==========================================  ================================================
    ``convolution_kernel(coefficients, L)``     impulse response without the skip connection
    ``chunk_tables(coefficients, T)``           what T steps do, without the skip connection
    ``response(coefficients, state, L)``        outputs of a first state without inputs
    ``final_state(coefficients, state, u)``     state after a sequence
    ==========================================  ================================================
    """

    backward_delay = 1

    state_feature_axis: ClassVar[int] = -2
    """The axis of features in a state."""

    algorithm: str
    d_state: int

    @property
    def recurrence(self) -> DiagonalRecurrence | None:
        """The same layer as a diagonal recurrence, for layers that are one."""
        return None

    def convolution_kernel(self, coefficients: Any, L: int) -> Float[Array, "Lk H"]:
        """Returns the impulse response without the skip connection; zero from lag ``Lk`` on."""
        raise NotImplementedError(f"{type(self).__name__} must define `convolution_kernel`.")

    def chunk_tables(self, coefficients: Any, T: int) -> ChunkTables:
        """Returns what T steps do, without the skip connection."""
        raise NotImplementedError(f"{type(self).__name__} must define `chunk_tables`.")

    def response(self, coefficients: Any, state: Array, L: int) -> Float[Array, "*batch L H"]:
        """Returns the outputs of L steps that follow a state, without inputs."""
        raise NotImplementedError(f"{type(self).__name__} must define `response`.")

    def final_state(self, coefficients: Any, state: Array, u: Float[Array, "*batch L H"]) -> Array:
        """Returns the state after a uniform sequence."""
        raise NotImplementedError(f"{type(self).__name__} must define `final_state`.")

    def algorithm_for(self, L: int, batch: int = 1) -> str:
        """Returns ``"fft"``, ``"chunked"`` or the algorithm of a scan."""
        if self.algorithm in SCANS:
            return self._scan_algorithm()
        n_states = self._states_per_feature()
        return conv_algorithm(
            self.algorithm, L, n_states, batch=batch, bidirectional=self.bidirectional
        )

    def run(
        self, state: PyTree[Array] | None, u: Array, edits: Edits, *, reverse: bool = False
    ) -> tuple[Array, PyTree[Array] | None]:
        """Convolves uniform sequences, and scans or steps through all others."""
        if self._steps(u, edits):
            # On a CPU, steps in turn need less memory than all states and are faster.
            one_by_one = not isinstance(u.shape[-2], int) or self._scan_algorithm() == "sequential"
            if self.recurrence is None or one_by_one:
                return super().run(state, u, edits, reverse=reverse)
            return self.recurrence.run(state, u, edits, reverse=reverse)
        coefficients = self.coefficients(edits.dt, backward=reverse)
        v = jnp.flip(u, -2) if reverse else u
        y, last = self._convolve(coefficients, v), None
        if state is not None:
            y += self.response(coefficients, state, u.shape[-2])
            last = self.final_state(coefficients, state, self._wide(v))
        return (jnp.flip(y, -2) if reverse else y).astype(self._compute_dtype(u)), last

    def run_both(self, u: Array, edits: Edits) -> Array:
        """Convolves uniform sequences with both kernels by one transform, where it uses one."""
        if self._steps(u, edits) or self._algorithm_of(u) == "chunked":
            return super().run_both(u, edits)
        forward, backward = (self.coefficients(edits.dt, backward=b) for b in (False, True))
        K, K_reverse = (self.convolution_kernel(c, u.shape[-2]) for c in (forward, backward))
        return self._skip(forward, fft_conv(self._wide(u), K, k_reverse=K_reverse), u)

    def run_shard(
        self, state: PyTree[Array] | None, u: Inexact[Array, "*batch L H"], edits: Edits
    ) -> tuple[Inexact[Array, "*batch L out"], PyTree[Array] | None]:
        """Runs all steps of a share of the features, for which devices exchange what they have."""
        share = feature_share(self, check_shares(self, "d_model", self.d_model))
        axis = self.state_feature_axis
        own = jax.tree.map(lambda x: own_share(x, axis), state)
        u_share = exchange(u, split=-1, join=-2)
        y, last = share._run_whole(own, u_share, gather_edits(edits))
        y = y.reshape(*y.shape[:-1], y.shape[-1] // share.d_model, share.d_model)
        y = exchange(y, split=-3, join=-1).reshape(*u.shape[:-1], self.d_output)
        return y, jax.tree.map(lambda x: gather(x, axis), last)

    def _convolve(self, coefficients: Any, u: Array) -> Float[Array, "*batch L H"]:
        """A uniform sequence from zero; chunks have the skip connection among their taps."""
        v, D = self._wide(u), coefficients.D
        *batch, L, _ = u.shape
        if self._algorithm_of(u) == "chunked":
            tables = self.chunk_tables(coefficients, chunk_length(L, math.prod(batch)))
            if D is not None:
                tables = tables._replace(taps=tables.taps.at[:, 0].add(D))
            return chunked_conv(v, tables)
        y = fft_conv(v, self.convolution_kernel(coefficients, L))
        return y if D is None else y + feedthrough(D, u)

    def _steps(self, u: Array, edits: Edits) -> bool:
        """Whether a sequence runs step by step, or by scans."""
        return not (edits.uniform and isinstance(u.shape[-2], int)) or self.algorithm in SCANS

    def _algorithm_of(self, u: Array) -> str:
        *batch, L, _ = u.shape
        return self.algorithm_for(L, math.prod(batch))

    def _scan_algorithm(self) -> ScanAlgorithm:
        return scan_algorithm(self.algorithm if self.algorithm in get_args(NamedScan) else "auto")

    def _states_per_feature(self) -> int:
        return self.d_state

    def _impulse_response(self, L: int, *, backward: bool = False) -> Array:
        coefficients = self.coefficients(backward=backward)
        K = self.convolution_kernel(coefficients, L)
        K = jnp.pad(K, [(0, L - len(K)), (0, 0)])
        return K if coefficients.D is None else K.at[0].add(coefficients.D)

    def _skip(self, coefficients: Any, y: Array, u: Array) -> Array:
        if coefficients.D is not None:
            y = y + feedthrough(coefficients.D, u)
        return y.astype(self._compute_dtype(u))

    def _wide(self, u: Array) -> Array:
        dtype = self._compute_dtype(u)
        return u.astype(dtype).astype(jnp.promote_types(dtype, jnp.float32))
