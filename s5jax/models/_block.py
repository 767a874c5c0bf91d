"""The residual block around a layer."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Inexact, Int, PyTree

from s5jax._errors import check_choice
from s5jax.layers._base import SequenceLayer
from s5jax.layers._dense import flat_apply
from s5jax.layers._inputs import as_array
from s5jax.layers._masks import select, valid_steps
from s5jax.layers._module import Module
from s5jax.models._dropout import check_rate, drop
from s5jax.models._norm import Norm, check_stepwise, make_norm, normalise

Activation = Literal["full_glu", "half_glu1", "half_glu2", "gelu", "glu", "gelu_linear"]
TieDropout = bool | Literal["residual"]

TANH_GELU = ("full_glu", "half_glu1", "half_glu2", "gelu")
"""Activations of S5, whose gelu is Flax's approximation; PyTorch's is exact."""


class ResidualBlock(Module):
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
        norm: ``"batch"`` (statistics over batch and time, padding left out), ``"layer"``, or
            ``"scalar_layer"``, with one scale and shift for all features and no epsilon, as in DLR.
        prenorm: normalise the layer's input instead of the sum.
        norm_momentum: of the running statistics, in Flax's sense; PyTorch's m is 1 - m here.
            S5 uses 0.95, and 0.9 for Pathfinder and Path-X; S4 uses 0.9.
        norm_epsilon: PyTorch uses 1e-5 in both norms; Flax uses 1e-5 in batch and 1e-6 in layer
            norm, and so did S5.
        activation: one of the names above.
        dropout: rate; active in training mode (``model.train()``) only.
        tie_dropout: drop the same features at all times (S5, HOPE); with ``"residual"`` only in the
            last drop of an activation, and single entries in the first (SGConv).
        layer_dropout: also drop single entries of x, as the current S4 does.
        dtype: of computations, as in the layer.
        param_dtype: of the parameters.
        rngs: source of the key ``params``.

    Raises:
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
        Smith, Warrington and Linderman, "Simplified State Space Layers for Sequence Modeling",
        2023, https://arxiv.org/abs/2208.04933; Gu, Goel and Ré, "Efficiently Modeling Long
        Sequences with Structured State Spaces", 2022, https://arxiv.org/abs/2111.00396.
    """

    def __init__(
        self,
        layer: SequenceLayer,
        *,
        norm: Norm = "batch",
        prenorm: bool = True,
        norm_momentum: float = 0.9,
        norm_epsilon: float = 1e-5,
        activation: Activation = "half_glu1",
        dropout: float = 0.0,
        tie_dropout: TieDropout = True,
        layer_dropout: bool = False,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        check_choice("ResidualBlock", "activation", activation, get_args(Activation))
        check_rate("ResidualBlock", dropout=dropout)
        check_choice("ResidualBlock", "tie_dropout", tie_dropout, (True, False, "residual"))
        H = layer.d_model
        if layer.d_output != H and activation != "glu":
            raise ValueError(
                f"ResidualBlock: `activation` must be 'glu' for a layer that turns {H} features "
                f"into {layer.d_output}; got {activation!r}."
            )
        self.layer, self.prenorm, self.activation = layer, prenorm, activation
        dtypes: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}
        self.norm = make_norm(norm, H, norm_momentum, norm_epsilon, rngs=rngs, **dtypes)
        self.out1 = nnx.Linear(H, H, rngs=rngs, **dtypes) if activation == "full_glu" else None
        gate = {"gelu": 0, "glu": 2 * H}.get(activation, H)
        self.out2 = nnx.Linear(layer.d_output, gate, rngs=rngs, **dtypes) if gate else None
        self.tie_dropout = tie_dropout if tie_dropout == "residual" else bool(tie_dropout)
        self.layer_dropout = layer_dropout
        self.dropout = nnx.Dropout(dropout)
        self.tied_dropout = nnx.Dropout(dropout, broadcast_dims=(-2,))

    def __call__(
        self,
        u: Inexact[Array, "*batch L H"],
        *,
        state: PyTree[Array] | None = None,
        lengths: Int[Array, "*batch"] | None = None,
        resets: Bool[Array, "*batch L"] | None = None,
        dt: Float[Array, "*batch L"] | float | None = None,
        return_state: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> Any:
        """Maps a batch of sequences; the arguments are those of a layer.

        ``rngs`` supplies the key ``dropout`` in training mode with a positive rate. With a state
        the block must be in evaluation mode (``model.eval()``) if its norm is a batch norm.
        """
        if state is not None or return_state:
            check_stepwise(self.norm)
        u = as_array("ResidualBlock", "u", u)
        valid = valid_steps("ResidualBlock", lengths, u.shape)
        u = u if valid is None else select(valid, u, 0)
        x = normalise(self.norm, u, valid) if self.prenorm else u
        x = self.layer(
            x, state=state, lengths=lengths, resets=resets, dt=dt, return_state=return_state
        )
        x, state = x if return_state else (x, None)
        y = u + self._activate(x, rngs)
        y = y if self.prenorm else normalise(self.norm, y, valid)
        y = y if valid is None else select(valid, y, 0)
        return (y, state) if return_state else y

    def step(
        self,
        u: Inexact[Array, "*batch H"],
        state: PyTree[Array],
        dt: Float[Array, "*batch"] | float | None = None,
    ) -> tuple[Inexact[Array, "*batch H"], PyTree[Array]]:
        """One time step, in evaluation mode; as in the layer."""
        check_stepwise(self.norm)
        x, state = self.layer.step(normalise(self.norm, u) if self.prenorm else u, state, dt)
        y = u + self._activate(x, None)
        return y if self.prenorm else normalise(self.norm, y), state

    def init_state(self, batch_shape: Sequence[int] = ()) -> PyTree[Array]:
        """The layer's state before the first step."""
        return self.layer.init_state(batch_shape)

    def _activate(self, x: Array, rngs: nnx.Rngs | None) -> Array:
        if self.layer_dropout:
            x = self._drop(x, rngs, tied=False)
        g = nnx.gelu(x, approximate=self.activation in TANH_GELU)
        g = self._drop(g, rngs, tied=self.tie_dropout is True)
        if self.out2 is None:
            return g
        y = flat_apply(self.out2, g)
        if self.activation == "glu":
            y = nnx.glu(y)
        elif self.out1 is not None:
            y = flat_apply(self.out1, g) * nnx.sigmoid(y)
        elif self.activation != "gelu_linear":
            y = (g if self.activation == "half_glu1" else x) * nnx.sigmoid(y)
        return self._drop(y, rngs, tied=bool(self.tie_dropout))

    def _drop(self, x: Array, rngs: nnx.Rngs | None, *, tied: bool) -> Array:
        return drop("ResidualBlock", self.tied_dropout if tied else self.dropout, x, rngs)
