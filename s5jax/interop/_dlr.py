"""Layers from the weights of github.com/ag1988/dlr."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from s5jax._promotion import default_promotion
from s5jax.interop._s5 import _empty, _fill, _get
from s5jax.layers import DLR
from s5jax.layers._dlr import Version
from s5jax.layers._kernel import KernelOrScan
from s5jax.ops import KernelToReal


@default_promotion
def dlr_from_official(
    arrays: Mapping[str, ArrayLike],
    *,
    version: Version = "dlr",
    kernel_to_real: KernelToReal = "real",
    bidirectional: bool = False,
    l_kernel: int | None = None,
    algorithm: KernelOrScan = "auto",
    dtype: DTypeLike = jnp.float32,
) -> DLR:
    """Builds a DLR layer from the weights of the official DLR or DSS.

    The official names of the versions are ``""``, ``"exp"`` and ``"softmax"``. The official
    ``max_kernel_length`` is called ``l_kernel`` here.

    Args:
        arrays: complex ``Lambda`` of shape ``(N,)``, after the transform of its version; complex
            ``W`` of shape ``(1, H, N)`` (``(2, H, N)`` if bidirectional, forward first);
            ``log_dt`` of shape ``(H,)`` for DSS; ``D`` of shape ``(H,)`` or ``(1, H)``, zero if it
            is missing, as in a bare kernel. Other names are ignored.
        version: ``"dlr"``, ``"dss_exp"`` or ``"dss_softmax"``.
        kernel_to_real: ``"real"``, ``"imag"``, ``"sum"`` or ``"prod"``.
        bidirectional: whether the layer also runs backward in time.
        l_kernel: number of lags after which the layer cuts off its kernel.
        algorithm: see `s5jax.DLR`.
        dtype: dtype of the parameters and computations.

    Returns:
        The layer.

    Raises:
        ValueError: if an array is missing, its shape does not fit the others and the options, or
            the real part of an eigenvalue has a sign that the version does not allow.

    Example:
        >>> import numpy as np
        >>> from s5jax.interop import dlr_from_official
        >>> arrays = {"Lambda": np.full(3, -0.1 + 1j), "W": np.ones((1, 2, 3)) + 0j}
        >>> layer = dlr_from_official(arrays, kernel_to_real="imag")
        >>> layer.d_model, layer.d_state
        (2, 3)

    References:
        https://github.com/ag1988/dlr, ``src/models/sequence/ss/standalone/dss.py``.
    """
    where = "dlr_from_official"
    Lambda, W = (_get(where, arrays, name) for name in ("Lambda", "W"))
    if Lambda.ndim != 1 or W.ndim != 3:
        raise ValueError(
            f"{where}: 'Lambda' must have shape (N,) and 'W' (1, H, N), or (2, H, N) if "
            f"bidirectional; got {Lambda.shape} and {W.shape}."
        )
    layer = _empty(
        DLR,
        dtype,
        d_model=W.shape[1],
        d_state=len(Lambda),
        bidirectional=bidirectional,
        version=version,
        kernel_to_real=kernel_to_real,
        l_kernel=l_kernel,
        algorithm=algorithm,
    )
    parameters = {
        "real part of Lambda": (_raw(where, Lambda.real, version), layer.raw_Lambda_re),
        "imaginary part of Lambda": (Lambda.imag, layer.Lambda_im),
        "W": (W, layer.W),
        "D": (np.ravel(arrays.get("D", np.zeros(layer.d_model))), layer.D),
    }
    if layer.log_step is not None:
        parameters["log_dt"] = (_get(where, arrays, "log_dt"), layer.log_step)
    _fill(where, parameters, dtype)
    return layer


def _raw(where: str, re: np.ndarray, version: Version) -> np.ndarray:
    """Parameter from which the version computes these real parts of Lambda."""
    if version == "dss_softmax":
        return re
    if (re > 0).any() or (version == "dss_exp" and (re == 0).any()):
        raise ValueError(
            f"{where}: the real parts of 'Lambda' must not be positive in version {version!r}, and "
            f"must be negative in 'dss_exp'; got values up to {re.max()}."
        )
    return np.sqrt(-re) if version == "dlr" else np.log(-re)
