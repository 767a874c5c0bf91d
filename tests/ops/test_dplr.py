import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, tiers, values_and_gradients

from s5jax.init import nplr
from s5jax.ops import (
    _tables,
    discretize_dplr,
    dplr_kernel,
    dplr_kernel_ref,
    dplr_response,
    dplr_state,
    dplr_step,
)

H = 3


def system(measure="legs", N=16, seed=0):
    """Arguments of `dplr_kernel` up to the steps, all different from the initial values."""
    Lambda, P, B, _ = nplr(measure, N)
    rng = np.random.default_rng(seed)

    def scatter(v):
        return jnp.asarray(np.broadcast_to(v, (H, *v.shape)) * rng.uniform(0.8, 1.2, (H, *v.shape)))

    Lambda = np.minimum(Lambda.real, -1e-2) + 1j * Lambda.imag
    C = rng.normal(size=(2, H, N // 2)) + 1j * rng.normal(size=(2, H, N // 2))
    return scatter(Lambda), scatter(P), scatter(B), jnp.asarray(C), jnp.array([1e-3, 1e-2, 1e-1])


@pytest.mark.parametrize("measure", tiers(["legs", "legt", "fourier"], {"legt"}))
@pytest.mark.parametrize("L", [1, 2, 31])
@pytest.mark.parametrize(
    ("algorithm", "platform"), [("two_table", "cpu"), ("two_table", "gpu"), ("cauchy", "cpu")]
)
@jax.enable_x64(True)
def test_kernel_is_the_reference(measure, L, algorithm, platform, monkeypatch):
    """On a CPU the tables of "two_table" grow step by step, elsewhere by doubling."""
    monkeypatch.setattr(_tables, "target_platform", lambda: platform)
    arguments = system(measure)
    got = values_and_gradients(lambda *a: dplr_kernel(*a, L, algorithm=algorithm), *arguments)
    expected = values_and_gradients(lambda *a: dplr_kernel_ref(*a, L), *arguments)
    assert got[0].shape == (2, L, H)
    assert_close(got, expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("algorithm", "L"), [("two_table", 2048), ("two_table", 4096), ("cauchy", 4096)]
)
def test_float32_kernel_at_path_x_steps(algorithm, L):
    with jax.enable_x64(True):
        Lambda, P, B, C, _ = system(N=64)
        arguments = (Lambda, P, B, C, jnp.array([1e-4, 1e-2, 1e-1]))
        single = [v.astype("complex64" if jnp.iscomplexobj(v) else "float32") for v in arguments]
        double = [v.astype("complex128" if jnp.iscomplexobj(v) else "float64") for v in single]
        kernel = jax.jit(lambda a: dplr_kernel(*a, L, algorithm=algorithm))
        got, exact = kernel(single), kernel(double)
        assert got.dtype == jnp.float32
        error = np.abs(got - exact).max((0, 1)) / np.abs(exact).max((0, 1))
        assert error.max() < 2e-5


@pytest.mark.parametrize("measure", ["legs", "legt"])
@pytest.mark.parametrize("L", [1, 2, 13, 64])
@jax.enable_x64(True)
def test_state_and_response_are_the_steps(measure, L):
    *arguments, C, Delta = system(measure)
    rng = np.random.default_rng(1)
    shape = (2, *arguments[0].shape)
    x0 = jnp.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape))
    u = jnp.asarray(rng.normal(size=(L, 2, H)))

    @jax.jit
    def fast(x0, u):
        discrete = discretize_dplr(*arguments, Delta)
        last = dplr_state(discrete, jnp.moveaxis(u, 0, 1), x0)
        return last, dplr_response(discrete, C, x0, L)

    @jax.jit
    def slow(x0, u):
        discrete = discretize_dplr(*arguments, Delta)

        def step(carry, u_k):
            x, free = carry
            carry = dplr_step(discrete, x, u_k), dplr_step(discrete, free, 0 * u_k)
            return carry, 2 * (C * free).sum(-1).real

        (x, _), y = jax.lax.scan(step, (x0, x0), u)
        return x, jnp.moveaxis(y, 0, -2)

    assert_close(fast(x0, u), slow(x0, u), rtol=1e-12)


@jax.enable_x64(True)
def test_steps_of_a_batch():
    *arguments, _, Delta = system("legt")
    batch = discretize_dplr(*arguments, jnp.stack([Delta, 2 * Delta]))
    alone = discretize_dplr(*arguments, 2 * Delta)
    assert_close(jax.tree.map(lambda v: v[1], batch), alone, rtol=1e-12)


def test_bad_arguments_are_refused():
    arguments = system()
    with pytest.raises(
        ValueError, match=r"`algorithm` must be one of 'auto', 'two_table', 'cauchy'"
    ):
        dplr_kernel(*arguments, 4, algorithm="fft")
    for kernel in (dplr_kernel, dplr_kernel_ref):
        with pytest.raises(
            ValueError, match=f"{kernel.__name__}: `L` must be a positive integer; got 0"
        ):
            kernel(*arguments, 0)
