"""The models by name: their options, and how they are built."""

import abc
import dataclasses
from typing import Any, ClassVar, Literal

from flax import nnx

import s5jax
from experiments.errors import check_positive, check_share
from experiments.tasks import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions(abc.ABC):
    """Model: the residual stack that all models share."""

    name: ClassVar[str]

    n_layers: int = 6
    """Residual blocks."""
    d_model: int = 128
    """Features of a block."""
    norm: Literal["batch", "layer"] = "batch"
    """Normalisation of a block."""
    prenorm: bool = True
    """Normalise before the layer (True) or after the residual (False)."""
    norm_momentum: float = 0.9
    """Share of the old running statistics that a step keeps, as flax counts it."""
    norm_epsilon: float = 1e-5
    """Added to the variance."""
    activation: Literal["full_glu", "half_glu1", "half_glu2", "gelu", "glu"] = "half_glu1"
    """Nonlinearity after the layer; "glu" is S4's, the others S5's."""
    dropout: float = 0.0
    """Share of features dropped in training."""
    tie_dropout: bool = True
    """Drop a feature at all time steps at once."""
    final_norm: bool = False
    """Normalise once more after the last block."""
    pooling: Literal["mean", "last"] = "mean"
    """How the sequence becomes one vector."""

    def __post_init__(self) -> None:
        sizes = {"n_layers": self.n_layers, "d_model": self.d_model}
        check_positive(self, **sizes, norm_epsilon=self.norm_epsilon)
        check_share(self, dropout=self.dropout, norm_momentum=self.norm_momentum)

    @abc.abstractmethod
    def layer(self) -> tuple[type[s5jax.SequenceLayer], dict[str, Any]]:
        """The class of the sequence layer and its arguments."""

    def build(self, task: Task, *, rngs: nnx.Rngs) -> nnx.Module:
        """The model for a task, with fresh parameters."""
        layer, layer_options = self.layer()
        return s5jax.SequenceClassifier(
            layer,
            d_input=task.d_input,
            d_output=task.d_output,
            d_model=self.d_model,
            n_layers=self.n_layers,
            layer_options=layer_options,
            encoder=task.encoder,
            norm=self.norm,
            prenorm=self.prenorm,
            norm_momentum=self.norm_momentum,
            norm_epsilon=self.norm_epsilon,
            activation=self.activation,
            dropout=self.dropout,
            tie_dropout=self.tie_dropout,
            final_norm=self.final_norm,
            pooling=self.pooling,
            rngs=rngs,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class S5Options(ModelOptions):
    """Model: S5, a diagonal multi-input state space read by a parallel scan."""

    name = "s5"

    d_state: int = 256
    """State size P, before conjugate symmetry halves what is stored."""
    n_blocks: int = 16
    """HiPPO blocks J that the state is initialised from."""
    bidirectional: bool = True
    """Read the sequence in both directions."""
    conj_sym: bool = True
    """Keep one of each conjugate pair of eigenvalues."""
    clip_eigs: bool = False
    """Keep the eigenvalues' real parts below -1e-4."""
    discretization: Literal["zoh", "bilinear"] = "zoh"
    """From continuous to discrete time."""
    C_init: Literal["trunc_standard_normal", "lecun_normal", "complex_normal"] = "complex_normal"
    """Initialisation of the output matrix."""
    dt_min: float = 1e-3
    """Smallest initial step size [steps of unit length]."""
    dt_max: float = 0.1
    """Largest initial step size [steps of unit length]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, d_state=self.d_state, n_blocks=self.n_blocks, dt_min=self.dt_min)
        if self.dt_max < self.dt_min:
            raise ValueError(
                "S5Options: `dt_max` must not be below `dt_min`; "
                f"got {self.dt_max} < {self.dt_min}."
            )

    def layer(self) -> tuple[type[s5jax.SequenceLayer], dict[str, Any]]:
        """S5 and its arguments."""
        names = [
            field.name
            for field in dataclasses.fields(S5Options)
            if field.name not in {shared.name for shared in dataclasses.fields(ModelOptions)}
        ]
        return s5jax.S5, {name: getattr(self, name) for name in names}


MODELS: dict[str, type[ModelOptions]] = {options.name: options for options in (S5Options,)}
