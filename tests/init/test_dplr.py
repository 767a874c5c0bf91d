import numpy as np
import pytest

from s5jax.init import block_diagonal_hippo, dplr_hippo, hippo, hippo_rank_correction, nplr

MEASURES = ["legs", "legt", "lagt", "fourier", "fourier_diag", "legsd"]


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nplr("legs", 5), "nplr: `N` must be even.*got 5. Use 6"),
        (lambda: nplr("legz", 4), "`measure` must be one of.*'legs'"),
        (lambda: dplr_hippo(0), "`N` must be a positive integer"),
        (
            lambda: block_diagonal_hippo(24, 5),
            "`d_state` must be a multiple of `n_blocks`; got 24 and 5",
        ),
        (lambda: block_diagonal_hippo(0), "`d_state` must be a positive integer; got 0"),
        (
            lambda: block_diagonal_hippo(6, 2),
            r"even number of states; got `d_state` 6.*which is 3 per block",
        ),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
