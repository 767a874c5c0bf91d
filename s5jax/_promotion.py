"""JAX's default promotion rules, under which this library is written."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax

F = TypeVar("F", bound=Callable[..., Any])
OWN_RANK_RULE = "allow"
"""How the library's own functions treat implicit axes. They need none, so tests set "raise"."""


def with_axes(x: jax.Array, like: jax.Array) -> jax.Array:
    """Adds leading axes of length 1 to ``x`` until it has at least as many axes as ``like``."""
    return x.reshape((1,) * (like.ndim - x.ndim) + x.shape)


def default_promotion(f: F) -> F:
    """Runs a function under the default rules, whatever the user's ``jax_numpy_..._promotion`` is.

    Real numbers meet complex ones all over the library, and users' layers may add axes implicitly.
    Custom derivative rules need this decorator too, because JAX may call them after the function
    has returned.
    """
    own = getattr(f, "__module__", "").startswith("s5jax.")

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        dtype, rank = "standard", OWN_RANK_RULE if own else "allow"
        names = "jax_numpy_dtype_promotion", "jax_numpy_rank_promotion"
        if [getattr(jax.config, name) for name in names] == [dtype, rank]:
            return f(*args, **kwargs)
        with jax.numpy_dtype_promotion(dtype), jax.numpy_rank_promotion(rank):
            return f(*args, **kwargs)

    return wrapped  # ty: ignore[invalid-explicit-return]
