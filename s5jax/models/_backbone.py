"""Whole models: an encoder, residual blocks and a head."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Inexact, Int, PyTree

from s5jax._errors import check_choice, check_positive
from s5jax.layers._base import SequenceLayer
from s5jax.layers._dense import output_map
from s5jax.layers._devices import along_time
from s5jax.layers._inputs import as_array, check_state, exportable, split_states
from s5jax.layers._masks import select, valid_steps
from s5jax.layers._module import Module
from s5jax.models._block import Activation, ResidualBlock, TieDropout
from s5jax.models._feed_forward import FeedForward
from s5jax.models._norm import Norm, check_stepwise, explain_writes, make_norm, normalise
from s5jax.models._tokens import check_tokens, in_vocabulary

Encoder = Literal["linear", "embedding", "one_hot"]
Pooling = Literal["mean", "last"]


class SequenceBackbone(Module):
    r"""An encoder and residual blocks: sequences in, sequences of features out.

    .. math:: x_0 = \operatorname{encoder}(u), \quad x_i = \operatorname{block}_i(x_{i-1}), \quad
        y = x_{n} \ \text{or}\ \operatorname{norm}(x_n)

    It keeps the contract of a single layer: the same ``state``, ``lengths``, ``resets``, ``dt``,
    `step`.

    Args:
        layer: class of the layers, for example `S5`.
        d_input: number of input features, or of tokens with ``encoder="embedding"``.
        d_model: number of features H of the blocks.
        n_layers: number of blocks.
        layer_options: further arguments of ``layer``.
        encoder: ``"linear"`` for real inputs ``(*batch, L, d_input)``; ``"embedding"`` for integer
            ones ``(*batch, L)``, and ``"one_hot"`` for a linear map of their one-hot vectors, as S5
            has it.
        embedding_std: standard deviation of the first embedding; PyTorch's is 1, by default Flax's
            ``d_model ** -0.5``.
        final_norm: a norm after the last block, as S4's models with ``prenorm`` have; S5's do not.
        ffn_every: after every so many blocks comes a feed-forward block of four times the width, as
            in S4's language model; none by default.
        norm: as the following, an argument of `ResidualBlock`.
        prenorm: see `ResidualBlock`.
        norm_momentum: see `ResidualBlock`.
        norm_epsilon: see `ResidualBlock`.
        activation: see `ResidualBlock`.
        dropout: see `ResidualBlock`.
        tie_dropout: see `ResidualBlock`.
        layer_dropout: see `ResidualBlock`.
        remat: in the backward pass compute each block once more, instead of keeping all that its
            gradient needs. Values and gradients are the same. On a CPU memory falls only with the
            compiler option ``xla_disable_hlo_passes=cse_barrier_expander``.
        dtype: dtype of computations, of the layers too; by default that of inputs and parameters
            together. States, statistics of norms, means over time and the outputs of whole models
            are float32 or wider.
        param_dtype: dtype of the parameters.
        rngs: source of the key ``params``.

    Raises:
        ValueError: for sizes that are not positive or an unknown option.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from s5jax import S5, SequenceBackbone
        >>> model = SequenceBackbone(
        ...     S5, d_input=3, d_model=4, n_layers=2, layer_options={"d_state": 8}, rngs=nnx.Rngs(0)
        ... )
        >>> model(jnp.ones((2, 10, 3))).shape
        (2, 10, 4)
    """

    def __init__(
        self,
        layer: Callable[..., SequenceLayer],
        *,
        d_input: int,
        d_model: int,
        n_layers: int,
        layer_options: Mapping[str, Any] | Sequence[tuple[str, Any]] = (),
        encoder: Encoder = "linear",
        embedding_std: float | None = None,
        final_norm: bool = False,
        ffn_every: int | None = None,
        norm: Norm = "batch",
        prenorm: bool = True,
        norm_momentum: float = 0.9,
        norm_epsilon: float = 1e-5,
        activation: Activation = "half_glu1",
        dropout: float = 0.0,
        tie_dropout: TieDropout = True,
        layer_dropout: bool = False,
        remat: bool = False,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        name = type(self).__name__
        sizes = {"d_input": d_input, "d_model": d_model, "n_layers": n_layers}
        d_input, d_model, n_layers = check_positive(name, **sizes)
        if ffn_every is not None:
            (ffn_every,) = check_positive(name, ffn_every=ffn_every)
        check_choice(name, "encoder", encoder, get_args(Encoder))
        self.d_input, self.d_model, self.n_layers = d_input, d_model, n_layers
        self.layer, self.layer_options = layer, tuple(dict(layer_options).items())
        self.encoder, self.embedding_std, self.final_norm = encoder, embedding_std, final_norm
        self.ffn_every = ffn_every
        self.norm, self.prenorm = norm, prenorm
        self.norm_momentum, self.norm_epsilon = norm_momentum, norm_epsilon
        self.activation, self.dropout = activation, dropout
        self.tie_dropout, self.layer_dropout = tie_dropout, layer_dropout
        self.remat, self.dtype, self.param_dtype = remat, dtype, param_dtype

        dtypes: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}
        block_options: dict[str, Any] = {
            "norm": norm,
            "prenorm": prenorm,
            "norm_momentum": norm_momentum,
            "norm_epsilon": norm_epsilon,
            "dropout": dropout,
            "tie_dropout": tie_dropout,
            "rngs": rngs,
            **dtypes,
        }
        self.encode = self._make_encoder(rngs)
        self.blocks = nnx.List(
            ResidualBlock(
                layer(d_model=d_model, rngs=rngs, **dtypes, **dict(layer_options)),
                activation=activation,
                layer_dropout=layer_dropout,
                **block_options,
            )
            for _ in range(n_layers)
        )
        self.feed_forwards = nnx.List(
            FeedForward(d_model, **block_options)
            for _ in range(n_layers // (ffn_every or n_layers + 1))
        )
        norm_options = (norm, d_model, norm_momentum, norm_epsilon)
        self.last_norm = make_norm(*norm_options, rngs=rngs, **dtypes) if final_norm else None

    def __call__(
        self,
        u: Inexact[Array, "*batch L d_input"] | Int[Array, "*batch L"],
        *,
        state: PyTree[Array] | None = None,
        lengths: Int[Array, "*batch"] | None = None,
        resets: Bool[Array, "*batch L"] | None = None,
        dt: Float[Array, "*batch L"] | float | None = None,
        return_state: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> Any:
        """Maps a batch of sequences; the arguments are those of a layer.

        ``rngs`` supplies the key ``dropout`` in training mode with a positive rate. States need
        evaluation mode (``model.eval()``) if the norm is a batch norm.
        """
        name = type(self).__name__
        u, before = as_array(name, "u", u), split_states(name, state, self.n_layers)
        valid = valid_steps(name, lengths, self._check_input(u, 2))
        self._check_tokens(u, valid)
        x = along_time(self._embed(u if valid is None else select(valid, u, 0), rngs))

        def pass_block(block: ResidualBlock, x: Array, state: PyTree, rngs: nnx.Rngs | None) -> Any:
            return block(
                x,
                state=state,
                lengths=lengths,
                resets=resets,
                dt=dt,
                return_state=return_state,
                rngs=rngs,
            )

        def pass_feed_forward(block: FeedForward, x: Array, rngs: nnx.Rngs | None) -> Array:
            return block(x, valid, rngs)

        if self.remat:
            remat = functools.partial(nnx.remat, graph_updates=False)  # writes what changed only
            pass_block = explain_writes(remat(pass_block))
            pass_feed_forward = explain_writes(remat(pass_feed_forward))
        states = []
        for i, block in enumerate(self.blocks):
            x = pass_block(block, x, before[i], rngs)
            x, new_state = x if return_state else (x, None)
            states.append(new_state)
            for feed_forward in self._after(i):
                x = pass_feed_forward(feed_forward, x, rngs)
        if self.last_norm is not None:
            x = normalise(self.last_norm, x, valid)
            x = x if valid is None else select(valid, x, 0)
        return (x, tuple(states)) if return_state else x

    def step(
        self,
        u: Inexact[Array, "*batch d_input"] | Int[Array, "*batch"],
        state: PyTree[Array],
        dt: Float[Array, "*batch"] | float | None = None,
    ) -> tuple[Any, PyTree[Array]]:
        """One time step, in evaluation mode; as in a layer."""
        name = type(self).__name__
        u, before = as_array(name, "u", u), split_states(name, state, self.n_layers)
        self._check_input(u, 1)
        self._check_tokens(u)
        x = self._embed(u)
        states = []
        for i, (block, block_state) in enumerate(zip(self.blocks, before, strict=True)):
            x, new_state = block.step(x, block_state, dt)
            states.append(new_state)
            for feed_forward in self._after(i):
                x = feed_forward.step(x)
        if self.last_norm is not None:
            check_stepwise(self.last_norm)
            x = normalise(self.last_norm, x)
        return x, tuple(states)

    def init_state(self, batch_shape: Sequence[int] = ()) -> PyTree[Array]:
        """The states of all blocks before the first step."""
        return tuple(block.init_state(batch_shape) for block in self.blocks)

    def _after(self, i: int) -> Sequence[FeedForward]:
        """The feed-forward block that follows a residual block, if there is one."""
        position, rest = divmod(i + 1, self.ffn_every or self.n_layers + 1)
        return [] if rest else [self.feed_forwards[position - 1]]

    def _make_encoder(self, rngs: nnx.Rngs) -> nnx.Module:
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if self.encoder != "embedding":
            return nnx.Linear(self.d_input, self.d_model, rngs=rngs, **dtypes)
        std = self.d_model**-0.5 if self.embedding_std is None else self.embedding_std
        init = nnx.initializers.normal(std)
        return nnx.Embed(self.d_input, self.d_model, embedding_init=init, rngs=rngs, **dtypes)

    def _embed(self, u: Array, rngs: nnx.Rngs | None = None) -> Array:
        """The features of the first block, NaN for tokens outside of the vocabulary."""
        if self.encoder == "linear":
            return self._encode(u, rngs)
        known = in_vocabulary(u, self.d_input)
        x = self._encode(jnp.where(known, jnp.asarray(u).astype(int), 0), rngs)
        return jnp.where(known[..., None], x, jnp.nan)

    def _encode(self, u: Array, rngs: nnx.Rngs | None = None) -> Array:
        """The features of the first block; ``rngs`` is for encoders that drop some."""
        del rngs
        if self.encoder != "one_hot":
            return self.encode(u)
        return self.encode(jax.nn.one_hot(u, self.d_input, dtype=self.dtype or self.param_dtype))

    def _check_tokens(self, u: Array, valid: Array | None = None) -> None:
        if self.encoder != "linear":
            advice = "Number the tokens from 0, or build the model with a larger `d_input`."
            counted = True if valid is None else valid
            check_tokens(type(self).__name__, "u", u, self.d_input, counted, advice=advice)

    def _check_input(self, u: Array, n_axes: int) -> tuple[int, ...]:
        """Returns the shape of the features that ``u`` stands for: one token is one of them."""
        tokens = self.encoder != "linear"
        shape = (*u.shape, self.d_input) if tokens else u.shape
        kind = jnp.integer if tokens else jnp.floating
        fits = len(shape) >= n_axes and shape[-1] == self.d_input and shape[-n_axes] >= 1
        if not fits or not jnp.issubdtype(u.dtype, kind):
            axes = ["*batch", "L"][:n_axes] + ([] if tokens else [str(self.d_input)])
            raise ValueError(
                f"{type(self).__name__}: `u` must be {kind.__name__} of shape ({', '.join(axes)}); "
                f"got {u.dtype} with shape {u.shape}."
            )
        return shape


@exportable
class ClassifierState(NamedTuple):
    """State of a `SequenceClassifier`: of its blocks, and what the pooling has seen."""

    blocks: PyTree[Array]
    pooled: Float[Array, "*batch H"]
    count: Int[Array, "*batch"]


class SequenceClassifier(SequenceBackbone):
    r"""Sequences in, logits out.

    .. math:: \text{logits} = W \operatorname{pool}(\operatorname{backbone}(u)) + b

    Streaming gives the logits of the sequence so far: the state of the mean is a sum and a count.

    Args:
        layer: class of the layers, for example `S5`.
        d_output: number of classes.
        pooling: ``"mean"`` over time, or ``"last"`` step; both leave padding out.
        mask_padding: if False, only the pooling knows ``lengths``, as in the published S5: norms
            and the backward direction see what pads the sequences. No state then.
        rngs: source of the key ``params``.
        **backbone: the other arguments of `SequenceBackbone`.

    Raises:
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
        Smith, Warrington and Linderman, "Simplified State Space Layers for Sequence Modeling",
        2023, https://arxiv.org/abs/2208.04933.
    """

    has_time = False

    def __init__(
        self,
        layer: Callable[..., SequenceLayer],
        *,
        d_output: int,
        pooling: Pooling = "mean",
        mask_padding: bool = True,
        rngs: nnx.Rngs,
        **backbone: Any,
    ) -> None:
        super().__init__(layer, rngs=rngs, **backbone)
        self.mask_padding = mask_padding
        (d_output,) = check_positive("SequenceClassifier", d_output=d_output)
        check_choice("SequenceClassifier", "pooling", pooling, get_args(Pooling))
        self.d_output, self.pooling = d_output, pooling
        self.decode = output_map(
            self.d_model, d_output, dtype=self.dtype, param_dtype=self.param_dtype, rngs=rngs
        )

    def __call__(
        self,
        u: Inexact[Array, "*batch L d_input"] | Int[Array, "*batch L"],
        *,
        state: ClassifierState | None = None,
        lengths: Int[Array, "*batch"] | None = None,
        resets: Bool[Array, "*batch L"] | None = None,
        dt: Float[Array, "*batch L"] | float | None = None,
        return_state: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> Any:
        """Maps a batch of sequences to logits ``(*batch, d_output)``; see `SequenceBackbone`.

        Segments that ``resets`` separate are pooled together.
        """
        if not self.mask_padding and (return_state or state is not None):
            raise ValueError(
                f"{type(self).__name__}: a state needs `mask_padding=True`, as it would depend on "
                "the padding; build the model with it, or call it without a state."
            )
        x = super().__call__(
            u,
            state=self._blocks_of(state),
            lengths=lengths if self.mask_padding else None,
            resets=resets,
            dt=dt,
            return_state=return_state,
            rngs=rngs,
        )
        x, blocks = x if return_state else (x, None)
        if not self.mask_padding:
            valid = valid_steps(type(self).__name__, lengths, x.shape)
            x = x if valid is None else select(valid, x, 0)
        pooled, count = self._pool(x, lengths, self._pool_of(state, x.shape[:-2]))
        logits = self._logits(pooled, count)
        return (logits, ClassifierState(blocks, pooled, count)) if return_state else logits

    def step(
        self,
        u: Inexact[Array, "*batch d_input"] | Int[Array, "*batch"],
        state: ClassifierState,
        dt: Float[Array, "*batch"] | float | None = None,
    ) -> tuple[Inexact[Array, "*batch d_output"], ClassifierState]:
        """One time step, in evaluation mode: the logits of the sequence so far."""
        x, blocks = super().step(u, self._blocks_of(state), dt)
        pooled, count = self._pool(x[..., None, :], None, self._pool_of(state, x.shape[:-1]))
        return self._logits(pooled, count), ClassifierState(blocks, pooled, count)

    def init_state(self, batch_shape: Sequence[int] = ()) -> ClassifierState:
        """The state before the first step."""
        return self._empty_pool(batch_shape)._replace(blocks=super().init_state(batch_shape))

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
        dtype = jnp.promote_types(self.param_dtype, jnp.float32)
        pooled = jnp.zeros((*batch_shape, self.d_model), dtype)
        return ClassifierState(None, pooled, jnp.zeros(batch_shape, jnp.int32))

    def _pool(self, x: Array, lengths: Array | None, state: ClassifierState) -> tuple[Array, Array]:
        """Sum or last value over this chunk and those before it; ``x`` is zero on padding."""
        n = jnp.full(x.shape[:-2], x.shape[-2]) if lengths is None else jnp.asarray(lengths)
        count = state.count + n.astype(jnp.int32)
        if self.pooling == "mean":
            return state.pooled + x.sum(-2, dtype=state.pooled.dtype), count
        last = jnp.take_along_axis(x, jnp.maximum(n - 1, 0)[..., None, None], axis=-2)[..., 0, :]
        return jnp.where(n[..., None] > 0, last.astype(state.pooled.dtype), state.pooled), count

    def _logits(self, pooled: Array, count: Array) -> Array:
        if self.pooling == "mean":
            pooled = pooled / jnp.maximum(count, 1)[..., None]
        return self._head(pooled)

    def _head(self, x: Array) -> Array:
        return self.decode(x)
