"""Complex numbers as pairs of reals, the form in which parameters are stored."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float, Inexact

from s5jax._promotion import default_promotion, with_axes

Parts = tuple[Array, Array]
"""Real and imaginary parts."""


@default_promotion
def complex_to_pair(
    z: Inexact[Array | np.ndarray, "*shape"], *, axis: int = -1
) -> Float[Array, "..."]:
    r"""Stores a complex array as a real one.

    .. math:: z \mapsto (\operatorname{Re} z, \operatorname{Im} z)

    Optimisers, weight decay and checkpoints then see only real numbers, and so do the matrix
    products before and after a `pair_scan`.

    Args:
        z: complex array, shape ``(*shape)``; a real array has imaginary part zero.
        axis: position of the new axis.

    Returns:
        Real and imaginary parts on a new axis, shape ``(*shape, 2)`` by default.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import complex_to_pair
        >>> print(complex_to_pair(jnp.array([1.0 + 2.0j, -3.0j])))
        [[ 1.  2.]
         [-0. -3.]]
    """
    z = jnp.asarray(z)
    return jnp.stack([jnp.real(z), jnp.imag(z)], axis=axis)


@default_promotion
def pair_to_complex(
    pair: Float[Array | np.ndarray, "..."], *, axis: int = -1
) -> Complex[Array, "*shape"]:
    r"""Restores a complex array from its real and imaginary parts.

    .. math:: (a, b) \mapsto a + i b

    Args:
        pair: real and imaginary parts, shape ``(*shape, 2)`` by default. Types shorter than float32
            are widened to float32, the shortest that has a complex counterpart.
        axis: axis of the two parts.

    Returns:
        Complex array, shape ``(*shape)``.

    Raises:
        ValueError: if ``axis`` does not exist or does not have length 2.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import pair_to_complex
        >>> print(pair_to_complex(jnp.array([[1.0, 2.0], [0.0, -3.0]])))
        [1.+2.j 0.-3.j]
    """
    pair = jnp.asarray(pair)
    if not -pair.ndim <= axis < pair.ndim or pair.shape[axis] != 2:
        raise ValueError(
            f"pair_to_complex: axis {axis} of `pair` holds (real, imaginary) and must have length "
            f"2; got shape {pair.shape}. Use `complex_to_pair` to make such an array."
        )
    if jnp.finfo(pair.dtype).bits < 32:
        pair = pair.astype(jnp.float32)
    return lax.complex(*(lax.index_in_dim(pair, i, axis, keepdims=False) for i in (0, 1)))


def times(a: Parts, x: Parts) -> Parts:
    """Product of complex numbers, the first of which may lack leading axes."""
    re, im = with_axes(a[0], x[0]), with_axes(a[1], x[0])
    return re * x[0] - im * x[1], re * x[1] + im * x[0]


def halves(x: Float[Array, "*shape N"]) -> Parts:
    """The two halves of the last axis: all real parts, followed by all imaginary parts."""
    P = x.shape[-1] // 2
    return x[..., :P], x[..., P:]
