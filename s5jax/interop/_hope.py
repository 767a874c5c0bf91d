"""Layers from the arrays of AnnanYu/HOPE-SSM."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike, DTypeLike

from s5jax._promotion import default_promotion
from s5jax.interop._official import _fill, _get
from s5jax.layers import HOPE
from s5jax.layers._feature_ssm import Transform
from s5jax.layers._hope import HOPEForm


@default_promotion
def hope_from_official(arrays: Mapping[str, ArrayLike], *, dtype: DTypeLike = jnp.float32) -> HOPE:
    r"""Builds a HOPE layer that computes what the official minimal one does, in form "circular".

    The official ``d_state`` is 2 n. In form "causal" the arrays would make another layer: a linear
    convolution, in which the imaginary parts of ``Hankel`` had no effect.

    Args:
        arrays: complex ``Hankel`` of shape ``(2 H, n)``, the rows of the first half of the
            frequencies first; ``log_dt`` of shape ``(2 H,)``; ``D`` of shape ``(H,)``. Other names
            are ignored.
        dtype: of the parameters and computations.

    Returns:
        The layer.

    Raises:
        ValueError: if an array is missing or its shape does not fit the others.

    Example:
        >>> import numpy as np
        >>> from s5jax.interop import hope_from_official
        >>> arrays = {"Hankel": np.ones((4, 3)) + 0j, "log_dt": np.zeros(4), "D": np.ones(2)}
        >>> layer = hope_from_official(arrays)
        >>> layer.form, layer.d_model, layer.d_state
        ('circular', 2, 3)

    References:
        https://github.com/AnnanYu/HOPE-SSM, ``models/s4/HOPE_SSM.py``.
    """
    where = "hope_from_official"
    h, log_dt = (_get(where, arrays, name) for name in ("Hankel", "log_dt"))
    if h.ndim != 2 or len(h) % 2 or log_dt.shape != h.shape[:1]:
        raise ValueError(
            f"{where}: 'Hankel' must have shape (2 H, n) and 'log_dt' (2 H,); got {h.shape} and "
            f"{log_dt.shape}."
        )
    layer = _empty(len(h) // 2, h.shape[1], "circular", 0.0, "exp", dtype)
    values = {
        "Hankel": h.reshape(2, -1, h.shape[1]),
        "log_dt": log_dt.reshape(2, -1),
        "D": _get(where, arrays, "D"),
    }
    _fill(where, values, {"Hankel": layer.h, "log_dt": layer.raw_step, "D": layer.D}, dtype)
    return layer


@default_promotion
def hope_block_from_official(
    arrays: Mapping[str, ArrayLike],
    *,
    decay_exp: float = 0.0,
    dt_transform: Transform = "exp",
    dtype: DTypeLike = jnp.float32,
) -> HOPE:
    """Builds a HOPE layer that computes what the one in the official block does, "mirrored".

    The activation, output map and GLU that follow it there are those of `s5jax.ResidualBlock` with
    ``activation="glu"``.

    Args:
        arrays: complex ``Han`` of shape ``(2, H, n)``, forward first; ``inv_dt`` of shape
            ``(H, 1)``, before its transform; ``D`` of shape ``(2, H)``. Other names are ignored.
        decay_exp: exponent of the decay of the Markov parameters.
        dt_transform: ``"exp"`` or ``"softplus"``.
        dtype: of the parameters and computations.

    Returns:
        The layer.

    Raises:
        ValueError: if an array is missing or its shape does not fit the others, or an option is
            unknown.

    Example:
        >>> import numpy as np
        >>> from s5jax.interop import hope_block_from_official
        >>> arrays = {"Han": np.ones((2, 4, 3)) + 0j, "inv_dt": np.zeros((4, 1))}
        >>> layer = hope_block_from_official(arrays | {"D": np.ones((2, 4))})
        >>> layer.form, layer.d_model, layer.d_state
        ('mirrored', 4, 3)

    References:
        https://github.com/AnnanYu/HOPE-SSM, ``src/models/sequence/modules/s4block.py``.
    """
    where = "hope_block_from_official"
    h = _get(where, arrays, "Han")
    if h.ndim != 3 or len(h) != 2:
        raise ValueError(f"{where}: 'Han' must have shape (2, H, n); got {h.shape}.")
    layer = _empty(h.shape[1], h.shape[2], "mirrored", decay_exp, dt_transform, dtype)
    values = {
        "Han": h,
        "inv_dt": np.ravel(_get(where, arrays, "inv_dt")),
        "D": _get(where, arrays, "D"),
    }
    _fill(where, values, {"Han": layer.h, "inv_dt": layer.raw_step, "D": layer.D}, dtype)
    return layer


def _empty(
    H: int,
    n: int,
    form: HOPEForm,
    decay_exp: float,
    dt_transform: Transform,
    dtype: DTypeLike,
) -> HOPE:
    """A layer whose parameters are still to be filled in."""
    return nnx.eval_shape(
        lambda: HOPE(
            d_model=H,
            d_state=n,
            bidirectional=True,
            form=form,
            decay_exp=decay_exp,
            dt_transform=dt_transform,
            dtype=dtype,
            param_dtype=dtype,
            rngs=nnx.Rngs(0),
        )
    )
