"""From convolution to recurrence: small state spaces for given responses, on the host."""

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float64

from s5jax._errors import check_positive
from s5jax._promotion import default_promotion
from s5jax.ops._state_space import StateSpace

_DENSE = 512
"""Largest Hankel matrix that is decomposed as a whole."""

_TOLERANCE = 1e-12
"""Error of the singular values that Lanczos stops at, and size of those that count as zero."""


@default_promotion
def hankel_singular_values(kernel: ArrayLike, order: int) -> Float64[np.ndarray, "H order"]:
    r"""The largest singular values of the Hankel matrix of each feature's kernel.

    .. math:: \mathcal{H}_{ij} = K_{i+j}, \qquad K_l = 0 \text{ for } l \ge L

    They say how small a recurrence can be: no state space of r states has a kernel whose frequency
    response is everywhere nearer to that of K than :math:`\sigma_{r+1}`, and that of `ho_kalman`
    is within :math:`2 \sum_{k > r} \sigma_k`.

    The matrix is symmetric, and its largest eigenvalues come from Lanczos iterations, whose
    products with it are convolutions by FFT, in float64 by NumPy. From 513 lags on, a singular
    value that occurs more than once may be counted once.

    Args:
        kernel: lags 0 to ``L - 1``, ``(L, H)``.
        order: how many, at most L.

    Returns:
        ``(H, order)``, the largest first.

    Raises:
        ValueError: if the shape is wrong or ``order`` is not between 1 and L.

    Example:
        >>> import numpy as np
        >>> from s5jax.ops import hankel_singular_values
        >>> K = 0.5 ** np.arange(40)[:, None]
        >>> print(hankel_singular_values(K, 2).round(4))
        [[1.3333 0.    ]]

    References:
        Antoulas, "Approximation of Large-Scale Dynamical Systems", 2005, chapters 5 and 7.
    """
    K = _check_kernel("hankel_singular_values", kernel, order)
    return np.stack([np.abs(_eigenpairs(k, order)[0]) for k in K.T])


@default_promotion
def ho_kalman(kernel: ArrayLike, order: int) -> StateSpace:
    r"""A small state space for each feature, whose response is close to a given kernel.

    .. math:: K_l \approx C A^l B, \qquad
              A = \Sigma^{-1/2} U^\top J U \Sigma^{1/2}, \quad
              B = \Sigma^{1/2} S U_0^\top, \quad C = U_0 \Sigma^{1/2}

    with the ``order`` largest eigenvalues :math:`S \Sigma` of the Hankel matrix of
    `hankel_singular_values`, signs S apart, their vectors U, of which :math:`U_0` is the first row,
    and J, which moves the rows up by one. This is the balanced truncation of the convolution with
    the kernel: stable, and exact if the kernel has that order and has decayed at its end.

    Args:
        kernel: lags 0 to ``L - 1``, ``(L, H)``.
        order: number of states of each feature, at most L. States that the kernel has no use for
            are zero.

    Returns:
        ``A`` of shape ``(H, order, order)``, ``B`` of shape ``(H, order, 1)``, ``C`` of shape
        ``(H, 1, order)`` and ``D``, zero, of shape ``(H, 1, 1)``, in float64 by NumPy.

    Raises:
        ValueError: if the shape is wrong or ``order`` is not between 1 and L.

    Example:
        >>> import numpy as np
        >>> from s5jax.ops import ho_kalman
        >>> A, B, C, D = ho_kalman(3 * 0.5 ** np.arange(60)[:, None], 1)
        >>> print(A.round(6), (C @ B).round(6))
        [[[0.5]]] [[[3.]]]

    References:
        Ho and Kalman, "Effective Construction of Linear State-Variable Models from Input/Output
        Functions", 1966.
    """
    K = _check_kernel("ho_kalman", kernel, order)
    A, B, C = (np.stack(v) for v in zip(*(_realize(k, order) for k in K.T), strict=True))
    return StateSpace(A, B, C, np.zeros((len(A), 1, 1)))


