"""Layers from the weights of github.com/lindermanlab/S5."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike, DTypeLike

from s5jax._promotion import default_promotion
from s5jax.layers import S5, SequenceLayer
from s5jax.layers._s5 import Discretization, S5Algorithm
from s5jax.models import ResidualBlock
from s5jax.models._arguments import Activation

Layer = TypeVar("Layer", bound=SequenceLayer)


@default_promotion
def s5_from_official(
    arrays: Mapping[str, ArrayLike],
    *,
    conj_sym: bool = True,
    bidirectional: bool = False,
    clip_eigs: bool = False,
    discretization: Discretization = "zoh",
    algorithm: S5Algorithm = "auto",
    dtype: DTypeLike = jnp.float32,
) -> S5:
    """Builds an S5 layer from the weights of the official implementation.

    The official ``step_rescale`` is the argument ``dt`` of a call here.

    Args:
        arrays: ``Lambda_re``, ``Lambda_im``, ``log_step`` of shape ``(P,)``, ``B_tilde`` of shape
            ``(P, H)``, ``C_tilde`` of shape ``(H, P)`` (``(H, 2 P)`` if bidirectional, forward
            states first) and ``D`` of shape ``(H,)``. The two matrices are complex, or real with a
            last axis of (real, imaginary). Other names are ignored.
        conj_sym: whether the layer stores only one state of each conjugate pair.
        bidirectional: whether the layer also runs backward in time.
        clip_eigs: whether the layer bounds the real parts of Lambda.
        discretization: ``"zoh"`` or ``"bilinear"``.
        algorithm: see `s5jax.S5`.
        dtype: dtype of the parameters and computations.

    Returns:
        The layer.

    Raises:
        ValueError: if an array is missing or its shape does not fit the others and the options.

    Example:
        >>> import numpy as np
        >>> from s5jax.interop import s5_from_official
        >>> arrays = {name: np.full(3, -1.0) for name in ("Lambda_re", "Lambda_im", "log_step")}
        >>> arrays |= {"B_tilde": np.ones((3, 2)) + 0j, "C_tilde": np.ones((2, 3)) + 0j}
        >>> arrays |= {"D": np.ones(2)}
        >>> layer = s5_from_official(arrays)
        >>> layer.d_model, layer.d_state
        (2, 6)

    References:
        https://github.com/lindermanlab/S5, ``s5/ssm.py``.
    """
    P, H = (len(np.atleast_1d(_get("s5_from_official", arrays, key))) for key in ("Lambda_re", "D"))
    layer = _empty(
        S5,
        dtype,
        d_model=H,
        d_state=2 * P if conj_sym else P,
        conj_sym=conj_sym,
        bidirectional=bidirectional,
        clip_eigs=clip_eigs,
        discretization=discretization,
        algorithm=algorithm,
    )
    variables = {
        "Lambda_re": layer.Lambda_re,
        "Lambda_im": layer.Lambda_im,
        "log_step": layer.log_step,
        "B_tilde": layer.B,
        "C_tilde": layer.C,
        "D": layer.D,
    }
    _fill_named("s5_from_official", arrays, variables, dtype)
    return layer


@default_promotion
def s5_block_from_official(
    arrays: Mapping[str, ArrayLike],
    *,
    activation: Activation,
    prenorm: bool,
    dropout: float = 0.0,
    norm_momentum: float = 0.9,
    dtype: DTypeLike = jnp.float32,
    **options: Any,
) -> ResidualBlock:
    """Builds a residual block from the weights of the official ``SequenceLayer``.

    Args:
        arrays: arrays of `s5_from_official`; ``norm_scale`` and ``norm_bias``; ``bn_mean`` and
            ``bn_var`` if the norm is a batch norm; ``out1_kernel`` and ``out1_bias`` for
            ``"full_glu"``; ``out2_kernel`` and ``out2_bias`` unless the activation is ``"gelu"``.
        activation: ``"full_glu"``, ``"half_glu1"``, ``"half_glu2"`` or ``"gelu"``.
        prenorm: whether the norm comes before the layer.
        dropout: rate of the dropout, active in training mode only.
        norm_momentum: momentum of the statistics of a batch norm, the official ``bn_momentum``.
        dtype: dtype of the parameters and computations.
        **options: further options of `s5_from_official`.

    Returns:
        The block, in evaluation mode.

    Raises:
        ValueError: if an array is missing or has the wrong shape, or an option is unknown.

    Example:
        >>> import numpy as np
        >>> from s5jax.interop import s5_block_from_official
        >>> arrays = {name: np.full(3, -1.0) for name in ("Lambda_re", "Lambda_im", "log_step")}
        >>> arrays |= {"B_tilde": np.ones((3, 2)) + 0j, "C_tilde": np.ones((2, 3)) + 0j}
        >>> arrays |= {"D": np.ones(2), "norm_scale": np.ones(2), "norm_bias": np.zeros(2)}
        >>> block = s5_block_from_official(arrays, activation="gelu", prenorm=True)
        >>> block(np.ones((5, 2), "float32")).shape
        (5, 2)

    References:
        https://github.com/lindermanlab/S5, ``s5/layers.py``.
    """
    batch_norm = "bn_mean" in arrays
    block = ResidualBlock(
        s5_from_official(arrays, dtype=dtype, **options),
        norm="batch" if batch_norm else "layer",
        norm_epsilon=1e-5 if batch_norm else 1e-6,
        prenorm=prenorm,
        norm_momentum=norm_momentum,
        dropout=dropout,
        activation=activation,
        dtype=dtype,
        param_dtype=dtype,
        rngs=nnx.Rngs(0),
    )
    variables: dict[str, nnx.Variable | None] = {
        "norm_scale": block.norm.scale,
        "norm_bias": block.norm.bias,
    }
    if isinstance(block.norm, nnx.BatchNorm):
        variables |= {"bn_mean": block.norm.mean, "bn_var": block.norm.var}
    for name, dense in (("out1", block.out1), ("out2", block.out2)):
        if dense is not None:
            variables |= {f"{name}_kernel": dense.kernel, f"{name}_bias": dense.bias}
    _fill_named("s5_block_from_official", arrays, variables, dtype)
    block.eval()
    return block


def _empty(layer: Callable[..., Layer], dtype: DTypeLike, **options: Any) -> Layer:
    """Builds a layer whose parameters have no values yet."""
    return nnx.eval_shape(
        lambda: layer(dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(0), **options)
    )


def _get(where: str, arrays: Mapping[str, ArrayLike], name: str) -> np.ndarray:
    if name not in arrays:
        raise ValueError(f"{where}: `arrays` must contain {name!r}; got only {sorted(arrays)}.")
    return np.asarray(arrays[name])


def _fill_named(
    where: str,
    arrays: Mapping[str, ArrayLike],
    variables: Mapping[str, nnx.Variable | None],
    dtype: DTypeLike,
) -> None:
    """Sets variables to the arrays of the same names."""
    given = {name: v for name, v in variables.items() if v is not None}
    _fill(where, {name: (_get(where, arrays, name), v) for name, v in given.items()}, dtype)


def _fill(
    where: str,
    parameters: Mapping[str, tuple[ArrayLike, nnx.Variable | None]],
    dtype: DTypeLike,
) -> None:
    """Sets variables to values. The names appear in error messages."""
    for name, (value, variable) in parameters.items():
        if variable is None:
            continue
        value = np.asarray(value)
        if np.iscomplexobj(value):
            value = np.stack([value.real, value.imag], axis=-1)
        if value.shape != variable.shape:
            raise ValueError(
                f"{where}: {name!r} must have shape {variable.shape}, where a complex array counts "
                f"as pairs of reals; got {value.shape}. Check the options, such as `bidirectional`."
            )
        variable.set_value(jnp.asarray(value, dtype))
