import jax
import numpy as np
import pytest

from s5jax.init import dlr_eigenvalues, dss_eigenvalues, hippo

KEY = jax.random.key(0)


@pytest.mark.parametrize(("dtype", "result"), [("float32", "complex64"), ("float64", "complex128")])
@jax.enable_x64(True)
def test_dlr_lies_just_inside_the_roots_of_unity(dtype, result):
    N = 4096
    Lambda = np.asarray(dlr_eigenvalues(KEY, N, 1e-4, 1e-1, dtype=dtype))
    assert Lambda.dtype == result
    np.testing.assert_allclose(np.exp(1j * Lambda.imag) ** N, 1, atol=1e-2)
    log_dt = np.log(-2 * Lambda.real)
    counts, _ = np.histogram(log_dt, bins=3, range=(np.log(1e-4) - 1e-5, np.log(1e-1) + 1e-5))
    assert counts.sum() == N
    np.testing.assert_allclose(counts / N, 1 / 3, atol=0.03)


def test_dss_hippo_has_the_frequencies_of_the_skew_part():
    N = 6
    A, _ = hippo("legs", 2 * N)
    Lambda = dss_eigenvalues("hippo", N)
    expected = np.linalg.eigvals((A - A.T) / 2).imag
    np.testing.assert_allclose(Lambda.imag, np.sort(expected)[: N - 1 : -1], rtol=1e-10)
    np.testing.assert_array_equal(Lambda.real, -0.5)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="dlr_eigenvalues: `N` must be a positive integer; got 0"):
        dlr_eigenvalues(KEY, 0, 0.1, 0.1)
    with pytest.raises(ValueError, match="0 < `dt_min` <= `dt_max`; got 0 and 1"):
        dlr_eigenvalues(KEY, 4, 0, 1)
    with pytest.raises(ValueError, match="dss_eigenvalues: `N` must be a positive integer; got 0"):
        dss_eigenvalues("lin", 0)
    with pytest.raises(ValueError, match=r"`method` must be one of 'lin', 'hippo'; got 'lni'"):
        dss_eigenvalues("lni", 4)
