"""HiPPO matrices in a basis where they are diagonal, or diagonal plus low rank (DPLR).

They are computed on the host in float64, once, when a layer is built.
"""

import numpy as np
from jaxtyping import Complex128

from s5jax._errors import check_positive
from s5jax._promotion import default_promotion
from s5jax.init._hippo import hippo, hippo_rank_correction


@default_promotion
def nplr(
    measure: str, N: int, *, B_clip: float | None = 2.0
) -> tuple[
    Complex128[np.ndarray, " M"],
    Complex128[np.ndarray, "R M"],
    Complex128[np.ndarray, " M"],
    Complex128[np.ndarray, "N M"],
]:
    r"""Normal plus low rank (NPLR) form of a HiPPO matrix: S4's initialisation.

    .. math::
        A + \sum_r P_r P_r^\top = V \Lambda V^* + \overline{V \Lambda V^*}, \qquad
        P \leftarrow V^* P, \quad B \leftarrow V^* B

    The function returns the eigenvalues with negative imaginary part, largest magnitude first. Each
    eigenvector is rotated until its first entry is real, because S4 clips the imaginary part of
    ``B`` in this basis. The clip is active for LegS, so the initial system is not exactly HiPPO.

    Args:
        measure: a measure of `hippo`.
        N: number of states, even.
        B_clip: bound on the imaginary part of ``B``; ``None`` for the exact ``B``.

    Returns:
        ``Lambda`` of shape ``(M,)`` with ``M = N / 2``, ``P`` of shape ``(R, M)``, ``B`` of shape
        ``(M,)`` and ``V`` of shape ``(N, M)``.

    Raises:
        ValueError: if the measure is unknown, or ``N`` is odd or not positive.

    Example:
        >>> from s5jax.init import nplr
        >>> Lambda, P, B, V = nplr("legs", 4)
        >>> print(Lambda.round(3))
        [-0.5-4.603j -0.5-0.557j]

    References:
        Gu et al., "Structured State Spaces" (S4), 2022, https://arxiv.org/abs/2111.00396.
    """
    N = check_even("nplr", N)
    _, B = hippo(measure, N)
    P = hippo_rank_correction(measure, N)
    Lambda, V = _eigen(measure, N)
    Lambda, V = Lambda[: N // 2], V[:, : N // 2]
    if measure.startswith("fourier"):
        # The pair of zero frequency is degenerate: any basis of its plane diagonalises the matrix.
        # This basis consists of two conjugate vectors.
        Lambda[-1] = Lambda[-1].real
        V[:, -1] = 0
        V[:2, -1] = np.array([1, 1j]) / np.sqrt(2)
    V = V * np.exp(-1j * np.angle(V[0]))
    V_inv = V.conj().T
    B = V_inv @ B
    if B_clip is not None:
        B = B.real + 1j * np.clip(B.imag, -B_clip, B_clip)
    return Lambda, P @ V_inv.T, B, V


@default_promotion
def dplr_hippo(
    N: int,
) -> tuple[
    Complex128[np.ndarray, " N"],
    Complex128[np.ndarray, " N"],
    Complex128[np.ndarray, " N"],
    Complex128[np.ndarray, "N N"],
]:
    r"""Diagonal plus low rank form of HiPPO-LegS with all N eigenvalues, as in S5.

    .. math:: A_{legs} = V (\Lambda - P P^*) V^*

    Args:
        N: number of states.

    Returns:
        ``Lambda`` of shape ``(N,)`` in ascending order of imaginary part, ``P`` and ``B`` of LegS
        multiplied by :math:`V^*`, of shape ``(N,)``, and ``V`` of shape ``(N, N)``, unitary.

    Raises:
        ValueError: if ``N`` is not positive.

    Example:
        >>> from s5jax.init import dplr_hippo
        >>> Lambda, P, B, V = dplr_hippo(2)
        >>> print(Lambda.round(3))
        [-0.5-0.866j -0.5+0.866j]

    References:
        Smith et al., "Simplified State Space Layers" (S5), 2023, https://arxiv.org/abs/2208.04933,
        appendix B.1.
    """
    _, B = hippo("legs", N)
    P = hippo_rank_correction("legs", N)
    Lambda, V = _eigen("legs", N)
    V_inv = V.conj().T
    return Lambda, V_inv @ P[0], V_inv @ B, V


@default_promotion
def block_diagonal_hippo(
    d_state: int, n_blocks: int = 1, *, conj_sym: bool = True
) -> tuple[
    Complex128[np.ndarray, " P"],
    Complex128[np.ndarray, "d_state P"],
    Complex128[np.ndarray, "P d_state"],
]:
    r"""Eigenvalues and eigenvectors of S5's initial state matrix, with blocks S of HiPPO-LegS.

    .. math:: \operatorname{blockdiag}(S, \ldots, S) = V \operatorname{diag}(\Lambda) V^{-1}

    Each block S is the normal part of HiPPO-LegS. With ``conj_sym`` only the eigenvalue with
    negative imaginary part of each conjugate pair is kept. ``V`` is then tall,
    :math:`V^{-1} V = I`, and the blocks are
    :math:`2 \operatorname{Re}(V \operatorname{diag}(\Lambda) V^{-1})`.

    Args:
        d_state: number of states in all blocks, before conjugates are dropped.
        n_blocks: number of blocks, a divisor of ``d_state``.
        conj_sym: whether to keep only one eigenvalue of each conjugate pair.

    Returns:
        ``Lambda`` of shape ``(P,)``, ``V`` of shape ``(d_state, P)`` and ``V_inv`` of shape
        ``(P, d_state)``, where ``P = d_state / 2`` with ``conj_sym``, else ``d_state``.

    Raises:
        ValueError: if ``d_state`` is not a positive multiple of ``n_blocks``, or blocks have an
            odd size with ``conj_sym``.

    Example:
        >>> from s5jax.init import block_diagonal_hippo
        >>> Lambda, V, V_inv = block_diagonal_hippo(8, 2)
        >>> print(Lambda.round(3), V.shape, V_inv.shape)
        [-0.5-4.603j -0.5-0.557j -0.5-4.603j -0.5-0.557j] (8, 4) (4, 8)

    References:
        Smith et al., "Simplified State Space Layers" (S5), 2023, https://arxiv.org/abs/2208.04933,
        appendix B.1.
    """
    N = block_size("block_diagonal_hippo", d_state, n_blocks, conj_sym=conj_sym)
    kept = N // 2 if conj_sym else N
    Lambda, V = _eigen("legs", N)
    I = np.eye(n_blocks)
    V = np.kron(I, V[:, :kept])
    return np.tile(Lambda[:kept], n_blocks), V, V.conj().T


def block_size(where: str, d_state: int, n_blocks: int, *, conj_sym: bool) -> int:
    """Returns the states of a block; raises a ValueError if the sizes do not fit."""
    sizes = {"d_state": d_state, "n_blocks": n_blocks}
    d_state, n_blocks = check_positive(where, **sizes)
    if d_state % n_blocks:
        raise ValueError(
            f"{where}: `d_state` must be a multiple of `n_blocks`; got {d_state} and {n_blocks}."
        )
    N = d_state // n_blocks
    if conj_sym and N % 2:
        raise ValueError(
            f"{where}: with `conj_sym` every block must have an even number of "
            f"states; got `d_state` {d_state} and `n_blocks` {n_blocks}, which is {N} per block. "
            "Change one of them, or use conj_sym=False."
        )
    return N


def check_even(where: str, N: int) -> int:
    """Returns N as a Python integer; raises a ValueError unless it is positive and even."""
    (N,) = check_positive(where, N=N)
    if N % 2:
        raise ValueError(
            f"{where}: `N` must be even, to keep one of each conjugate pair; got {N}. Use {N + 1}."
        )
    return N


def _eigen(
    measure: str, N: int
) -> tuple[Complex128[np.ndarray, " N"], Complex128[np.ndarray, "N N"]]:
    r"""Eigenvalues, by ascending imaginary part, and orthonormal eigenvectors of the normal part.

    The normal part is a multiple of the identity plus a skew-symmetric matrix K. The real parts of
    its eigenvalues are therefore known exactly, and :math:`-iK` is Hermitian.
    """
    A, _ = hippo(measure, N)
    P = hippo_rank_correction(measure, N)
    S = A + P.T @ P
    imaginary, V = np.linalg.eigh(-1j * (S - S.T) / 2)
    return np.mean(np.diag(S)) + 1j * imaginary, V
