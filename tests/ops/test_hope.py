import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, tiers, values_and_gradients

from s5jax.ops import (
    _tables,
    hope_kernel,
    hope_kernel_ref,
    hope_response,
    hope_state,
    hope_step,
    hope_transfer_function,
    hope_transfer_function_ref,
)
from s5jax.ops._hope import hope_matrices

N = 7
DELTA = np.array([1e-2, 0.3, 1.0, 20.0])


def system(seed=0, batch=()):
    h = np.random.default_rng(seed).normal(size=(*batch, len(DELTA), N))
    return jnp.asarray(h), jnp.asarray(DELTA)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize(("L", "n"), [(1, N), (2, N), (31, N), (31, 1)])
@jax.enable_x64(True)
def test_kernel_is_the_reference(L, n, platform, monkeypatch):
    """On a CPU states follow one after another, elsewhere tables grow by doubling."""
    monkeypatch.setattr(_tables, "target_platform", lambda: platform)
    h, Delta = system(batch=(2,))
    arguments = h[..., :n], Delta
    got = values_and_gradients(lambda *a: hope_kernel(*a, L), *arguments)
    assert got[0].shape == (2, L, len(DELTA))
    assert_close(got, values_and_gradients(lambda *a: hope_kernel_ref(*a, L), *arguments), 1e-11)


@pytest.mark.parametrize("n", [1, N])
@jax.enable_x64(True)
def test_transfer_function_is_the_reference(n):
    rng = np.random.default_rng(0)
    h = jnp.asarray(rng.normal(size=(2, 3, n)) + 1j * rng.normal(size=(2, 3, n)))
    Delta = jnp.asarray(rng.uniform(0.1, 3, size=(2, 3)))
    theta = np.pi * np.array([0.0, 0.3, -0.3, 0.9, 1.0, 1.7])

    for arguments in [(h, Delta), (h.real, Delta[0])]:
        got, expected = (
            values_and_gradients(lambda *a, f=f: f(*a, jnp.asarray(theta)), *arguments)
            for f in (hope_transfer_function, hope_transfer_function_ref)
        )
        assert got[0].shape == (2, len(theta), 3)
        assert_close(got, expected, 1e-11)


@jax.enable_x64(True)
def test_transfer_function_is_the_transform_of_the_kernel():
    """The circle is long enough here for the kernel to decay on it."""
    h, Delta = system()
    Delta, theta = jnp.maximum(Delta, 0.1), jnp.asarray(2 * np.pi * np.fft.fftfreq(1024))
    spectrum = jax.jit(lambda *a: jnp.fft.fft(hope_kernel(*a, 1024), axis=0))(h, Delta)
    assert_close(jax.jit(hope_transfer_function)(h, Delta, theta), spectrum, 1e-11)


def by_steps(h, Delta, u, x):
    def body(x, u_t):
        return hope_step(h, Delta, x, u_t)[::-1]

    x, y = jax.lax.scan(body, x, jnp.moveaxis(u, -2, 0))
    return jnp.moveaxis(y, 0, -2), x


@pytest.mark.parametrize("L", tiers([1, 13], {13}))
@jax.enable_x64(True)
def test_the_ladder_is_the_kernel(L):
    """Its response to an impulse and to a state, and the states that it leaves."""
    h, Delta = system()
    rng = np.random.default_rng(1)
    u, x0 = (jnp.asarray(rng.normal(size=s)) for s in ((2, L, len(Delta)), (2, *h.shape)))
    impulse = jnp.zeros((L, len(Delta))).at[0].set(1.0)
    steps = jax.jit(by_steps)
    assert_close(steps(h, Delta, impulse, jnp.zeros_like(h))[0], hope_kernel(h, Delta, L), 1e-12)
    assert_close(steps(h, Delta, 0 * u, x0)[0], hope_response(h, Delta, x0, L), 1e-12)
    assert_close(steps(h, Delta, u, x0)[1], hope_state(Delta, u, x0), 1e-12)


