"""Layers from the weights of github.com/AnnanYu/HOPE-SSM."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from s5jax._promotion import default_promotion
from s5jax.interop._s5 import _empty, _fill, _get
from s5jax.layers import HOPE
from s5jax.layers._feature_ssm import Transform


@default_promotion
def hope_from_official(arrays: Mapping[str, ArrayLike], *, dtype: DTypeLike = jnp.float32) -> HOPE:
    r"""Builds a HOPE layer, in form "circular", from the weights of the official minimal layer.

    The official ``d_state`` is 2 n. Form "causal" would be a different layer, a linear convolution
    in which the imaginary parts of ``Hankel`` had no effect.

    Args:
        arrays: complex ``Hankel`` of shape ``(2 H, n)``, with the rows for the first half of the
            frequencies first; ``log_dt`` of shape ``(2 H,)``; ``D`` of shape ``(H,)``. Other names
            are ignored.
        dtype: dtype of the parameters and computations.

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
    H, n = len(h) // 2, h.shape[1]
    layer = _empty(HOPE, dtype, d_model=H, d_state=n, bidirectional=True, form="circular")
    parameters = {
        "Hankel": (h.reshape(2, H, n), layer.h),
        "log_dt": (log_dt.reshape(2, H), layer.raw_step),
        "D": (_get(where, arrays, "D"), layer.D),
    }
    _fill(where, parameters, dtype)
    return layer


@default_promotion
def hope_block_from_official(
    arrays: Mapping[str, ArrayLike],
    *,
    decay_exp: float = 0.0,
    dt_transform: Transform = "exp",
    dtype: DTypeLike = jnp.float32,
) -> HOPE:
    """Builds a HOPE layer, in form "mirrored", from the weights of the official block.

    The activation, output map and GLU of the official block are in `s5jax.ResidualBlock`, with
    ``activation="glu"``.

    Args:
        arrays: complex ``Han`` of shape ``(2, H, n)``, forward first; ``inv_dt`` of shape
            ``(H, 1)``, before its transform; ``D`` of shape ``(2, H)``. Other names are ignored.
        decay_exp: exponent of the decay of the Markov parameters.
        dt_transform: ``"exp"`` or ``"softplus"``.
        dtype: dtype of the parameters and computations.

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
    layer = _empty(
        HOPE,
        dtype,
        d_model=h.shape[1],
        d_state=h.shape[2],
        bidirectional=True,
        form="mirrored",
        decay_exp=decay_exp,
        dt_transform=dt_transform,
    )
    parameters = {
        "Han": (h, layer.h),
        "inv_dt": (np.ravel(_get(where, arrays, "inv_dt")), layer.raw_step),
        "D": (_get(where, arrays, "D"), layer.D),
    }
    _fill(where, parameters, dtype)
    return layer
