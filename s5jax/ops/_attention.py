"""Sliding-window attention with rotary positions, at a cost linear in the length."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from s5jax._promotion import default_promotion, with_axes

MAX_SCORES = 2**25
"""Scores that exist at once."""


@default_promotion
def rotary(x: Float[Array, "*batch S n d"], positions: np.ndarray) -> Float[Array, "*batch S n d"]:
    r"""Rotates pairs of features by angles proportional to the position.

    .. math:: (x_i + i\, x_{i + d/2})\, e^{i p \theta_i}, \qquad \theta_i = 10000^{-2 i / d}

    The inner product of two rotated vectors depends only on the difference of their positions.
    The angles are computed in float64, so large positions are as accurate as small ones.

    Args:
        x: queries or keys, shape ``(*batch, S, n, d)``, with d even.
        positions: position p of each step, shape ``(S,)``, a constant of the traced program.

    Returns:
        The rotated features, in the shape and dtype of ``x``.

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
        Su et al., "RoFormer", 2021, https://arxiv.org/abs/2104.09864.
    """
    d = x.shape[-1]
    if d % 2:
        raise ValueError(
            f"rotary: `d` must be even, because features are rotated in pairs; got {d}."
        )
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    angles = np.multiply.outer(positions, 1e4 ** (-np.arange(d // 2) / (d // 2)))[:, None]
    cos, sin = (with_axes(jnp.asarray(f(angles), dtype), x) for f in (np.cos, np.sin))
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
    bidirectional: bool = False,
) -> Float[Array, "*batch L n d"]:
    r"""Attention in which each step sees the last ``window`` steps, itself included.

    .. math::
        y_t = \sum_s \operatorname{softmax}_s (\langle R_t q_t, R_s k_s \rangle)\, v_s, \qquad
        t - \text{window} < s \le t

    R is the rotation of `rotary`. The caller scales the queries. Queries are split into blocks of
    ``window`` steps, and each block reads its own keys and the keys of its neighbours, so the cost
    grows as ``L * window``. If there are many scores, they exist only some rows at a time. They are
    computed in float32 or wider.

    Args:
        q: queries of n heads, shape ``(*batch, L, n, d)``.
        k: keys, shape ``(*batch, P + L, n, d)``, for the steps of the queries and the P steps
            before them, where P is at most ``window``.
        v: values, same shape as ``k``.
        window: number of steps that a query sees.
        segments: segment of each step, shape ``(*batch, P + L)``; a step sees only its own segment.
            All steps are one segment if omitted.
        bidirectional: whether a step also sees the next ``window - 1`` steps.

    Returns:
        Outputs, shape ``(*batch, L, n, d)``, in the dtype of ``v`` or float32, whichever is wider.

    Raises:
        ValueError: if ``k`` and ``v`` have different shapes, there are fewer keys than queries, or
            more than ``window`` keys precede the first query.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import window_attention
        >>> v = jnp.arange(5.0)[:, None, None] * jnp.ones(2)
        >>> print(window_attention(0 * v, v, v, 2)[:, 0, 0])
        [0.  0.5 1.5 2.5 3.5]

    References:
        Vaswani et al., "Attention Is All You Need", 2017, https://arxiv.org/abs/1706.03762.
        Beltagy et al., "Longformer", 2020, https://arxiv.org/abs/2004.05150.
    """
    L, P = q.shape[-3], _steps_before("window_attention", q, k, v, window)
    ids = _ids(k, segments)
    if L <= window:
        return _attend(q, k, v, ids[..., P:, :, :], ids, P, window, bidirectional)
    before, after, ahead = window - P, -L % window, window if bidirectional else 0
    q, q_ids = (_fold(_pad(x, 0, after), window) for x in (q, ids[..., P:, :, :]))
    ids = _pad(ids, before, after + ahead, np.iinfo(np.int32).min)
    k, v = (_pad(x, before, after + ahead) for x in (k, v))
    k, v, ids = (_neighbours(x, window, 2 + bidirectional) for x in (k, v, ids))
    y = _attend(q, k, v, q_ids, ids, window, window, bidirectional)
    return y.reshape(*y.shape[:-4], L + after, *y.shape[-2:])[..., :L, :, :]


@default_promotion
def window_attention_ref(
    q: Float[Array, "*batch L n d"],
    k: Float[Array, "*batch PL n d"],
    v: Float[Array, "*batch PL n d"],
    window: int,
    *,
    segments: Int[Array, "*batch PL"] | None = None,
    bidirectional: bool = False,
) -> Float[Array, "*batch L n d"]:
    """`window_attention` with the full score matrix; for tests.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import window_attention_ref
        >>> v = jnp.arange(5.0)[:, None, None] * jnp.ones(2)
        >>> print(window_attention_ref(0 * v, v, v, 2, bidirectional=True)[:, 0, 0])
        [0.5 1.  2.  3.  3.5]
    """
    L, P = q.shape[-3], _steps_before("window_attention_ref", q, k, v, window)
    S, ids = P + L, _ids(k, segments)
    near = _near(jnp.arange(L), S=S, P=P, window=window, bidirectional=bidirectional)
    q, k = rotary(q, np.arange(L)), rotary(k, np.arange(S) - P)
    return _attend_rows(q, k, v, near, ids[..., P:, :, :], ids)


def _attend(
    q: Array,
    k: Array,
    v: Array,
    q_ids: Array,
    k_ids: Array,
    P: int,
    window: int,
    bidirectional: bool,
) -> Array:
    """Attention of queries, of which the first is at key P, to all keys, some rows at a time.

    The gradient computes the scores of the rows again.
    """
    L, S = q.shape[-3], k.shape[-3]
    q, k = rotary(q, np.arange(L)), rotary(k, np.arange(S) - P)
    near = functools.partial(_near, S=S, P=P, window=window, bidirectional=bidirectional)
    sizes = [*k.shape[:-3], k.shape[-2], S]
    known = all(isinstance(n, int) for n in [L, *sizes])  # and not a symbol of jax.export
    rows = max(1, MAX_SCORES // max(1, math.prod(sizes))) if known else L
    if not known or L <= rows:
        return _attend_rows(q, k, v, near(jnp.arange(L)), q_ids, k_ids)

    @jax.checkpoint
    def attend(some: tuple[Array, Array, Array]) -> Array:
        q, q_ids, t = some
        return _attend_rows(q, k, v, near(t), q_ids, k_ids)

    q, q_ids = (jnp.moveaxis(_fold(_pad(x, 0, -L % rows), rows), -4, 0) for x in (q, q_ids))
    t = jnp.arange(len(q) * rows).reshape(-1, rows)
    y = jnp.moveaxis(jax.lax.map(attend, (q, q_ids, t)), 0, -4)
    return y.reshape(*y.shape[:-4], t.size, *y.shape[-2:])[..., :L, :, :]


def _attend_rows(q: Array, k: Array, v: Array, near: Array, q_ids: Array, k_ids: Array) -> Array:
    """Attention of rotated queries to rotated keys, with all scores in memory."""
    same = q_ids[..., 0] == jnp.swapaxes(k_ids[..., 0], -1, -2)
    visible = with_axes(near, same) & same
    wide = jnp.promote_types(v.dtype, jnp.float32)
    scores = jnp.einsum("...tnd,...snd->...nts", q, k, preferred_element_type=wide)
    # A padded step may see no key: a finite score keeps its softmax finite.
    scores = jnp.where(visible[..., None, :, :], scores, jnp.finfo(wide).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("...nts,...snd->...tnd", weights, v, preferred_element_type=wide)


def _near(t: Array, *, S: int, P: int, window: int, bidirectional: bool) -> Array:
    """Which of S keys are in the window of the queries at these steps."""
    lag = t[:, None] - (jnp.arange(S) - P)[None]
    return (lag < window) & (lag > (-window if bidirectional else -1))


def _ids(k: Array, segments: Array | None) -> Array:
    """Segments with the axes of the keys; one segment if there are none."""
    segments = jnp.zeros(k.shape[-3], jnp.int32) if segments is None else segments
    return segments[..., None, None]


def _pad(x: Array, before: int, after: int, value: int = 0) -> Array:
    """Pads the time axis."""
    widths = [(0, 0)] * (x.ndim - 3) + [(before, after), (0, 0), (0, 0)]
    return jnp.pad(x, widths, constant_values=value)


def _fold(x: Array, window: int) -> Array:
    """Splits the time axis into blocks."""
    return x.reshape(*x.shape[:-3], x.shape[-3] // window, window, *x.shape[-2:])


def _neighbours(x: Array, window: int, count: int) -> Array:
    """Every run of ``count`` adjacent blocks, concatenated in time."""
    x = _fold(x, window)
    runs = x.shape[-4] - count + 1
    return jnp.concatenate([x[..., i : i + runs, :, :, :] for i in range(count)], axis=-3)


def _steps_before(where: str, q: Array, k: Array, v: Array, window: int) -> int:
    """Returns P, the number of keys before the first query."""
    P = k.shape[-3] - q.shape[-3]
    if k.shape != v.shape or not 0 <= P <= window:
        raise ValueError(
            f"{where}: `k` and `v` must have one shape, with the steps of `q` after at most "
            f"`window` others; got {k.shape} and {v.shape} for `q` of shape {q.shape} and `window` "
            f"{window}."
        )
    return P
