"""Whole models with an output at every step."""

from collections.abc import Callable
from typing import Any

from flax import nnx
from jaxtyping import Array, Bool, Float, Inexact, Int, PyTree

from s5jax._errors import check_positive
from s5jax.layers._base import SequenceLayer
from s5jax.layers._dense import flat_apply, output_map
from s5jax.layers._masks import select, valid_steps
from s5jax.models._backbone import SequenceBackbone


class StepwiseModel(SequenceBackbone):
    """Base class of models that put a head on every step of the backbone.

    A model supplies ``head(x)``, from features ``(*batch, H)`` to outputs.
    """

    def head(self, x: Inexact[Array, "*batch H"]) -> Inexact[Array, "*batch d_output"]:
        """What a step puts out."""
        raise NotImplementedError(f"{type(self).__name__} must define `head`.")

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
        """Maps a batch of sequences to ``(*batch, L, d_output)``; see `SequenceBackbone`.

        Outputs at padded steps are zero.
        """
        x = super().__call__(
            u,
            state=state,
            lengths=lengths,
            resets=resets,
            dt=dt,
            return_state=return_state,
            rngs=rngs,
        )
        x, state = x if return_state else (x, None)
        valid = valid_steps(type(self).__name__, lengths, x.shape)
        y = self.head(x)
        y = y if valid is None else select(valid, y, 0)
        return (y, state) if return_state else y

    def step(
        self,
        u: Inexact[Array, "*batch d_input"] | Int[Array, "*batch"],
        state: PyTree[Array],
        dt: Float[Array, "*batch"] | float | None = None,
    ) -> tuple[Inexact[Array, "*batch d_output"], PyTree[Array]]:
        """One time step, in evaluation mode; as in a layer."""
        x, state = super().step(u, state, dt)
        return self.head(x), state


class SequenceLabeler(StepwiseModel):
    r"""Sequences in, one output a step out: regression, or the logits of a segmentation.

    .. math:: y_t = W x_t + b, \qquad x = \operatorname{backbone}(u)

    A task that wants the last outputs only, as forecasting and the atomic tasks of DLR do, takes
    them from the end.

    Args:
        layer: class of the layers, for example `S5`.
        d_output: number of targets or classes.
        rngs: source of the key ``params``.
        **backbone: the other arguments of `SequenceBackbone`.

    Raises:
        ValueError: for sizes that are not positive or an unknown option.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from s5jax import S5, SequenceLabeler
        >>> model = SequenceLabeler(
        ...     S5, d_input=1, d_output=3, d_model=16, n_layers=2,
        ...     layer_options={"d_state": 8, "bidirectional": True}, norm="layer", rngs=nnx.Rngs(0),
        ... )
        >>> model(jnp.ones((2, 256, 1))).shape
        (2, 256, 3)

    References:
        The segmentation and the regression tasks of Gupta, Mehta and Berant, "Simplifying and
        Understanding State Space Models with Diagonal Linear RNNs", 2022,
        https://arxiv.org/abs/2212.00768.
    """

    def __init__(
        self,
        layer: Callable[..., SequenceLayer],
        *,
        d_output: int,
        rngs: nnx.Rngs,
        **backbone: Any,
    ) -> None:
        super().__init__(layer, rngs=rngs, **backbone)
        (d_output,) = check_positive("SequenceLabeler", d_output=d_output)
        self.d_output = d_output
        self.decode = output_map(
            self.d_model, d_output, dtype=self.dtype, param_dtype=self.param_dtype, rngs=rngs
        )

    def head(self, x: Inexact[Array, "*batch H"]) -> Inexact[Array, "*batch d_output"]:
        """The linear map of a step."""
        return flat_apply(self.decode, x)
