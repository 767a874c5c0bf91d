"""Checks that integers are tokens of a vocabulary."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Integer


def in_vocabulary(tokens: Integer[Array, "*batch"], n: int) -> Bool[Array, "*batch"]:
    """Tells whether each integer is in ``0, ..., n - 1``.

    The comparison is made in the default integer dtype, because JAX compares a uint8 with 256 as if
    that were 0. Unsigned integers beyond that dtype become negative, never another token.
    """
    tokens = jnp.asarray(tokens).astype(int)
    return (tokens >= 0) & (tokens < n)


def check_tokens(
    where: str,
    name: str,
    tokens: Any,
    n: int,
    counted: Any = True,
    *,
    advice: str,
) -> None:
    """Refuses integers outside of ``0, ..., n - 1`` where their values are known.

    Values are known outside of `jax.jit` and in NumPy arrays, unless other processes have some.

    Args:
        where: name of the caller, for the message.
        name: name of the argument.
        tokens: integers.
        n: size of the vocabulary.
        counted: False where a value does not matter; broadcast to the shape of ``tokens``.
        advice: what the user can do; ``{bad}`` stands for the first value that is refused.

    Raises:
        ValueError: with that value.
    """
    for x in (tokens, counted):
        if isinstance(x, Tracer) or (isinstance(x, jax.Array) and not x.is_fully_addressable):
            return
    values = np.asarray(tokens)
    bad = values[((values < 0) | (values >= n)) & np.asarray(counted)]
    if bad.size:
        raise ValueError(
            f"{where}: `{name}` must hold tokens from 0 to {n - 1}; got {bad.flat[0]}. "
            + advice.format(bad=bad.flat[0])
        )
