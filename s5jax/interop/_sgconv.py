"""Layers from the weights of github.com/ctlllll/SGConv."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from s5jax._promotion import default_promotion
from s5jax.interop._s5 import _empty, _fill, _get
from s5jax.layers import SGConv
from s5jax.layers._sgconv import Decay


@default_promotion
def sgconv_from_official(
    arrays: Mapping[str, ArrayLike],
    *,
    l_max: int,
    init_scale: int = 0,
    bidirectional: bool = False,
    decay: Decay = "scale",
    dtype: DTypeLike = jnp.float32,
) -> SGConv:
    """Builds an SGConv layer from the weights of the official implementation.

    The official modes ``cat_...`` are supported. ``decay="power"`` stands for modes that end in
    ``_learnable_fixed``, ``"learnable"`` for modes that end in ``_learnable``, and ``"scale"`` for
    all others.

    Args:
        arrays: sub-kernels ``w0``, ``w1``, ..., all of shape ``(1, H, kernel_dim)``
            (``(2, H, kernel_dim)`` if bidirectional, forward first); ``kernel_norm`` with one
            number for each direction and feature; ``multiplier`` with one number for each feature,
            or ``decay`` instead if the option ``decay`` is not ``"scale"``; ``D`` of shape ``(H,)``
            or ``(1, H)``. Other names are ignored.
        l_max: the official argument of that name.
        init_scale: the official argument of that name.
        bidirectional: whether the layer also runs backward in time.
        decay: ``"scale"``, ``"power"`` or ``"learnable"``.
        dtype: dtype of the parameters and computations.

    Returns:
        The layer.

    Raises:
        ValueError: if an array is missing or its shape does not fit the others and the options.

    Example:
        >>> import numpy as np
        >>> from s5jax.interop import sgconv_from_official
        >>> arrays = {"w0": np.ones((1, 2, 4)), "w1": np.ones((1, 2, 4)), "D": np.ones(2)}
        >>> arrays |= {"kernel_norm": np.ones((1, 2, 1)), "multiplier": np.full((1, 2, 1), 2.0)}
        >>> layer = sgconv_from_official(arrays, l_max=8)
        >>> layer.d_model, layer.n_taps
        (2, 8)

    References:
        https://github.com/ctlllll/SGConv, ``gconv_standalone.py``.
    """
    where = "sgconv_from_official"
    w = [_get(where, arrays, "w0")]
    while (name := f"w{len(w)}") in arrays:
        w.append(_get(where, arrays, name))
    if w[0].ndim != 3 or len({w_i.shape for w_i in w}) > 1:
        raise ValueError(
            f"{where}: 'w0', 'w1', ... must all have one shape (1, H, kernel_dim), or "
            f"(2, H, kernel_dim) if bidirectional; got {[w_i.shape for w_i in w]}."
        )
    C, H, d = w[0].shape
    layer = _empty(
        SGConv,
        dtype,
        d_model=H,
        l_max=l_max,
        kernel_dim=d,
        n_scales=len(w),
        init_scale=init_scale,
        bidirectional=bidirectional,
        decay=decay,
    )
    alpha = "multiplier" if decay == "scale" else "decay"
    kernel_norm = np.reshape(_get(where, arrays, "kernel_norm"), (C, -1))
    parameters = {
        "w0, w1, ...": (np.stack(w, axis=1), layer.w),
        "kernel_norm": (kernel_norm, layer.kernel_norm),
        alpha: (np.ravel(_get(where, arrays, alpha)), layer.alpha),
        "D": (np.ravel(_get(where, arrays, "D")), layer.D),
    }
    _fill(where, parameters, dtype)
    return layer
