r"""Transforms of long real sequences for convolutions on a CPU.

With :math:`n = R M` samples, :math:`t = r M + m` and :math:`q = k + R j`,

.. math:: X_q = \sum_m e^{-2 \pi i j m / M} \Big[ e^{-2 \pi i k m / n}
                \sum_r e^{-2 \pi i k r / R} x_{r M + m} \Big]

that is, a matrix product over r, a twiddle factor, and a transform of M samples that stays in a
core's cache, where one of n samples would not. Zeros at the end take no part in the product, and
:math:`k \le R / 2` is enough for real x. Spectra keep the order (k, j), which a convolution need
not undo.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from s5jax.ops._tables import highest

_TILE = 64


class Split(NamedTuple):
    """How a transform of R M samples is taken apart."""

    R: int
    M: int

    @property
    def rows(self) -> int:
        """Numbers k that a real sequence needs."""
        return self.R // 2 + 1


def split_for(n: int) -> Split:
    """Of at least n samples.

    The power of two next to three times the root was the best M, or within a tenth of it, between
    32,768 and 524,288 samples and with 32 and 128 features on two CPU cores.
    """
    M = 1 << round(math.log2(3 * math.sqrt(n)))
    return Split(-(-n // M), M)


def split_rfft(x: Float[Array, "b L H"], split: Split) -> Complex[Array, "k b H M"]:
    """The spectrum of sequences with zeros after them."""
    M = split.M
    b, L, H = x.shape
    filled = -(-L // M)
    x = jnp.pad(x, [(0, 0), (0, filled * M - L), (0, 0)])
    x = x.reshape(b, filled, M, H).transpose(1, 0, 3, 2)
    W = _roots(split)[:, :filled]
    re, im = (_product(w, x) for w in (W.real, W.imag))
    cos, sin = _twiddle(split, x.dtype)
    return jnp.fft.fft(jax.lax.complex(re * cos - im * sin, re * sin + im * cos))


def split_irfft(X: Complex[Array, "k b H M"], split: Split, L: int) -> Float[Array, "b L H"]:
    """The first L samples of the sequences with these spectra."""
    R, M = split
    z = jnp.fft.ifft(X)
    cos, sin = _twiddle(split, z.real.dtype)
    re, im = z.real * cos + z.imag * sin, z.imag * cos - z.real * sin
    filled, k = -(-L // M), np.arange(split.rows)
    weights = np.where((k == 0) | (2 * k == R), 1, 2) / R  # the others stand for R - k too
    W = (weights[:, None] * _roots(split)[:, :filled]).T
    x = _product(W.real, re) + _product(W.imag, im)
    return x.transpose(1, 0, 3, 2).reshape(X.shape[1], filled * M, X.shape[2])[:, :L]


def _product(w: np.ndarray, x: Float[Array, "i b H M"]) -> Float[Array, "j b H M"]:
    """Along the first axis; flat, as XLA transposes the gradient of more axes in memory."""
    y = highest("ji,in->jn", jnp.asarray(w, x.dtype), x.reshape(len(x), -1))
    return y.reshape(-1, *x.shape[1:])


def _roots(split: Split) -> np.ndarray:
    k, r = np.arange(split.rows), np.arange(split.R)
    return np.exp(-2j * np.pi / split.R * (np.outer(k, r) % split.R))


def _twiddle(split: Split, dtype: jnp.dtype) -> tuple[Array, Array]:
    """Cosines and sines, as products of two small tables that XLA forms where they are used."""
    R, M = split
    k, tile = np.arange(split.rows)[:, None], min(_TILE, M)
    coarse, fine = (
        jnp.asarray(np.exp(-2j * np.pi / (R * M) * k * m), jnp.result_type(dtype, jnp.complex64))
        for m in (np.arange(0, M, tile), np.arange(tile))
    )
    factors = (coarse[:, :, None] * fine[:, None]).reshape(split.rows, 1, 1, M)
    return factors.real, factors.imag
