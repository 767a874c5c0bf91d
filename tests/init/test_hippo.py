import numpy as np
import pytest

from s5jax.init import hippo, hippo_rank_correction

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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: hippo("fouriar", 4),
            r"hippo: `measure` must be one of 'legs', .*; got 'fouriar'.*'fourier'\?",
        ),
        (lambda: hippo("legs", 0), "hippo: `N` must be a positive integer; got 0"),
        (lambda: hippo("fourier", 5), r"hippo: `N` must be even for 'fourier'.*got 5. Use 6"),
        (lambda: hippo_rank_correction("x", 4), "hippo_rank_correction: `measure`"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
