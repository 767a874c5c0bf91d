import jax
import numpy as np
import pytest

from s5jax.init import (
    block_diagonal_hippo,
    block_diagonal_random,
    s5_input_matrix,
    s5_output_matrix,
)

H, D_STATE, BLOCKS = 300, 64, 4
KEY = jax.random.key(0)


def standard_deviations(Z):
    return np.std(Z.real), np.std(Z.imag)


@pytest.mark.parametrize("conj_sym", [True, False])
def test_random_blocks_have_the_form_of_hippo_blocks(conj_sym):
    """Half of -I plus a skew-symmetric matrix in each block, in the eigenvectors' basis."""
    Lambda, V, V_inv = map(
        np.asarray, block_diagonal_random(KEY, D_STATE, BLOCKS, conj_sym=conj_sym)
    )
    hippo = block_diagonal_hippo(D_STATE, BLOCKS, conj_sym=conj_sym)
    assert (Lambda.shape, V.shape, V_inv.shape) == tuple(x.shape for x in hippo)
    np.testing.assert_allclose(V_inv @ V, np.eye(len(Lambda)), atol=1e-5)
    S = (2 if conj_sym else 1) * V @ np.diag(Lambda) @ V_inv
    if conj_sym:
        S = S.real
        assert (Lambda.imag < 0).all()
    np.testing.assert_allclose(S + S.conj().T, -np.eye(D_STATE), atol=1e-4)
    n = D_STATE // BLOCKS
    inside = np.kron(np.eye(BLOCKS), np.ones((n, n))) > 0
    assert np.abs(S[~inside]).max() == 0
    assert np.std((S + np.eye(D_STATE) / 2)[inside].real) == pytest.approx(1, abs=0.1)


def test_random_blocks_refuse_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="block_diagonal_random: `d_state` must be a multiple"):
        block_diagonal_random(KEY, 8, 3)


@pytest.mark.parametrize("conj_sym", [True, False])
def test_input_matrix(conj_sym):
    """V^-1 is (half of) a unitary change of basis of a real matrix of deviation 1/sqrt(d_state)."""
    _, _, V_inv = block_diagonal_hippo(D_STATE, BLOCKS, conj_sym=conj_sym)
    B = s5_input_matrix(KEY, V_inv, H)
    assert B.shape == (len(V_inv), H)
    assert B.dtype == np.complex64
    assert np.sqrt(np.mean(np.abs(B) ** 2)) == pytest.approx(D_STATE**-0.5, rel=0.02)


def test_input_matrix_is_real_in_the_original_basis():
    _, V, V_inv = block_diagonal_hippo(D_STATE, BLOCKS, conj_sym=False)
    B = V @ np.asarray(s5_input_matrix(KEY, V_inv, H))
    assert np.abs(B.imag).max() < 1e-5
    assert np.std(B.real) == pytest.approx(D_STATE**-0.5, rel=0.02)
    assert np.abs(B.real).max() < 2.5 * D_STATE**-0.5  # truncated


@pytest.mark.parametrize(
    ("C_init", "expected"),
    [
        ("trunc_standard_normal", D_STATE**-0.5),
        ("lecun_normal", (H * D_STATE) ** -0.5),
        ("complex_normal", 0.5**0.5),
    ],
)
def test_output_matrix(C_init, expected):
    _, V, _ = block_diagonal_hippo(D_STATE, BLOCKS)
    C = s5_output_matrix(KEY, V, H, C_init=C_init)
    assert C.shape == (H, V.shape[1])
    np.testing.assert_allclose(standard_deviations(C), expected, rtol=0.03)


@pytest.mark.parametrize(("dtype", "result"), [("float32", "complex64"), ("float64", "complex128")])
@jax.enable_x64(True)
def test_dtypes(dtype, result):
    _, V, V_inv = block_diagonal_hippo(8)
    assert s5_input_matrix(KEY, V_inv, 2, dtype=dtype).dtype == result
    assert s5_output_matrix(KEY, V, 2, dtype=dtype).dtype == result


def test_unknown_C_init_is_refused():
    _, V, _ = block_diagonal_hippo(8)
    with pytest.raises(
        ValueError, match=r"`C_init` must be one of.*Did you mean 'complex_normal'\?"
    ):
        s5_output_matrix(KEY, V, 3, C_init="complex_norm")