@jax.enable_x64(True)
def test_the_matrices_are_the_ladder_and_balanced():
    h, Delta = system()
    A, B, C, d = hope_matrices(h, Delta)
    rng = np.random.default_rng(2)
    x, u = jnp.asarray(rng.normal(size=h.shape)), jnp.asarray(rng.normal(size=len(Delta)))
    y, x_next = hope_step(h, Delta, x, u)
    assert_close(jnp.einsum("hij,hj->hi", A, x) + B * u[:, None], x_next, 1e-13)
    assert_close((C * x).sum(-1) + d * u, y, 1e-13)
    gramian = A @ jnp.swapaxes(A, -1, -2) + B[:, :, None] * B[:, None]
    assert_close(gramian, jnp.broadcast_to(jnp.eye(N), gramian.shape), 1e-13)


@pytest.mark.parametrize("L", [2048, 16_384])
def test_float32_kernels_at_every_warp(L):
    """Error of the lags from 1 on relative to the largest; at most 2e-6 as measured."""
    n, Delta = 64, np.array([1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0], "float32")
    h = np.random.default_rng(0).normal(size=(len(Delta), n)).astype("float32") / n**0.5
    kernel = jax.jit(lambda h, Delta: hope_kernel(h, Delta, L))
    with jax.enable_x64(True):
        got = np.asarray(kernel(jnp.asarray(h), jnp.asarray(Delta)))
        exact = np.asarray(kernel(jnp.asarray(h, "float64"), jnp.asarray(Delta, "float64")))
    assert got.dtype == np.float32
    largest, difference = np.abs(exact[1:]).max(0), np.abs(got - exact)
    assert (difference[1:].max(0) < 5e-6 * largest).all()
    assert (difference[0] < 5e-6).all()
    assert (difference[1:].sum(0) < 5e-5 * np.abs(exact[1:]).sum(0)).all()


def test_float32_gradients_at_every_warp():
    """Error relative to the largest entry of each feature; at most 3e-6 as measured."""
    n, L, Delta = 64, 1024, np.array([1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0], "float32")
    rng = np.random.default_rng(0)
    h = rng.normal(size=(len(Delta), n)).astype("float32") / n**0.5
    weights = rng.normal(size=(L, len(Delta))).astype("float32")
    gradient = jax.jit(jax.grad(lambda p, w: (w * hope_kernel(*p, L)).sum()))
    with jax.enable_x64(True):
        got, exact = (
            gradient([jnp.asarray(v, dtype) for v in (h, Delta)], jnp.asarray(weights, dtype))
            for dtype in ("float32", "float64")
        )
    assert got[0].dtype == jnp.float32
    for g, e in zip(*([np.asarray(v) for v in vs] for vs in (got, exact)), strict=True):
        error, largest = (np.abs(v).reshape(len(Delta), -1).max(-1) for v in (g - e, e))
        assert (error < 2e-5 * largest).all()


def test_bad_arguments_are_refused():
    h, Delta = jnp.ones((2, N)), jnp.ones(2)
    for kernel, wrong in itertools.product(
        (hope_kernel, hope_kernel_ref), [(h, Delta[:1]), (h[0], Delta), (h, Delta[None])]
    ):
        with pytest.raises(ValueError, match=rf"{kernel.__name__}: `h` must have shape"):
            kernel(*wrong, 3)
    for kernel in (hope_kernel, hope_kernel_ref):
        with pytest.raises(
            ValueError, match=f"{kernel.__name__}: `L` must be a positive integer; got 0"
        ):
            kernel(h, Delta, 0)
    with pytest.raises(ValueError, match="hope_response: `L` must be a positive integer; got 0"):
        hope_response(h, Delta, h, 0)
    for f in (hope_transfer_function, hope_transfer_function_ref):
        with pytest.raises(ValueError, match=rf"{f.__name__}: `h` must have shape .*one warp"):
            f(h, Delta[:1], jnp.zeros(3))
    with pytest.raises(ValueError, match="hope_step: `h` must have shape"):
        hope_step(h, Delta[:1], h, Delta)