@default_promotion
def balanced_truncation(ssm: StateSpace, order: int) -> tuple[StateSpace, float]:
    r"""The most reachable and observable states of a stable state space.

    In coordinates in which the Gramians :math:`P = \sum_k A^k B B^\top A^{k\top}` and
    :math:`Q = \sum_k A^{k\top} C^\top C A^k` are one diagonal matrix of Hankel singular values, the
    states of the smallest ones are left out. With :math:`G(z) = \sum_l K_l z^{-l}`,

    .. math:: \max_{|z| = 1} \lVert G(z) - G_r(z) \rVert_2 \le 2 \sum_{k > r} \sigma_k

    so that the errors of all outputs together, squared and summed over time, are at most the square
    of this bound times those of the inputs.

    Args:
        ssm: the state space, such as ``layer.to_ssm()``, with N states.
        order: number of states to keep, at most N. States that are not needed are zero.

    Returns:
        The reduced state space, in float64 by NumPy, with the same ``D``; and the bound.

    Raises:
        ValueError: if ``order`` is not between 1 and N, or an eigenvalue of A is not inside the
            unit circle.

    Example:
        >>> import numpy as np
        >>> from s5jax.ops import StateSpace, balanced_truncation
        >>> B = np.array([[1.0], [0.01]])
        >>> ssm = StateSpace(np.diag([0.9, 0.1]), B, B.T, np.zeros((1, 1)))
        >>> reduced, bound = balanced_truncation(ssm, 1)
        >>> reduced.A.shape, f"{bound:.4f}"
        ((1, 1), '0.0002')

    References:
        Antoulas, "Approximation of Large-Scale Dynamical Systems", 2005, chapter 7.
    """
    A, B, C, D = (np.asarray(v, np.float64) for v in ssm)
    _check_order("balanced_truncation", order, len(A), "the number of states")
    radius = np.abs(np.linalg.eigvals(A)).max()
    if radius >= 1:
        raise ValueError(
            "balanced_truncation: `ssm` must be stable, with all eigenvalues of A inside the unit "
            f"circle; got one of size {radius:.6g}. Keep it away from there, such as with "
            "`clip_eigs=True` in S5."
        )
    reach, observe = _gramian_root(A, B), _gramian_root(A.T, C.T)
    U, sigma, Vt = np.linalg.svd(observe.T @ reach)
    root = _inverse_root(sigma)[:order]
    left, right = root[:, None] * (observe @ U[:, :order]).T, reach @ Vt[:order].T * root
    return StateSpace(left @ A @ right, left @ B, C @ right, D), 2 * float(sigma[order:].sum())


def _realize(k: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    eigenvalues, U = _eigenpairs(k, order)
    sigma = np.abs(eigenvalues)
    root, inverse = np.sqrt(sigma), _inverse_root(sigma)
    root = np.where(inverse > 0, root, 0)
    A = inverse[:, None] * (U[:-1].T @ U[1:]) * root
    return A, (root * np.sign(eigenvalues) * U[0])[:, None], (U[0] * root)[None]


def _inverse_root(sigma: np.ndarray) -> np.ndarray:
    r""":math:`\Sigma^{-1/2}`, zero where nothing is left to invert."""
    kept = sigma > _TOLERANCE * sigma[0]
    return np.where(kept, np.where(kept, sigma, 1) ** -0.5, 0)


def _eigenpairs(k: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """The eigenvalues of the Hankel matrix of largest size, these first, and their vectors."""
    values, vectors = _dense(k) if len(k) <= _DENSE else _lanczos(k, order)
    top = np.argsort(-np.abs(values), kind="stable")[:order]
    return values[top], vectors[:, top]


def _dense(k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    lag = np.add.outer(np.arange(len(k)), np.arange(len(k)))
    return np.linalg.eigh(np.concatenate([k, np.zeros(len(k))])[lag])


def _lanczos(k: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Ritz pairs of which the ``order`` largest have converged; all vectors kept orthogonal."""
    L, n, rng = len(k), 2 * len(k), np.random.default_rng(0)
    transform = np.fft.rfft(k, n)
    size = np.abs(transform).max()  # of the matrix, at most
    w, check = rng.normal(size=L), min(L, 2 * order + 32)
    basis, diagonal, off = np.empty((check, L)), [], []
    for m in range(1, L + 1):
        w = _orthogonal(basis[: m - 1], w)
        v = basis[m - 1] = w / np.linalg.norm(w)
        w = np.fft.irfft(transform * np.conj(np.fft.rfft(v, n)), n)[:L]
        diagonal.append(v @ w)
        w = _orthogonal(basis[:m], w)
        off.append(np.linalg.norm(w))
        if off[-1] <= _TOLERANCE * size:  # nothing new from here: start again somewhere else
            off[-1], w = 0.0, rng.normal(size=L)
        if m == check:
            tridiagonal = np.diag(diagonal) + np.diag(off[:-1], 1) + np.diag(off[:-1], -1)
            values, vectors = np.linalg.eigh(tridiagonal)
            top = np.argsort(-np.abs(values), kind="stable")[:order]
            if (off[-1] * np.abs(vectors[-1, top])).max() <= _TOLERANCE * size:
                break
            check = min(L, check + check // 3)
            basis = np.concatenate([basis, np.empty((check - m, L))])
    return values, basis.T @ vectors


def _orthogonal(basis: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Twice is enough."""
    for _ in range(2):
        w = w - (basis @ w) @ basis
    return w


def _gramian_root(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    r"""R with :math:`R R^\top = \sum_k A^k B B^\top A^{k\top}`, the sum by doubling."""
    P, power = B @ B.T, A
    while np.linalg.norm(power) > 1e-20:
        P = P + power @ P @ power.T
        power = power @ power
    values, vectors = np.linalg.eigh(P)
    return vectors * np.sqrt(np.maximum(values, 0))


def _check_kernel(where: str, kernel: ArrayLike, order: int) -> np.ndarray:
    K = np.asarray(kernel, np.float64)
    if K.ndim != 2 or 0 in K.shape:
        raise ValueError(f"{where}: `kernel` must have shape (L, H) with L, H >= 1; got {K.shape}.")
    _check_order(where, order, len(K), "the number of lags")
    return K


def _check_order(where: str, order: int, largest: int, what: str) -> None:
    (order,) = check_positive(where, order=order)
    if order > largest:
        raise ValueError(f"{where}: `order` must be at most {what}, {largest}; got {order}.")
