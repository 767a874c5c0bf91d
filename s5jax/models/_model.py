"""Whole models: a backbone and a head."""

from collections.abc import Sequence
from typing import Any, Unpack

from flax import nnx
from jaxtyping import Array, Inexact, PyTree, Shaped

from s5jax._errors import check_positive
from s5jax.layers._base import SequenceLayer
from s5jax.layers._dense import flat_apply, output_map
from s5jax.layers._edits import select
from s5jax.models._arguments import BackboneArguments, Encoder, Layers, check_names
from s5jax.models._backbone import SequenceBackbone
from s5jax.models._base import Call, Result, SequenceModule


class SequenceModel(SequenceModule):
    """Base class of whole models: ``backbone``, and a head that a subclass adds.

    Args:
        layer: class of the layers, for example `s5jax.S5`, or a list of them as in
            `s5jax.SequenceBackbone`.
        rngs: source of the key ``params``.
        **backbone: the other arguments of `s5jax.SequenceBackbone`.
    """

    def __init__(
        self,
        layer: Layers,
        *,
        rngs: nnx.Rngs,
        **backbone: Unpack[BackboneArguments],
    ) -> None:
        check_names(type(self).__name__, backbone, BackboneArguments)
        self.backbone = SequenceBackbone(layer, rngs=rngs, **backbone)

    @property
    def d_input(self) -> int:
        """Number of input features, or of tokens."""
        return self.backbone.d_input

    @property
    def d_model(self) -> int:
        """Number of features of the blocks."""
        return self.backbone.d_model

    @property
    def encoder(self) -> Encoder:
        """Kind of the inputs, ``"linear"`` if they are real numbers and another name for tokens."""
        return self.backbone.encoder

    @property
    def dtypes(self) -> dict[str, Any]:
        """The dtypes of computations and parameters, as arguments."""
        return {"dtype": self.backbone.dtype, "param_dtype": self.backbone.param_dtype}

    @property
    def layers(self) -> Sequence[SequenceLayer]:
        """The layers of the backbone."""
        return self.backbone.layers

    def feature_shape(self, where: str, u: Shaped[Array, "..."], n_axes: int) -> tuple[int, ...]:
        """Checks inputs; see `s5jax.models.SequenceModule`."""
        return self.backbone.feature_shape(where, u, n_axes)

    def check_values(self, where: str, u: Shaped[Array, "..."], valid: Array | None = None) -> None:
        """Refuses tokens outside of the vocabulary; see `s5jax.models.SequenceModule`."""
        self.backbone.check_values(where, u, valid)

    def features(self, u: Shaped[Array, "..."], call: Call) -> Result:
        """Returns the outputs of the backbone, and its state if the call returns it."""
        return call.of(self.backbone, u, state=call.state, edits=call.edits, rngs=call.rngs)


class StepwiseModel(SequenceModel):
    """Base class of models that apply a head at every step.

    A model implements ``head(x)``, from features ``(*batch, H)`` to outputs. Outputs at padded
    steps are zero.
    """

    def head(self, x: Inexact[Array, "*batch H"]) -> Inexact[Array, "*batch d_output"]:
        """Returns the outputs of a step."""
        raise NotImplementedError(f"{type(self).__name__} must define `head`.")

    def init_state(self, batch_shape: Sequence[int] = ()) -> PyTree[Array]:
        """Returns the states of all blocks before the first step."""
        return self.backbone.init_state(batch_shape)

    def run(self, u: Shaped[Array, "..."], call: Call) -> Result:
        """Maps checked sequences; see `s5jax.models.SequenceModule`."""
        x, state = self.features(u, call)
        y, valid = self.head(x), call.edits.valid
        return y if valid is None else select(valid, y, 0), state

    def advance(
        self, u: Shaped[Array, "..."], state: PyTree[Array], dt: Array | None = None
    ) -> tuple[Inexact[Array, "*batch d_output"], PyTree[Array]]:
        """Takes one step; see `s5jax.models.SequenceModule`."""
        x, state = self.backbone.advance(u, state, dt)
        return self.head(x), state


class SequenceLabeler(StepwiseModel):
    r"""Sequences in, one output a step out: regression, or the logits of a segmentation.

    .. math:: y_t = W x_t + b, \qquad x = \operatorname{backbone}(u)

    A task that wants the last outputs only, as forecasting and the atomic tasks of DLR do, takes
    them from the end.

    Args:
        layer: class of the layers, for example `s5jax.S5`, or a list of them as in
            `s5jax.SequenceBackbone`.
        d_output: number of targets or classes.
        rngs: source of the key ``params``.
        **backbone: the other arguments of `s5jax.SequenceBackbone`.

    Raises:
        TypeError: for an argument that does not exist.
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
        Gupta et al., "Diagonal Linear RNNs" (DLR), 2022, https://arxiv.org/abs/2212.00768:
        its segmentation and regression tasks.
    """

    def __init__(
        self,
        layer: Layers,
        *,
        d_output: int,
        rngs: nnx.Rngs,
        **backbone: Unpack[BackboneArguments],
    ) -> None:
        (self.d_output,) = check_positive("SequenceLabeler", d_output=d_output)
        super().__init__(layer, rngs=rngs, **backbone)
        self.decode = output_map(self.d_model, self.d_output, rngs=rngs, **self.dtypes)

    def head(self, x: Inexact[Array, "*batch H"]) -> Inexact[Array, "*batch d_output"]:
        """Returns the linear map of a step."""
        return flat_apply(self.decode, x)
