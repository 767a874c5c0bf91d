import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s5jax.ops import (
    dlr_kernel,
    dlr_kernel_ref,
    dlr_modes,
    dss_softmax_kernel,
    dss_softmax_kernel_ref,
    vandermonde_ref,
)

KINDS = ("real", "imag", "sum", "prod")


def complex_normal(rng, *shape):
    return jnp.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape))


def draw(N=5, H=3, batch=(), shared=True, seed=0):
    rng = np.random.default_rng(seed)
    shape = (N,) if shared else (H, N)
    z = -rng.exponential(0.1, size=shape) + 1j * rng.uniform(0, 2 * np.pi, size=shape)
    return complex_normal(rng, *batch, H, N), jnp.asarray(z)


def draw_softmax(N=5, H=3, batch=(), seed=0):
    rng = np.random.default_rng(seed)
    Lambda = rng.normal(size=N) + 3j * rng.normal(size=N)
    Delta = np.exp(rng.uniform(-4, -1, size=H))
    return complex_normal(rng, *batch, H, N), jnp.asarray(Lambda), jnp.asarray(Delta)


def compare(fast, ref, arguments, L, kind):
    """Values and gradients."""

    def loss(kernel, arguments):
        K = kernel(*arguments, L, kernel_to_real=kind)
        return jnp.sum(jnp.cos(jnp.arange(K.size)).reshape(K.shape) * K), K

    gradient = jax.jit(jax.grad(loss, 1, has_aux=True), static_argnums=0)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-11 * np.abs(y).max()),
        gradient(fast, arguments),
        gradient(ref, arguments),
    )


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, derandomize=True, max_examples=4)
@given(
    L=st.integers(1, 70),
    shared=st.booleans(),
    batch=st.sampled_from([(), (2,)]),
    seed=st.integers(0, 99),
)
def test_kernel_is_its_definition(kind, L, shared, batch, seed):
    with jax.enable_x64(True):
        compare(dlr_kernel, dlr_kernel_ref, draw(batch=batch, shared=shared, seed=seed), L, kind)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, derandomize=True, max_examples=3)
@given(L=st.integers(1, 70), batch=st.sampled_from([(), (2,)]), seed=st.integers(0, 99))
def test_softmax_kernel_is_its_definition(kind, L, batch, seed):
    with jax.enable_x64(True):
        arguments = draw_softmax(batch=batch, seed=seed)
        compare(dss_softmax_kernel, dss_softmax_kernel_ref, arguments, L, kind)


@jax.enable_x64(True)
def test_softmax_normalises_over_time():
    """Each mode alone is its weight times a softmax over the lags, whatever its sign."""
    W, Lambda, Delta = draw_softmax(N=1)
    for sign in (1, -1):
        L, Lambda = 20, sign * Lambda
        P = jnp.exp(Delta[:, None] * Lambda * jnp.arange(L)).T
        expected = (W[:, 0] / Lambda * P / P.sum(0)).real
        K = dss_softmax_kernel(W, Lambda, Delta, L)
        np.testing.assert_allclose(K, expected, atol=1e-4 * jnp.abs(expected).max())


def test_softmax_of_growing_modes_does_not_overflow():
    W, Delta = jnp.ones((1, 2), "complex64"), jnp.ones(1, "float32")
    Lambda = jnp.array([1.0 + 1j, -1.0 - 1j], "complex64")
    grads = jax.jit(jax.grad(lambda x: jnp.sum(dss_softmax_kernel(W, x, Delta, 5000))))(Lambda)
    assert jnp.isfinite(grads).all()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@jax.enable_x64(True)
def test_modes_are_a_plain_sum(kind, shared):
    W, z = draw(shared=shared)
    w, v = dlr_modes(W, z, kind)
    assert w.shape == (3, 25 if kind == "prod" else 5)
    assert v.shape == (w.shape[1:] if shared else w.shape)
    expected = dlr_kernel_ref(W, z, 30, kernel_to_real=kind)
    np.testing.assert_allclose(vandermonde_ref(w, v, 30), expected, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@jax.enable_x64(True)
def test_long_kernels_keep_their_digits_in_float32(kind):
    """Modes that barely decay, the initial state of DLR; a plain phase loses three digits here."""
    rng, N, L = np.random.default_rng(0), 32, 65536
    z = np.asarray(-5e-6 + 2j * np.pi * np.arange(N) / N, "complex64")
    W = np.asarray(complex_normal(rng, 2, N), "complex64")
    got = dlr_kernel(jnp.asarray(W), jnp.asarray(z), L, kernel_to_real=kind)
    assert got.dtype == jnp.float32
    W, z = (jnp.asarray(x, "complex128") for x in (W, z))
    expected = dlr_kernel_ref(W, z, L, kernel_to_real=kind)
    assert jnp.abs(got - expected).max() < 5e-6 * jnp.abs(expected).max()


@pytest.mark.parametrize("kernel", [dlr_kernel, dlr_kernel_ref])
def test_bad_arguments_are_refused(kernel):
    W, z = jnp.ones((3, 5), complex), jnp.ones(5, complex)
    with pytest.raises(ValueError, match=rf"{kernel.__name__}: `kernel_to_real` must be one of"):
        kernel(W, z, 4, kernel_to_real="abs")
    with pytest.raises(ValueError, match=r"`c` must have shape .* got \(3, 5\) and \(4,\)"):
        kernel(W, z[:4], 4)
    with pytest.raises(ValueError, match="`L` must be a positive integer; got 0"):
        kernel(W, z, 0)


@pytest.mark.parametrize("kernel", [dss_softmax_kernel, dss_softmax_kernel_ref])
def test_bad_softmax_arguments_are_refused(kernel):
    W, Lambda, Delta = jnp.ones((3, 5), complex), jnp.ones(5, complex), jnp.ones(3)
    with pytest.raises(ValueError, match=rf"{kernel.__name__}: `kernel_to_real` must be one of"):
        kernel(W, Lambda, Delta, 4, kernel_to_real="abs")
    for wrong in [(W, Lambda[:4], Delta, 4), (W, Lambda, Delta[:2], 4), (W, Lambda, Delta, 0)]:
        with pytest.raises(ValueError, match=rf"{kernel.__name__}: `W` must have shape"):
            kernel(*wrong)


def test_unknown_modes_are_refused():
    W, z = draw()
    with pytest.raises(ValueError, match="dlr_modes: `kernel_to_real` must be one of"):
        dlr_modes(W, z, "product")
