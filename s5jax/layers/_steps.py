"""What follows from the definition of one step: whole sequences, and matrices."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.typing import DTypeLike
from jaxtyping import Array, Inexact, PyTree

from s5jax.layers._edits import Edits, select_state
from s5jax.ops import StateSpace, complex_to_pair, pair_to_complex, target_platform


@runtime_checkable
class Stepping(Protocol):
    """The three methods that define a layer; see `SequenceLayer`."""

    d_model: int
    param_dtype: DTypeLike

    def coefficients(self, dt: Array | float | None = None, *, backward: bool = False) -> PyTree:
        """Returns the parameters of one step."""

    def init_state(self, batch_shape: Sequence[int] = ()) -> PyTree[Array]:
        """Returns the state before the first step."""

    def advance(
        self, coefficients: PyTree, state: PyTree[Array], u: Array
    ) -> tuple[Array, PyTree[Array]]:
        """Takes one step."""
        ...


def scan_steps(
    layer: Stepping,
    state: PyTree[Array] | None,
    u: Inexact[Array, "*batch L H"],
    edits: Edits,
    *,
    reverse: bool,
) -> tuple[Inexact[Array, "*batch L H"], PyTree[Array] | None]:
    """Runs a sequence step by step; see `SequenceLayer.run`.

    A reset *selects* the initial state, and padding *selects* the old one; a product with zero
    would let a NaN through.
    """
    fixed = None if edits.irregular else layer.coefficients(edits.dt, backward=reverse)
    start = layer.init_state(u.shape[:-2])
    resets = edits.resets
    if reverse and resets is not None:
        resets = jnp.concatenate([resets[..., 1:], jnp.zeros_like(resets[..., :1])], -1)
    varying = Edits(edits.valid, resets, edits.dt if edits.irregular else None)

    def body(state: PyTree, inputs: tuple[Array, Edits]) -> tuple[PyTree, Array]:
        u_t, edit = inputs
        coefficients = fixed
        if coefficients is None:
            coefficients = layer.coefficients(edit.dt, backward=reverse)
        if edit.resets is not None:
            state = select_state(edit.resets, start, state)
        y, new_state = layer.advance(coefficients, state, u_t)
        if edit.valid is not None:
            new_state = select_state(edit.valid, new_state, state)
        return new_state, y

    inputs = jnp.moveaxis(u, -2, 0), jax.tree.map(lambda e: jnp.moveaxis(e, -1, 0), varying)
    last, y = _scan(body, start if state is None else state, inputs, reverse=reverse)
    return jnp.moveaxis(y, 0, -2), None if state is None else last


_KEPT = 128
_UNROLLED = 16
"""Steps of an iteration on a GPU, where each kernel costs a launch."""


def _scan(
    body: Callable[[PyTree, PyTree], tuple[PyTree, Array]],
    state: PyTree[Array],
    inputs: PyTree[Array],
    *,
    reverse: bool,
) -> tuple[PyTree[Array], Array]:
    """Runs `jax.lax.scan`, but the gradient keeps one state in 128 and recomputes the others."""
    unroll = _UNROLLED if target_platform() == "gpu" else 1

    def run(state: PyTree, inputs: PyTree) -> tuple[PyTree, Array]:
        return jax.lax.scan(body, state, inputs, reverse=reverse, unroll=unroll)

    L = jax.tree.leaves(inputs)[0].shape[0]
    if not isinstance(L, int) or L < _KEPT:
        return run(state, inputs)
    cut = L - L % _KEPT
    tail = jax.tree.map(lambda x: x[cut:], inputs)
    blocks = jax.tree.map(lambda x: x[:cut].reshape(cut // _KEPT, _KEPT, *x.shape[1:]), inputs)
    block = jax.checkpoint(run, prevent_cse=False)
    if reverse:
        state, y_tail = run(state, tail)
    state, y = jax.lax.scan(block, state, blocks, reverse=reverse)
    if not reverse:
        state, y_tail = run(state, tail)
    return state, jnp.concatenate([y.reshape(cut, *y.shape[2:]), y_tail])


def derive_ssm(layer: Stepping) -> StateSpace:
    """Returns the state space of a linear layer, whose matrices are the derivatives of a step.

    The output of a state space is read off the state after the step, so H more states hold it.
    """
    start, u = layer.init_state(), jnp.zeros(layer.d_model, layer.param_dtype)
    coefficients = layer.coefficients()
    x, to_state = ravel_pytree(jax.tree.map(_as_pair, start))

    def advance(x: Array, u: Array) -> Array:
        y, state = layer.advance(coefficients, jax.tree.map(_from_pair, to_state(x), start), u)
        x, _ = ravel_pytree(jax.tree.map(_as_pair, state))
        return jnp.concatenate([x, y.astype(x.dtype)])

    A, B = jax.jacfwd(advance, argnums=(0, 1))(x, u)
    n, H = len(x), len(A) - len(x)
    C = jnp.eye(H, n + H, n, dtype=A.dtype)
    return StateSpace(jnp.pad(A, [(0, 0), (0, H)]), B, C, jnp.zeros((H, len(u)), A.dtype))


def _as_pair(x: Array) -> Array:
    return complex_to_pair(x) if jnp.iscomplexobj(x) else x


def _from_pair(x: Array, like: Array) -> Array:
    return pair_to_complex(x) if jnp.iscomplexobj(like) else x
