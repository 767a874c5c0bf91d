"""Matrix products over long sequences."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Complex, Float, Inexact

from s5jax.nn._split import placement


def flat_apply(
    f: Callable[[Array], Array], x: Inexact[Array, "*leading n"]
) -> Inexact[Array, "*leading m"]:
    """Applies a map of matrices to the last axis of an array, all leading axes made one.

    On CPU, XLA contracts two axes (batch and time, in the gradient of a weight) several times more
    slowly than one: with this, the gradient of an S5 layer of Path-X took half as long. Where time
    is split over devices the axes stay, because examples and steps in one row have no common split.
    """
    if x.ndim > 2 and placement(x)[-1]:
        return f(x)
    return f(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)


def output_map(n: int, m: int, *, dtype: DTypeLike | None, **options: Any) -> nnx.Linear:
    """The dense map that ends a model: products in ``dtype``, outputs in float32 or wider."""
    wide = None if dtype is None else jnp.promote_types(dtype, jnp.float32)
    return nnx.Linear(n, m, dtype=dtype, preferred_element_type=wide, **options)


def attend(embedding: nnx.Embed, x: Inexact[Array, "*leading n"]) -> Inexact[Array, "*leading m"]:
    """Products with the vectors of all tokens; as `output_map`."""
    table = embedding.embedding[...].astype(embedding.dtype)
    return matmul(x.astype(embedding.dtype), table.T)


def matmul(
    x: Inexact[Array, "*leading n"], W: Inexact[Array, "n m"]
) -> Inexact[Array, "*leading m"]:
    """A matrix product that accumulates and returns at least float32."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return flat_apply(lambda x: jnp.matmul(x, W, preferred_element_type=wide), x)


def complex_matmul(
    x: Float[Array, "*leading n"], W: Complex[Array, "n m"]
) -> Complex[Array, "*leading m"]:
    """Real sequences times a complex matrix, by two real products in the dtype of ``x``."""
    return jax.lax.complex(*(matmul(x, part.astype(x.dtype)) for part in (W.real, W.imag)))


def real_matmul(
    x: Complex[Array, "*leading n"], W: Complex[Array, "n m"], dtype: DTypeLike
) -> Float[Array, "*leading m"]:
    """Real part of complex sequences times a complex matrix, by two real products in ``dtype``."""
    re = matmul(x.real.astype(dtype), W.real.astype(dtype))
    return re - matmul(x.imag.astype(dtype), W.imag.astype(dtype))
