"""Attention within a window, with rotary positions: linear cost in the length."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from s5jax._promotion import default_promotion


@default_promotion
def rotary(x: Float[Array, "*batch S n d"], positions: np.ndarray) -> Float[Array, "*batch S n d"]:
    r"""Turns pairs of features by angles that grow with the position.

    .. math:: (x_i + i\, x_{i + d/2})\, e^{i p \theta_i}, \qquad \theta_i = 10000^{-2 i / d}

    The product of two vectors turned so depends on the difference of their positions only. The
    angles are reduced in float64, so that positions of any size are as accurate as small ones.

    Args:
        x: queries or keys, shape ``(*batch, S, n, d)``, with d even.
        positions: position p of each step, shape ``(S,)``, known when the program is traced.

    Returns:
        Shape and dtype of ``x``.

    Raises:
        ValueError: if ``d`` is odd.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from s5jax.ops import rotary
        >>> x = jnp.ones((3, 1, 2))
        >>> print(np.asarray(rotary(x, np.arange(3.0)))[1, 0].round(3))
        [-0.301  1.382]

    References:
        Su, Lu, Pan, Murtadha, Wen and Liu, "RoFormer: Enhanced Transformer with Rotary Position
        Embedding", 2021, https://arxiv.org/abs/2104.09864.
    """
    d = x.shape[-1]
    if d % 2:
        raise ValueError(f"rotary: features are turned in pairs, so `d` must be even; got {d}.")
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    angles = np.multiply.outer(positions, 1e4 ** (-np.arange(d // 2) / (d // 2)))[:, None]
    cos, sin = jnp.asarray(np.cos(angles), dtype), jnp.asarray(np.sin(angles), dtype)
    re, im = jnp.split(x.astype(dtype), 2, axis=-1)
    return jnp.concatenate([re * cos - im * sin, re * sin + im * cos], -1).astype(x.dtype)


@default_promotion
def window_attention(
    q: Float[Array, "*batch L n d"],
    k: Float[Array, "*batch PL n d"],
    v: Float[Array, "*batch PL n d"],
    window: int,
    *,
    segments: Int[Array, "*batch PL"] | None = None,
    two_sided: bool = False,
) -> Float[Array, "*batch L n d"]:
    r"""Every step attends to the last ``window`` steps, itself included.

    .. math::
        y_t = \sum_s \operatorname{softmax}_s (\langle R_t q_t, R_s k_s \rangle)\, v_s, \qquad
        t - \text{window} < s \le t

    with the rotation R of `rotary`; scaling the queries is left to the caller. Queries are folded
    into blocks of ``window`` steps, and each block sees its own keys and those of its neighbours,
    so cost and memory grow as ``L * window``. Scores are in float32 or wider.

    Args:
        q: queries of n heads, shape ``(*batch, L, n, d)``.
        k: keys, shape ``(*batch, P + L, n, d)``: those of the queries' steps, and of P steps before
            them, with P at most ``window``.
        v: values, shaped as ``k``.
        window: number of steps seen.
        segments: shape ``(*batch, P + L)``; steps see steps of the same number only.
        two_sided: see the next ``window - 1`` steps too.

    Returns:
        Shape ``(*batch, L, n, d)``, in the dtype of ``v`` or float32, whichever is wider.

    Raises:
        ValueError: if there are fewer keys than queries, or more than ``window`` before them.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import window_attention
        >>> v = jnp.arange(5.0)[:, None, None] * jnp.ones(2)
        >>> print(window_attention(0 * v, v, v, 2)[:, 0, 0])
        [0.  0.5 1.5 2.5 3.5]

    References:
        Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser and Polosukhin, "Attention Is All
        You Need", 2017, https://arxiv.org/abs/1706.03762; Beltagy, Peters and Cohan, "Longformer:
        The Long-Document Transformer", 2020, https://arxiv.org/abs/2004.05150.
    """
    L, P = q.shape[-3], _steps_before("window_attention", q, k, v, window)
    ids = _ids(k, segments)
    if L <= window:
        return _attend(q, k, v, ids[..., P:, :, :], ids, P, window, two_sided)
    before, after, ahead = window - P, -L % window, window if two_sided else 0
    q, q_ids = (_fold(_pad(x, 0, after), window) for x in (q, ids[..., P:, :, :]))
    ids = _pad(ids, before, after + ahead, np.iinfo(np.int32).min)
    k, v = (_pad(x, before, after + ahead) for x in (k, v))
    k, v, ids = (_neighbours(x, window, 2 + two_sided) for x in (k, v, ids))
    y = _attend(q, k, v, q_ids, ids, window, window, two_sided)
    return y.reshape(*y.shape[:-4], L + after, *y.shape[-2:])[..., :L, :, :]


@default_promotion
def window_attention_ref(
    q: Float[Array, "*batch L n d"],
    k: Float[Array, "*batch PL n d"],
    v: Float[Array, "*batch PL n d"],
    window: int,
    *,
    segments: Int[Array, "*batch PL"] | None = None,
    two_sided: bool = False,
) -> Float[Array, "*batch L n d"]:
    """`window_attention` with all scores of all steps; for tests.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import window_attention_ref
        >>> v = jnp.arange(5.0)[:, None, None] * jnp.ones(2)
        >>> print(window_attention_ref(0 * v, v, v, 2, two_sided=True)[:, 0, 0])
        [0.5 1.  2.  3.  3.5]
    """
    P = _steps_before("window_attention_ref", q, k, v, window)
    ids = _ids(k, segments)
    return _attend(q, k, v, ids[..., P:, :, :], ids, P, window, two_sided)


def _attend(
    q: Array, k: Array, v: Array, q_ids: Array, k_ids: Array, P: int, window: int, two_sided: bool
) -> Array:
    """Attention with all scores at once; the first query is at the key number P."""
    t, s = np.arange(q.shape[-3]), np.arange(k.shape[-3]) - P
    lag = jnp.asarray(t)[:, None] - jnp.asarray(s)
    near = (lag < window) & (lag > (-window if two_sided else -1))
    visible = near & (q_ids[..., 0] == jnp.swapaxes(k_ids[..., 0], -1, -2))
    wide = jnp.promote_types(v.dtype, jnp.float32)
    q, k = rotary(q, t), rotary(k, s)
    scores = jnp.einsum("...tnd,...snd->...nts", q, k, preferred_element_type=wide)
    # A step of padding may see nothing: a finite number keeps its softmax finite.
    scores = jnp.where(visible[..., None, :, :], scores, jnp.finfo(wide).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("...nts,...snd->...tnd", weights, v, preferred_element_type=wide)


def _ids(k: Array, segments: Array | None) -> Array:
    """Segments with the axes of the keys; all the same without any."""
    segments = jnp.zeros(k.shape[-3], jnp.int32) if segments is None else segments
    return segments[..., None, None]


def _pad(x: Array, before: int, after: int, value: int = 0) -> Array:
    """Pads the time axis."""
    widths = [(0, 0)] * (x.ndim - 3) + [(before, after), (0, 0), (0, 0)]
    return jnp.pad(x, widths, constant_values=value)


def _fold(x: Array, window: int) -> Array:
    """Cuts the time axis into blocks."""
    return x.reshape(*x.shape[:-3], x.shape[-3] // window, window, *x.shape[-2:])


def _neighbours(x: Array, window: int, count: int) -> Array:
    """Every run of ``count`` adjacent blocks, joined in time."""
    x = _fold(x, window)
    runs = x.shape[-4] - count + 1
    return jnp.concatenate([x[..., i : i + runs, :, :, :] for i in range(count)], axis=-3)


def _steps_before(where: str, q: Array, k: Array, v: Array, window: int) -> int:
    P = k.shape[-3] - q.shape[-3]
    if k.shape != v.shape or not 0 <= P <= window:
        raise ValueError(
            f"{where}: `k` and `v` must have one shape, with the steps of `q` and up to `window` "
            f"before them; got {k.shape} and {v.shape} for `q` of shape {q.shape} and a window of "
            f"{window}."
        )
    return P
