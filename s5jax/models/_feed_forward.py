"""The feed-forward block of Transformers, which mixes the features of each step."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Inexact

from s5jax.layers._dense import flat_apply
from s5jax.layers._edits import select
from s5jax.layers._module import Module
from s5jax.models._arguments import BlockOptions, FeedForwardActivation
from s5jax.models._dropout import drop
from s5jax.models._norm import check_stepwise, make_norm, normalise


class FeedForward(Module):
    r"""Norm, two dense maps and skip connection, for each step on its own.

    .. math:: y_t = u_t + W_2 f(W_1 \operatorname{norm}(u_t) + b_1) + b_2

    or the norm after the sum. It has no state. The activations, with (a, b) the halves of v:

    ============  =================  ===============
    name          f(v)               hidden features
    ============  =================  ===============
    ``"gelu"``    gelu(v)            4 H
    ``"geglu"``   gelu(a) ⊙ b        8 H / 3
    ``"swiglu"``  a ⊙ σ(a) ⊙ b       8 H / 3
    ============  =================  ===============

    with the exact gelu. A gate takes three matrices in the place of two. With two thirds of the
    hidden features, rounded to an integer, there are as many parameters.

    Args:
        d_model: number of features H.
        options: norm and dropout, as in `ResidualBlock`; there is a drop after f, and one after
            W2.
        activation: one of the names above.
        dtype: dtype of computations.
        param_dtype: dtype of the parameters.
        rngs: source of the key ``params``.

    References:
        Vaswani et al., "Attention Is All You Need", 2017, https://arxiv.org/abs/1706.03762.
        Shazeer, "GLU Variants", 2020, https://arxiv.org/abs/2002.05202.
    """

    def __init__(
        self,
        d_model: int,
        options: BlockOptions,
        *,
        activation: FeedForwardActivation = "gelu",
        dtype: DTypeLike | None,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        dtypes: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}
        self.prenorm = options.prenorm
        self.norm = make_norm(options, d_model, rngs=rngs, **dtypes)
        self.activation = activation
        hidden = 4 * d_model if activation == "gelu" else round(8 * d_model / 3)
        widened = hidden if activation == "gelu" else 2 * hidden
        self.widen = nnx.Linear(d_model, widened, rngs=rngs, **dtypes)
        self.narrow = nnx.Linear(hidden, d_model, rngs=rngs, **dtypes)
        tied = (options.tie_dropout == "all", options.tie_dropout != "none")
        self.dropouts = nnx.List(
            nnx.Dropout(options.dropout, broadcast_dims=(-2,) if tie else ()) for tie in tied
        )

    def __call__(
        self,
        u: Inexact[Array, "*batch L H"],
        valid: Bool[Array, "*batch L"] | None = None,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Inexact[Array, "*batch L H"]:
        """Maps a batch of sequences; steps where ``valid`` is False become zero."""
        y = self._map(u, valid, rngs)
        return y if valid is None else select(valid, y, 0)

    def step(self, u: Inexact[Array, "*batch H"]) -> Inexact[Array, "*batch H"]:
        """Takes one time step, in evaluation mode."""
        check_stepwise(self.norm)
        return self._map(u, None, None)

    def _map(self, u: Array, valid: Array | None, rngs: nnx.Rngs | None) -> Array:
        y = u + self._mix(normalise(self.norm, u, valid) if self.prenorm else u, rngs)
        return y if self.prenorm else normalise(self.norm, y, valid)

    def _mix(self, x: Array, rngs: nnx.Rngs | None) -> Array:
        first, last = self.dropouts
        g = drop("FeedForward", first, self._activate(flat_apply(self.widen, x)), rngs)
        return drop("FeedForward", last, flat_apply(self.narrow, g), rngs)

    def _activate(self, v: Array) -> Array:
        if self.activation == "gelu":
            return nnx.gelu(v, approximate=False)
        a, b = jnp.split(v, 2, axis=-1)
        return (nnx.silu(a) if self.activation == "swiglu" else nnx.gelu(a, approximate=False)) * b
