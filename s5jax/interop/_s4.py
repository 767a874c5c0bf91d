"""Layers from the weights of github.com/state-spaces/s4."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from s5jax._promotion import default_promotion
from s5jax.interop._s5 import _empty, _fill, _get
from s5jax.layers import S4, S4D
from s5jax.layers._feature_ssm import Transform, invert
from s5jax.layers._kernel import KernelOrScan
from s5jax.layers._s4 import S4Algorithm
from s5jax.layers._s5 import Discretization


@default_promotion
def s4d_from_official(
    arrays: Mapping[str, ArrayLike],
    *,
    n_ssm: int | None = None,
    bidirectional: bool = False,
    discretization: Discretization = "zoh",
    dt_transform: Transform = "exp",
    real_transform: Transform = "exp",
    algorithm: KernelOrScan = "auto",
    dtype: DTypeLike = jnp.float32,
) -> S4D:
    """Builds an S4D layer from the weights of the official implementation.

    Args:
        arrays: ``dt`` of shape ``(H,)``, the step sizes; complex ``A`` and ``B`` of shape
            ``(H, N / 2)``, shared systems expanded; complex ``C`` of shape ``(1, H, N / 2)``
            (``(2, H, N / 2)`` if bidirectional, forward first); ``D`` of shape ``(H,)`` or
            ``(1, H)``, zero if it is missing, as in a bare kernel. Other names are ignored.
        n_ssm: number of different systems, H if omitted. Feature h uses the system h modulo
            ``n_ssm``.
        bidirectional: whether the layer also runs backward in time.
        discretization: ``"zoh"`` or ``"bilinear"``.
        dt_transform: ``"exp"`` or ``"softplus"``.
        real_transform: ``"exp"`` or ``"softplus"``.
        algorithm: see `s5jax.S4D`.
        dtype: dtype of the parameters and computations.

    Returns:
        The layer.

    Raises:
        ValueError: if an array is missing, its shape does not fit the others and the options, a
            step size or decay rate is not positive, or systems differ that should be shared.

    Example:
        >>> import numpy as np
        >>> from s5jax.interop import s4d_from_official
        >>> arrays = {"dt": np.full(2, 0.1), "A": np.full((2, 3), -0.5 + 1j)}
        >>> arrays |= {"B": np.ones((2, 3)) + 0j, "C": np.ones((1, 2, 3)) + 0j}
        >>> layer = s4d_from_official(arrays)
        >>> layer.d_model, layer.d_state
        (2, 6)

    References:
        https://github.com/state-spaces/s4, ``models/s4/s4.py``, ``SSMKernelDiag``.
    """
    where = "s4d_from_official"
    H, M = _sizes(where, arrays)
    layer = _empty(
        S4D,
        dtype,
        d_model=H,
        d_state=2 * M,
        n_ssm=n_ssm,
        bidirectional=bidirectional,
        discretization=discretization,
        dt_transform=dt_transform,
        real_transform=real_transform,
        algorithm=algorithm,
    )
    _fill_systems(where, arrays, layer, dtype)
    return layer


@default_promotion
def s4_from_official(
    arrays: Mapping[str, ArrayLike],
    *,
    n_ssm: int | None = None,
    bidirectional: bool = False,
    dt_transform: Transform = "exp",
    real_transform: Transform = "exp",
    algorithm: S4Algorithm = "auto",
    dtype: DTypeLike = jnp.float32,
) -> S4:
    r"""Builds an S4 layer from the weights of the official implementation.

    The official parameter is not C but :math:`\tilde C = (I - \bar A^l)^\top C`, for a kernel of l
    lags. If ``arrays`` has no ``C``, it is recovered from ``C_tilde`` in float64. This is
    ill-conditioned if modes have hardly decayed after l steps.

    Args:
        arrays: arrays of `s4d_from_official`, and complex ``P`` of shape ``(R, H, N / 2)``. Instead
            of ``C`` there may be ``C_tilde`` of the same shape with ``l_kernel``, the official
            internal length.
        n_ssm: number of different systems, H if omitted. Feature h uses the system h modulo
            ``n_ssm``.
        bidirectional: whether the layer also runs backward in time.
        dt_transform: ``"exp"`` or ``"softplus"``.
        real_transform: ``"exp"`` or ``"softplus"``.
        algorithm: see `s5jax.S4`.
        dtype: dtype of the parameters and computations.

    Returns:
        The layer.

    Raises:
        ValueError: if an array is missing, its shape does not fit the others and the options, the
            rank is neither 1 nor 2, a step size or decay rate is not positive, or systems differ
            that should be shared.

    Example:
        >>> import numpy as np
        >>> from s5jax.interop import s4_from_official
        >>> arrays = {"dt": np.full(2, 0.1), "A": np.full((2, 3), -0.5 + 1j)}
        >>> arrays |= {"B": np.ones((2, 3)) + 0j, "C": np.ones((1, 2, 3)) + 0j}
        >>> layer = s4_from_official(arrays | {"P": np.ones((1, 2, 3)) + 0j})
        >>> layer.d_model, layer.d_state
        (2, 6)

    References:
        https://github.com/state-spaces/s4, ``models/s4/s4.py``, ``SSMKernelDPLR``.
    """
    where = "s4_from_official"
    H, M = _sizes(where, arrays)
    P = _get(where, arrays, "P")
    if P.ndim != 3 or len(P) not in (1, 2):
        raise ValueError(f"{where}: 'P' must have shape (1 or 2, H, N / 2); got {P.shape}.")
    layer = _empty(
        S4,
        dtype,
        d_model=H,
        d_state=2 * M,
        n_ssm=n_ssm,
        bidirectional=bidirectional,
        init="legs" if len(P) == 1 else "legt",
        dt_transform=dt_transform,
        real_transform=real_transform,
        algorithm=algorithm,
    )
    if "C" not in arrays:
        arrays = {**arrays, "C": _untruncated(where, arrays)}
    _fill_systems(where, arrays, layer, dtype)
    P = _shared(where, "P", np.moveaxis(P, 0, 1), len(layer.raw_decay))
    _fill(where, {"P": (P, layer.P)}, dtype)
    return layer


@default_promotion
def s4d_minimal_from_official(
    arrays: Mapping[str, ArrayLike], *, dtype: DTypeLike = jnp.float32
) -> S4D:
    """Builds an S4D layer from the weights of the official minimal layer.

    Args:
        arrays: ``log_dt`` of shape ``(H,)``; ``log_A_real``, ``A_imag`` and complex ``C`` of shape
            ``(H, N / 2)``; ``D`` of shape ``(H,)``. Other names are ignored.
        dtype: dtype of the parameters and computations.

    Returns:
        The layer.

    Raises:
        ValueError: if an array is missing or its shape does not fit the others.

    Example:
        >>> import numpy as np
        >>> from s5jax.interop import s4d_minimal_from_official
        >>> arrays = {"log_dt": np.zeros(2), "log_A_real": np.zeros((2, 3)), "D": np.ones(2)}
        >>> arrays |= {"A_imag": np.ones((2, 3)), "C": np.ones((2, 3)) + 0j}
        >>> s4d_minimal_from_official(arrays).d_state
        6

    References:
        https://github.com/state-spaces/s4, ``models/s4/s4d.py``.
    """
    log_dt, decay, imag, C, D = (
        _get("s4d_minimal_from_official", arrays, name)
        for name in ("log_dt", "log_A_real", "A_imag", "C", "D")
    )
    A = -np.exp(decay) + 1j * imag
    expanded = {"dt": np.exp(log_dt), "A": A, "B": np.ones_like(A), "C": C[None], "D": D}
    return s4d_from_official(expanded, dtype=dtype)


def _sizes(where: str, arrays: Mapping[str, ArrayLike]) -> tuple[int, int]:
    A = _get(where, arrays, "A")
    if A.ndim != 2:
        raise ValueError(f"{where}: 'A' must have shape (H, N / 2); got {A.shape}.")
    return A.shape[0], A.shape[1]


def _fill_systems(
    where: str, arrays: Mapping[str, ArrayLike], layer: S4 | S4D, dtype: DTypeLike
) -> None:
    """Sets the parameters that S4 and S4D share."""
    dt, A, B = (_get(where, arrays, name) for name in ("dt", "A", "B"))
    if (dt <= 0).any() or (A.real >= 0).any():
        raise ValueError(f"{where}: 'dt' must be positive and the real parts of 'A' negative.")
    S = len(layer.raw_decay)
    A, B = _shared(where, "A", A, S), _shared(where, "B", B, S)
    parameters = {
        "dt": (invert(layer.dt_transform, dt), layer.raw_step),
        "C": (_get(where, arrays, "C"), layer.C),
        "D": (np.ravel(arrays.get("D", np.zeros(layer.d_model))), layer.D),
        "real part of A": (invert(layer.real_transform, -A.real), layer.raw_decay),
        "imaginary part of A": (A.imag, layer.Lambda_im),
        "B": (B, layer.B),
    }
    _fill(where, parameters, dtype)


def _shared(where: str, name: str, value: np.ndarray, S: int) -> np.ndarray:
    """First S systems of an array in which they repeat."""
    copies = np.concatenate([value[:S]] * (len(value) // S))
    if copies.shape != value.shape or not np.allclose(copies, value, rtol=1e-6):
        raise ValueError(
            f"{where}: with `n_ssm` {S} the features h and h + {S} share a system, but they "
            f"differ in {name!r}."
        )
    return value[:S]


def _untruncated(where: str, arrays: Mapping[str, ArrayLike]) -> np.ndarray:
    r"""Solves :math:`\tilde C = (I - \bar A^l)^\top C` for C, in real and imaginary parts."""
    dt, A, P, C, l = (_get(where, arrays, name) for name in ("dt", "A", "P", "C_tilde", "l_kernel"))
    M = A.shape[-1]
    own = A[..., None] * np.eye(M) - np.einsum("rhi,rhj->hij", P, P.conj())
    conjugate = -np.einsum("rhi,rhj->hij", P, P)
    of_re, of_im = own + conjugate, 1j * (own - conjugate)
    A = np.block([[of_re.real, of_im.real], [of_re.imag, of_im.imag]])
    I, half = np.eye(2 * M), dt[:, None, None] / 2
    A_bar = np.linalg.solve(I - half * A, I + half * A)
    left = np.swapaxes(I - np.linalg.matrix_power(A_bar, int(l)), -1, -2)
    C = np.linalg.solve(left, np.concatenate([C.real, -C.imag], -1)[..., None])[..., 0]
    return C[..., :M] - 1j * C[..., M:]
