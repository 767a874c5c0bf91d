"""Arguments that blocks, backbones and models share, each declared once."""

import dataclasses
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Required, TypedDict, get_args, get_type_hints

import numpy as np
from flax import nnx
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, PyTree

from s5jax._errors import check_choice, suggest
from s5jax.layers._base import SequenceLayer
from s5jax.layers._edits import Edits

Activation = Literal["full_glu", "half_glu1", "half_glu2", "gelu", "glu", "gelu_linear"]
Encoder = Literal["linear", "embedding", "one_hot"]
FeedForwardActivation = Literal["gelu", "geglu", "swiglu"]
Norm = Literal["batch", "layer", "scalar_layer"]
TieDropout = Literal["all", "residual", "none"]
LayerClass = Callable[..., SequenceLayer]
LayerOptions = Mapping[str, Any] | Sequence[tuple[str, Any]]
Layers = LayerClass | Sequence[tuple[LayerClass, LayerOptions]]
"""One class for all blocks, or classes and options that the blocks repeat in this order."""

TIES: Mapping[bool, TieDropout] = {True: "all", False: "none"}
"""Short forms of ``tie_dropout``."""

TANH_GELU = ("full_glu", "half_glu1", "half_glu2", "gelu")
"""Activations of S5, whose gelu is Flax's approximation; PyTorch's is exact."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockOptions:
    """Options of a residual block, which all blocks of a model share.

    Raises:
        ValueError: for an unknown option or a rate outside [0, 1).
    """

    norm: Norm = "batch"
    """Normalisation of a block; "scalar_layer" is DLR's, with one scale and shift for all."""
    prenorm: bool = True
    """Normalise before the layer (True) or after the residual (False)."""
    norm_momentum: float = 0.9
    """Share of the old running statistics that a step keeps, as flax counts it."""
    norm_epsilon: float = 1e-5
    """Added to the variance."""
    activation: Activation = "half_glu1"
    """Nonlinearity after the layer; "glu" is S4's, "gelu_linear" DLR's, the others S5's."""
    dropout: float = 0.0
    """Share of features dropped in training."""
    tie_dropout: TieDropout = "all"
    """Which drops take a feature at all time steps together; see `s5jax.ResidualBlock`."""
    layer_dropout: bool = False
    """Drop single entries of the layer's output, too, as the current S4 does."""

    choices: ClassVar[Mapping[str, Iterable[str]]] = {
        "norm": get_args(Norm),
        "activation": get_args(Activation),
        "tie_dropout": get_args(TieDropout),
    }

    def __post_init__(self) -> None:
        name = type(self).__name__
        for option, valid in self.choices.items():
            check_choice(name, option, getattr(self, option), valid)
        check_rate(name, dropout=self.dropout)

    @property
    def approximate_gelu(self) -> bool:
        """Whether the gelu is S5's approximation by tanh."""
        return self.activation in TANH_GELU


class BlockArguments(TypedDict, total=False):
    """The fields of `s5jax.models.BlockOptions` as arguments of a constructor."""

    norm: Norm
    prenorm: bool
    norm_momentum: float
    norm_epsilon: float
    activation: Activation
    dropout: float
    tie_dropout: TieDropout | bool
    layer_dropout: bool


class BackboneArguments(BlockArguments, total=False):
    """The arguments of `SequenceBackbone` besides ``layer`` and ``rngs``."""

    d_input: Required[int]
    d_model: Required[int]
    n_layers: Required[int]
    layer_options: LayerOptions
    encoder: Encoder | Callable[..., nnx.Module]
    embedding_std: float | None
    final_norm: bool
    ffn_every: int | None
    ffn_activation: FeedForwardActivation
    remat: bool
    dtype: DTypeLike | None
    param_dtype: DTypeLike


class CallArguments(TypedDict, total=False):
    """The arguments of a call of a block, backbone or model besides inputs and ``return_state``."""

    state: PyTree[Array] | None
    """State before the first step, from ``init_state`` or an earlier call; zero if omitted."""
    lengths: ArrayLike | Sequence[Any] | None
    """``(*batch,)``, the true lengths of right-padded sequences."""
    resets: ArrayLike | Sequence[Any] | None
    """``(*batch, L)``, True at the first step of a new segment."""
    dt: ArrayLike | Sequence[Any] | None
    """Relative length of the interval that a step stands for: one number, or one per step."""
    edits: Edits | None
    """The last three and the inputs are already checked; a module passes it to those inside."""
    rngs: nnx.Rngs | None
    """Source of the key ``dropout``, in training mode with a positive rate."""


def block_options(where: str, arguments: BlockArguments) -> BlockOptions:
    """Builds the options from the arguments of a constructor.

    Raises:
        TypeError: for an argument that does not exist.
        ValueError: as `s5jax.models.BlockOptions`.
    """
    check_names(where, arguments, BlockArguments)
    tie: Any = arguments.get("tie_dropout", "all")
    tie = TIES[bool(tie)] if isinstance(tie, bool | np.bool_) else tie
    options: dict[str, Any] = {**arguments, "tie_dropout": tie}
    return BlockOptions(**options)


def layer_pattern(
    where: str, layer: Layers, options: LayerOptions, n_layers: int
) -> list[tuple[LayerClass, dict[str, Any]]]:
    """Returns the layers of the first blocks with their options; the other blocks repeat them.

    Raises:
        ValueError: if a list of layers has other entries than pairs, stands beside options for all
            layers, or does not divide the number of blocks.
    """
    if not isinstance(layer, Sequence):
        return [(layer, dict(options))]
    for pair in layer:
        is_pair = isinstance(pair, tuple | list) and len(pair) == 2
        if not (is_pair and callable(pair[0]) and isinstance(pair[1], Mapping | tuple | list)):
            raise ValueError(
                f"{where}: a list of layers must hold pairs of a class and its options, such as "
                f"(S5, {{'d_state': 64}}); got {pair!r}."
            )
    if options:
        raise ValueError(
            f"{where}: `layer_options` must be left out beside a list of layers; got "
            f"{dict(options)}. Give each layer of the list its own options."
        )
    if not layer or n_layers % len(layer):
        raise ValueError(
            f"{where}: `n_layers` must be a multiple of the number of layers in the list, which "
            f"the blocks repeat; got {n_layers} blocks for {len(layer)} layers."
        )
    return [(each, dict(its_options)) for each, its_options in layer]


def check_names(where: str, given: Mapping[str, Any], known: type) -> None:
    """Raises a TypeError if a given name is not an argument.

    Args:
        where: name of the class, for the message.
        given: arguments by name.
        known: a TypedDict of the arguments that exist.
    """
    names = list(get_type_hints(known))
    for name in given:
        if name not in names:
            raise TypeError(f"{where}: there is no argument `{name}`.{suggest(name, names)}")


def check_rate(where: str, **rates: float) -> None:
    """Raises a ValueError unless every rate is in [0, 1)."""
    for name, rate in rates.items():
        if not (isinstance(rate, numbers.Real) and 0 <= rate < 1):
            raise ValueError(f"{where}: `{name}` must be in [0, 1); got {rate}.")
