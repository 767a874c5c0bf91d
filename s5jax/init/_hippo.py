"""HiPPO state matrices: continuous-time memories that project the past onto a basis of functions.

The matrices are constants, computed on the host in float64. In float32 the eigenvectors that the
layers need would not be accurate enough.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

from s5jax._errors import check_choice, check_positive
from s5jax._promotion import default_promotion


@default_promotion
def hippo(measure: str, N: int) -> tuple[Float64[np.ndarray, "N N"], Float64[np.ndarray, " N"]]:
    r"""State and input matrix of a HiPPO memory.

    The state of :math:`\dot x = A x + B u` holds the coefficients of the past input in a basis of
    functions. With :math:`r_n = \sqrt{2n+1}`, the rotations :math:`S_{2m+1,2m} = \pi m =
    -S_{2m,2m+1}` and :math:`b = (1, 0, \sqrt{2}, 0, \sqrt{2}, \ldots)`, the measures are:

    - ``"legs"``: Legendre polynomials on an exponentially warped axis, all of the past;
      :math:`A_{nk} = -r_n r_k` for n > k, :math:`-(n+1)` for n = k, else 0; :math:`B_n = r_n`.
    - ``"legt"``: Legendre polynomials on a sliding window; :math:`A_{nk} = -\tfrac{1}{2} r_n r_k`,
      times :math:`(-1)^{n-k}` for n < k; :math:`B_n = \tfrac{1}{2} r_n`.
    - ``"lagt"``: Laguerre functions; :math:`A_{nk} = -1` for n > k, :math:`-\tfrac{1}{2}` for
      n = k, else 0; :math:`B_n = 1`.
    - ``"fourier"``: a Fourier basis on a sliding window; :math:`A = S - b b^\top`, :math:`B = b`.
    - ``"fourier_diag"``: Fourier, decaying; :math:`A = 2S - \tfrac{1}{2} I`, :math:`B = b`.
    - ``"legsd"``: the normal part of LegS, :math:`A + \tfrac{1}{2} B B^\top`, with half its B.

    Args:
        measure: one of the names above.
        N: number of states; even for the two Fourier measures.

    Returns:
        ``A`` of shape ``(N, N)`` and ``B`` of shape ``(N,)``.

    Raises:
        ValueError: if the measure is unknown, or ``N`` is not positive, or odd where it must be
            even.

    Example:
        >>> from s5jax.init import hippo
        >>> A, B = hippo("lagt", 3)
        >>> print(A)
        [[-0.5  0.   0. ]
         [-1.  -0.5  0. ]
         [-1.  -1.  -0.5]]

    References:
        Gu et al., "How to Train Your HiPPO", 2022, https://arxiv.org/abs/2206.12037.
    """
    N = _check("hippo", measure, N)
    return _TRANSITIONS[measure](N)


@default_promotion
def hippo_rank_correction(measure: str, N: int) -> Float64[np.ndarray, "R N"]:
    r"""Low-rank term whose addition makes a HiPPO matrix normal.

    .. math:: A + \sum_r P_r P_r^\top = -c I + S, \qquad S^\top = -S

    The sum has orthonormal eigenvectors, while ``A`` itself cannot be diagonalised accurately.

    Args:
        measure: as in `hippo`.
        N: number of states, as in `hippo`.

    Returns:
        ``P`` of shape ``(R, N)``, where R is 2 for ``"legt"`` and 1 otherwise. ``P`` is zero if
        ``A`` is already normal.

    Raises:
        ValueError: as in `hippo`.

    Example:
        >>> import numpy as np
        >>> from s5jax.init import hippo, hippo_rank_correction
        >>> A, _ = hippo("legs", 4)
        >>> P = hippo_rank_correction("legs", 4)
        >>> S = A + P.T @ P + np.eye(4) / 2
        >>> print(np.abs(S + S.T).max() < 1e-14)
        True

    References:
        Gu et al., "Structured State Spaces" (S4), 2022, https://arxiv.org/abs/2111.00396.
    """
    N = _check("hippo_rank_correction", measure, N)
    n = np.arange(N)
    match measure:
        case "legs":
            return np.sqrt(n + 0.5)[None]
        case "legt":
            return np.sqrt(n + 0.5) * np.stack([n % 2 == 1, n % 2 == 0])
        case "lagt":
            return np.full((1, N), np.sqrt(0.5))
        case "fourier":
            return _fourier(N)[1][None]
        case _:
            return np.zeros((1, N))


def _legs(N: int) -> tuple[np.ndarray, np.ndarray]:
    r = np.sqrt(2 * np.arange(N) + 1)
    return -np.tril(np.outer(r, r), -1) - np.diag(np.arange(N) + 1.0), r


def _legt(N: int) -> tuple[np.ndarray, np.ndarray]:
    n = np.arange(N)
    r = np.sqrt(2 * n + 1)
    sign = np.where(n[:, None] >= n, 1, (-1.0) ** (n[:, None] - n))
    return -np.outer(r, r) * sign / 2, r / 2


def _lagt(N: int) -> tuple[np.ndarray, np.ndarray]:
    return np.eye(N) / 2 - np.tril(np.ones((N, N))), np.ones(N)


def _rotations(N: int) -> tuple[np.ndarray, np.ndarray]:
    frequencies = np.zeros(N - 1)
    frequencies[::2] = np.pi * np.arange(N // 2)
    b = np.where(np.arange(N) % 2 == 0, np.sqrt(2.0), 0.0)
    b[0] = 1
    return np.diag(frequencies, -1) - np.diag(frequencies, 1), b


def _fourier(N: int) -> tuple[np.ndarray, np.ndarray]:
    S, b = _rotations(N)
    return S - np.outer(b, b), b


def _fourier_diag(N: int) -> tuple[np.ndarray, np.ndarray]:
    S, b = _rotations(N)
    return 2 * S - np.eye(N) / 2, b


def _legsd(N: int) -> tuple[np.ndarray, np.ndarray]:
    A, B = _legs(N)
    return A + np.outer(B, B) / 2, B / 2


_TRANSITIONS: dict[str, Callable[[int], tuple[np.ndarray, np.ndarray]]] = {
    "legs": _legs,
    "legt": _legt,
    "lagt": _lagt,
    "fourier": _fourier,
    "fourier_diag": _fourier_diag,
    "legsd": _legsd,
}


def _check(function: str, measure: str, N: int) -> int:
    check_choice(function, "measure", measure, _TRANSITIONS)
    (N,) = check_positive(function, N=N)
    if measure.startswith("fourier") and N % 2:
        raise ValueError(
            f"{function}: `N` must be even for {measure!r}, whose states are pairs of a cosine and "
            f"a sine; got {N}. Use {N + 1}."
        )
    return N
