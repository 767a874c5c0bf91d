"""Convolution of images with 2 x 2 max pooling."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from s5jax._errors import check_positive
from s5jax._promotion import default_promotion
from s5jax.ops._platform import target_platform


@default_promotion
def pooled_conv(
    x: Float[Array, "n height width c"],
    W: Float[Array, "k k c o"],
    *,
    stride: int = 1,
    padding: int = 0,
) -> Float[Array, "n pooled_height pooled_width o"]:
    r"""Convolves images and takes the maximum over squares of 2 x 2 outputs.

    .. math:: y_{ij} = \max_{a, b \in \{0, 1\}} \sum_{p, q} W_{pq}^\top
        x_{s (2 i + a) + p, \; s (2 j + b) + q}

    with the stride s, after zero padding on all sides. On a CPU XLA is slow at convolutions of few
    channels and at the gradient of pooling. There the whole function is one matrix product. Each
    row of y needs a band of k + s rows of the image, and a banded matrix contains W at every
    column, once for each of the four outputs of a square. Ties share the gradient.

    Args:
        x: images, ``(n, height, width, c)``; height and width are multiples of ``2 * stride``.
        W: kernel, ``(k, k, c, o)``.
        stride: steps between outputs before the maximum.
        padding: number of zeros on each side.

    Returns:
        Pooled outputs, ``(n, height // (2 stride), width // (2 stride), o)``.

    Raises:
        ValueError: if the shapes do not fit, or the padding does not preserve the size: twice the
            padding must be between ``k - stride`` and ``k - 1``.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import pooled_conv
        >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
        >>> pooled_conv(x, jnp.ones((1, 1, 1, 1)))[0, :, :, 0].tolist()
        [[5.0, 7.0], [13.0, 15.0]]
    """
    check_positive("pooled_conv", stride=stride)
    k, size = W.shape[0], 2 * stride
    if x.shape[1] % size or x.shape[2] % size or W.shape[:3] != (k, k, x.shape[3]):
        raise ValueError(
            f"pooled_conv: `x` must have shape (n, height, width, c) with height and width "
            f"multiples of {size}, and `W` shape (k, k, c, o); got {x.shape} and {W.shape}."
        )
    if not k - stride <= 2 * padding <= k - 1:
        raise ValueError(
            f"pooled_conv: `padding` must preserve the size, so 2 * padding must be between "
            f"{k - stride} and {k - 1}; got {padding}."
        )
    if target_platform() != "cpu":
        return pooled_conv_ref(x, W, stride=stride, padding=padding)
    n, height, width, _ = x.shape
    rows, columns, reach = height // size, width // size, k + stride
    tall, wide = ((m - 1) * size + reach for m in (rows, columns))
    beyond = (max(0, tall - height - padding), max(0, wide - width - padding))
    x = jnp.pad(x, ((0, 0), (padding, beyond[0]), (padding, beyond[1]), (0, 0)))[:, :tall, :wide]
    bands = jnp.concatenate([x[:, i : i + (rows - 1) * size + 1 : size] for i in range(reach)], 2)
    matrix = _band_matrix(W, stride, columns)
    y = bands.reshape(n * rows, len(matrix)) @ matrix
    y = y.reshape(n * rows, 4, matrix.shape[1] // 4)
    y = jnp.maximum(jnp.maximum(y[:, 0], y[:, 1]), jnp.maximum(y[:, 2], y[:, 3]))
    return y.reshape(n, rows, columns, W.shape[3])


@default_promotion
def pooled_conv_ref(
    x: Float[Array, "n height width c"],
    W: Float[Array, "k k c o"],
    *,
    stride: int = 1,
    padding: int = 0,
) -> Float[Array, "n pooled_height pooled_width o"]:
    """`pooled_conv` by XLA's convolution and pooling; for tests, and for other devices than a CPU.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import pooled_conv_ref
        >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
        >>> pooled_conv_ref(x, jnp.ones((1, 1, 1, 1)))[0, :, :, 0].tolist()
        [[5.0, 7.0], [13.0, 15.0]]
    """
    pads = [(padding, padding)] * 2
    layout = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(x, W, (stride, stride), pads, dimension_numbers=layout)
    window = (1, 2, 2, 1)
    return jax.lax.reduce_window(y, -jnp.inf, jax.lax.max, window, window, "VALID")


def _band_matrix(
    W: Float[Array, "k k c o"], stride: int, columns: int
) -> Float[Array, "band outputs"]:
    """Matrix from a band of rows, ``(k + stride) * wide * c`` numbers, to the outputs of squares.

    Two products with constants of zeros and ones place the entries of W. XLA compiles them much
    faster than a padding for each column.
    """
    k = W.shape[0]
    vertical = _places(k, stride, 2)
    horizontal = _places(k, stride, 2 * columns)
    T = jnp.einsum("ypa,xqb,pqco->yxcabo", vertical, horizontal, W, optimize=[(1, 2), (0, 1)])
    T = T.reshape(*T.shape[:4], columns, 2, W.shape[3]).swapaxes(4, 5)
    return T.reshape(-1, 4 * columns * W.shape[3])


def _places(k: int, stride: int, n: int) -> np.ndarray:
    """One where an input, a kernel entry and one of n outputs belong together, else zero."""
    entry, output = np.mgrid[:k, :n]
    places = np.zeros((k + (n - 1) * stride, k, n), np.float32)
    places[entry + stride * output, entry, output] = 1
    return places
