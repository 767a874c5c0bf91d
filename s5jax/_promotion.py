"""JAX's own rules of promotion, by which this library is written."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax

F = TypeVar("F", bound=Callable[..., Any])
DEFAULT = {"numpy_dtype_promotion": "standard", "numpy_rank_promotion": "allow"}


def default_promotion(f: F) -> F:
    """Runs a function under the default rules, whatever ``jax_numpy_..._promotion`` says.

    Real numbers meet complex ones, and coefficients with batch axes those without, all over the
    library. Rules of derivatives need it, too: JAX may call them after the function has returned.
    """

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if all(getattr(jax.config, f"jax_{name}") == value for name, value in DEFAULT.items()):
            return f(*args, **kwargs)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return f(*args, **kwargs)

    return wrapped  # ty: ignore[invalid-explicit-return]
