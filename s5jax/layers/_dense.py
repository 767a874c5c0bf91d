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
    """Applies a map of matrices to the last axis of arrays, with all leading axes merged.

    On a CPU, XLA contracts two axes (batch and time, in the gradient of a weight) several times
    more slowly than one. Where time is split over devices the axes stay, because a merged axis of
    examples and steps has no split that fits both.
    """
    if x.ndim > 2 and placement(x.shape)[-1]:
        return f(x, *others)
    flat = (v.reshape(-1, v.shape[-1]) for v in (x, *others))
    y = f(*flat)
    return y.reshape(*x.shape[:-1], y.shape[-1])


def feedthrough(
    D: Inexact[Array, " H"], u: Inexact[Array, "*leading H"]
) -> Inexact[Array, "*leading H"]:
    r"""Returns :math:`D \odot u`, with D broadcast over all axes in one step.

    The gradient of ``D * u`` would sum over time and keep a batch axis of length one, which XLA
    does many times more slowly on a CPU than a sum over both axes.
    """
    return jnp.broadcast_to(D, u.shape) * u


def output_map(n: int, m: int, *, dtype: DTypeLike | None, **options: Any) -> nnx.Linear:
    """Builds the dense map that ends a model; its outputs are float32 or wider."""
    wide = None if dtype is None else jnp.promote_types(dtype, jnp.float32)
    return nnx.Linear(n, m, dtype=dtype, preferred_element_type=wide, **options)


def attend(embedding: nnx.Embed, x: Inexact[Array, "*leading n"]) -> Inexact[Array, "*leading m"]:
    """Multiplies by the vectors of all tokens, with the dtypes of `output_map`."""
    table = embedding.embedding[...].astype(embedding.dtype)
    return matmul(x.astype(embedding.dtype), table.T)


def matmul(
    x: Inexact[Array, "*leading n"], W: Inexact[Array, "n m"]
) -> Inexact[Array, "*leading m"]:
    """Multiplies by a matrix; accumulates and returns at least float32."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return flat_apply(lambda x: jnp.matmul(x, W, preferred_element_type=wide), x)


def pair_matmul(
    x: Float[Array, "*leading n"], W: Complex[Array, "n m"]
) -> Float[Array, "*leading 2 m"]:
    """Returns the real and imaginary parts of ``x @ W``, by one real product."""
    y = matmul(x, jnp.concatenate([W.real, W.imag], 1).astype(x.dtype))
    return y.reshape(*x.shape[:-1], 2, W.shape[1])


def real_matmul(
    x: Float[Array, "*leading 2 n"], C: Complex[Array, "m n"], dtype: DTypeLike
) -> Float[Array, "*leading m"]:
    """Returns the real part of C x, by one real product in ``dtype``.

    The matrix is transposed after its parts are joined: XLA then chooses the faster of two ways to
    form its gradient on a CPU.
    """
    x = x.reshape(*x.shape[:-2], 2 * x.shape[-1]).astype(dtype)
    return matmul(x, jnp.concatenate([C.real, -C.imag], 1).T.astype(dtype))
