import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, values_and_gradients

from s5jax.ops import (
    fft_conv_ref,
    init_multiscale_state,
    multiscale_kernel,
    multiscale_kernel_ref,
    multiscale_length,
    multiscale_step,
)

H = 2
SIZES = [(1, 4, 1), (4, 1, 0), (3, 2, 1), (4, 3, 0)]


def draw(S, d):
    rng = np.random.default_rng(S + d)
    return jnp.asarray(rng.normal(size=(S, H, d))), jnp.asarray(rng.uniform(1, 3, size=H))


@pytest.mark.parametrize(("S", "d", "a"), SIZES)
@jax.enable_x64(True)
def test_kernel_is_the_reference(S, d, a):
    w, alpha = draw(S, d)
    got, expected = (
        values_and_gradients(functools.partial(kernel, init_scale=a), w, alpha)
        for kernel in (multiscale_kernel, multiscale_kernel_ref)
    )
    assert got[0].shape == (multiscale_length(S, d, init_scale=a), H)
    assert_close(got, expected, rtol=1e-13)


def by_steps(w, alpha, u, a):
    S, _, d = w.shape
    start = init_multiscale_state(S, H, d, init_scale=a, batch_shape=u.shape[:-2], dtype=u.dtype)

    def body(state, u_t):
        return multiscale_step(w, alpha, state, u_t, init_scale=a)[::-1]

    return jnp.moveaxis(jax.lax.scan(body, start, jnp.moveaxis(u, -2, 0))[1], 0, -2)


@pytest.mark.parametrize(("S", "d", "a"), SIZES)
@jax.enable_x64(True)
def test_steps_are_the_convolution(S, d, a):
    """Three kernels long, so that every buffer runs around."""
    w, alpha = draw(S, d)
    L = 3 * multiscale_length(S, d, init_scale=a) + 5
    u = jnp.asarray(np.random.default_rng(0).normal(size=(2, L, H)))

    def direct(w, alpha, u):
        return fft_conv_ref(u, multiscale_kernel(w, alpha, init_scale=a))

    got = values_and_gradients(lambda w, alpha, u: by_steps(w, alpha, u, a), w, alpha, u)
    assert_close(got, values_and_gradients(direct, w, alpha, u), rtol=1e-13)


def test_steps_do_not_drift():
    """In float32 the error after 20,000 steps is that of the first few."""
    w, alpha = (x.astype(jnp.float32) for x in draw(4, 3))
    u = jnp.asarray(np.random.default_rng(0).normal(size=(20_000, H)), jnp.float32)
    y = jax.jit(lambda u: by_steps(w, alpha, u, 0))(u)
    K = np.asarray(multiscale_kernel(w, alpha), np.float64)
    exact = np.stack([np.convolve(u[:, h], K[:, h])[: len(u)] for h in range(H)], -1)
    assert np.abs(y - exact).max() <= 1e-6 * np.abs(exact).max()


@pytest.mark.parametrize("kernel", [multiscale_kernel, multiscale_kernel_ref])
def test_bad_arguments_are_refused(kernel):
    w, alpha = draw(2, 3)
    with pytest.raises(ValueError, match=rf"{kernel.__name__}: `w` must have .*and \(3,\)"):
        kernel(w, jnp.ones(3))
    with pytest.raises(ValueError, match=r"`w` must have shape \(S, H, d\) with positive"):
        kernel(w[:, :, :0], alpha)
    with pytest.raises(ValueError, match="`init_scale` must not be negative; got -1"):
        kernel(w, alpha, init_scale=-1)


def test_bad_steps_are_refused():
    w, alpha = draw(2, 3)
    state = init_multiscale_state(2, H, 3)
    with pytest.raises(ValueError, match=r"`u` must have shape \(\*batch, 2\); got \(3,\)"):
        multiscale_step(w, alpha, state, jnp.ones(3))
    with pytest.raises(ValueError, match="`H` must be a positive integer; got 0"):
        init_multiscale_state(2, 0, 3)
    with pytest.raises(ValueError, match="`S` must be a positive integer; got 0"):
        multiscale_length(0, 3)
