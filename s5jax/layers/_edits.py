"""Lengths, resets and step lengths: what may differ from step to step, checked once."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Inexact, PyTree, Shaped

from s5jax._promotion import with_axes
from s5jax.layers._inputs import as_array, as_reals, known_values


class Edits(NamedTuple):
    """Checked ``lengths``, ``resets`` and ``dt`` of one call, each None if it was not given.

    The outermost call makes it, checks it, and passes it on to every layer inside.
    """

    valid: Bool[Array, "*batch L"] | None = None
    """False where a sequence is padded."""

    resets: Bool[Array, "*batch L"] | None = None
    """True at the first step of a segment; False on padding."""

    dt: Float[Array, ""] | Float[Array, "*batch L"] | None = None
    """Relative step length, one for all steps or one per step; zero on padding."""

    @property
    def irregular(self) -> bool:
        """Whether step lengths differ from step to step."""
        return self.dt is not None and self.dt.ndim > 0

    @property
    def uniform(self) -> bool:
        """Whether all steps are alike, without padding and resets, with one step length."""
        return self.valid is None and self.resets is None and not self.irregular


def check_edits(
    where: str,
    shape: tuple[int, ...],
    *,
    lengths: Any = None,
    resets: Any = None,
    dt: Any = None,
    discrete: str | None = None,
    dtype: DTypeLike = jnp.float32,
) -> Edits:
    """Checks the arguments of a call that differ from step to step.

    Args:
        where: name of the layer or model, for the message.
        shape: shape of the sequences, ``(*batch, L, H)``.
        lengths: true lengths of right-padded sequences.
        resets: True at the first step of a segment.
        dt: one step length, or one per step.
        discrete: name of a layer without a step length, if there is one.
        dtype: dtype of the parameters.

    Raises:
        ValueError: if a shape or dtype is wrong, ``dt`` does not apply, or a known value is out of
            range.
    """
    valid = valid_steps(where, lengths, shape)
    if resets is not None:
        resets = as_array(where, "resets", resets)
        if resets.shape != shape[:-1] or resets.dtype != bool:
            raise ValueError(
                f"{where}: `resets` must be boolean with shape {shape[:-1]}; got {resets.dtype} "
                f"with shape {resets.shape}."
            )
        resets = resets if valid is None else resets & valid
    dt = check_dt(where, dt, shape[:-1], valid=valid, discrete=discrete, dtype=dtype)
    return Edits(valid, resets, dt)


def check_dt(
    where: str,
    dt: Any,
    shape: tuple[int, ...],
    *,
    valid: Bool[Array, "*batch L"] | None = None,
    discrete: str | None = None,
    dtype: DTypeLike = jnp.float32,
) -> Array | None:
    """Checks step lengths, one or as many as ``shape`` has; padding gets zero.

    Raises:
        ValueError: as ``check_edits``.
    """
    if dt is None:
        return None
    if discrete is not None:
        raise ValueError(
            f"{where}: `dt` needs a continuous-time layer, and {discrete} has no step length. Use "
            "S4, S4D or S5, or append the time gaps to the inputs."
        )
    dt = as_reals(where, "dt", dt, jnp.promote_types(dtype, jnp.float32))
    if dt.shape not in ((), shape):
        raise ValueError(f"{where}: `dt` must be one number or have shape {shape}; got {dt.shape}.")
    if valid is not None and dt.ndim:
        dt = jnp.where(valid, dt, 0)
    values = known_values(dt)
    if values is not None:
        fits = np.isfinite(values) & (values > 0 if dt.ndim == 0 else values >= 0)
        rule = "be positive" if dt.ndim == 0 else "not be negative"
        if not fits.all():
            raise ValueError(f"{where}: `dt` must {rule}, and finite; got {values[~fits][0]}.")
    return dt


def valid_steps(where: str, lengths: Any, shape: tuple[int, ...]) -> Bool[Array, "*batch L"] | None:
    """Returns a mask that is False on padding, or None without ``lengths``.

    Args:
        where: name of the layer or model, for the message.
        lengths: true lengths of the sequences, or None.
        shape: shape of the padded sequences, ``(*batch, L, H)``.

    Raises:
        ValueError: unless ``lengths`` are integers of the batch shape and, where their values are
            known, which is outside of `jax.jit`, between 0 and L.
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
                f"{where}: `lengths` must be between 0 and the padded length {L}; "
                f"got values from {low} to {high}."
            )
    lengths = lengths[..., None]
    return with_axes(jnp.arange(L), lengths) < lengths


def select(
    mask: Bool[Array, "*batch"],
    on_true: Shaped[Array, "..."],
    on_false: Shaped[Array, "..."] | float,
) -> Shaped[Array, "..."]:
    """`jnp.where` with a mask over the leading axes."""
    return jnp.where(
        mask.reshape(mask.shape + (1,) * (on_true.ndim - mask.ndim)), on_true, on_false
    )


def select_state(
    mask: Bool[Array, "*batch"], on_true: PyTree[Array], on_false: PyTree[Array]
) -> PyTree[Array]:
    """`select` for every leaf of a state."""
    return jax.tree.map(lambda x, y: select(mask, x, y), on_true, on_false)


def contain_nonfinite(
    u: Inexact[Array, "*batch L H"],
    state: PyTree[Array] | None,
    edits: Edits,
    *,
    bidirectional: bool,
) -> tuple[Array, PyTree[Array] | None, Edits, Bool[Array, "*batch L"]]:
    """Replaces non-finite inputs by zero, and marks the outputs that they reach.

    Masks alone would keep the values of other segments clean, but 0 * NaN would still reach the
    gradients of the parameters.
    """
    resets = edits.resets
    assert resets is not None
    bad = ~jnp.isfinite(u).all(-1)
    if edits.dt is not None and edits.irregular:
        finite = jnp.isfinite(edits.dt)
        bad |= ~finite
        edits = edits._replace(dt=jnp.where(finite, edits.dt, 0))
    for leaf in jax.tree.leaves(state):
        finite = jnp.isfinite(leaf).all(tuple(range(bad.ndim - 1, leaf.ndim)))
        bad = bad.at[..., 0].set(bad[..., 0] | (~finite & ~resets[..., 0]))
    u, state = jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), x, 0), (u, state))
    return u, state, edits, _reached(bad, resets, both_sides=bidirectional)


def _reached(
    bad: Bool[Array, "*batch L"], resets: Bool[Array, "*batch L"], *, both_sides: bool
) -> Bool[Array, "*batch L"]:
    """Returns where outputs depend on a non-finite input: in its segment, from its step on.

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
