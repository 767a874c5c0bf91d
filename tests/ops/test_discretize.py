import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s5jax.ops import (
    discretize_bilinear,
    discretize_bilinear_ref,
    discretize_zoh,
    discretize_zoh_ref,
    phi1,
)

PAIRS = [
    pytest.param(discretize_zoh, discretize_zoh_ref, id="zoh"),
    pytest.param(discretize_bilinear, discretize_bilinear_ref, id="bilinear"),
]


def phi1_exact(z, derivative=False):
    """Taylor series in extended precision: every |z| <= 8 converges in 60 terms."""
    z = np.asarray(z).astype(np.clongdouble)
    value, term = np.zeros_like(z), np.ones_like(z)  # term = z^k / (k+1)!
    for k in range(60):
        value = value + (term * (k + 1) / np.longdouble(k + 2) if derivative else term)
        term = term * z / (k + 2)
    return value


def half_disc(dtype):
    radius = np.concatenate([[0, 1e-30, 1e-8], np.logspace(-6, np.log10(8), 120)])
    angle = np.linspace(np.pi / 2, 3 * np.pi / 2, 25)
    return (radius[:, None] * np.exp(1j * angle)).astype(dtype)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("complex64", 4e-7), ("float32", 4e-7), ("complex128", 2e-15)]
)
@jax.enable_x64(True)
def test_phi1_value(dtype, tolerance):
    z = half_disc("complex128").real.astype(dtype) if "float" in dtype else half_disc(dtype)
    exact = phi1_exact(z)
    got = np.asarray(phi1(jnp.asarray(z)))
    assert got.dtype == dtype
    assert np.max(np.abs(got - exact) / np.abs(exact)) < tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), [("complex64", 1e-6), ("complex128", 2e-14)])
@jax.enable_x64(True)
def test_phi1_derivative(dtype, tolerance):
    z = half_disc(dtype).ravel()
    exact = phi1_exact(z, derivative=True)
    slope = np.asarray(jax.jit(jax.vmap(jax.grad(phi1, holomorphic=True)))(z))
    assert np.max(np.abs(slope - exact) / np.abs(exact)) < tolerance


def test_phi1_is_finite_far_away_and_twice_differentiable():
    z = jnp.array([-1e30, -1e4, -100.0, -1.0, -1e-3, 0.0])
    for f in (phi1, jax.grad(phi1), jax.grad(jax.grad(phi1))):
        assert np.isfinite(jax.jit(jax.vmap(f))(z)).all()
    assert jax.grad(jax.grad(phi1))(jnp.array(0.0)) == pytest.approx(1 / 3)


@pytest.mark.parametrize(("fast", "ref"), PAIRS)
@pytest.mark.parametrize("real", [True, False])
@jax.enable_x64(True)
def test_values_and_gradients_agree_with_the_reference(fast, ref, real):
    rng = np.random.default_rng(0)
    Lambda = -rng.exponential(size=8) + (0 if real else 3j * rng.normal(size=8))
    Lambda[0] = 0
    Lambda, Delta = jnp.asarray(Lambda), jnp.asarray(rng.uniform(1e-6, 2, size=(3, 5, 8)))
    weights = rng.normal(size=(2, 2, 3, 5, 8))

    def loss(f, Lambda, Delta):
        return sum(
            jnp.sum(w[0] * x.real + w[1] * x.imag)
            for w, x in zip(weights, f(Lambda, Delta), strict=True)
        )

    for x, y in zip(fast(Lambda, Delta), ref(Lambda, Delta), strict=True):
        assert x.shape == y.shape == Delta.shape
        np.testing.assert_allclose(x, y, rtol=1e-12)
    gradient = jax.jit(jax.grad(loss, (1, 2)), static_argnums=0)
    got, expected = (gradient(f, Lambda, Delta) for f in (fast, ref))
    for x, y in zip(got, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("fast", "ref"), PAIRS)
@jax.enable_x64(True)
def test_small_steps_keep_float32_accuracy(fast, ref):
    Lambda, Delta = jnp.array([-0.5, -0.5 + 30j]), jnp.array([[1e-5], [1e-4], [1e-1]])
    got = fast(Lambda.astype("complex64"), Delta.astype("float32"))
    for x, y in zip(got, ref(Lambda, Delta), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


@pytest.mark.parametrize("discretize", [discretize_zoh, discretize_bilinear])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@jax.enable_x64(True)
def test_result_has_the_dtype_of_Lambda(discretize, dtype):
    for x in discretize(jnp.full(3, -1, dtype), jnp.full((4, 3), 0.1, "float32")):
        assert x.dtype == dtype
        assert x.shape == (4, 3)


@pytest.mark.parametrize("discretize", [discretize_zoh, discretize_bilinear])
def test_Lambda_zero_is_an_integrator_with_finite_gradients(discretize):
    Lambda, Delta = jnp.zeros(2, "complex64"), jnp.array([1e-3, 0.5])
    Lambda_bar, Gamma = discretize(Lambda, Delta)
    np.testing.assert_array_equal(Lambda_bar, 1)
    np.testing.assert_allclose(Gamma, Delta)
    gradients = jax.grad(lambda *a: jnp.sum(jnp.abs(discretize(*a)[1])), (0, 1))(Lambda, Delta)
    for gradient in gradients:
        assert np.isfinite(gradient).all()


@settings(deadline=None, derandomize=True, max_examples=50)
@given(re=st.floats(-4, 0), im=st.floats(-20, 20), Delta=st.floats(1e-5, 1), u=st.floats(-10, 10))
def test_zoh_of_a_double_step_is_two_steps_on_a_held_input(re, im, Delta, u):
    with jax.enable_x64(True):
        Lambda = jnp.array(complex(re, im))
        a, b = discretize_zoh(Lambda, jnp.array(Delta))
        a2, b2 = discretize_zoh(Lambda, jnp.array(2 * Delta))
        x0 = 1.0 - 0.5j
        once = a2 * x0 + b2 * u
        twice = a * (a * x0 + b * u) + b * u
        np.testing.assert_allclose(once, twice, rtol=1e-10, atol=1e-12)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(re=st.floats(-1e4, -1e-6), im=st.floats(-1e4, 1e4), Delta=st.floats(1e-5, 10))
def test_bilinear_keeps_stable_systems_stable(re, im, Delta):
    Lambda_bar, _ = discretize_bilinear(jnp.array(complex(re, im)), jnp.array(Delta))
    assert abs(Lambda_bar) <= 1 + 1e-6


@pytest.mark.parametrize(
    "discretize",
    [discretize_zoh, discretize_zoh_ref, discretize_bilinear, discretize_bilinear_ref],
    ids=lambda f: f.__name__,
)
def test_shapes_that_do_not_broadcast_are_refused(discretize):
    message = rf"{discretize.__name__}: .*`Lambda` and `Delta`.*\(3,\) and \(5, 4\)"
    with pytest.raises(ValueError, match=message):
        discretize(jnp.zeros(3), jnp.ones((5, 4)))
