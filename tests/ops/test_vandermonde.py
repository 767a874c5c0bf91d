import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, values_and_gradients

from s5jax.ops import (
    vandermonde,
    vandermonde_ref,
    vandermonde_state,
    vandermonde_state_ref,
)


def draw(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape))


def exponents(*shape, seed=1):
    z = draw(*shape, seed=seed)
    return jax.lax.complex(-jnp.abs(z.real) / 10, 3 * z.imag)


@pytest.mark.parametrize("L", [1, 7, 101])
@pytest.mark.parametrize(("c", "z"), [((3, 5), (3, 5)), ((2, 3, 5), (3, 5)), ((3, 5), (5,))])
@jax.enable_x64(True)
def test_kernel_is_the_reference(L, c, z):
    c, z = draw(*c), exponents(*z)
    got = values_and_gradients(lambda c, z: vandermonde(c, z, L), c, z)
    expected = values_and_gradients(lambda c, z: vandermonde_ref(c, z, L), c, z)
    assert got[0].shape == (*c.shape[:-2], L, c.shape[-2])
    assert_close(got, expected, rtol=1e-12)


@pytest.mark.parametrize("L", [1, 2, 17])
@pytest.mark.parametrize("batch", [(), (2, 3)])
@jax.enable_x64(True)
def test_state_is_the_reference(L, batch):
    u, z, B, x0 = draw(*batch, L, 3).real, exponents(3, 5), draw(3, 5), draw(*batch, 3, 5, seed=2)
    got = values_and_gradients(vandermonde_state, u, z, B, x0)
    assert_close(got, values_and_gradients(vandermonde_state_ref, u, z, B, x0), rtol=1e-12)


@pytest.mark.parametrize("decay", [1e-7, 5e-6, 1e-2])
def test_float32_keeps_its_digits_at_any_lag(decay):
    """Lags of up to a million; the direct float32 form is off by 1e-2 there."""
    L = 1 << 20
    with jax.enable_x64(True):
        c = draw(1, 8).astype(jnp.complex64)
        z = jax.lax.complex(jnp.full((1, 8), -decay), jnp.linspace(0.1, 6.3, 8)[None])
        z = z.astype(jnp.complex64)
        exact = jax.jit(lambda c, z: vandermonde(c, z, L))(*(v.astype(complex) for v in (c, z)))
        got = jax.jit(lambda c, z: vandermonde(c, z, L))(c, z)
        assert got.dtype == jnp.float32
        assert np.abs(got - exact).max() <= 1e-6 * np.abs(c).sum()


@pytest.mark.parametrize("kernel", [vandermonde, vandermonde_ref])
def test_wrong_shapes_are_refused(kernel):
    c, z = jnp.ones((3, 5), complex), jnp.ones((3, 5), complex)
    with pytest.raises(ValueError, match=rf"{kernel.__name__}: `c` must have shape .*\(3, 4\)"):
        kernel(c[:, :4], z, 3)
    with pytest.raises(ValueError, match="`L` must be a positive integer; got 0"):
        kernel(c, z, 0)


@pytest.mark.parametrize("state", [vandermonde_state, vandermonde_state_ref])
def test_wrong_shapes_of_states_are_refused(state):
    u, z = jnp.ones((4, 3)), jnp.ones((3, 5), complex)
    with pytest.raises(ValueError, match=r"`u` must have shape .*got \(0, 3\)"):
        state(u[:0], z, z, z)
    with pytest.raises(ValueError, match=r"`x0` shape \(3, 5\); got `x0` of shape \(2, 3, 5\)"):
        state(u, z, z, jnp.ones((2, 3, 5), complex))
