"""Published algorithms: direct ports of the papers' equations, as baselines.

Kernels and layers are functions of this library's layers, and share their parameters.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

import s5jax
from s5jax.layers import Edits


def s4d_kernel(layer: s5jax.S4D, L: int) -> Float[Array, "L H"]:
    r"""Sums :math:`2 \operatorname{Re} \sum_n C_n \bar B_n e^{z_n l}` over H N L exponentials."""
    c = layer.coefficients()
    z, B = (v.reshape(c.C.shape) for v in (c.log_Lambda_bar, c.B_bar))
    return 2 * jnp.einsum("hn,hnl->lh", c.C * B, _exponentials(z, L)).real


def dlr_kernel(layer: s5jax.DLR, L: int) -> Float[Array, "L H"]:
    r"""Sums :math:`\operatorname{Re} \sum_n w_n e^{z_n l}` over H N L exponentials."""
    w, z = layer.coefficients().modes()
    return jnp.einsum("hn,hnl->lh", w, _exponentials(z, L)).real


def dlr_shared_kernel(layer: s5jax.DLR, L: int) -> Float[Array, "L H"]:
    """Computes DLR's kernel from N L exponentials, common to all features: the paper's code."""
    w, z = layer.coefficients().modes()
    return jnp.einsum("hn,nl->lh", w, _exponentials(z[0], L)).real


def s4_kernel(layer: s5jax.S4, L: int) -> Float[Array, "L H"]:
    r"""Computes Cauchy products at L roots of unity by broadcasting, then an inverse FFT.

    .. math::
        \hat K(\omega) = \frac{2}{1 + \omega} \Big[ C R B
        - \frac{(C R P)(P^* R B)}{1 + P^* R P} \Big], \qquad
        R = \Big( \frac{2}{\Delta} \frac{1 - \omega}{1 + \omega} - \Lambda \Big)^{-1}

    As published, the parameter C represents :math:`C (I - \bar A^L)`, and P has rank 1.
    """
    c = layer.coefficients()
    omega = np.exp(-2j * np.pi * np.arange(L // 2 + 1) / L)  # float64 avoids -1
    z, scale = (jnp.asarray(v, c.B.dtype) for v in (2 * (1 - omega) / (1 + omega), 2 / (1 + omega)))
    P, Delta = c.P[:, 0], c.Delta[:, None]
    Lambda = _with_conjugates(Delta * c.Lambda)
    products = jnp.stack([c.C * c.B, c.C * P, P.conj() * c.B, P.conj() * P])
    CB, CP, PB, PP = _cauchy(_with_conjugates(Delta * products), z, Lambda)
    return jnp.fft.irfft(scale * (CB - CP * PB / (1 + PP)), L).T


def hope_kernel(layer: s5jax.HOPE, L: int) -> Float[Array, "L H"]:
    r"""Sums :math:`\sum_k h_k e^{-i k \psi_j}` over H n L / 2 terms, then computes an inverse FFT.

    :math:`\tan \frac{\psi}{2} = \frac{1}{\Delta} \tan \frac{\theta}{2}`, on half of the circle as
    h is real here. L samples return the kernel summed over all lags that are equal modulo L.
    """
    h, Delta, _ = layer.coefficients()
    half = np.pi * np.arange(L // 2 + 1) / L
    sine, cosine = (jnp.asarray(v, Delta.dtype) for v in (np.sin(half), np.cos(half)))
    psi = 2 * jnp.arctan2(sine, Delta[:, None] * cosine)
    k = jnp.arange(1, h.shape[-1] + 1, dtype=psi.dtype)
    terms = jnp.exp(-1j * k[:, None] * psi[:, None])
    return jnp.fft.irfft(jnp.einsum("hn,hnj->hj", h, terms), L).T


def convolve(u: Float[Array, "*batch L H"], K: Float[Array, "L H"]) -> Float[Array, "*batch L H"]:
    """Computes a causal convolution by FFT, of twice the length rounded up to a power of two."""
    L = u.shape[-2]
    n = 2 ** int(2 * L - 1).bit_length()
    y = jnp.fft.irfft(jnp.fft.rfft(u, n, -2) * jnp.fft.rfft(K, n, 0), n, -2)
    return y[..., :L, :]


KERNELS: dict[type[s5jax.SequenceLayer], Callable[..., Float[Array, "L H"]]] = {
    s5jax.S4: s4_kernel,
    s5jax.S4D: s4d_kernel,
    s5jax.DLR: dlr_kernel,
    s5jax.HOPE: hope_kernel,
}


def run_layer(layer: Any, u: Float[Array, "*batch L H"]) -> Float[Array, "*batch L H"]:
    """Applies a layer to a sequence: by its kernel and a plain convolution, or by S5's scan."""
    if isinstance(layer, s5jax.S5):
        return _run_s5(layer, u)
    return convolve(u, KERNELS[type(layer)](layer, u.shape[-2])) + _skip(layer, u)


