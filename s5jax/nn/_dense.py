"""Matrix products over long sequences."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Inexact


def flat_apply(
    f: Callable[[Array], Array], x: Inexact[Array, "*leading n"]
) -> Inexact[Array, "*leading m"]:
    """Applies a map of matrices to the last axis of an array, all leading axes made one.

    On CPU, XLA contracts two axes (batch and time, in the gradient of a weight) several times more
    slowly than one: with this, the gradient of an S5 layer of Path-X took half as long.
    """
    return f(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)


def matmul(
    x: Inexact[Array, "*leading n"], W: Inexact[Array, "n m"]
) -> Inexact[Array, "*leading m"]:
    """A matrix product that accumulates and returns at least float32."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return flat_apply(lambda x: jnp.matmul(x, W, preferred_element_type=wide), x)
