import numpy as np
import pytest

from s5jax.init import block_diagonal_hippo, dplr_hippo, hippo, hippo_rank_correction, nplr, s4d

MEASURES = ["legs", "legt", "lagt", "fourier", "fourier_diag", "legsd"]


def skew_defect(S):
    S = S - np.mean(np.diag(S)) * np.eye(len(S))
    return np.abs(S + S.T).max()


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("N", [2, 6, 64])
def test_rank_correction_makes_the_matrix_normal(measure, N):
    A, B = hippo(measure, N)
    P = hippo_rank_correction(measure, N)
    assert A.shape == (N, N)
    assert B.shape == (N,)
    assert P.shape == (2 if measure == "legt" else 1, N)
    assert A.dtype == B.dtype == P.dtype == np.float64
    assert skew_defect(A + P.T @ P) < 1e-12 * np.abs(A).max()


@pytest.mark.parametrize("measure", ["legs", "legt", "lagt", "fourier"])
def test_memories_are_stable(measure):
    A, _ = hippo(measure, 16)
    assert np.linalg.eigvals(A).real.max() < 1e-9


def test_legs_remembers_legendre_coefficients():
    """A constant input is a multiple of the first polynomial: A e_0 + B = 0."""
    A, B = hippo("legs", 8)
    np.testing.assert_allclose(A[:, 0] + B, 0, atol=1e-14)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("N", [2, 16, 64])
def test_nplr_gives_the_matrix_back(measure, N):
    A, B_dense = hippo(measure, N)
    P_dense = hippo_rank_correction(measure, N)
    Lambda, P, B, V = nplr(measure, N, B_clip=None)
    scale = np.abs(A).max()
    S = 2 * np.real(V * Lambda @ V.conj().T)
    np.testing.assert_allclose(S, A + P_dense.T @ P_dense, atol=1e-12 * scale)
    np.testing.assert_allclose(V.conj().T @ V, np.eye(N // 2), atol=1e-12)
    np.testing.assert_allclose(2 * np.real(V @ B), B_dense, atol=1e-12 * scale)
    np.testing.assert_allclose(2 * np.real(V @ P.T).T, P_dense, atol=1e-12 * scale)
    np.testing.assert_allclose(V[0].imag, 0, atol=1e-14)
    assert (Lambda.imag <= 0).all()
    assert (np.diff(Lambda.imag) >= 0).all()


def test_nplr_clips_the_imaginary_part_of_B():
    _, _, exact, _ = nplr("legs", 16, B_clip=None)
    _, _, B, _ = nplr("legs", 16)
    np.testing.assert_array_equal(B.real, exact.real)
    np.testing.assert_array_equal(B.imag, np.clip(exact.imag, -2, 2))
    assert np.sum(B != exact) == 3


@pytest.mark.parametrize("N", [1, 5, 16])
def test_dplr_gives_the_matrix_back(N):
    A, B_dense = hippo("legs", N)
    Lambda, P, B, V = dplr_hippo(N)
    dense = V @ (np.diag(Lambda) - np.outer(P, P.conj())) @ V.conj().T
    np.testing.assert_allclose(dense, A, atol=1e-12 * N**2)
    np.testing.assert_allclose(V @ B, B_dense, atol=1e-12 * N)
    np.testing.assert_allclose(Lambda.real, -0.5)


@pytest.mark.parametrize("conj_sym", [True, False])
@pytest.mark.parametrize(("d_state", "n_blocks"), [(8, 1), (24, 3), (256, 8)])
def test_blocks_give_the_normal_parts_back(d_state, n_blocks, conj_sym):
    Lambda, V, V_inv = block_diagonal_hippo(d_state, n_blocks, conj_sym=conj_sym)
    P = d_state // 2 if conj_sym else d_state
    assert Lambda.shape == (P,)
    assert V.shape == V_inv.shape[::-1] == (d_state, P)
    np.testing.assert_allclose(V_inv @ V, np.eye(P), atol=1e-12)
    N = d_state // n_blocks
    A, _ = hippo("legs", N)
    block = A + np.outer(*2 * [hippo_rank_correction("legs", N)[0]])
    dense = V * Lambda @ V_inv
    dense = 2 * dense.real if conj_sym else dense
    np.testing.assert_allclose(dense, np.kron(np.eye(n_blocks), block), atol=1e-10)


def test_s4d_scales_and_normalises():
    Lambda, B = s4d("lin", 8)
    scaled, B_scaled = s4d("lin", 8, real_scale=2, imag_scale=3, B_scale=5)
    np.testing.assert_allclose(scaled, 2 * Lambda.real + 3j * Lambda.imag)
    np.testing.assert_allclose(B_scaled, 5 * B)
    Lambda, B = s4d("inv", 8, normalize=True)
    assert 2 * np.sum(np.abs(B / Lambda) ** 2) == pytest.approx(1)


@pytest.mark.parametrize("method", ["legs", "lin", "inv", "inv2", "quad", "real"])
def test_s4d_is_stable(method):
    Lambda, B = s4d(method, 32)
    assert Lambda.shape == B.shape == (16,)
    assert (Lambda.real < 0).all()
    assert np.isfinite(B).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: hippo("fouriar", 4),
            r"hippo: `measure` must be one of 'legs', .*; got 'fouriar'.*'fourier'\?",
        ),
        (lambda: hippo("legs", 0), "hippo: `N` must be a positive integer; got 0"),
        (lambda: hippo("fourier", 5), r"hippo: `N` must be even for 'fourier'.*got 5, use 6"),
        (lambda: hippo_rank_correction("x", 4), "hippo_rank_correction: `measure`"),
        (lambda: nplr("legs", 5), "nplr: `N` must be even.*got 5, use 6"),
        (lambda: nplr("legz", 4), "`measure` must be one of.*'legs'"),
        (lambda: dplr_hippo(0), "`N` must be a positive integer"),
        (
            lambda: block_diagonal_hippo(24, 5),
            "`d_state` must be a multiple of `n_blocks`; got 24 and 5",
        ),
        (lambda: block_diagonal_hippo(0), "`d_state` must be a positive integer; got 0"),
        (
            lambda: block_diagonal_hippo(6, 2),
            r"even number of states; got `d_state` 6.*that is 3 a block",
        ),
        (lambda: s4d("lni", 4), r"s4d: `method` must be one of.*'lin'\?"),
        (lambda: s4d("lin", 4, B_init="one"), "s4d: `B_init` must be one of 'constant'"),
        (lambda: s4d("lin", 5), "s4d: `N` must be even"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
