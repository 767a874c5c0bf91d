"""Models that pool a sequence into one vector: classifiers of sequences, and of pairs of them."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Required, Unpack, get_args

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Inexact, Integer, PyTree, Shaped

from s5jax._errors import check_choice, check_positive
from s5jax.layers._dense import output_map
from s5jax.layers._edits import select
from s5jax.layers._inputs import check_state, exportable
from s5jax.models._arguments import BackboneArguments, Layers
from s5jax.models._base import Call, Result
from s5jax.models._model import SequenceModel

Pooling = Literal["mean", "last"]


@exportable
class ClassifierState(NamedTuple):
    """State of a `PooledModel`: of its blocks, and what the pooling has seen."""

    blocks: PyTree[Array]
    pooled: Float[Array, "*batch H"]
    count: Integer[Array, "*batch"]


class PooledArguments(BackboneArguments, total=False):
    """The arguments of `PooledModel` besides ``layer`` and ``rngs``."""

    d_output: Required[int]
    pooling: Pooling
    mask_padding: bool


class PooledModel(SequenceModel):
    """Base class of models with one output for a sequence; see `SequenceClassifier`.

    A model implements ``head(x)``, from pooled features ``(*batch, H)`` to logits.
    """

    has_time = False

    def __init__(
        self,
        layer: Layers,
        *,
        d_output: int,
        pooling: Pooling = "mean",
        mask_padding: bool = True,
        rngs: nnx.Rngs,
        **backbone: Unpack[BackboneArguments],
    ) -> None:
        name = type(self).__name__
        (self.d_output,) = check_positive(name, d_output=d_output)
        check_choice(name, "pooling", pooling, get_args(Pooling))
        self.pooling, self.mask_padding = pooling, mask_padding
        super().__init__(layer, rngs=rngs, **backbone)
        self.decode = output_map(self.d_model, self.d_output, rngs=rngs, **self.dtypes)

    def head(self, x: Inexact[Array, "*batch H"]) -> Inexact[Array, "*batch d_output"]:
        """Returns the logits of pooled features."""
        raise NotImplementedError(f"{type(self).__name__} must define `head`.")

    def init_state(self, batch_shape: Sequence[int] = ()) -> ClassifierState:
        """Returns the state before the first step."""
        return self._empty_pool(batch_shape)._replace(blocks=self.backbone.init_state(batch_shape))

    def run(self, u: Shaped[Array, "..."], call: Call) -> Result:
        """Maps checked sequences; see `s5jax.models.SequenceModule`."""
        state, valid = call.state, call.edits.valid
        call = call._replace(state=self._blocks_of(state))
        if not self.mask_padding:
            if call.return_state or state is not None:
                raise ValueError(
                    f"{type(self).__name__}: a state needs `mask_padding=True`, as it would depend "
                    "on the padding; build the model with it, or call it without a state."
                )
            call = call._replace(edits=call.edits._replace(valid=None))
        x, blocks = self.features(u, call)
        if valid is not None and not self.mask_padding:
            x = select(valid, x, 0)
        pooled, count = self._pool(x, valid, self._pool_of(state, x.shape[:-2]))
        y = self._logits(pooled, count)
        return y, ClassifierState(blocks, pooled, count) if call.return_state else None

    def advance(
        self, u: Shaped[Array, "..."], state: PyTree[Array], dt: Array | None = None
    ) -> tuple[Inexact[Array, "*batch d_output"], ClassifierState]:
        """Takes one step, to the logits so far; see `s5jax.models.SequenceModule`."""
        x, blocks = self.backbone.advance(u, self._blocks_of(state), dt)
        pooled, count = self._pool(x[..., None, :], None, self._pool_of(state, x.shape[:-1]))
        return self._logits(pooled, count), ClassifierState(blocks, pooled, count)

    def _blocks_of(self, state: Any) -> PyTree[Array] | None:
        if not (state is None or isinstance(state, ClassifierState)):
            raise ValueError(
                f"{type(self).__name__}: `state` must be a ClassifierState, as "
                "`init_state(batch_shape)` and earlier calls return it; got a "
                f"{type(state).__name__}."
            )
        return None if state is None else state.blocks

    def _pool_of(
        self, state: ClassifierState | None, batch_shape: Sequence[int]
    ) -> ClassifierState:
        start = self._empty_pool(batch_shape)
        if state is None:
            return start
        return check_state(type(self).__name__, state._replace(blocks=None), start)

    def _empty_pool(self, batch_shape: Sequence[int]) -> ClassifierState:
        dtype = jnp.promote_types(self.backbone.param_dtype, jnp.float32)
        pooled = jnp.zeros((*batch_shape, self.d_model), dtype)
        return ClassifierState(None, pooled, jnp.zeros(batch_shape, jnp.int32))

    def _pool(self, x: Array, valid: Array | None, state: ClassifierState) -> tuple[Array, Array]:
        """Sum or last value over this chunk and those before it; ``x`` is zero on padding."""
        if valid is None:
            n = jnp.full(x.shape[:-2], x.shape[-2], jnp.int32)
        else:
            n = valid.sum(-1, dtype=jnp.int32)
        count = state.count + n
        if self.pooling == "mean":
            return state.pooled + x.sum(-2, dtype=state.pooled.dtype), count
        last = jnp.take_along_axis(x, jnp.maximum(n - 1, 0)[..., None, None], axis=-2)[..., 0, :]
        return jnp.where(n[..., None] > 0, last.astype(state.pooled.dtype), state.pooled), count

    def _logits(self, pooled: Array, count: Array) -> Array:
        if self.pooling == "mean":
            pooled = pooled / jnp.maximum(count, 1)[..., None]
        return self.head(pooled)


class SequenceClassifier(PooledModel):
    r"""Sequences in, logits out.

    .. math:: \text{logits} = W \operatorname{pool}(\operatorname{backbone}(u)) + b

    Segments that ``resets`` separate are pooled together. Streaming gives the logits of the
    sequence so far: the state of the mean is a sum and a count.

    Args:
        layer: class of the layers, for example `S5`, or a list of them as in `SequenceBackbone`.
        d_output: number of classes.
        pooling: ``"mean"`` over time, or ``"last"`` step; both leave padding out.
        mask_padding: if False, only the pooling knows ``lengths``, as in the published S5: norms
            and the backward direction see what pads the sequences. No state then.
        rngs: source of the key ``params``.
        **backbone: the other arguments of `SequenceBackbone`.

    Raises:
        TypeError: for an argument that does not exist.
        ValueError: for sizes that are not positive or an unknown option.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from s5jax import S5, SequenceClassifier
        >>> model = SequenceClassifier(
        ...     S5, d_input=1, d_output=10, d_model=16, n_layers=2, layer_options={"d_state": 8},
        ...     norm="layer", rngs=nnx.Rngs(0),
        ... )
        >>> model(jnp.ones((2, 784, 1))).shape
        (2, 10)

    References:
        Smith et al., "Simplified State Space Layers" (S5), 2023, https://arxiv.org/abs/2208.04933.
    """

    def head(self, x: Inexact[Array, "*batch H"]) -> Inexact[Array, "*batch d_output"]:
        """Returns the logits of pooled features."""
        return self.decode(x)


class DocumentMatcher(PooledModel):
    r"""Two sequences in, logits of their relation out.

    .. math::
        x_i = \operatorname{pool}(\operatorname{backbone}(u_i)), \qquad
        \text{logits} = W_2 \operatorname{gelu}(W_1 [x_1, x_2, x_1 - x_2, x_1 \odot x_2] + b_1)
        + b_2

    Both sequences go through the same backbone, as one batch with an axis of size 2: inputs have
    shape ``(*batch, 2, L, d_input)``, or ``(*batch, 2, L)`` for tokens, and ``lengths`` has shape
    ``(*batch, 2)``. Everything else is as in `SequenceClassifier`: chunks and steps advance both
    sequences, and a chunk whose ``lengths`` are 0 for one of them leaves that one as it is.

    Args:
        layer: class of the layers, for example `S5`, or a list of them as in `SequenceBackbone`.
        rngs: source of the key ``params``.
        **classifier: the other arguments of `SequenceClassifier`.

    Raises:
        TypeError: for an argument that does not exist.
        ValueError: for sizes that are not positive or an unknown option.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from s5jax import S5, DocumentMatcher
        >>> model = DocumentMatcher(
        ...     S5, d_input=98, d_output=2, d_model=16, n_layers=2, layer_options={"d_state": 8},
        ...     encoder="embedding", norm="layer", rngs=nnx.Rngs(0),
        ... )
        >>> model(jnp.ones((3, 2, 100), int), lengths=jnp.array([[100, 80], [7, 9], [1, 50]])).shape
        (3, 2)

    References:
        Gu et al., "Structured State Spaces" (S4), 2022, https://arxiv.org/abs/2111.00396.
        Smith et al., "Simplified State Space Layers" (S5), 2023, https://arxiv.org/abs/2208.04933:
        their retrieval models.
    """

    def __init__(
        self,
        layer: Layers,
        *,
        rngs: nnx.Rngs,
        **classifier: Unpack[PooledArguments],
    ) -> None:
        super().__init__(layer, rngs=rngs, **classifier)
        self.compare = nnx.Linear(4 * self.d_model, self.d_model, rngs=rngs, **self.dtypes)

    def init_state(self, batch_shape: Sequence[int] = ()) -> ClassifierState:
        """Returns the state of both sequences, of shape ``(*batch_shape, 2)``."""
        return super().init_state((*batch_shape, 2))

    def head(self, x: Inexact[Array, "*batch 2 H"]) -> Inexact[Array, "*batch d_output"]:
        """Returns the logits of two vectors of pooled features."""
        x1, x2 = x[..., 0, :], x[..., 1, :]
        x = self.compare(jnp.concatenate([x1, x2, x1 - x2, x1 * x2], axis=-1))
        return self.decode(nnx.gelu(x, approximate=self.backbone.options.approximate_gelu))

    def feature_shape(self, where: str, u: Shaped[Array, "..."], n_axes: int) -> tuple[int, ...]:
        """Checks inputs; see `s5jax.models.SequenceModule`."""
        shape = super().feature_shape(where, u, n_axes)
        if len(shape) <= n_axes or shape[-n_axes - 1] != 2:
            raise ValueError(
                f"{where}: `u` must have an axis of size 2, one entry a document, after the batch "
                f"axes; got shape {u.shape}."
            )
        return shape
