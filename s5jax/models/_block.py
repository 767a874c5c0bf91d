"""The residual block around a layer."""

from collections.abc import Sequence
from typing import Any, Unpack

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Inexact, PyTree, Shaped

from s5jax._keep import keep
from s5jax.layers._base import SequenceLayer
from s5jax.layers._dense import flat_apply
from s5jax.layers._edits import select
from s5jax.models._arguments import BlockArguments, block_options
from s5jax.models._base import Call, Result, SequenceModule
from s5jax.models._dropout import drop
from s5jax.models._norm import check_stepwise, make_norm, normalise


class ResidualBlock(SequenceModule):
    r"""Norm, layer, activation and skip connection.

    .. math::
        y = u + f(\operatorname{norm}(u)) \ \text{(prenorm)}, \qquad
        y = \operatorname{norm}(u + f(u)) \ \text{(postnorm)}, \qquad
        f = \operatorname{act} \circ \operatorname{layer}

    The activations, with x the output of the layer, g = drop(gelu(x)) and W dense maps with bias:

    =================  ==========================================  ============================
    ``"full_glu"``     drop(W1 g ⊙ σ(W2 g))                        S5, gelu by tanh
    ``"half_glu1"``    drop(g ⊙ σ(W2 g))                           S5, gelu by tanh
    ``"half_glu2"``    drop(x ⊙ σ(W2 g))                           S5, gelu by tanh
    ``"gelu"``         g                                           S5, gelu by tanh
    ``"glu"``          drop(a ⊙ σ(b)), (a, b) the halves of W g    S4, SGConv, HOPE, exact gelu
    ``"gelu_linear"``  drop(W g)                                   DLR, first S4, exact gelu
    =================  ==========================================  ============================

    Args:
        layer: the sequence layer, of ``d_model`` features.
        dtype: dtype of computations, as in the layer.
        param_dtype: dtype of the parameters.
        rngs: source of the key ``params``.
        **options: the fields of `s5jax.models.BlockOptions`:

            - ``norm``: ``"batch"`` (statistics over batch and time, without padding), ``"layer"``,
              or ``"scalar_layer"``, with one scale and shift for all features and no epsilon, as in
              DLR;
            - ``prenorm``: normalise the layer's input instead of the sum;
            - ``norm_momentum``: of the running statistics, in Flax's sense; PyTorch's m is 1 - m
              here. S5 uses 0.95, and 0.9 for Pathfinder and Path-X; S4 uses 0.9;
            - ``norm_epsilon``: PyTorch uses 1e-5 in both norms; Flax uses 1e-5 in batch and 1e-6 in
              layer norm, and so did S5;
            - ``activation``: one of the names above;
            - ``dropout``: rate; active in training mode (``model.train()``) only;
            - ``tie_dropout``: ``"all"`` or True drops the same features at all times (S5, HOPE),
              ``"residual"`` only in the last drop of an activation, with single entries in the
              first (SGConv); ``"none"`` or False drops single entries;
            - ``layer_dropout``: also drop single entries of x, as the current S4 does.

    Raises:
        TypeError: for an argument that does not exist.
        ValueError: for an unknown option, a rate outside [0, 1), or an activation that does not fit
            the outputs of the layer.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from s5jax import S5, ResidualBlock
        >>> rngs = nnx.Rngs(0)
        >>> block = ResidualBlock(S5(4, 8, rngs=rngs), norm="layer", rngs=rngs)
        >>> block(jnp.ones((2, 10, 4))).shape
        (2, 10, 4)

    References:
        Smith et al., "Simplified State Space Layers" (S5), 2023, https://arxiv.org/abs/2208.04933.
        Gu et al., "Structured State Spaces" (S4), 2022, https://arxiv.org/abs/2111.00396.
    """

    def __init__(
        self,
        layer: SequenceLayer,
        *,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        **options: Unpack[BlockArguments],
    ) -> None:
        self.options = block_options("ResidualBlock", options)
        activation, H = self.options.activation, layer.d_model
        if layer.d_output != H and activation != "glu":
            raise ValueError(
                f"ResidualBlock: `activation` must be 'glu' for a layer that maps {H} features "
                f"to {layer.d_output}; got {activation!r}."
            )
        self.layer = layer
        dtypes: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}
        self.norm = make_norm(self.options, H, rngs=rngs, **dtypes)
        self.out1 = nnx.Linear(H, H, rngs=rngs, **dtypes) if activation == "full_glu" else None
        gate = {"gelu": 0, "glu": 2 * H}.get(activation, H)
        self.out2 = nnx.Linear(layer.d_output, gate, rngs=rngs, **dtypes) if gate else None
        self.dropout = nnx.Dropout(self.options.dropout)
        self.tied_dropout = nnx.Dropout(self.options.dropout, broadcast_dims=(-2,))

    @property
    def layers(self) -> Sequence[SequenceLayer]:
        """The one layer."""
        return [self.layer]

    def init_state(self, batch_shape: Sequence[int] = ()) -> PyTree[Array]:
        """Returns the layer's state before the first step."""
        return self.layer.init_state(batch_shape)

    def run(self, u: Shaped[Array, "*batch L H"], call: Call) -> Result:
        """Maps checked sequences; see `s5jax.models.SequenceModule`."""
        if call.state is not None or call.return_state:
            check_stepwise(self.norm)
        prenorm, valid = self.options.prenorm, call.edits.valid
        u = u if valid is None else select(valid, u, 0)
        x = normalise(self.norm, u, valid) if prenorm else u
        x, state = call.of(self.layer, x, state=call.state, edits=call.edits)
        y = u + self._activate(keep(x), call.rngs)
        y = y if prenorm else normalise(self.norm, y, valid)
        return y if valid is None else select(valid, y, 0), state

    def advance(
        self, u: Shaped[Array, "*batch H"], state: PyTree[Array], dt: Array | None = None
    ) -> tuple[Inexact[Array, "*batch H"], PyTree[Array]]:
        """Takes one step; see `s5jax.models.SequenceModule`."""
        check_stepwise(self.norm)
        prenorm = self.options.prenorm
        x, state = self.layer.step(normalise(self.norm, u) if prenorm else u, state, dt)
        y = u + self._activate(x, None)
        return y if prenorm else normalise(self.norm, y), state

    def _activate(self, x: Array, rngs: nnx.Rngs | None) -> Array:
        options, activation = self.options, self.options.activation
        if options.layer_dropout:
            x = self._drop(x, rngs, tied=False)
        g = nnx.gelu(x, approximate=options.approximate_gelu)
        g = self._drop(g, rngs, tied=options.tie_dropout == "all")
        if self.out2 is None:
            return g
        y = flat_apply(self.out2, g)
        if activation == "glu":
            y = nnx.glu(y)
        elif self.out1 is not None:
            y = flat_apply(self.out1, g) * nnx.sigmoid(y)
        elif activation != "gelu_linear":
            y = (g if activation == "half_glu1" else x) * nnx.sigmoid(y)
        return self._drop(y, rngs, tied=options.tie_dropout != "none")

    def _drop(self, x: Array, rngs: nnx.Rngs | None, *, tied: bool) -> Array:
        return drop("ResidualBlock", self.tied_dropout if tied else self.dropout, x, rngs)
