"""An encoder and a stack of residual blocks."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Unpack, get_args

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Inexact, PyTree, Shaped

from s5jax._errors import check_choice, check_positive
from s5jax.layers._base import SequenceLayer
from s5jax.layers._devices import along_time
from s5jax.layers._edits import select
from s5jax.layers._inputs import split_states
from s5jax.models._arguments import (
    BlockArguments,
    Encoder,
    FeedForwardActivation,
    LayerOptions,
    Layers,
    block_options,
    layer_pattern,
)
from s5jax.models._base import Call, Result, SequenceModule
from s5jax.models._block import ResidualBlock
from s5jax.models._depth import run_units
from s5jax.models._encoders import ENCODERS
from s5jax.models._feed_forward import FeedForward
from s5jax.models._norm import check_stepwise, explain_writes, make_norm, normalise
from s5jax.models._tokens import check_tokens, in_vocabulary


class SequenceBackbone(SequenceModule):
    r"""An encoder and residual blocks: sequences in, sequences of features out.

    .. math:: x_0 = \operatorname{encoder}(u), \quad x_i = \operatorname{block}_i(x_{i-1}), \quad
        y = x_{n} \ \text{or}\ \operatorname{norm}(x_n)

    It keeps the contract of a single layer: the same ``state``, ``lengths``, ``resets``, ``dt``,
    ``step``.

    Args:
        layer: class of the layers, for example `S5`; or a list of pairs of a class and its
            options, which the blocks repeat in this order.
        d_input: number of input features, or of tokens.
        d_model: number of features H of the blocks.
        n_layers: number of blocks, a multiple of the number of layers in a list.
        layer_options: further arguments of ``layer``; none beside a list.
        encoder: ``"linear"`` for real inputs ``(*batch, L, d_input)``; ``"embedding"`` for integer
            ones ``(*batch, L)``, and ``"one_hot"`` for a linear map of their one-hot vectors, as S5
            has it.
        embedding_std: standard deviation of the first embedding; PyTorch's is 1, by default Flax's
            ``d_model ** -0.5``.
        final_norm: a norm after the last block, as S4's models with ``prenorm`` have; S5's do not.
        ffn_every: a feed-forward block of four times the width follows every n-th block, as in S4's
            language model; none by default.
        ffn_activation: ``"gelu"`` of four hidden features for each feature; or a gate, ``"geglu"``
            or ``"swiglu"``, with two thirds of the hidden features and thus as many parameters.
        remat: in the backward pass compute each block once more, instead of keeping all that its
            gradient needs. Values and gradients are the same. On a CPU memory falls only with the
            compiler option ``xla_disable_hlo_passes=cse_barrier_expander``.
        dtype: dtype of computations, of the layers too; by default, inputs and parameters decide
            together. States, statistics of norms, means over time and the outputs of whole models
            are float32 or wider.
        param_dtype: dtype of the parameters.
        rngs: source of the key ``params``.
        **options: options of the blocks, such as ``norm="layer"``: see `ResidualBlock`.

    Raises:
        TypeError: for an argument that does not exist.
        ValueError: for sizes that are not positive, an unknown option, or a list of layers that
            does not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from s5jax import S5, Attention, SequenceBackbone
        >>> model = SequenceBackbone(
        ...     S5, d_input=3, d_model=4, n_layers=2, layer_options={"d_state": 8}, rngs=nnx.Rngs(0)
        ... )
        >>> model(jnp.ones((2, 10, 3))).shape
        (2, 10, 4)

        Two recurrent blocks for each block of local attention, as in Griffin:

        >>> recurrent, local = (S5, {"d_state": 8}), (Attention, {"n_heads": 2, "l_max": 64})
        >>> model = SequenceBackbone(
        ...     [recurrent, recurrent, local], d_input=3, d_model=4, n_layers=6, rngs=nnx.Rngs(0)
        ... )
        >>> [type(layer).__name__ for layer in model.layers]
        ['S5', 'S5', 'Attention', 'S5', 'S5', 'Attention']

    References:
        De et al., "Griffin", 2024, https://arxiv.org/abs/2402.19427, for stacks of two layers.
        Shazeer, "GLU Variants", 2020, https://arxiv.org/abs/2002.05202.
    """

    def __init__(
        self,
        layer: Layers,
        *,
        d_input: int,
        d_model: int,
        n_layers: int,
        layer_options: LayerOptions = (),
        encoder: Encoder | Callable[..., nnx.Module] = "linear",
        embedding_std: float | None = None,
        final_norm: bool = False,
        ffn_every: int | None = None,
        ffn_activation: FeedForwardActivation = "gelu",
        remat: bool = False,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        **options: Unpack[BlockArguments],
    ) -> None:
        name = type(self).__name__
        sizes = {"d_input": d_input, "d_model": d_model, "n_layers": n_layers}
        d_input, d_model, n_layers = check_positive(name, **sizes)
        if ffn_every is not None:
            (ffn_every,) = check_positive(name, ffn_every=ffn_every)
        check_choice(name, "ffn_activation", ffn_activation, get_args(FeedForwardActivation))
        if ffn_every is None and ffn_activation != "gelu":
            raise ValueError(
                f"{name}: `ffn_activation` needs `ffn_every`, since there are no feed-forward "
                f"blocks otherwise; got {ffn_activation!r}. Set ffn_every=1."
            )
        if not callable(encoder):
            check_choice(name, "encoder", encoder, get_args(Encoder))
            encoder = ENCODERS[encoder]
        self.d_input, self.d_model, self.n_layers = d_input, d_model, n_layers
        pattern = layer_pattern(name, layer, layer_options, n_layers)
        kept = tuple((each, tuple(its_options.items())) for each, its_options in pattern)
        self.layer, self.layer_options = kept[0] if callable(layer) else (kept, ())
        self.embedding_std, self.final_norm = embedding_std, final_norm
        self.ffn_every, self.ffn_activation, self.remat = ffn_every, ffn_activation, remat
        self.dtype, self.param_dtype = dtype, param_dtype
        self.options = block_options(name, options)

        common: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.encode: Any = encoder(d_input, d_model, embedding_std=embedding_std, **common)
        self.encoder = self.encode.kind
        block: dict[str, Any] = common | dataclasses.asdict(self.options)
        self.blocks = nnx.List(
            ResidualBlock(each(d_model=d_model, **common, **its_options), **block)
            for each, its_options in pattern * (n_layers // len(pattern))
        )
        self.feed_forwards = nnx.List(
            FeedForward(d_model, self.options, activation=ffn_activation, **common)
            for _ in range(n_layers // (ffn_every or n_layers + 1))
        )
        self.last_norm = make_norm(self.options, d_model, **common) if final_norm else None

    @property
    def layers(self) -> Sequence[SequenceLayer]:
        """The layers of the blocks."""
        return [block.layer for block in self.blocks]

    def init_state(self, batch_shape: Sequence[int] = ()) -> PyTree[Array]:
        """Returns the states of all blocks before the first step."""
        return tuple(block.init_state(batch_shape) for block in self.blocks)

    def feature_shape(self, where: str, u: Shaped[Array, "..."], n_axes: int) -> tuple[int, ...]:
        """Checks shape and kind of inputs; see `s5jax.models.SequenceModule`."""
        shape = (*u.shape, self.d_input) if self.takes_tokens else u.shape
        kind = jnp.integer if self.takes_tokens else jnp.floating
        fits = len(shape) >= n_axes and shape[-1] == self.d_input and shape[-n_axes] >= 1
        if not fits or not jnp.issubdtype(u.dtype, kind):
            axes = ["*batch", "L"][:n_axes] + ([] if self.takes_tokens else [str(self.d_input)])
            raise ValueError(
                f"{where}: `u` must be {kind.__name__} of shape ({', '.join(axes)}); "
                f"got {u.dtype} with shape {u.shape}."
            )
        return shape

    def check_values(self, where: str, u: Shaped[Array, "..."], valid: Array | None = None) -> None:
        """Refuses tokens outside of the vocabulary; see `s5jax.models.SequenceModule`."""
        if self.takes_tokens:
            advice = "Number the tokens from 0, or build the model with a larger `d_input`."
            counted = True if valid is None else valid
            check_tokens(where, "u", u, self.d_input, counted, advice=advice)

    @property
    def takes_tokens(self) -> bool:
        """Whether inputs are tokens."""
        return self.encoder != "linear"

    def run(self, u: Shaped[Array, "..."], call: Call) -> Result:
        """Maps checked sequences; see `s5jax.models.SequenceModule`."""
        edits, rngs, valid = call.edits, call.rngs, call.edits.valid
        before = split_states(type(self).__name__, call.state, self.n_layers)
        x = along_time(self._encode(u if valid is None else select(valid, u, 0), rngs))

        def run_block(block: ResidualBlock, x: Array, state: PyTree, rngs: nnx.Rngs | None) -> Any:
            return call.of(block, x, state=state, edits=edits, rngs=rngs)

        def run_feed_forward(block: FeedForward, x: Array, rngs: nnx.Rngs | None) -> Array:
            return block(x, valid, rngs=rngs)

        if self.remat:
            remat = functools.partial(nnx.remat, graph_updates=False)  # writes what changed only
            run_block = explain_writes(remat(run_block))
            run_feed_forward = explain_writes(remat(run_feed_forward))

        def run_unit(unit: Any, x: Array, before: PyTree, rngs: nnx.Rngs | None) -> Any:
            states = []
            for (block, feed_forward), state in zip(unit, before, strict=True):
                x, new_state = run_block(block, x, state, rngs)
                x = x if feed_forward is None else run_feed_forward(feed_forward, x, rngs)
                states.append(new_state)
            return x, states

        n = math.lcm(self.ffn_every or 1, 1 if callable(self.layer) else len(self.layer))
        pairs = tuple((block, self._after(i)) for i, block in enumerate(self.blocks, 1))
        units, first = (
            [each[i : i + n] for i in range(0, self.n_layers, n)] for each in (pairs, before)
        )
        x, states = run_units(run_unit, units, x, first, rngs, remat=self.remat)
        if self.last_norm is not None:
            x = normalise(self.last_norm, x, valid)
            x = x if valid is None else select(valid, x, 0)
        return x, tuple(itertools.chain(*states)) if call.return_state else None

    def advance(
        self, u: Shaped[Array, "..."], state: PyTree[Array], dt: Array | None = None
    ) -> tuple[Inexact[Array, "*batch H"], PyTree[Array]]:
        """Takes one step; see `s5jax.models.SequenceModule`."""
        before = split_states(type(self).__name__, state, self.n_layers)
        x = self._encode(u)
        states = []
        for i, block in enumerate(self.blocks):
            x, new_state = block.advance(x, before[i], dt)
            states.append(new_state)
            if (feed_forward := self._after(i + 1)) is not None:
                x = feed_forward.step(x)
        if self.last_norm is not None:
            check_stepwise(self.last_norm)
            x = normalise(self.last_norm, x)
        return x, tuple(states)

    def _after(self, n: int) -> FeedForward | None:
        """The feed-forward block that follows n residual blocks, if there is one."""
        position, rest = divmod(n, self.ffn_every or self.n_layers + 1)
        return None if rest else self.feed_forwards[position - 1]

    def _encode(self, u: Array, rngs: nnx.Rngs | None = None) -> Array:
        """The features of the first block, NaN for tokens outside of the vocabulary."""
        if not self.takes_tokens:
            return self.encode(u, rngs=rngs)
        known = in_vocabulary(u, self.d_input)
        x = self.encode(jnp.where(known, jnp.asarray(u).astype(int), 0), rngs=rngs)
        return jnp.where(known[..., None], x, jnp.nan)
