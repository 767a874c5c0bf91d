"""Multi-scale kernels: short kernels, stretched by powers of two and concatenated."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from s5jax._errors import as_integer, check_positive
from s5jax._promotion import default_promotion, with_axes


def multiscale_length(S: int, d: int, *, init_scale: int = 0) -> int:
    r"""Number of lags of a kernel that has S scales of d values each.

    Args:
        S: number of scales.
        d: number of values per scale.
        init_scale: binary logarithm of the stretch of the first scale.

    Returns:
        The length :math:`d\, 2^{S - 1 + \mathtt{init\_scale}}`.

    Raises:
        ValueError: if a size is not a positive integer, or ``init_scale`` is negative.

    Example:
        >>> from s5jax.ops import multiscale_length
        >>> multiscale_length(5, 8)
        128

    References:
        Li et al., "Convolutional Models" (SGConv), 2022, https://arxiv.org/abs/2210.09298.
    """
    S, d = check_positive("multiscale_length", S=S, d=d)
    return d << (S - 1 + _check_scale("multiscale_length", init_scale))


def _check_scale(where: str, init_scale: int) -> int:
    scale = as_integer(init_scale)
    if scale is None or scale < 0:
        rule = "be an integer" if scale is None else "not be negative"
        raise ValueError(
            f"{where}: `init_scale` must {rule}; got {init_scale}. Use 0 for no stretch."
        )
    return scale


@default_promotion
def multiscale_kernel(
    w: Float[Array, "S H d"], alpha: Float[Array, " H"], *, init_scale: int = 0
) -> Float[Array, "T H"]:
    r"""Kernel of SGConv before its normalisation.

    .. math::
        K = \left[ \alpha^{S-1} U_{s_0} w_0, \; \alpha^{S-2} U_{s_1} w_1, \; \ldots, \;
                  U_{s_{S-1}} w_{S-1} \right], \qquad
        s_i = 2^{\max(0, i - 1) + \mathtt{init\_scale}}

    The pieces follow one another in time, for each feature. :math:`U_s` interpolates linearly to s
    times as many samples: sample j is at the position
    :math:`(j + \tfrac{1}{2}) / s - \tfrac{1}{2}` of the given samples, or at the nearest of their
    ends. The response decays if :math:`\alpha > 1`.

    Args:
        w: values of each scale, ``(S, H, d)``.
        alpha: ratio of the weights of consecutive scales, ``(H,)``.
        init_scale: binary logarithm of the stretch of the first scale.

    Returns:
        Lags 0 to ``T - 1``, ``(T, H)``, where ``T = multiscale_length(S, d)``.

    Raises:
        ValueError: if the shapes do not fit or ``init_scale`` is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import multiscale_kernel
        >>> w = jnp.array([[[4.0, 3.0]], [[3.0, 2.0]], [[4.0, 0.0]]])
        >>> print(multiscale_kernel(w, jnp.array([2.0]))[:, 0])
        [16. 12.  6.  4.  4.  3.  1.  0.]

    References:
        Li et al., "Convolutional Models" (SGConv), 2022, https://arxiv.org/abs/2210.09298.
    """
    S, _, d = _check_shapes("multiscale_kernel", w, alpha, init_scale)
    pieces = [
        _stretch(w_i, s)
        for w_i, (s, _) in zip(_weigh(w, alpha), _scales(S, d, init_scale), strict=True)
    ]
    return jnp.concatenate(pieces, -1).T


@default_promotion
def multiscale_kernel_ref(
    w: Float[Array, "S H d"], alpha: Float[Array, " H"], *, init_scale: int = 0
) -> Float[Array, "T H"]:
    """`multiscale_kernel`, one lag after another; for tests.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import multiscale_kernel_ref
        >>> print(multiscale_kernel_ref(jnp.array([[[4.0, 0.0]]]), jnp.ones(1), init_scale=1)[:, 0])
        [4. 3. 1. 0.]
    """
    S, _, d = _check_shapes("multiscale_kernel_ref", w, alpha, init_scale)
    lags = []
    for i, (s, _) in enumerate(_scales(S, d, init_scale)):
        for j in range(d * s):
            x = min(max((j + 0.5) / s - 0.5, 0), d - 1)
            q = int(x)
            between = (1 - x + q) * w[i, :, q] + (x - q) * w[i, :, min(q + 1, d - 1)]
            lags.append(alpha ** (S - 1 - i) * between)
    return jnp.stack(lags)


class MultiscaleState(NamedTuple):
    r"""Running sums of the inputs of `multiscale_step`, in circular buffers.

    For every stride s = 1, 2, 4, ... there are the sums of the last s inputs, and their ramps
    :math:`\sum_{k<s} \tfrac{k + 1/2}{s} u_{t-k}`. The entry of time t has the index t modulo the
    length of the buffer.
    """

    boxes: tuple[Float[Array, "*batch Nb H"], ...]
    ramps: tuple[Float[Array, "*batch Nr H"], ...]
    time: Int[Array, ""]


@default_promotion
def init_multiscale_state(
    S: int,
    H: int,
    d: int,
    *,
    init_scale: int = 0,
    batch_shape: Sequence[int] = (),
    dtype: DTypeLike = jnp.float32,
) -> MultiscaleState:
    """Returns the zero state of `multiscale_step`, about five times as long as the kernel.

    Args:
        S: number of scales.
        H: number of features.
        d: number of values per scale.
        init_scale: binary logarithm of the stretch of the first scale.
        batch_shape: leading axes of the inputs.
        dtype: dtype of the sums.

    Returns:
        The state before the first step.

    Raises:
        ValueError: if a size is not a positive integer, or ``init_scale`` is negative.

    Example:
        >>> from s5jax.ops import init_multiscale_state
        >>> [box.shape for box in init_multiscale_state(3, 1, 2).boxes]
        [(8, 1), (8, 1)]

    References:
        Li et al., "Convolutional Models" (SGConv), 2022, https://arxiv.org/abs/2210.09298.
    """
    S, H, d = check_positive("init_multiscale_state", S=S, H=H, d=d)
    init_scale = _check_scale("init_multiscale_state", init_scale)
    n_strides = max(S - 1, 1) + init_scale
    ramps = [2 * d << level for level in range(n_strides)]
    # The next stride reads half-length sums at its ends.
    boxes = [2 * n for n in ramps[:-1]] + ramps[-1:]

    def zeros(lengths: list[int]) -> tuple[Array, ...]:
        return tuple(jnp.zeros((*batch_shape, n, H), dtype) for n in lengths)

    return MultiscaleState(zeros(boxes), zeros(ramps), jnp.zeros((), jnp.int32))


@default_promotion
def multiscale_step(
    w: Float[Array, "S H d"],
    alpha: Float[Array, " H"],
    state: MultiscaleState,
    u: Float[Array, "*batch H"],
    *,
    init_scale: int = 0,
) -> tuple[Float[Array, "*batch H"], MultiscaleState]:
    r"""Advances the convolution with `multiscale_kernel` by a step, in O(S d) instead of O(T).

    Between two of its values a scale of stride s is a straight line. It therefore needs only the
    sums and the ramps of s inputs (see `MultiscaleState`). They follow from the sums and ramps of
    half the stride, without drift:

    .. math::
        b_{2s}[t] &= b_s[t] + b_s[t - s] \\
        r_{2s}[t] &= \tfrac{1}{2} \left( r_s[t] + r_s[t - s] + b_s[t - s] \right) \\
        y[t] &= \sum_{i} w_0 b_{s/2}[t - o] + w_{d-1} b_{s/2}[t - o - d s + \tfrac s2]
            + \sum_{q < d-1} w_q b_s[t - o_q] + (w_{q+1} - w_q) r_s[t - o_q]

    where scale i starts at lag o and :math:`o_q = o + \tfrac s2 + q s`. A step costs about 2 S d
    multiplications per feature. All sequences of a batch share one time.

    Args:
        w: values of each scale, ``(S, H, d)``.
        alpha: ratio of the weights of consecutive scales, ``(H,)``.
        state: from `init_multiscale_state` or an earlier step.
        u: input, ``(*batch, H)``.
        init_scale: binary logarithm of the stretch of the first scale.

    Returns:
        The output, ``(*batch, H)``, and the next state.

    Raises:
        ValueError: if the shapes do not fit or ``init_scale`` is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import init_multiscale_state, multiscale_step
        >>> w, alpha = jnp.array([[[4.0, 3.0]], [[3.0, 2.0]], [[4.0, 0.0]]]), jnp.array([2.0])
        >>> state = init_multiscale_state(3, 1, 2)
        >>> for u in (1.0, 0.0, 0.0, 0.0, 0.0, 0.0):
        ...     y, state = multiscale_step(w, alpha, state, jnp.array([u]))
        >>> print(y)
        [3.]

    References:
        Li et al., "Convolutional Models" (SGConv), 2022, https://arxiv.org/abs/2210.09298
        (the kernel; the recursion is this library's own).
    """
    S, H, d = _check_shapes("multiscale_step", w, alpha, init_scale)
    if u.ndim < 1 or u.shape[-1] != H:
        raise ValueError(f"multiscale_step: `u` must have shape (*batch, {H}); got {u.shape}.")
    state = _push(state, u)
    y = jnp.zeros_like(state.boxes[0][..., 0, :])
    for w_i, (s, start) in zip(_weigh(w, alpha), _scales(S, d, init_scale), strict=True):
        level = s.bit_length() - 1
        if s == 1:
            y += _dot(w_i, state.boxes[0], state.time, start + np.arange(d))
            continue
        lags = start + s // 2 + s * np.arange(d - 1)
        ends = np.array([start, start + d * s - s // 2])
        y += _dot(w_i[:, [0, -1]], state.boxes[level - 1], state.time, ends)
        y += _dot(w_i[:, :-1], state.boxes[level], state.time, lags)
        y += _dot(jnp.diff(w_i), state.ramps[level], state.time, lags)
    return y, state._replace(time=(state.time + 1) % state.boxes[-1].shape[-2])


def _push(state: MultiscaleState, u: Float[Array, "*batch H"]) -> MultiscaleState:
    """Stores the sums and ramps that end with this input."""
    box = u.astype(state.boxes[0].dtype)
    ramp = box / 2
    boxes, ramps = [], []
    for level, (past_boxes, past_ramps) in enumerate(zip(state.boxes, state.ramps, strict=True)):
        boxes.append(past_boxes.at[..., state.time % past_boxes.shape[-2], :].set(box))
        ramps.append(past_ramps.at[..., state.time % past_ramps.shape[-2], :].set(ramp))
        lag = np.array([1 << level])
        earlier_box = _read(boxes[-1], state.time, lag)[..., 0, :]
        earlier_ramp = _read(ramps[-1], state.time, lag)[..., 0, :]
        box, ramp = box + earlier_box, (ramp + earlier_ramp + earlier_box) / 2
    return MultiscaleState(tuple(boxes), tuple(ramps), state.time)


def _read(buffer: Array, time: Array, lags: np.ndarray) -> Float[Array, "*batch n H"]:
    return jnp.take(buffer, (time - lags) % buffer.shape[-2], axis=-2)


def _dot(w: Float[Array, "H n"], buffer: Array, time: Array, lags: np.ndarray) -> Array:
    sums = _read(buffer, time, lags)
    return (with_axes(w.T, sums) * sums).sum(-2)


def _scales(S: int, d: int, init_scale: int) -> Iterator[tuple[int, int]]:
    """Stride and first lag of each scale."""
    start = 0
    for i in range(S):
        s = 1 << (max(0, i - 1) + init_scale)
        yield s, start
        start += d * s


def _weigh(w: Float[Array, "S H d"], alpha: Float[Array, " H"]) -> Float[Array, "S H d"]:
    return w * alpha[None, :, None] ** jnp.arange(len(w) - 1, -1, -1)[:, None, None]


def _stretch(w: Float[Array, "H d"], s: int) -> Float[Array, "H ds"]:
    """Linear interpolation to s times as many samples."""
    if s == 1:
        return w
    fraction = (jnp.arange(s, dtype=w.dtype) + 0.5) / s
    lines = w[:, :-1, None] + jnp.diff(w)[..., None] * fraction[None, None]
    first, last = (jnp.repeat(w[:, q], s // 2, axis=-1) for q in ([0], [-1]))
    return jnp.concatenate([first, lines.reshape(len(w), -1), last], -1)


def _check_shapes(where: str, w: Array, alpha: Array, init_scale: int) -> tuple[int, int, int]:
    if w.ndim != 3 or 0 in w.shape or alpha.shape != (w.shape[1],):
        raise ValueError(
            f"{where}: `w` must have shape (S, H, d) with positive sizes and `alpha` shape (H,); "
            f"got {w.shape} and {alpha.shape}."
        )
    S, H, d = w.shape
    multiscale_length(S, d, init_scale=init_scale)
    return S, H, d
