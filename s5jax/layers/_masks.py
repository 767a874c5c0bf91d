"""Padding and segment masks: what `lengths` and `resets` mean, in one place."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Inexact

from s5jax.layers._inputs import as_array, known_values


def valid_steps(where: str, lengths: Any, shape: tuple[int, ...]) -> Bool[Array, "*batch L"] | None:
    """True where right-padded sequences hold data; None without ``lengths``.

    Args:
        where: who asks, for the message.
        lengths: true lengths of the sequences, or None.
        shape: of the padded sequences, ``(*batch, L, H)``.

    Raises:
        ValueError: if ``lengths`` are no integers of the batch shape or, when their values are
            known, that is outside of `jax.jit`, not all between 0 and L.
    """
    if lengths is None:
        return None
    lengths, (*batch_shape, L) = as_array(where, "lengths", lengths), shape[:-1]
    if lengths.shape != tuple(batch_shape) or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(
            f"{where}: `lengths` must be integers of shape {tuple(batch_shape)}, one per sequence; "
            f"got {lengths.dtype} with shape {lengths.shape}."
        )
    values = known_values(lengths)
    if values is not None and values.size:
        low, high = values.min(), values.max()
        if low < 0 or high > L:
            raise ValueError(
                f"{where}: `lengths` must lie between 0 and the padded length {L}; "
                f"got values from {low} to {high}."
            )
    return jnp.arange(L) < lengths[..., None]


def select(
    mask: Bool[Array, "*batch"],
    on_true: Inexact[Array, "..."],
    on_false: Inexact[Array, "..."] | float,
) -> Inexact[Array, "..."]:
    """`jnp.where` with a mask over the leading axes."""
    return jnp.where(
        mask.reshape(mask.shape + (1,) * (on_true.ndim - mask.ndim)), on_true, on_false
    )


def poisoned_steps(
    bad: Bool[Array, "*batch L"], resets: Bool[Array, "*batch L"], *, both_sides: bool
) -> Bool[Array, "*batch L"]:
    """The outputs that a non-finite input reaches: those of its own segment, from its time on.

    With ``both_sides``, as in a bidirectional layer, its whole segment.
    """
    L = bad.shape[-1]
    axis = bad.ndim - 1
    time = jnp.arange(L)
    start = jax.lax.cummax(jnp.where(resets, time, 0), axis)
    reached = jax.lax.cummax(jnp.where(bad, time, -1), axis) >= start
    if both_sides:
        later = jnp.concatenate([resets[..., 1:], jnp.zeros_like(resets[..., :1])], -1)
        end = jax.lax.cummin(jnp.where(later, time, L - 1), axis, reverse=True)
        reached |= jax.lax.cummin(jnp.where(bad, time, L), axis, reverse=True) <= end
    return reached
