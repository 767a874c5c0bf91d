import jax
import numpy as np
import pytest

from s5jax.init import block_diagonal_hippo, log_uniform_step, s5_input_matrix, s5_output_matrix

H, D_STATE, BLOCKS = 300, 64, 4
KEY = jax.random.key(0)


def standard_deviations(Z):
    return np.std(Z.real), np.std(Z.imag)


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
    assert log_uniform_step(KEY, (2,), 0.1, 0.2, dtype=dtype).dtype == dtype


def test_steps_are_equally_likely_at_every_scale():
    log_step = np.asarray(log_uniform_step(KEY, (20_000,), 1e-4, 1e-1))
    counts, _ = np.histogram(log_step, bins=3, range=(np.log(1e-4), np.log(1e-1)))
    assert counts.sum() == log_step.size
    np.testing.assert_allclose(counts / log_step.size, 1 / 3, atol=0.02)


def test_equal_bounds_give_one_step():
    np.testing.assert_allclose(np.exp(log_uniform_step(KEY, (5,), 0.01, 0.01)), 0.01, rtol=1e-6)


@pytest.mark.parametrize(
    ("dt_min", "dt_max"), [(0, 0.1), (-1, 0.1), (0.1, 0.01), (0.1, float("nan"))]
)
def test_bad_step_bounds_are_refused(dt_min, dt_max):
    with pytest.raises(ValueError, match="log_uniform_step: needs 0 < `dt_min` <= `dt_max`; got"):
        log_uniform_step(KEY, (5,), dt_min, dt_max)


def test_unknown_C_init_is_refused():
    _, V, _ = block_diagonal_hippo(8)
    with pytest.raises(
        ValueError, match=r"`C_init` must be one of.*Did you mean 'complex_normal'\?"
    ):
        s5_output_matrix(KEY, V, 3, C_init="complex_norm")
