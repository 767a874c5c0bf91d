"""Small state spaces for given impulse responses, computed on the host."""

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float64

from s5jax._errors import check_positive
from s5jax._promotion import default_promotion
from s5jax.ops._state_space import StateSpace

_DENSE = 512
"""Size up to which a Hankel matrix is decomposed as a dense matrix."""

_TOLERANCE = 1e-12
"""Relative size up to which a singular value counts as zero."""


@default_promotion
def hankel_singular_values(kernel: ArrayLike, order: int) -> Float64[np.ndarray, "H order"]:
    r"""Largest singular values of the Hankel matrix of each feature's kernel.

    .. math:: \mathcal{H}_{ij} = K_{i+j}, \qquad K_l = 0 \text{ for } l \ge L

    The singular values tell how small a recurrence can be. The frequency response of every state
    space with r states differs from the frequency response of K by at least :math:`\sigma_{r+1}`
    at some frequency. With `ho_kalman` the difference is at most
    :math:`2 \sum_{k > r} \sigma_k`.

    The matrix is symmetric. Its largest eigenvalues come from Lanczos iterations in float64, with
    products by FFT. From 513 lags, a repeated singular value may be counted only once.

    Args:
        kernel: lags 0 to ``L - 1``, ``(L, H)``.
        order: number of singular values, at most L.

    Returns:
        Singular values, ``(H, order)``, largest first.

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
    r"""Builds a small state space for each feature, with a response close to a given kernel.

    .. math:: K_l \approx C A^l B, \qquad
              A = \Sigma^{-1/2} U^\top J U \Sigma^{1/2}, \quad
              B = \Sigma^{1/2} S U_0^\top, \quad C = U_0 \Sigma^{1/2}

    Here :math:`S \Sigma` are the ``order`` largest eigenvalues of the Hankel matrix of
    `hankel_singular_values`, as signs S and absolute values :math:`\Sigma`. The columns of U are
    their eigenvectors, and :math:`U_0` is its first row. J shifts the rows up by one. The result is
    the balanced truncation of the convolution with the kernel. It is stable, and exact if the
    kernel has this order and has decayed at its end.

    Args:
        kernel: lags 0 to ``L - 1``, ``(L, H)``.
        order: number of states per feature, at most L. States that the kernel does not need are
            zero.

    Returns:
        ``A`` of shape ``(H, order, order)``, ``B`` of shape ``(H, order, 1)``, ``C`` of shape
        ``(H, 1, order)`` and ``D``, zero, of shape ``(H, 1, 1)``, as NumPy arrays in float64.

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
    r"""Reduces a stable state space to its most reachable and observable states.

    In balanced coordinates the Gramians :math:`P = \sum_k A^k B B^\top A^{k\top}` and
    :math:`Q = \sum_k A^{k\top} C^\top C A^k` are the same diagonal matrix of Hankel singular
    values. The states with the smallest singular values are dropped. With
    :math:`G(z) = \sum_l K_l z^{-l}`,

    .. math:: \max_{|z| = 1} \lVert G(z) - G_r(z) \rVert_2 \le 2 \sum_{k > r} \sigma_k

    The squared errors of all outputs, summed over time, are therefore at most the square of this
    bound times the sum of the squared inputs.

    Args:
        ssm: the state space, such as ``layer.to_ssm()``, with N states.
        order: number of states to keep, at most N. States that are not needed are zero.

    Returns:
        The reduced state space, as NumPy arrays in float64, with the same ``D``; and the bound.

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
            f"circle; got one of size {radius:.6g}. Bound the eigenvalues, for example with "
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
    r"""Diagonal of :math:`\Sigma^{-1/2}`, zero for singular values that count as zero."""
    kept = sigma > _TOLERANCE * sigma[0]
    return np.where(kept, np.where(kept, sigma, 1) ** -0.5, 0)


def _eigenpairs(k: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of the Hankel matrix, largest absolute value first, and their eigenvectors."""
    if not k.any():
        return np.zeros(order), np.eye(len(k), order)
    dense = len(k) <= _DENSE or order == len(k)  # ARPACK does not return all eigenvalues
    values, vectors = _dense(k) if dense else _lanczos(k, order)
    largest = np.argsort(-np.abs(values), kind="stable")[:order]
    return values[largest], vectors[:, largest]


def _dense(k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    lag = np.add.outer(np.arange(len(k)), np.arange(len(k)))
    return np.linalg.eigh(np.concatenate([k, np.zeros(len(k))])[lag])


def _lanczos(k: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenpairs by ARPACK. The product with the matrix is a correlation with the kernel."""
    from scipy.sparse.linalg import LinearOperator, eigsh  # not above: SciPy takes time to import

    L, n, rng = len(k), 2 * len(k), np.random.default_rng(0)
    transform = np.fft.rfft(k, n)

    class Hankel(LinearOperator):
        def _matvec(self, x: np.ndarray) -> np.ndarray:
            return np.fft.irfft(transform * np.conj(np.fft.rfft(x.ravel(), n)), n)[:L]

    return eigsh(Hankel(k.dtype, (L, L)), order, v0=rng.normal(size=L), rng=rng)


def _gramian_root(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    r"""Matrix R with :math:`R R^\top = \sum_k A^k B B^\top A^{k\top}`, a sum formed by doubling."""
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
