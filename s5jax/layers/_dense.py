"""Matrix products and scales over long sequences."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Complex, Float, Inexact, Shaped

from s5jax.layers._devices import placement


def flat_apply(
    f: Callable[..., Array], x: Inexact[Array, "*leading n"], *others: Shaped[Array, "*leading k"]
) -> Inexact[Array, "*leading m"]:
    """Applies a map of matrices to the last axis of arrays, all leading axes made one.

    On CPU, XLA contracts two axes (batch and time, in the gradient of a weight) several times more
    slowly than one: with this, the gradient of an S5 layer of Path-X took half as long. A norm of
    one sequence took 69 ms forward and backward, and takes 7 (see `feedthrough`). Where time is
    split over devices the axes stay, because examples and steps in one row have no common split.
    """
    if x.ndim > 2 and placement(x)[-1]:
        return f(x, *others)
    flat = (v.reshape(-1, v.shape[-1]) for v in (x, *others))
    y = f(*flat)
    return y.reshape(*x.shape[:-1], y.shape[-1])


def feedthrough(
    D: Inexact[Array, " H"], u: Inexact[Array, "*leading H"]
) -> Inexact[Array, "*leading H"]:
    r""":math:`D \odot u`, with D spread over all axes at once.

    For one sequence, the gradient of ``D * u`` sums over time and keeps the batch axis, which on
    CPU took XLA 60 times as long as the sum over both (65 ms of the 300 ms of an S4 layer).
    """
    return jnp.broadcast_to(D, u.shape) * u


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


def pair_matmul(
    x: Float[Array, "*leading n"], W: Complex[Array, "n m"]
) -> Float[Array, "*leading 2 m"]:
    """Real and imaginary parts of sequences times a matrix, by one product in their dtype."""
    y = matmul(x, jnp.concatenate([W.real, W.imag], 1).astype(x.dtype))
    return y.reshape(*x.shape[:-1], 2, W.shape[1])


def real_matmul(
    x: Float[Array, "*leading 2 n"], C: Complex[Array, "m n"], dtype: DTypeLike
) -> Float[Array, "*leading m"]:
    """Real part of C x, by one real product in ``dtype``.

    Transposed after its parts are joined: of the two ways to form its gradient, XLA then takes the
    faster one on a CPU (0.97 of the time of Path-X's train step).
    """
    x = x.reshape(*x.shape[:-2], 2 * x.shape[-1]).astype(dtype)
    return matmul(x, jnp.concatenate([C.real, -C.imag], 1).T.astype(dtype))
