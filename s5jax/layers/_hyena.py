"""Hyena: products of projections around a long convolution, which S5 computes."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Complex, Float, Inexact, Int

from s5jax._errors import check_positive
from s5jax._promotion import with_axes
from s5jax.layers._base import SequenceLayer
from s5jax.layers._dense import feedthrough, matmul
from s5jax.layers._edits import Edits, select
from s5jax.layers._inputs import exportable
from s5jax.layers._s5 import S5, S5Coefficients


class HyenaCoefficients(NamedTuple):
    """The matrices, the short filters of one direction, and one step of S5."""

    W_in: Float[Array, "H N"]
    filters: Float[Array, "K N"]
    ssm: S5Coefficients
    W_out: Float[Array, "H H"]


@exportable
class HyenaState(NamedTuple):
    """State of `Hyena`: the last K - 1 projections, newest last, and the state of S5."""

    projections: Float[Array, "*batch n N"]
    ssm: Complex[Array, "*batch P"]


class Hyena(SequenceLayer):
    r"""Hyena of order two, whose long convolution is an S5 layer (Hyena-S5).

    .. math::
        (q, k, v) = f * (W_{in} u), \qquad
        y = W_{out} \left( q \odot \operatorname{S5}(k \odot v) \right)

    with a filter f of ``filter_length`` steps for each feature of q, k and v. The two products let
    the layer compare what it reads now with what it has read, which a linear layer cannot: a key is
    stored beside the value that follows it, and found again (associative recall). A bidirectional
    layer adds the same map backward in time, with filters and an output matrix of S5 of its own;
    both see the input of a step.

    Parameters: ``W_in`` of shape ``(H, 3 H)``, ``filters`` of shape ``(1, K, 3 H)``
    (``(2, K, 3 H)`` if bidirectional, forward first; the newest step first), ``W_out`` of shape
    ``(H, H)``, and those of the S5 layer ``ssm``. ``dt`` changes the step length of S5 only. The
    layer is not linear: ``kernel`` and ``to_ssm`` raise.

    Args:
        d_model: number of features H.
        d_state: number of states of S5, conjugates included.
        n_blocks: number of blocks that initialise the state matrix of S5.
        filter_length: steps K of the short filters.
        bidirectional: also run backward in time.
        dt_min: smallest initial step size of S5.
        dt_max: largest initial step size of S5.
        dtype: dtype of the matrix products and the output; by default, inputs and parameters decide
            together. States are kept in float32 or wider.
        param_dtype: dtype of the parameters.
        rngs: source of the key ``params``.

    Raises:
        ValueError: for sizes that are not positive, or as S5 does.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from s5jax import Hyena
        >>> layer = Hyena(d_model=4, d_state=8, rngs=nnx.Rngs(0))
        >>> y, state = layer(jnp.ones((2, 100, 4)), return_state=True)
        >>> y_next, state = layer.step(jnp.ones((2, 4)), state)
        >>> y.shape, y_next.shape, state.projections.shape, state.ssm.shape
        ((2, 100, 4), (2, 4), (2, 2, 12), (2, 4))

    References:
        Poli et al., "Hyena Hierarchy: Towards Larger Convolutional Language Models", 2023,
        https://arxiv.org/abs/2302.10866; Fu et al., "Hungry Hungry Hippos: Towards Language
        Modeling with State Space Models" (H3), 2023, https://arxiv.org/abs/2212.14052; Smith,
        Warrington and Linderman, "Simplified State Space Layers for Sequence Modeling", 2023,
        https://arxiv.org/abs/2208.04933, whose code has this combination.
    """

    continuous_time = True
    linear = False
    mixes_features = True

    def __init__(
        self,
        d_model: int,
        d_state: int,
        *,
        n_blocks: int = 1,
        filter_length: int = 3,
        bidirectional: bool = False,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        sizes = {"d_model": d_model, "d_state": d_state, "n_blocks": n_blocks}
        d_model, d_state, n_blocks = check_positive("Hyena", **sizes)
        (K,) = check_positive("Hyena", filter_length=filter_length)
        self.d_model, self.d_state, self.n_blocks = d_model, d_state, n_blocks
        self.filter_length = K
        self.bidirectional, self.dt_min, self.dt_max = bidirectional, dt_min, dt_max
        self.dtype, self.param_dtype = dtype, param_dtype

        H, init = d_model, jax.nn.initializers.lecun_normal()
        self.W_in = nnx.Param(init(rngs.params(), (H, 3 * H), param_dtype))
        self.W_out = nnx.Param(init(rngs.params(), (H, H), param_dtype))
        noise = jax.random.normal(rngs.params(), (1 + bidirectional, K, 3 * H), param_dtype)
        self.filters = nnx.Param(noise / K**0.5)
        self.ssm = S5(
            d_model,
            d_state,
            n_blocks=n_blocks,
            bidirectional=bidirectional,
            dt_min=dt_min,
            dt_max=dt_max,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def algorithm_for(self, L: int, batch: int = 1) -> str:
        """Returns the algorithm of S5."""
        return self.ssm.algorithm_for(L, batch)

    def coefficients(
        self, dt: Array | float | None = None, *, backward: bool = False
    ) -> HyenaCoefficients:
        """Returns the parameters of one direction, with S5 discretised."""
        ssm = self.ssm.coefficients(dt, backward=backward)
        return HyenaCoefficients(self.W_in[...], self.filters[int(backward)], ssm, self.W_out[...])

    def init_state(self, batch_shape: Sequence[int] = ()) -> HyenaState:
        """Returns zeros."""
        shape = self.filter_length - 1, 3 * self.d_model
        return HyenaState(self.zero_state(batch_shape, *shape), self.ssm.init_state(batch_shape))

    def advance(
        self, coefficients: HyenaCoefficients, state: HyenaState, u: Inexact[Array, "*batch H"]
    ) -> tuple[Inexact[Array, "*batch H"], HyenaState]:
        """Takes one step."""
        c = coefficients
        z = self._project(c.W_in, u).astype(state.projections.dtype)[..., None, :]
        held = jnp.concatenate([state.projections, z], axis=-2)
        filters = jnp.flip(c.filters, 0)
        q, k, v = self._split((held * with_axes(filters, held)).sum(-2), u)
        x, ssm = self.ssm.advance(c.ssm, state.ssm, k * v)
        return self._output(c.W_out, q * x, u), HyenaState(held[..., 1:, :], ssm)

    def run(
        self,
        state: HyenaState | None,
        u: Inexact[Array, "*batch L H"],
        edits: Edits,
        *,
        reverse: bool = False,
    ) -> tuple[Inexact[Array, "*batch L H"], HyenaState | None]:
        """Filters whole sequences, and leaves what is between the products to S5."""
        if not isinstance(u.shape[-2], int):
            return super().run(state, u, edits, reverse=reverse)
        start = self.init_state(u.shape[:-2]) if state is None else state
        z = self._project(self.W_in[...], u).astype(start.projections.dtype)
        filters = self.filters[int(reverse)].astype(z.dtype)
        filtered, held = _filter(z, filters, start.projections, edits, reverse=reverse)
        q, k, v = self._split(filtered, u)
        x, ssm = self.ssm.run(None if state is None else state.ssm, k * v, edits, reverse=reverse)
        y = self._output(self.W_out[...], q * x, u)
        return y, None if ssm is None else HyenaState(held, ssm)

    def _project(self, W_in: Array, u: Array) -> Array:
        dtype = self._compute_dtype(u)
        return matmul(u.astype(dtype), W_in.astype(dtype))

    def _split(self, z: Array, u: Array) -> tuple[Array, Array, Array]:
        q, k, v = jnp.split(z.astype(self._compute_dtype(u)), 3, axis=-1)
        return q, k, v

    def _output(self, W_out: Array, y: Array, u: Array) -> Array:
        dtype = self._compute_dtype(u)
        return matmul(y.astype(dtype), W_out.astype(dtype)).astype(dtype)


def _filter(
    z: Float[Array, "*batch L N"],
    filters: Float[Array, "K N"],
    held: Float[Array, "*batch n N"],
    edits: Edits,
    *,
    reverse: bool,
) -> tuple[Float[Array, "*batch L N"], Float[Array, "*batch n N"]]:
    """Convolves each feature with its filter, within segments.

    Args:
        z: sequences, zero on padding.
        filters: weights of this step and of those before it.
        held: the steps before the first, newest last.
        edits: resets and padding.
        reverse: from the last step to the first.

    Returns:
        The sums, and the steps before the next one.
    """
    n, L = len(filters) - 1, z.shape[-2]
    z = jnp.flip(z, -2) if reverse else z
    inputs, segments = jnp.concatenate([held, z], axis=-2), _segments(z, n, edits, reverse=reverse)
    total = jnp.zeros_like(z)
    for j in range(n + 1):
        first = n - j
        past = inputs[..., first : first + L, :]
        if edits.resets is not None:
            past = select(segments[..., first : first + L] == segments[..., n:], past, 0)
        total += feedthrough(filters[j], past)
    if n:
        held = _held_after(inputs, segments, n, None if reverse else edits.valid)
    return jnp.flip(total, -2) if reverse else total, held


def _segments(
    z: Float[Array, "*batch L N"], n: int, edits: Edits, *, reverse: bool
) -> Int[Array, "*batch S"]:
    """Returns the number of each step's segment, with n steps before the first."""
    if edits.resets is None:
        return jnp.zeros((*z.shape[:-2], n + z.shape[-2]), jnp.int32)
    numbers = jnp.cumsum(edits.resets, axis=-1, dtype=jnp.int32)
    numbers = jnp.flip(numbers, -1) if reverse else numbers
    before = numbers[..., :1] if reverse else jnp.zeros_like(numbers[..., :1])
    return jnp.concatenate([jnp.repeat(before, n, axis=-1), numbers], axis=-1)


def _held_after(
    inputs: Float[Array, "*batch S N"],
    segments: Int[Array, "*batch S"],
    n: int,
    valid: Bool[Array, "*batch L"] | None,
) -> Float[Array, "*batch n N"]:
    """Returns the last n steps of the last segment, after each sequence's own length."""
    if valid is None:
        held, numbers, last = inputs[..., -n:, :], segments[..., -n:], segments[..., -1:]
    else:
        length = valid.sum(-1)[..., None]
        window = length + with_axes(jnp.arange(n), length)
        held = jnp.take_along_axis(inputs, window[..., None], axis=-2)
        numbers = jnp.take_along_axis(segments, window, axis=-1)
        last = numbers[..., -1:]
    return select(numbers == last, held, 0)
