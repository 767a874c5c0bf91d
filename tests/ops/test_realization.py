import numpy as np
import pytest

from s5jax.ops import StateSpace, balanced_truncation, hankel_singular_values, ho_kalman
from s5jax.ops import _realization as realization


def system(N, H=1, radius=0.9, seed=0):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(N, N))
    A *= radius / np.abs(np.linalg.eigvals(A)).max()
    return StateSpace(A, rng.normal(size=(N, H)), rng.normal(size=(H, N)), rng.normal(size=(H, H)))


def response(A, B, C, L):
    """Lags of C A^l B."""
    out = []
    for _ in range(L):
        out.append(C @ B)
        B = A @ B
    return np.stack(out)


def kernel(N, L, H=2):
    return np.stack([response(*system(N, seed=h)[:3], L)[:, 0, 0] for h in range(H)], -1)


def distance(K, K_r):
    """Largest difference of the frequency responses, on a fine grid."""
    return np.abs(np.fft.rfft(K - K_r, 8 * len(K), axis=0)).max(0)


def hankel(k):
    L = len(k)
    return np.array([[k[i + j] if i + j < L else 0 for j in range(L)] for i in range(L)])


@pytest.mark.parametrize("shape", ["random", "decaying", "rank 6", "delay"])
@pytest.mark.parametrize("dense", [True, False])
def test_singular_values_are_those_of_the_hankel_matrix(shape, dense, monkeypatch):
    rng = np.random.default_rng(0)
    K = {
        "random": rng.normal(size=(90, 2)),
        "decaying": rng.normal(size=(90, 2)) * 0.9 ** np.arange(90)[:, None],
        "rank 6": kernel(6, 400)[:90],
        "delay": np.eye(90)[:, [30, 31]],
    }[shape]
    if not dense:
        monkeypatch.setattr(realization, "_DENSE", 0)
    expected = np.stack([np.linalg.svd(hankel(k), compute_uv=False)[:20] for k in K.T])
    got = hankel_singular_values(K, 20)
    np.testing.assert_allclose(got, expected, atol=1e-10 * expected.max())


@pytest.mark.parametrize("L", [300, 700])
def test_a_system_of_low_order_is_recovered(L):
    K = kernel(5, L)
    A, B, C, _ = ho_kalman(K, 5)
    for h in range(2):
        np.testing.assert_allclose(response(A[h], B[h], C[h], L)[:, 0, 0], K[:, h], atol=1e-9)
        expected = np.linalg.eigvals(system(5, seed=h).A)
        np.testing.assert_allclose(
            np.sort_complex(np.linalg.eigvals(A[h])), np.sort_complex(expected), atol=1e-6
        )


def test_states_without_use_are_zero():
    K = kernel(3, 200)
    A, B, C, _ = ho_kalman(K, 8)
    np.testing.assert_allclose(response(A[0], B[0], C[0], 200)[:, 0, 0], K[:, 0], atol=1e-9)
    for zero in (0 * K, np.zeros((600, 2))):
        A, B, C, _ = ho_kalman(zero, 2)
        assert not any(v.any() for v in (A, B, C))


def test_long_kernels_give_all_values_and_the_same_again():
    K = np.eye(600)[:, [20]]
    np.testing.assert_allclose(hankel_singular_values(K, 600)[0], np.arange(600) <= 20, atol=1e-12)
    for first, again in zip(ho_kalman(K, 8), ho_kalman(K, 8), strict=True):
        np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("order", [1, 4, 12])
def test_realisation_is_stable_and_within_its_bound(order):
    rng = np.random.default_rng(1)
    K = rng.normal(size=(200, 2)) * 0.97 ** np.arange(200)[:, None]
    sigma = hankel_singular_values(K, 200)
    A, B, C, _ = ho_kalman(K, order)
    for h in range(2):
        assert np.abs(np.linalg.eigvals(A[h])).max() < 1
        K_r = response(A[h], B[h], C[h], 4000)[:, 0, 0]
        error = distance(np.pad(K[:, h], (0, 3800)), K_r)
        assert sigma[h, order] * (1 - 1e-3) <= error <= 2 * sigma[h, order:].sum()


@pytest.mark.parametrize("order", [2, 5, 9])
def test_truncation_is_within_its_bound(order):
    ssm = system(9, H=2)
    reduced, bound = balanced_truncation(ssm, order)
    assert reduced.A.shape == (order, order)
    K, K_r = (response(*s[:3], 600) for s in (ssm, reduced))
    gap = np.fft.rfft(K - K_r, 2048, axis=0)
    error = np.linalg.norm(gap, 2, axis=(1, 2)).max()
    assert error <= bound + 1e-10
    assert order == 9 or error > bound / 50
    np.testing.assert_array_equal(reduced.D, ssm.D)


def test_unreachable_states_are_left_out():
    ssm = system(4)
    A = np.block([[ssm.A, np.zeros((4, 3))], [np.zeros((3, 4)), np.eye(3) / 2]])
    large = StateSpace(
        A,
        np.pad(ssm.B, [(0, 3), (0, 0)]),
        np.pad(ssm.C, [(0, 0), (0, 3)], constant_values=1),
        ssm.D,
    )
    reduced, bound = balanced_truncation(large, 4)
    assert bound < 1e-6
    np.testing.assert_allclose(response(*reduced[:3], 99), response(*ssm[:3], 99), atol=1e-6)


def test_bad_arguments_are_refused():
    K = np.ones((5, 2))
    for call in (hankel_singular_values, ho_kalman):
        with pytest.raises(ValueError, match=rf"{call.__name__}: `kernel` must have .*got \(5,\)"):
            call(K[:, 0], 1)
        with pytest.raises(
            ValueError, match="`order` must be at most the number of lags, 5; got 6"
        ):
            call(K, 6)
        with pytest.raises(ValueError, match="`order` must be a positive integer; got 0"):
            call(K, 0)
    with pytest.raises(ValueError, match="must be at most the number of states, 3; got 4"):
        balanced_truncation(system(3), 4)
    with pytest.raises(ValueError, match=r"`ssm` must be stable.*got one of size 1\.01"):
        balanced_truncation(system(3, radius=1.01), 2)
