"""The rules of the atomic tasks: input and target as functions of random draws.

Every function makes one example: an input `x` of shape `(T, d_input)` and a target `y` for the last
outputs of the model. The last two features of every input are the position.
"""

import jax
import jax.numpy as jnp

Example = tuple[jax.Array, jax.Array]
MAX_SCORES = 1 << 24
"""Inner products that :func:`mips` computes at a time."""


def circle(t: jax.Array, period: int) -> jax.Array:
    r"""Returns points of the unit circle.

    .. math:: (\cos 2\pi t / T, \sin 2\pi t / T)

    Quarters of the circle are counted in integers, so that the rounded angle is at most
    :math:`\pi / 4`, and the result is exact to the last digit at any length.

    Args:
        t: integers of shape ``(*batch,)`` between 0 and ``period``.
        period: the steps :math:`T` of one revolution, less than ``2**29``.

    Returns:
        Shape ``(*batch, 2)``.

    Example:
        >>> print(circle(jnp.arange(4), 4))
        [[ 1.  0.]
         [ 0.  1.]
         [-1.  0.]
         [ 0. -1.]]
    """
    quarter = (4 * t + period // 2) // period
    angle = (jnp.pi / 2) * ((4 * t - quarter * period) / period)
    c, s = jnp.cos(angle), jnp.sin(angle)
    rotated = ([c, -s, -c, s], [s, c, -s, -c])
    return jnp.stack([jnp.choose(quarter % 4, x, mode="clip") + 0.0 for x in rotated], -1)


def with_positions(features: jax.Array) -> jax.Array:
    """Appends each step's position on the unit circle: ``(T, d)`` to ``(T, d + 2)``."""
    T = len(features)
    return jnp.concatenate([features, circle(jnp.arange(T), T)], -1)


def shift(s: jax.Array, n_shifts: int) -> Example:
    r"""Delays: :math:`y_{t,c} = s_{t - \lfloor c L / C \rfloor}`, zero before the beginning.

    Args:
        s: the signal, shape ``(L,)``.
        n_shifts: number of delays :math:`C`.

    Returns:
        ``x`` of shape ``(L, 3)`` and ``y`` of shape ``(L, C)``.
    """
    L = len(s)
    delays = [c * L // n_shifts for c in range(n_shifts)]
    return with_positions(s[:, None]), jnp.stack([jnp.pad(s[: L - d], (d, 0)) for d in delays], -1)


def context_shift(s: jax.Array, delay: jax.Array) -> Example:
    r"""Delays a signal by a number in the input.

    .. math:: (x_0, x_1) = (\cos, \sin)(2\pi k / L), \quad x_{2+t} = s_t, \qquad y_t = x_{t-k}

    Args:
        s: the signal, shape ``(L - 2,)``.
        delay: the delay :math:`k`, an integer from 0 to L - 3.

    Returns:
        ``x`` of shape ``(L, 3)`` and ``y`` of shape ``(L, 1)``.
    """
    L = len(s) + 2
    x = jnp.concatenate([circle(delay, L), s])
    y = jnp.where(jnp.arange(L) < delay, 0, jnp.roll(x, delay))
    return with_positions(x[:, None]), y[:, None]


def cumsum(s: jax.Array) -> Example:
    r"""Returns scaled running sums: :math:`y_t = \frac{1}{\sqrt{t + 1}} \sum_{i \le t} s_i`.

    The sums are pairwise, so that the rounding error grows with the logarithm of the length.

    Args:
        s: the signal, shape ``(L,)``.

    Returns:
        ``x`` of shape ``(L, 3)`` and ``y`` of shape ``(L, 1)``.
    """
    y = jax.lax.associative_scan(jnp.add, s) / jnp.sqrt(jnp.arange(1, len(s) + 1))
    return with_positions(s[:, None]), y[:, None]


def cummax(s: jax.Array) -> Example:
    r"""Returns running maxima: :math:`y_t = \max_{i \le t} s_i`.

    Args:
        s: the signal, shape ``(L,)``.

    Returns:
        ``x`` of shape ``(L, 3)`` and ``y`` of shape ``(L, 1)``.
    """
    return with_positions(s[:, None]), jax.lax.cummax(s)[:, None]


def reverse(s: jax.Array) -> Example:
    """Returns the reversed signal, after its end.

    Args:
        s: the signal, shape ``(L,)``.

    Returns:
        ``x`` of shape ``(2 L, 3)``, whose second half is zero, and ``y`` of shape ``(L, 1)``.
    """
    return with_positions(jnp.pad(s, (0, len(s)))[:, None]), s[::-1, None]


def sort(s: jax.Array) -> Example:
    """Sorts the signal by the distance from its first value, after its end.

    Args:
        s: the signal, shape ``(L,)``.

    Returns:
        ``x`` of shape ``(2 L, 3)``, whose second half is zero, and ``y`` of shape ``(L, 1)``.
    """
    _, y = jax.lax.sort((jnp.abs(s - s[0]), s), num_keys=1, is_stable=True)
    return with_positions(jnp.pad(s, (0, len(s)))[:, None]), y[:, None]


def masked_select(s: jax.Array, positions: jax.Array) -> Example:
    """Returns the marked values in their order, after the end of the signal.

    Args:
        s: the signal, shape ``(L + M,)``.
        positions: the marked positions, increasing, shape ``(M,)``.

    Returns:
        ``x`` of shape ``(L + 2 M, 4)``, whose second feature is the mark, and ``y`` of shape
        ``(M, 1)``.
    """
    marks = jnp.zeros_like(s).at[positions].set(1)
    x = jnp.pad(jnp.stack([s, marks], -1), ((0, len(positions)), (0, 0)))
    return with_positions(x), s[positions, None]


def solve(A: jax.Array, solution: jax.Array, length: int) -> Example:
    r"""Poses linear equations :math:`A y = b`: the input is :math:`[A, b]` by rows, then zeros.

    Args:
        A: orthogonal, shape ``(N, N)``.
        solution: a unit vector, shape ``(N,)``.
        length: steps of the input, at least ``N * (N + 2)``.

    Returns:
        ``x`` of shape ``(length, 3)`` and ``y`` of shape ``(N, 1)``.
    """
    b = jnp.sum(A * solution, axis=-1)
    rows = jnp.concatenate([A, b[:, None]], -1).ravel()
    x = jnp.pad(rows, (0, length - rows.size))
    return with_positions(x[:, None]), solution[:, None]


def mips(q: jax.Array, k: jax.Array, v: jax.Array) -> Example:
    r"""Looks up the nearest key: :math:`y_t = v_j, \ j = \arg\max_{i \le t} q_t \cdot k_i`.

    This needs all :math:`L^2` inner products, which are computed for some keys at a time.

    Args:
        q: queries, unit vectors, shape ``(L, D)``.
        k: keys, of the same kind.
        v: values, of the same kind.

    Returns:
        ``x`` of shape ``(L, 3 D + 2)`` and ``y`` of shape ``(L, D)``.
    """
    L = len(q)
    size = max(1, min(L, MAX_SCORES // L))
    starts = jnp.arange(0, L, size)
    keys = jnp.pad(k, ((0, len(starts) * size - L), (0, 0)))

    def look(best: tuple[jax.Array, jax.Array], start: jax.Array) -> tuple[Example, None]:
        some = jax.lax.dynamic_slice_in_dim(keys, start, size)
        scores = jnp.matmul(q, some.T, precision=jax.lax.Precision.HIGHEST)
        past = start + jnp.arange(size) <= jnp.arange(L)[:, None]
        scores = jnp.where(past, scores, -jnp.inf)
        score, index = scores.max(-1), start + scores.argmax(-1)
        better = score > best[0]
        return (jnp.where(better, score, best[0]), jnp.where(better, index, best[1])), None

    nothing = (jnp.full(L, -jnp.inf, q.dtype), jnp.zeros_like(starts, shape=L))
    (_, index), _ = jax.lax.scan(look, nothing, starts)
    return with_positions(jnp.concatenate([q, k, v], -1)), v[index]
