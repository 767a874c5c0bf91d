"""Batch and layer norm over padded sequences."""

from typing import Any, Literal, get_args

from flax import nnx
from jaxtyping import Array, Bool, Inexact

from s5jax._errors import check_choice

Norm = Literal["batch", "layer"]


def make_norm(
    norm: Norm, d_model: int, momentum: float, epsilon: float, *, rngs: nnx.Rngs, **dtypes: Any
) -> nnx.BatchNorm | nnx.LayerNorm:
    """Builds the norm of that name over the last axis."""
    check_choice("ResidualBlock", "norm", norm, get_args(Norm))
    if norm == "batch":
        return nnx.BatchNorm(d_model, momentum=momentum, epsilon=epsilon, rngs=rngs, **dtypes)
    return nnx.LayerNorm(d_model, epsilon=epsilon, rngs=rngs, **dtypes)


def normalise(
    norm: nnx.BatchNorm | nnx.LayerNorm,
    x: Inexact[Array, "*batch L H"],
    valid: Bool[Array, "*batch L"] | None = None,
) -> Inexact[Array, "*batch L H"]:
    """Applies the norm; the statistics of a batch norm leave padding out."""
    if isinstance(norm, nnx.LayerNorm):
        return norm(x)
    return norm(x, mask=None if valid is None else valid[..., None])


def check_stepwise(norm: nnx.Module) -> None:
    """Raises a ValueError if the norm would need whole sequences."""
    if isinstance(norm, nnx.BatchNorm) and not norm.use_running_average:
        raise ValueError(
            "ResidualBlock: steps and states need evaluation mode, because batch norm in "
            "training mode uses the statistics of whole sequences. Call model.eval() first."
        )
