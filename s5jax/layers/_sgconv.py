"""SGConv: a long convolution whose kernel is a few short ones, stretched to ever longer scales."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Inexact, Int

from s5jax._errors import as_integer, check_choice, check_positive
from s5jax._promotion import with_axes
from s5jax.layers._base import Edits
from s5jax.layers._edits import select
from s5jax.layers._inputs import exportable
from s5jax.layers._kernel import KernelLayer
from s5jax.ops import (
    MultiscaleState,
    fft_conv,
    init_multiscale_state,
    multiscale_kernel,
    multiscale_length,
    multiscale_step,
    segment_conv,
)

SGConvInit = Literal["random", "cosine"]
Decay = Literal["scale", "power", "learnable"]


class SGConvCoefficients(NamedTuple):
    """Sub-kernels after normalisation, and their kernel; ``D`` is None backward in time."""

    w: Float[Array, "S H d"]
    alpha: Float[Array, " H"]
    K: Float[Array, "T H"]
    D: Float[Array, " H"] | None


exportable(MultiscaleState)


class SGConv(KernelLayer):
    r"""SGConv: a convolution whose kernel joins short kernels, each stretched by a power of two.

    .. math::
        y_t = \sum_{l < T} K_l u_{t-l} + D u_t, \qquad
        K = \tfrac{1}{Z} \left[ \alpha^{S-1} w_0, \; \alpha^{S-2} U_1 w_1, \; \alpha^{S-3} U_2 w_2,
        \; \alpha^{S-4} U_4 w_3, \; \ldots \right]

    for every feature, where each of the S sub-kernels has ``kernel_dim`` numbers and :math:`U_s`
    interpolates linearly to s times as many (`s5jax.ops.multiscale_kernel`). The constant Z is the
    2-norm of the kernel at construction; it is saved, and not trained. A bidirectional layer adds a
    second kernel, of its own w and Z, over the inputs to come, which starts with the next step.

    **Length.** The response ends: it has :math:`T = d\, 2^{S - 1 + \mathtt{init\_scale}}` lags
    (``n_taps``), at least ``l_max``, whatever the length of a sequence. A shorter one reaches
    the first lags only, without another normalisation; in a longer one an output depends on the
    last T inputs only. The published code does the same.

    **Steps.** A state holds the last T - 1 inputs of every feature, and a step costs T
    multiplications. With ``decay="scale"`` the state of ``init_multiscale_state`` may take its
    place in `s5jax.SequenceLayer.step`, which then costs about 2 S d of them and is as exact, see
    `s5jax.ops.multiscale_step`. Resets convolve every segment by itself, at a few times the cost.

    Parameters: ``w`` of shape ``(1, S, H, d)`` (``(2, S, H, d)`` if bidirectional, forward first)
    and ``D`` of shape ``(H,)``; ``alpha`` of shape ``(H,)``, a parameter only if the decay is
    learnable, and ``kernel_norm``, Z, of shape ``(1, H)`` or ``(2, H)``, are constants otherwise.
    The optimiser group ``"ssm_decay"`` (small learning rate, with weight decay) holds all but
    ``D``. A state has shape ``(*batch, T - 1, H)``, newest input last.

    =============  ===================================  ==========================================
    ``decay``      weights                              :math:`\alpha`
    =============  ===================================  ==========================================
    ``scale``      :math:`\alpha^{S-1-i}` of scale i    from ``decay_min`` to ``decay_max`` in
                                                        equal steps over the features; constant
    ``power``      :math:`(l + 1)^{-\alpha}` of lag l   uniform between the two; constant
    ``learnable``  as ``power``                         as ``power``, but trained
    =============  ===================================  ==========================================

    Args:
        d_model: number of features H.
        l_max: length of the longest sequences in which every step reaches every later one.
        kernel_dim: numbers d of each sub-kernel, at most ``l_max``.
        n_scales: number of sub-kernels S; by default as many as ``l_max`` takes.
        init_scale: binary logarithm of the stretch of the first sub-kernel.
        bidirectional: also run backward in time.
        init: initial sub-kernels, ``"random"`` (standard normal) or ``"cosine"`` (each a cosine of
            0, 1, ..., or H - 1 periods, in random order over the features).
        decay: ``"scale"``, ``"power"`` or ``"learnable"``.
        decay_min: smallest initial :math:`\alpha`.
        decay_max: largest initial :math:`\alpha`.
        dtype: dtype of the output; by default, inputs and parameters decide together. Kernels,
            transforms and states are kept in float32 or wider.
        param_dtype: dtype of the parameters.
        rngs: source of the key ``params``.

    Raises:
        ValueError: for sizes that are not positive, an unknown option, ``kernel_dim`` above
            ``l_max``, scales that end before ``l_max``, or ``decay_min`` above ``decay_max``.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from s5jax import SGConv
        >>> layer = SGConv(d_model=4, l_max=100, kernel_dim=8, rngs=nnx.Rngs(0))
        >>> y, state = layer(jnp.ones((2, 100, 4)), return_state=True)
        >>> y_next, state = layer.step(jnp.ones((2, 4)), state)
        >>> layer.n_taps, y.shape, y_next.shape, state.shape
        (128, (2, 100, 4), (2, 4), (2, 127, 4))

    References:
        Li, Cai, Zhang, Chen and Dey, "What Makes Convolutional Models Great on Long Sequence
        Modeling?", 2022, https://arxiv.org/abs/2210.09298.
    """

    algorithm = "fft"
    state_feature_axis = -1

    def __init__(
        self,
        d_model: int,
        l_max: int,
        *,
        kernel_dim: int = 64,
        n_scales: int | None = None,
        init_scale: int = 0,
        bidirectional: bool = False,
        init: SGConvInit = "random",
        decay: Decay = "scale",
        decay_min: float = 2.0,
        decay_max: float = 2.0,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        (d_model,) = check_positive("SGConv", d_model=d_model)
        check_choice("SGConv", "init", init, get_args(SGConvInit))
        check_choice("SGConv", "decay", decay, get_args(Decay))
        if decay_min > decay_max:
            raise ValueError(
                f"SGConv: `decay_min` must be at most `decay_max`; got {decay_min} and {decay_max}."
            )
        l_max, kernel_dim, S, init_scale = _sizes(l_max, kernel_dim, n_scales, init_scale)
        self.n_taps = multiscale_length(S, kernel_dim, init_scale=init_scale)
        self.d_model, self.l_max, self.kernel_dim = d_model, l_max, kernel_dim
        self.n_scales = None if n_scales is None else S
        self.init_scale, self.bidirectional = init_scale, bidirectional
        self.init, self.decay, self.decay_min, self.decay_max = init, decay, decay_min, decay_max
        self.dtype, self.param_dtype = dtype, param_dtype

        shape = (1 + bidirectional, S, d_model, kernel_dim)
        if init == "random":
            w = jax.random.normal(rngs.params(), shape, param_dtype)
        else:
            w = _cosines(rngs, shape, param_dtype)
        self.w = nnx.Param(w, group="ssm_decay", feature_axis=2)
        D = jax.random.normal(rngs.params(), (d_model,), param_dtype)
        self.D = nnx.Param(D, feature_axis=0)
        if decay == "scale":
            alpha = jnp.linspace(decay_min, decay_max, d_model, dtype=param_dtype)
        else:
            alpha = jax.random.uniform(rngs.params(), (d_model,), param_dtype, decay_min, decay_max)
        self.alpha = (
            nnx.Param(alpha, group="ssm_decay", feature_axis=0)
            if decay == "learnable"
            else nnx.Variable(alpha, feature_axis=0)
        )
        norm = jax.jit(lambda w: jnp.linalg.norm(jax.vmap(self._raw_kernel)(w), axis=1))
        self.kernel_norm = nnx.Variable(norm(w).astype(param_dtype), feature_axis=1)

    def algorithm_for(self, L: int, batch: int = 1) -> str:
        """Returns ``"fft"``."""
        del L, batch
        return "fft"

    def coefficients(
        self, dt: Array | float | None = None, *, backward: bool = False
    ) -> SGConvCoefficients:
        """Returns the normalised sub-kernels of one direction, and their kernel."""
        del dt  # refused earlier: the layer has no step length
        wide = jnp.promote_types(self.param_dtype, jnp.float32)
        Z = jax.lax.stop_gradient(self.kernel_norm[int(backward)].astype(wide))
        w = self.w[int(backward)].astype(wide) / Z[None, :, None]
        D = None if backward else self.D[...]
        return SGConvCoefficients(w, self._alpha(), self._raw_kernel(w), D)

    def init_state(
        self, batch_shape: Sequence[int] = ()
    ) -> Float[Array, "*batch {self.n_taps-1} H"]:
        """Returns zeros: no inputs yet."""
        return self.zero_state(batch_shape, self.n_taps - 1, self.d_model)

    def init_multiscale_state(self, batch_shape: Sequence[int] = ()) -> MultiscaleState:
        """Returns the state for fast steps; sequences and chunks need the one of `init_state`.

        Raises:
            ValueError: if the layer is bidirectional, or its decay is a power of the lag.
        """
        self.check_use("init_multiscale_state")
        if self.decay != "scale":
            raise ValueError(
                "SGConv: `init_multiscale_state` needs straight lines between the numbers of a "
                f"scale, that is `decay='scale'`; this layer has {self.decay!r}. Use `init_state`."
            )
        _, S, H, d = self.w.shape
        return init_multiscale_state(
            S,
            H,
            d,
            init_scale=self.init_scale,
            batch_shape=batch_shape,
            dtype=self._state_dtype(),
        )

    def _state_like(
        self, state: Any, batch_shape: Sequence[int]
    ) -> Float[Array, "*batch {self.n_taps-1} H"] | MultiscaleState:
        fast = isinstance(state, MultiscaleState)
        return self.init_multiscale_state(batch_shape) if fast else self.init_state(batch_shape)

    def advance(
        self,
        coefficients: SGConvCoefficients,
        state: Array | MultiscaleState,
        u: Inexact[Array, "*batch H"],
    ) -> tuple[Inexact[Array, "*batch H"], Array | MultiscaleState]:
        """Takes one step, from the last inputs themselves or from their sums."""
        if isinstance(state, MultiscaleState):
            w, alpha, _, _ = coefficients
            y, state = multiscale_step(w, alpha, state, self._wide(u), init_scale=self.init_scale)
            return self._skip(coefficients, y, u), state
        inputs = jnp.concatenate([state, self._wide(u)[..., None, :]], -2)
        y = (inputs * with_axes(jnp.flip(coefficients.K, 0), inputs)).sum(-2)
        return self._skip(coefficients, y, u), inputs[..., 1:, :]

    def run(
        self, state: Array | None, u: Array, edits: Edits, *, reverse: bool = False
    ) -> tuple[Array, Array | None]:
        """Convolves whole sequences, or every segment by itself (`s5jax.ops.segment_conv`)."""
        if not isinstance(u.shape[-2], int):
            return super().run(state, u, edits, reverse=reverse)
        coefficients = self.coefficients(backward=reverse)
        v, K, resets = self._wide(u), coefficients.K, edits.resets
        v = jnp.flip(v, -2) if reverse else v
        segments = None if resets is None else jnp.cumsum(resets, -1)
        if segments is not None:
            y = segment_conv(v, K, jnp.flip(segments, -1) if reverse else segments)
        elif state is None:
            y = fft_conv(v, K[: v.shape[-2]])
        else:
            y = fft_conv(jnp.concatenate([state, v], -2), K)[..., self.n_taps - 1 :, :]
        last = None
        if state is not None:
            if segments is None:
                segments = jnp.zeros(u.shape[:-1], int)
            else:
                history = jnp.concatenate([state, jnp.zeros_like(v)], -2)
                before = fft_conv(history, K)[..., self.n_taps - 1 :, :]
                y += select(segments == 0, before, 0)
            last = self._last(state, v, segments, edits.valid)
        return self._skip(coefficients, jnp.flip(y, -2) if reverse else y, u), last

    def convolution_kernel(self, coefficients: SGConvCoefficients, L: int) -> Float[Array, "Lk H"]:
        """Returns the lags that a sequence of L steps reaches."""
        return coefficients.K[:L]

    def _last(
        self,
        state: Float[Array, "*batch {self.n_taps-1} H"],
        u: Float[Array, "*batch L H"],
        segments: Int[Array, "*batch L"],
        valid: Bool[Array, "*batch L"] | None,
    ) -> Float[Array, "*batch {self.n_taps-1} H"]:
        """Returns the last inputs of the last segment, after each sequence's own length."""
        n = self.n_taps - 1
        inputs = jnp.concatenate([state, u], -2)
        segments = jnp.pad(segments, [(0, 0)] * (u.ndim - 2) + [(n, 0)])
        length = jnp.full(u.shape[:-2], u.shape[-2]) if valid is None else valid.sum(-1)
        first = length[..., None]
        window = first + with_axes(jnp.arange(n), first)
        last = jnp.take_along_axis(inputs, window[..., None], axis=-2)
        same = jnp.take_along_axis(segments, window, axis=-1) == segments[..., -1:]
        return select(same, last, 0)

    def _raw_kernel(self, w: Float[Array, "S H d"]) -> Float[Array, "T H"]:
        """Returns the kernel of these sub-kernels under the layer's decay."""
        alpha = self._alpha()
        if self.decay == "scale":
            return multiscale_kernel(w, alpha, init_scale=self.init_scale)
        K = multiscale_kernel(w, jnp.ones_like(alpha), init_scale=self.init_scale)
        return K * jnp.arange(1, self.n_taps + 1)[:, None] ** -alpha[None]

    def _alpha(self) -> Float[Array, " H"]:
        alpha = self.alpha[...].astype(jnp.promote_types(self.param_dtype, jnp.float32))
        return alpha if self.decay == "learnable" else jax.lax.stop_gradient(alpha)