class S5(s5jax.S5):
    """S5 by the algorithm of its official code: complex, with Lambda repeated over time."""

    def run(
        self, state: Any, u: Array, edits: Edits, *, reverse: bool = False
    ) -> tuple[Array, None]:
        """Runs a sequence forward, by `jax.lax.associative_scan`."""
        del state, edits, reverse
        return _run_s5(self, u), None

    def run_both(self, u: Array, edits: Edits) -> Array:
        """Runs a sequence in both directions."""
        del edits
        return _run_s5(self, u)


def _run_s5(layer: s5jax.S5, u: Float[Array, "*batch L H"]) -> Float[Array, "*batch L H"]:
    forward = layer.coefficients()
    B_bar, C = forward.Gamma[:, None] * forward.B, forward.C
    if layer.bidirectional:
        C = jnp.concatenate([C, layer.coefficients(backward=True).C], axis=1)

    def compose(p: tuple[Array, Array], q: tuple[Array, Array]) -> tuple[Array, Array]:
        return q[0] * p[0], q[0] * p[1] + q[1]

    def one(u: Float[Array, "L H"]) -> Float[Array, "L H"]:
        Lambda_bar = forward.Lambda_bar * jnp.ones((u.shape[0], 1))
        elements = (Lambda_bar, jax.vmap(lambda u_t: B_bar @ u_t)(u))
        x = jax.lax.associative_scan(compose, elements)[1]
        if layer.bidirectional:
            reverse = jax.lax.associative_scan(compose, elements, reverse=True)[1]
            x = jnp.concatenate([x, reverse], axis=-1)
        return jax.vmap(lambda x_t: 2 * (C @ x_t).real)(x)

    return jax.vmap(one)(u) + _skip(layer, u)


def _skip(layer: Any, u: Float[Array, "*batch L H"]) -> Float[Array, "*batch L H"]:
    """Computes D u with an explicit broadcast: XLA on CPU computes the gradient slowly without."""
    return jnp.broadcast_to(layer.D[...], u.shape) * u


class CacheState(NamedTuple):
    """The last W keys, rotated to their positions, and values; and the number of all keys."""

    keys: Float[Array, "n d W"]
    values: Float[Array, "n d W"]
    position: Array


class CachedAttention(s5jax.SequenceLayer):
    """`s5jax.Attention` with the usual cache, in which a key is rotated and written once.

    A step reads the whole cache and writes one entry.
    """

    linear = False
    mixes_features = True

    def __init__(self, d_model: int, n_heads: int, l_max: int, **options: Any) -> None:
        self.d_model, self.n_heads, self.l_max = d_model, n_heads, l_max
        self.d_head = d_model // n_heads
        self.attention = s5jax.Attention(d_model, n_heads, l_max, **options)

    def coefficients(self, dt: Any = None, *, backward: bool = False) -> Any:
        """Returns the coefficients of `s5jax.Attention`."""
        return self.attention.coefficients(dt, backward=backward)

    def init_state(self, batch_shape: Sequence[int] = ()) -> CacheState:
        """Returns an empty cache."""
        shape = (math.prod(batch_shape) * self.n_heads, self.d_head, self.l_max)
        return CacheState(jnp.zeros(shape), jnp.zeros(shape), jnp.int32(0))

    def advance(self, coefficients: Any, state: CacheState, u: Array) -> tuple[Array, CacheState]:
        """Compares one query with the cache."""
        W_qkv, W_o, scale = coefficients
        t, slot = state.position, state.position % self.l_max
        q, k, v = jnp.split((u @ W_qkv).reshape(-1, 3 * self.n_heads, self.d_head), 3, axis=1)
        q, k, v = (x.reshape(-1, self.d_head) for x in (scale * _rotate(q, t), _rotate(k, t), v))
        keys, values = (
            jax.lax.dynamic_update_index_in_dim(cache, x, slot, -1)
            for cache, x in ((state.keys, k), (state.values, v))
        )
        scores = jnp.einsum("nd,nds->ns", q, keys)
        weights = jax.nn.softmax(jnp.where(jnp.arange(self.l_max) <= t, scores, -jnp.inf))
        y = jnp.einsum("ns,nds->nd", weights, values)
        return y.reshape(u.shape) @ W_o, CacheState(keys, values, t + 1)


def _exponentials(z: Complex[Array, "*shape"], L: int) -> Complex[Array, "*shape L"]:
    return jnp.exp(z[..., None] * jnp.arange(L))


def _with_conjugates(v: Complex[Array, "*shape M"]) -> Complex[Array, "*shape N"]:
    return jnp.concatenate([v, v.conj()], -1)


def _cauchy(
    v: Complex[Array, "*batch H N"], z: Complex[Array, " J"], Lambda: Complex[Array, "H N"]
) -> Complex[Array, "*batch H J"]:
    return (v[..., None] / (z - Lambda[..., None])).sum(-2)


def _rotate(x: Float[Array, "*batch n d"], position: Array) -> Float[Array, "*batch n d"]:
    """Applies rotary positions, see `s5jax.ops.rotary`."""
    half = x.shape[-1] // 2
    angle = position * 1e4 ** (-jnp.arange(half) / half)
    re, im = jnp.split(x, 2, -1)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.concatenate([re * cos - im * sin, re * sin + im * cos], -1)
