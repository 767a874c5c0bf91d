"""What the gradient keeps of blocks that are compiled once and run in a loop."""

from typing import Any, TypeVar

import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

T = TypeVar("T")

_NAME = "s5jax"
_LOOPS = {"scan", "while"}


def keep(x: T) -> T:
    """Marks a value that is worth its memory; the others are cheap to compute again."""
    return checkpoint_name(x, _NAME)


def is_kept(primitive: Any, *avals: Any, **params: Any) -> bool:
    """The policy for `jax.checkpoint`: marked values, results of loops over time, and sums.

    JAX cannot keep complex numbers by a policy.
    """
    if primitive.name == "name":
        return params["name"] == _NAME
    dtypes = [aval.dtype for aval in avals]
    costly = primitive.name in _LOOPS | {"reduce_sum"}
    return costly and not any(jnp.issubdtype(dtype, jnp.complexfloating) for dtype in dtypes)
