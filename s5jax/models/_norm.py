"""Batch and layer norm over padded sequences."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax.numpy as jnp
from flax import nnx
from flax.errors import TraceContextError
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Inexact

from s5jax.layers._dense import flat_apply
from s5jax.models._arguments import BlockOptions

F = TypeVar("F", bound=Callable[..., Any])


class ScalarLayerNorm(nnx.Module):
    r"""Layer norm with one scale s and one shift m for all features.

    .. math:: y = s\, (x - \operatorname{mean}(x) + m) / \operatorname{std}(x)

    Nothing is added to the variance; features that are all equal give zeros. This is the norm of
    the first S4 and of DLR.

    References:
        Gupta et al., "Diagonal Linear RNNs" (DLR), 2022, https://arxiv.org/abs/2212.00768.
    """

    def __init__(
        self, *, dtype: DTypeLike | None = None, param_dtype: DTypeLike = jnp.float32
    ) -> None:
        self.scale = nnx.Param(jnp.ones(1, param_dtype))
        self.bias = nnx.Param(jnp.zeros(1, param_dtype))
        self.dtype = dtype

    def __call__(self, x: Inexact[Array, "*batch H"]) -> Inexact[Array, "*batch H"]:
        """Normalises the last axis."""
        dtype = self.dtype or jnp.promote_types(x.dtype, self.scale[...].dtype)
        x = x.astype(jnp.promote_types(dtype, jnp.float32))
        variance = x.var(-1, keepdims=True)
        flat = variance == 0
        std = jnp.sqrt(jnp.where(flat, 1, variance))
        y = self.scale[0] * (x - x.mean(-1, keepdims=True) + self.bias[0]) / std
        return jnp.where(flat, 0, y).astype(dtype)


AnyNorm = nnx.BatchNorm | nnx.LayerNorm | ScalarLayerNorm


def make_norm(options: BlockOptions, d_model: int, *, rngs: nnx.Rngs, **dtypes: Any) -> AnyNorm:
    """Builds the norm that the options name, over the last axis."""
    epsilon = options.norm_epsilon
    if options.norm == "scalar_layer":
        return ScalarLayerNorm(**dtypes)
    if options.norm == "batch":
        momentum = options.norm_momentum
        return nnx.BatchNorm(d_model, momentum=momentum, epsilon=epsilon, rngs=rngs, **dtypes)
    return nnx.LayerNorm(d_model, epsilon=epsilon, rngs=rngs, **dtypes)


def explain_writes(f: F) -> F:
    """Explains Flax's error about writes that a transformation of JAX would lose."""

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return f(*args, **kwargs)
        except TraceContextError as error:
            raise ValueError(
                "ResidualBlock: a batch norm in training mode updates its running statistics, "
                "which a transformation of JAX cannot return. Call model.eval() first, or "
                "transform with Flax, for example by nnx.jit."
            ) from error

    return cast(F, wrapped)


@explain_writes
def normalise(
    norm: AnyNorm,
    x: Inexact[Array, "*steps H"],
    valid: Bool[Array, "*steps"] | None = None,
) -> Inexact[Array, "*steps H"]:
    """Applies the norm, with padding left out of the statistics of a batch norm.

    A batch of padding only leaves the running statistics as they are.
    """
    if not isinstance(norm, nnx.BatchNorm):
        return flat_apply(norm, x)
    if norm.use_running_average or x.size == 0:
        return flat_apply(lambda x: norm(x, use_running_average=True), x)
    if valid is None:
        return flat_apply(norm, x)
    some, before = valid.any(), (norm.mean[...], norm.var[...])
    y = flat_apply(lambda x, mask: norm(x, mask=mask), x, valid[..., None] | ~some)
    for statistic, old in zip((norm.mean, norm.var), before, strict=True):
        statistic[...] = jnp.where(some, statistic[...], old)
    return y


def check_stepwise(norm: nnx.Module) -> None:
    """Raises a ValueError if the norm would need whole sequences."""
    if isinstance(norm, nnx.BatchNorm) and not norm.use_running_average:
        raise ValueError(
            "ResidualBlock: steps and states need evaluation mode, because batch norm in "
            "training mode uses the statistics of whole sequences. Call model.eval() first."
        )
