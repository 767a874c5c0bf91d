"""Attention: the baseline without a recurrence, behind the same contract."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from s5jax._errors import check_positive
from s5jax._promotion import with_axes
from s5jax.layers._base import SequenceLayer
from s5jax.layers._dense import matmul
from s5jax.layers._devices import check_shares, exchange, gather, gather_edits, own_share
from s5jax.layers._edits import Edits, select
from s5jax.layers._inputs import exportable
from s5jax.ops import window_attention


class AttentionCoefficients(NamedTuple):
    """The parameters; nothing depends on a step length."""

    W_qkv: Float[Array, "H 3*H"]
    W_o: Float[Array, "H H"]
    scale: Float[Array, ""]


@exportable
class AttentionState(NamedTuple):
    """Key/value cache: the last W = ``l_max`` steps, newest last.

    ``seen`` is 1 where there was a step, and 0 before the first one of the sequence or segment.
    """

    keys: Float[Array, "*batch W n d"]
    values: Float[Array, "*batch W n d"]
    seen: Float[Array, "*batch W"]


class Attention(SequenceLayer):
    r"""Multi-head attention with rotary positions over the last ``l_max`` steps.

    .. math::
        y_t = W_o \operatorname{concat}_n \sum_s
        \operatorname{softmax}_s (\alpha \langle R_t q^n_t, R_s k^n_s \rangle)\, v^n_s,
        \qquad t - l_{max} < s \le t, \qquad (q, k, v) = W_{qkv} u

    with n the heads, R the rotation of `s5jax.ops.rotary` and a learned temperature
    :math:`\alpha`. A bidirectional layer sees :math:`|t - s| < l_{max}`, in one softmax.

    ``l_max`` is part of the model's definition: every step sees exactly the last ``l_max`` steps,
    itself included, in whole sequences, chunks and steps alike. A sequence of at most ``l_max``
    steps gets full attention, and a longer one attention within a sliding window, at a cost of
    ``O(L l_max)``. Positions are relative, so a stream has no end: its state is the cache of
    ``AttentionState``, and a step costs ``O(l_max H)``.

    Parameters: ``W_qkv`` of shape ``(H, 3 H)``, ``W_o`` of shape ``(H, H)`` and ``scale``, a
    number. The layer is neither linear nor does it have a step length: ``kernel``, ``to_ssm`` and
    ``dt`` raise.

    Args:
        d_model: number of features H.
        n_heads: number of heads; each has ``H / n_heads`` features, an even number.
        l_max: number of steps W that a step sees.
        bidirectional: also see the next ``l_max - 1`` steps.
        dtype: dtype of the matrix products and the output; by default, inputs and parameters decide
            together. Scores and states are kept in float32 or wider.
        param_dtype: dtype of the parameters.
        rngs: source of the key ``params``.

    Raises:
        ValueError: for sizes that are not positive, or heads without an even number of features.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from s5jax import Attention
        >>> layer = Attention(d_model=8, n_heads=2, l_max=64, rngs=nnx.Rngs(0))
        >>> y, state = layer(jnp.ones((2, 100, 8)), return_state=True)
        >>> y_next, state = layer.step(jnp.ones((2, 8)), state)
        >>> y.shape, y_next.shape, state.keys.shape
        ((2, 100, 8), (2, 8), (2, 64, 2, 4))

    References:
        Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser and Polosukhin, "Attention Is All
        You Need", 2017, https://arxiv.org/abs/1706.03762; Su, Lu, Pan, Murtadha, Wen and Liu,
        "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021,
        https://arxiv.org/abs/2104.09864; the temperature as in Gupta, Mehta and Berant,
        "Simplifying and Understanding State Space Models with Diagonal Linear RNNs", 2022,
        https://arxiv.org/abs/2212.00768.
    """

    linear = False
    mixes_features = True

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        l_max: int,
        *,
        bidirectional: bool = False,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        sizes = {"d_model": d_model, "n_heads": n_heads, "l_max": l_max}
        d_model, n_heads, l_max = check_positive("Attention", **sizes)
        if d_model % (2 * n_heads):
            raise ValueError(
                "Attention: `d_model` must be a multiple of 2 * `n_heads`, since rotary positions "
                f"rotate pairs of features of a head; got {d_model} and {n_heads} heads."
            )
        self.d_model, self.n_heads, self.l_max = d_model, n_heads, l_max
        self.bidirectional = bidirectional
        self.dtype, self.param_dtype = dtype, param_dtype

        init = jax.nn.initializers.lecun_normal()
        self.W_qkv = nnx.Param(init(rngs.params(), (d_model, 3 * d_model), param_dtype))
        self.W_o = nnx.Param(init(rngs.params(), (d_model, d_model), param_dtype))
        self.scale = nnx.Param(jnp.asarray((d_model // n_heads) ** -0.5, param_dtype))

    def algorithm_for(self, L: int, batch: int = 1) -> str:
        """Returns ``"attention"``, in blocks: see `s5jax.ops.window_attention`."""
        del L, batch
        return "attention"

    def coefficients(
        self, dt: Array | float | None = None, *, backward: bool = False
    ) -> AttentionCoefficients:
        """Returns the parameters unchanged."""
        return AttentionCoefficients(self.W_qkv[...], self.W_o[...], self.scale[...])

    def init_state(self, batch_shape: Sequence[int] = ()) -> AttentionState:
        """Returns an empty cache."""
        dtype = self._state_dtype()
        heads = (self.n_heads, self.d_model // self.n_heads)
        cache = jnp.zeros((*batch_shape, self.l_max, *heads), dtype)
        return AttentionState(cache, cache, jnp.zeros((*batch_shape, self.l_max), dtype))

    def advance(
        self, coefficients: AttentionCoefficients, state: AttentionState, u: Array
    ) -> tuple[Array, AttentionState]:
        """Attends with one query to the cache and its own key."""
        y, last = self._run(coefficients, state, u[..., None, :], Edits())
        assert last is not None
        return y[..., 0, :], last

    def run(
        self, state: AttentionState | None, u: Array, edits: Edits, *, reverse: bool = False
    ) -> tuple[Array, AttentionState | None]:
        """Attends with masks for resets and padding, or one step at a time if L is a symbol."""
        if not isinstance(u.shape[-2], int):
            return super().run(state, u, edits)
        del reverse  # see `run_both`
        return self._run(self.coefficients(), state, u, edits)

    def run_both(self, u: Array, edits: Edits) -> Array:
        """Attends by one softmax over both sides."""
        return self.run(None, u, edits)[0]

    def run_shard(
        self, state: AttentionState | None, u: Array, edits: Edits
    ) -> tuple[Array, AttentionState | None]:
        """Attends with a share of the heads, for which devices exchange what they have."""
        check_shares(self, "n_heads", self.n_heads)
        c = self.coefficients()
        q, k, v = (exchange(x, split=-2, join=-3) for x in self._project(c, u))
        y, last = self._attend(_each_cache(own_share, state), (q, k, v), gather_edits(edits))
        return self._output(c, exchange(y, split=-3, join=-2), u), _each_cache(gather, last)

    def check_use(self, use: str, got: object = None) -> None:
        """Raises a ValueError for a symbolic length, too, if the layer is bidirectional."""
        super().check_use(use, got)
        if self.bidirectional and use == "symbolic length":
            raise ValueError(
                "Attention: the length of the sequence must be a number for a bidirectional layer, "
                f"whose softmax is over both sides; got {got}. Export with a fixed length, or "
                "build it with `bidirectional=False`."
            )

    def _run(
        self, c: AttentionCoefficients, state: AttentionState | None, u: Array, edits: Edits
    ) -> tuple[Array, AttentionState | None]:
        y, last = self._attend(state, self._project(c, u), edits)
        return self._output(c, y, u), last

    def _attend(
        self, state: AttentionState | None, heads: tuple[Array, Array, Array], edits: Edits
    ) -> tuple[Array, Any]:
        """Attends with any number of heads; returns a state only if one was passed."""
        q, k, v = heads
        if state is None:
            segments = None if edits.uniform else _segments(k.shape[:-2], edits)
            y = window_attention(
                q, k, v, self.l_max, segments=segments, bidirectional=self.bidirectional
            )
            return y, None
        segments = _segments(k.shape[:-2], edits)
        k, v = (
            jnp.concatenate([past.astype(x.dtype), x], axis=-3)
            for past, x in ((state.keys, k), (state.values, v))
        )
        past = jnp.where(state.seen != 0, 0, -1)  # a NaN counts as seen, and poisons what sees it
        segments = jnp.concatenate([past, segments], axis=-1)
        y = window_attention(q, k, v, self.l_max, segments=segments)
        return y, self._state_after(k, v, segments, edits.valid)

    def _state_after(
        self, k: Array, v: Array, segments: Array, valid: Array | None
    ) -> AttentionState:
        """The cache after the last step, or after each sequence's own length."""
        W = self.l_max
        if valid is None:
            k, v, segments = k[..., -W:, :, :], v[..., -W:, :, :], segments[..., -W:]
        else:
            length = valid.sum(-1)[..., None]
            held = length + with_axes(jnp.arange(W), length)
            k, v = (jnp.take_along_axis(x, held[..., None, None], axis=-3) for x in (k, v))
            segments = jnp.take_along_axis(segments, held, axis=-1)
        seen = (segments == segments[..., -1:]) & (segments >= 0)
        dtype = self.init_state().keys.dtype
        k, v = (select(seen, x, 0).astype(dtype) for x in (k, v))
        return AttentionState(k, v, seen.astype(dtype))

    def _project(self, c: AttentionCoefficients, u: Array) -> tuple[Array, Array, Array]:
        """Returns queries, scaled by the temperature, keys and values of every head."""
        dtype = self._compute_dtype(u)
        x = matmul(u.astype(dtype), c.W_qkv.astype(dtype))
        x = x.reshape(*u.shape[:-1], 3, self.n_heads, self.d_model // self.n_heads)
        q, k, v = (x[..., i, :, :] for i in range(3))
        return (c.scale * q).astype(dtype), k.astype(dtype), v.astype(dtype)

    def _output(self, c: AttentionCoefficients, y: Array, u: Array) -> Array:
        dtype = self._compute_dtype(u)
        y = y.reshape(u.shape).astype(dtype)
        return matmul(y, c.W_o.astype(dtype)).astype(dtype)


def _each_cache(
    f: Callable[[Array, int], Array], state: AttentionState | None
) -> AttentionState | None:
    """Applies a map along the axis of heads to the arrays that have one."""
    if state is None:
        return None
    return state._replace(keys=f(state.keys, -2), values=f(state.values, -2))


def _segments(shape: tuple[int, ...], edits: Edits) -> Int[Array, "*batch L"]:
    """Returns the number of each step's segment, and -1 for padding."""
    if edits.resets is None:
        segments = jnp.zeros(shape, jnp.int32)
    else:
        segments = jnp.cumsum(edits.resets, axis=-1, dtype=jnp.int32)
    return segments if edits.valid is None else jnp.where(edits.valid, segments, -1)
