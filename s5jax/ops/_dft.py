r"""Cyclic convolutions by matrix products, for TPUs, where XLA compiles a transform for minutes.

With :math:`N = a m`, :math:`n = m n_1 + n_2` and :math:`k = k_1 + a k_2`, a Fourier transform is

.. math::
    X_{k_1 + a k_2} = \sum_{n_2} e^{-2 \pi i n_2 k_2 / m}
    \left( e^{-2 \pi i n_2 k_1 / N} \sum_{n_1} e^{-2 \pi i n_1 k_1 / a} x_{m n_1 + n_2} \right) .

The inner sum is a product with an a x a matrix, the outer one a transform of length m. Frequencies
stay in the order in which this finds them, as a convolution multiplies them in any order.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from s5jax.ops._tables import highest

_LARGEST = 6
"""Binary logarithm of the largest matrices: with two parts of a number they have 128 rows."""


def cyclic_conv(x: Float[Array, "b n H"], k: Float[Array, "n H"]) -> Float[Array, "b n H"]:
    """Convolves along a cycle of n steps, where n is a power of two."""
    sizes = _factors(x.shape[1])
    X, K = (_transform(jnp.stack([v, jnp.zeros_like(v)], 1), sizes) for v in (x, k[None]))
    re = X[:, 0] * K[:, 0] - X[:, 1] * K[:, 1]
    im = X[:, 0] * K[:, 1] + X[:, 1] * K[:, 0]
    return _inverse(jnp.stack([re, im], 1), sizes)[:, 0]


def _factors(n: int) -> list[int]:
    """Splits a power of two into nearly equal factors."""
    bits = n.bit_length() - 1
    parts = max(1, -(-bits // _LARGEST))
    return [1 << (bits // parts + (i < bits % parts)) for i in range(parts)]


def _transform(x: Float[Array, "b 2 n H"], sizes: list[int]) -> Float[Array, "b 2 n H"]:
    a, m = sizes[0], math.prod(sizes[1:])
    b, _, n, H = x.shape
    y = _multiply(_rotation(np.outer(np.arange(a), np.arange(a)) / a), x.reshape(b, 2, a, m, H))
    if m == 1:
        return y.reshape(b, 2, n, H)
    y = _turn(y, np.outer(np.arange(a), np.arange(m)) / n)
    y = jnp.moveaxis(y, 2, 1).reshape(b * a, 2, m, H)
    y = _transform(y, sizes[1:]).reshape(b, a, 2, m, H)
    return jnp.moveaxis(y, 2, 1).reshape(b, 2, n, H)


def _inverse(X: Float[Array, "b 2 n H"], sizes: list[int]) -> Float[Array, "b 2 n H"]:
    a, m = sizes[0], math.prod(sizes[1:])
    b, _, n, H = X.shape
    y = X.reshape(b, 2, a, m, H)
    if m > 1:
        y = jnp.moveaxis(y, 2, 1).reshape(b * a, 2, m, H)
        y = jnp.moveaxis(_inverse(y, sizes[1:]).reshape(b, a, 2, m, H), 2, 1)
        y = _turn(y, -np.outer(np.arange(a), np.arange(m)) / n)
    back = _rotation(-np.outer(np.arange(a), np.arange(a)) / a) / a
    return _multiply(back, y).reshape(b, 2, n, H)


def _rotation(turns: np.ndarray) -> np.ndarray:
    """Real matrices of the complex factors with these angles, clockwise, in turns."""
    re, im = np.cos(2 * np.pi * turns), -np.sin(2 * np.pi * turns)
    return np.stack([np.stack([re, -im]), np.stack([im, re])])


def _multiply(F: np.ndarray, x: Float[Array, "b 2 a m H"]) -> Float[Array, "b 2 a m H"]:
    return highest("pqkn,bqnmh->bpkmh", jnp.asarray(F, x.dtype), x)


def _turn(x: Float[Array, "b 2 a m H"], turns: np.ndarray) -> Float[Array, "b 2 a m H"]:
    R = jnp.asarray(_rotation(turns), x.dtype)[..., None]
    re = R[0, 0][None] * x[:, 0] + R[0, 1][None] * x[:, 1]
    im = R[1, 0][None] * x[:, 0] + R[1, 1][None] * x[:, 1]
    return jnp.stack([re, im], 1)