def _sizes(
    l_max: int, kernel_dim: int, n_scales: int | None, init_scale: int
) -> tuple[int, int, int, int]:
    """Returns the sizes and the number of scales; raises a ValueError if they do not fit."""
    l_max, kernel_dim = check_positive("SGConv", l_max=l_max, kernel_dim=kernel_dim)
    if kernel_dim > l_max:
        raise ValueError(
            f"SGConv: `kernel_dim` must be at most `l_max`; got {kernel_dim} and {l_max}."
        )
    scale = as_integer(init_scale)
    if scale is None or scale < 0:
        raise ValueError(
            f"SGConv: `init_scale` must be an integer that is not negative; got {init_scale!r}."
        )
    needed = max(1, 1 + (-(-l_max // kernel_dim) - 1).bit_length() - scale)
    (S,) = check_positive("SGConv", n_scales=needed if n_scales is None else n_scales)
    T = multiscale_length(S, kernel_dim, init_scale=scale)
    if T < l_max:
        raise ValueError(
            f"SGConv: {S} scales of {kernel_dim} reach {T} lags, fewer than `l_max` = {l_max}. Use "
            f"`n_scales={needed}`, or a smaller `l_max`."
        )
    return l_max, kernel_dim, S, scale


def _cosines(
    rngs: nnx.Rngs, shape: tuple[int, int, int, int], dtype: DTypeLike
) -> Float[Array, "C S H d"]:
    """Returns cosines of 0, ..., H - 1 periods, in a new order over the features per scale."""
    C, S, H, d = shape
    periods, x = jnp.arange(H)[:, None], jnp.linspace(0, 1, d)[None]
    cosines = jnp.cos(2 * jnp.pi * periods * x).astype(dtype)
    order = jax.vmap(lambda key: jax.random.permutation(key, H))(jax.random.split(rngs.params(), S))
    return jnp.broadcast_to(cosines[order], (C, S, H, d))
