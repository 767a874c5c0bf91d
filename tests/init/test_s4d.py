import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s5jax.init import s4d, s4d_dfout, s4d_random


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


def test_random_eigenvalues_are_stable_and_differ_between_systems():
    Lambda = np.asarray(s4d_random(jax.random.key(0), 500, 8))
    assert (Lambda.real <= 0).all()
    assert (Lambda.imag < 0).all()
    assert len(np.unique(Lambda)) == 2_000
    assert np.mean(Lambda.real) == pytest.approx(-0.5, abs=0.02)
    assert np.std(np.log(-Lambda.imag)) == pytest.approx(1, abs=0.05)


@jax.enable_x64(True)
def test_poles_tile_the_unit_circle_whatever_the_damping():
    """As published: all poles of all systems, and their conjugates, are one Fourier grid."""
    S, N = 3, 8
    damping = np.array([0.5, 1e-4, 0.02])
    poles = np.exp(s4d_dfout(jnp.asarray(damping), N))
    np.testing.assert_allclose(np.abs(poles), np.exp(-damping / 2)[:, None].repeat(N // 2, 1))
    for s, n in np.ndindex(poles.shape):
        phase = np.exp(2j * np.pi * (n / N + s / (N * S)))
        np.testing.assert_allclose(poles[s, n].conj() / abs(poles[s, n]), phase, atol=1e-12)
    units = (poles / np.abs(poles)).ravel()
    circle = np.concatenate([units, units[1:].conj(), [-1]])  # without the frequency 0 again
    np.testing.assert_allclose(circle ** (S * N), 1, atol=1e-10)
    assert len(np.unique(circle.round(9))) == S * N


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: s4d("lni", 4), r"s4d: `method` must be one of.*'lin'\?"),
        (lambda: s4d("lin", 4, B_init="one"), "s4d: `B_init` must be one of 'constant'"),
        (lambda: s4d("lin", 5), "s4d: `N` must be even"),
        (lambda: s4d_random(jax.random.key(0), 1, 5), "s4d_random: `N` must be even"),
        (lambda: s4d_dfout(jnp.ones(2), 5), "s4d_dfout: `N` must be even"),
        (lambda: s4d_random(jax.random.key(0), 0, 4), "s4d_random: `S` must be"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
