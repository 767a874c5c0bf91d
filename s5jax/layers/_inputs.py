"""Conversion of arguments to arrays: one clear meaning is converted, anything else refused."""

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.core import Tracer
from jaxtyping import Array, PyTree

T = TypeVar("T", bound=type)

_KINDS = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)


def exportable(state: T) -> T:
    """Registers a NamedTuple, so that programs of `jax.export` that take it can be serialised."""
    export.register_namedtuple_serialization(state, serialized_name=f"s5jax.{state.__name__}")
    return state


def as_array(where: str, name: str, value: Any) -> Array:
    """Converts a list, a number or an array of any library to a JAX array.

    Raises:
        ValueError: for anything else, such as strings, objects and ragged lists.
    """
    if isinstance(value, jax.Array):
        return value
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError, OverflowError) as error:
        kind = type(value).__name__
        received = (
            f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else kind
        )
        raise ValueError(
            f"{where}: `{name}` must be an array of numbers; got {received}. Convert it with "
            "numpy.asarray and a numeric dtype."
        ) from error


def as_reals(where: str, name: str, value: Any, dtype: Any) -> Array:
    """Converts to an array of real numbers; integers become ``dtype``.

    Raises:
        ValueError: for anything but real numbers.
    """
    array = as_array(where, name, value)
    if jnp.issubdtype(array.dtype, jnp.floating):
        return array
    if array.dtype == bool or not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(
            f"{where}: `{name}` must be real numbers; got {array.dtype} with shape {array.shape}. "
            "Convert it to a floating dtype."
        )
    return array.astype(dtype)


def known_values(array: Array) -> np.ndarray | None:
    """Returns the values on the host; None for tracers and arrays split over processes."""
    if isinstance(array, Tracer) or not array.is_fully_addressable:
        return None
    return np.asarray(array)


def check_state(where: str, state: PyTree, expected: PyTree) -> PyTree[Array]:
    """Converts a state to the dtypes of the expected one, or wider.

    Raises:
        ValueError: unless structure, shapes and kinds of numbers are as expected.
    """

    def describe(tree: PyTree) -> PyTree:
        return jax.tree.map(np.shape, tree)

    if jax.tree.structure(state) != jax.tree.structure(expected) or describe(state) != describe(
        expected
    ):
        raise ValueError(
            f"{where}: `state` must have the structure and shapes of `init_state(batch_shape)`, "
            f"{describe(expected)}; got {describe(state)}."
        )

    def convert(leaf: Any, like: Array) -> Array:
        leaf = as_array(where, "state", leaf)
        dtype = jnp.promote_types(leaf.dtype, like.dtype)
        kind = next(kind for kind in _KINDS if jnp.issubdtype(like.dtype, kind))
        if not jnp.issubdtype(dtype, kind):
            raise ValueError(
                f"{where}: `state` must hold {like.dtype} where it has shape {like.shape}; got "
                f"{leaf.dtype}. Start from `init_state(batch_shape)` or an earlier call."
            )
        return leaf.astype(dtype)

    return jax.tree.map(convert, state, expected)


def split_states(where: str, state: Any, n: int) -> Sequence[PyTree]:
    """Returns the state of each of n blocks; None for each without a state.

    Raises:
        ValueError: unless there are n.
    """
    if state is None:
        return [None] * n
    if not isinstance(state, tuple | list) or len(state) != n:
        size = f" of {len(state)}" if isinstance(state, tuple | list) else ""
        raise ValueError(
            f"{where}: `state` must hold the states of {n} blocks, as `init_state(batch_shape)` "
            f"and earlier calls return them; got a {type(state).__name__}{size}."
        )
    return state
