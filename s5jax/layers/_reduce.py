"""From any causal layer to a small state space that steps and streams."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from s5jax._errors import check_positive
from s5jax._promotion import default_promotion
from s5jax.layers._base import SequenceLayer
from s5jax.layers._dense_ssm import DenseSSM
from s5jax.ops import balanced_truncation, ho_kalman

_LONGEST = 1 << 17
"""Lags after which a kernel must have decayed, unless the caller passes ``l_max``."""


@default_promotion
def reduce_order(layer: SequenceLayer, order: int, *, l_max: int | None = None) -> DenseSSM:
    r"""A small state space layer that computes nearly what a causal layer does.

    Layers whose features do not mix get ``order`` states for each feature: lag 0 of the kernel is
    kept, the rest realised by `s5jax.ops.ho_kalman`. Others get ``order`` states in all, by
    `s5jax.ops.balanced_truncation` of ``layer.to_ssm()``. Both run on the host in float64; the
    parameters have the dtypes of the layer.

    The result's ``error_bound`` holds for all inputs from rest,

    .. math:: \sum_t \lVert y_t - y^{(r)}_t \rVert^2 \le
              \mathtt{error\_bound}^2 \sum_t \lVert u_t \rVert^2

    for each feature by itself, in sequences of up to ``l_max`` steps; or, for layers that mix
    features, for all together and any length. The first is the largest distance of the frequency
    responses, from a grid of eight points per lag plus the 2 % by which a grid may miss the
    maximum. The second is :math:`2 \sum_{k > r} \sigma_k`. Neither counts rounding.

    Args:
        layer: a causal layer.
        order: number of states, for each feature or in all.
        l_max: number of lags that count, for layers that do not mix features. By default, as many
            as it takes the kernel to decay to a ten-millionth of its maximum.

    Returns:
        The layer, with ``error_bound`` of shape ``(H,)``, or ``(1,)``.

    Raises:
        ValueError: if the layer is bidirectional or no linear recurrence of fixed matrices, its
            kernel does not decay and ``l_max`` is not given, ``l_max`` is given where it has no
            meaning, or ``order`` is more than the lags after the first, or the layer's states.

    Example:
        >>> from flax import nnx
        >>> from s5jax import S4D, reduce_order
        >>> layer = S4D(d_model=2, d_state=16, dt_min=0.01, rngs=nnx.Rngs(0))
        >>> small = reduce_order(layer, 8)
        >>> small.d_state, small.error_bound.shape
        (8, (2,))

    References:
        Antoulas, "Approximation of Large-Scale Dynamical Systems", 2005, chapters 4, 5 and 7.
    """
    layer.check_use("reduce_order")
    (order,) = check_positive("reduce_order", order=order)
    mixes = layer.mixes_features
    realise = _from_matrices if mixes else _from_kernel
    matrices, bound = realise(layer, order, l_max)
    reduced = nnx.eval_shape(
        lambda: DenseSSM(
            layer.d_model,
            order,
            multi_input=mixes,
            dtype=layer.dtype,
            param_dtype=layer.param_dtype,
            rngs=nnx.Rngs(0),
        )
    )
    variables = (reduced.A, reduced.B, reduced.C, reduced.D, reduced.error_bound)
    for variable, value in zip(variables, (*matrices, bound), strict=True):
        variable.set_value(jnp.asarray(value, layer.param_dtype))
    return reduced


def _from_matrices(
    layer: SequenceLayer, order: int, l_max: int | None
) -> tuple[list[np.ndarray], np.ndarray]:
    if l_max is not None:
        raise ValueError(
            f"reduce_order: `l_max` has no meaning for {type(layer).__name__}, which is reduced "
            f"from its matrices and not from its kernel; got {l_max}. Omit it."
        )
    (A, B, C, D), bound = balanced_truncation(layer.to_ssm(), order)
    # The reduced layer reads its state before the input enters it.
    return [np.asarray(v)[None] for v in (A, B, C @ A, C @ B + D)], np.array([bound])


def _from_kernel(
    layer: SequenceLayer, order: int, l_max: int | None
) -> tuple[list[np.ndarray], np.ndarray]:
    K = _decayed_kernel(layer) if l_max is None else _kernel(layer, l_max)
    if order >= len(K):
        raise ValueError(
            f"reduce_order: `order` must be less than the number of lags, {len(K)}; got {order}."
        )
    A, B, C, _ = ho_kalman(K[1:], order)
    matrices = [np.asarray(v, layer.param_dtype) for v in (A, B, C, K[0][:, None, None])]
    systems = zip(*(v.astype(np.float64) for v in matrices), strict=True)
    return matrices, np.array(
        [_distance(k, *system) for k, system in zip(K.T, systems, strict=True)]
    )


def _kernel(layer: SequenceLayer, L: int) -> np.ndarray:
    return np.asarray(jax.jit(lambda: layer.kernel(L))(), np.float64)


def _decayed_kernel(layer: SequenceLayer) -> np.ndarray:
    L = 1024
    while L <= _LONGEST:
        K = _kernel(layer, 2 * L)
        if np.abs(K[L:]).max() <= 1e-7 * np.abs(K).max():
            return K[:L]
        L *= 2
    raise ValueError(
        f"reduce_order: the kernel of this {type(layer).__name__} has not decayed after {_LONGEST} "
        "lags. Pass `l_max`, the length of the longest sequences to come."
    )


def _distance(k: np.ndarray, A: np.ndarray, B: np.ndarray, C: np.ndarray, D: np.ndarray) -> float:
    r"""Bounds :math:`\max_\omega |\sum_l (k_l - k^{(r)}_l) e^{-i \omega l}|` over these lags.

    A trigonometric polynomial with L coefficients is at most :math:`1 / \cos(\pi L / 2 n)` times
    its maximum on n > L points: Ehlich and Zeller, "Schwankung von Polynomen zwischen
    Gitterpunkten", 1964.
    """
    L, states, power = len(k), B, A
    while states.shape[-1] < L - 1:
        states = np.concatenate([states, power @ states], -1)
        power = power @ power
    reduced = np.concatenate([D[0], (C @ states)[0, : L - 1]])
    n = 8 * L
    return np.abs(np.fft.rfft(k - reduced, n)).max() / np.cos(np.pi * L / (2 * n))
