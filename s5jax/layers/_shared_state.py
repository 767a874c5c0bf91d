"""Diagonal layers whose features share the states, by dense input and output matrices."""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Inexact

from s5jax.layers._dense import feedthrough, pair_matmul, real_matmul
from s5jax.layers._devices import last_state, split_entering
from s5jax.layers._diagonal import DiagonalLayer, DiagonalRecurrence
from s5jax.layers._edits import Edits
from s5jax.ops import (
    ScanAlgorithm,
    StateSpace,
    complex_to_pair,
    pair_to_complex,
    real_state_space,
    target_platform,
)
from s5jax.ops._blocks import BlockTables, block_tables, run_blocks, state_after, steps_of_block

SharedStateAlgorithm = Literal[ScanAlgorithm, "block"]


@dataclasses.dataclass(frozen=True)
class BlockRecurrence(DiagonalRecurrence):
    """Runs steps that are alike by matrix products over blocks of time; see `block_scan`.

    Sequences with resets, a ``dt`` per step or a symbolic length are scanned.
    """

    layer: "SharedStateLayer"

    def run(
        self, state: Array | None, u: Array, edits: Edits, *, reverse: bool = False
    ) -> tuple[Array, Array | None]:
        """Runs a sequence."""
        if not _alike(u, edits) or (reverse and edits.valid is not None):
            return super().run(state, u, edits, reverse=reverse)
        u = u.astype(self.layer._compute_dtype(u))
        u = jnp.flip(u, -2) if reverse else u
        tables = self._tables(u, edits, backward=reverse)
        y, states, last = run_blocks(tables, u, self._start(state, u))
        y = jnp.flip(y, -2) if reverse else y
        return y, None if state is None else self._after(tables, u, states, last, edits)

    def run_both(self, u: Array, edits: Edits) -> Array:
        """Runs a sequence in both directions, which share the products with its inputs."""
        if not _alike(u, edits):
            return super().run_both(u, edits)
        u = u.astype(self.layer._compute_dtype(u))
        tables = self._tables(u, edits), self._tables(u, edits, backward=True, reverse=True)
        return run_blocks(tables[0], u, self._start(None, u), tables[1])[0]

    def run_shard(self, state: Array | None, u: Array, edits: Edits) -> tuple[Array, Array | None]:
        """Runs this device's steps, with the states that enter from the other devices."""
        if not _alike(u, edits):
            return super().run_shard(state, u, edits)
        u = u.astype(self.layer._compute_dtype(u))
        forward, backward = self._tables(u, edits, shared=True), None
        if self.layer.bidirectional:
            backward = self._tables(u, edits, backward=True, reverse=True, shared=True)
        y, states, last = run_blocks(
            forward, u, self._start(state, u), backward, enter=split_entering
        )
        if state is None:
            return y, None
        last = self._after(forward, u, states, last, edits)
        return y, last if edits.valid is None else last_state(last, state, u, edits)

    def _tables(
        self,
        u: Array,
        edits: Edits,
        *,
        backward: bool = False,
        reverse: bool = False,
        shared: bool = False,
    ) -> BlockTables:
        """Returns the tables of one map, run in either direction.

        ``shared`` says that the steps are a device's share, which has to end with a whole block.
        """
        coefficients = self.layer.coefficients(edits.dt, backward=backward)
        L, R = u.shape[-2], steps_of_block(u.shape[-1])
        return block_tables(
            coefficients.Lambda_bar,
            self.layer.input_matrix(coefficients),
            self.layer.output_matrix(coefficients),
            math.gcd(L, R) if shared else R,
            D=coefficients.D,
            reverse=reverse,
        )

    def _start(self, state: Array | None, u: Array) -> Array:
        state = self.layer.init_state(u.shape[:-2]) if state is None else state
        return jnp.concatenate([state.real, state.imag], -1)

    def _after(
        self, tables: BlockTables, u: Array, states: Array, last: Array, edits: Edits
    ) -> Array:
        """Returns the state after the sequences, which may end within a block."""
        L, R = u.shape[-2], len(tables.powers) - 1
        if edits.valid is not None:
            last = state_after(tables, u, states, edits.valid.sum(-1))
        elif L % R:
            last = state_after(tables, u, states, jnp.full(u.shape[:-2], L))
        return jax.lax.complex(*jnp.split(last, 2, axis=-1))


def _alike(u: Array, edits: Edits) -> bool:
    """Whether the tables of one block serve all of them."""
    return edits.resets is None and not edits.irregular and isinstance(u.shape[-2], int)


class SharedStateLayer(DiagonalLayer):
    r"""Base class of S5 and the LRU: one diagonal state, read and written by dense matrices.

    .. math:: x_k = \bar\Lambda x_{k-1} + \bar B u_k, \qquad
              y_k = \operatorname{Re}(C x_k) + D \odot u_k

    A layer implements ``coefficients`` with the fields ``Lambda_bar`` and ``D``, `input_matrix` and
    `output_matrix`.
    """

    mixes_features = True

    @property
    def recurrence(self) -> DiagonalRecurrence:
        """Blocks, or the scan."""
        if self.algorithm_for(1) == "block":
            return BlockRecurrence(self)
        return super().recurrence

    def algorithm_for(self, L: int, batch: int = 1) -> str:
        """Returns ``"block"``, or the algorithm of the scan."""
        if self.algorithm == "block":
            return "block"
        if self.algorithm == "auto" and target_platform() != "cpu":
            return "block"
        return super().algorithm_for(L, batch)

    def input_matrix(self, coefficients: Any) -> Complex[Array, "P H"]:
        r"""Returns :math:`\bar B`, without what `input_scale` multiplies by."""
        raise NotImplementedError(f"{type(self).__name__} must define `input_matrix`.")

    def output_matrix(self, coefficients: Any) -> Complex[Array, "H P"]:
        """Returns C, with the factor 2 if only one state of each conjugate pair is kept."""
        raise NotImplementedError(f"{type(self).__name__} must define `output_matrix`.")

    def input_scale(self, coefficients: Any) -> Complex[Array, "*batch P"] | None:
        """Returns what differs between steps in the input matrix, a factor for each state."""
        del coefficients
        return None

    def drive(self, coefficients: Any, u: Inexact[Array, "*batch H"]) -> Float[Array, "*batch 2 P"]:
        r"""Returns :math:`\bar B u`, by one real matrix product."""
        b = pair_matmul(u.astype(self._compute_dtype(u)), self.input_matrix(coefficients).T)
        scale = self.input_scale(coefficients)
        if scale is None:
            return b
        return complex_to_pair(scale * pair_to_complex(b, axis=-2), axis=-2)

    def readout(
        self, coefficients: Any, x: Float[Array, "*batch 2 P"], u: Inexact[Array, "*batch H"]
    ) -> Inexact[Array, "*batch H"]:
        r"""Returns :math:`\operatorname{Re}(C x) + D \odot u`, by one real matrix product."""
        dtype = self._compute_dtype(u)
        y = real_matmul(x, self.output_matrix(coefficients), dtype)
        if coefficients.D is not None:
            y = y + feedthrough(coefficients.D, u)
        return y.astype(dtype)

    def to_ssm(self) -> StateSpace:
        """Returns real matrices with two states, real and imaginary part, for each complex one."""
        self.check_use("to_ssm")
        coefficients = self.coefficients()
        B, C = self.input_matrix(coefficients), self.output_matrix(coefficients)
        return real_state_space(coefficients.Lambda_bar, B, C, coefficients.D)
