import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close, loss_and_grads, normal, tiers, values_and_gradients

from s5jax import DLR, HOPE, S4, S4D
from s5jax.ops import (
    _chunked,
    chunked_conv,
    conv_algorithm,
    discretize_dplr,
    dplr_chunks,
    dplr_kernel_ref,
    fft_conv_ref,
    hope_chunks,
    hope_kernel_ref,
    vandermonde_chunks,
    vandermonde_ref,
)

H, N = 3, 4


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def diagonal(c, z, T, L):
    return vandermonde_chunks(c, z, T), vandermonde_ref(c, z, L)


def dplr(C, Lambda, P, B, Delta, T, L):
    system = discretize_dplr(Lambda, P, B, Delta)
    return dplr_chunks(system, C, T), dplr_kernel_ref(Lambda, P, B, C, Delta, L)


def hope(h, Delta, T, L):
    return hope_chunks(h, Delta, T), hope_kernel_ref(h, Delta, L)


def arguments(kind):
    def z(*shape):
        return jax.lax.complex(-jnp.abs(draw(*shape)) / 10, draw(*shape, seed=1))

    def c(*shape):
        return jax.lax.complex(draw(*shape, seed=2), draw(*shape, seed=3))

    Delta = jnp.array([0.05, 1.0, 3.0])
    return {
        "diagonal": (diagonal, c(H, N), z(H, N)),
        "shared": (diagonal, c(H, N), z(N)),
        "dplr": (dplr, c(H, N), z(H, N), c(H, 2, N) / 4, c(H, N), Delta / 10),
        "hope": (hope, draw(H, N), Delta),
    }[kind]


@pytest.mark.parametrize(
    ("L", "T", "batch"), tiers([(1, 4, ()), (9, 8, (2,)), (70, 1, (1, 2))], {(9, 8, (2,))})
)
@pytest.mark.parametrize("kind", ["diagonal", "shared", "dplr", "hope"])
@jax.enable_x64(True)
def test_is_the_convolution_with_the_kernel(kind, L, T, batch):
    """Values and all gradients; the last length takes two groups of chunks."""
    system, *parameters = arguments(kind)
    u = draw(*batch, L, H, seed=5)

    def by_chunks(u, *parameters):
        return chunked_conv(u, system(*parameters, T, L)[0])

    def by_definition(u, *parameters):
        return fft_conv_ref(u, system(*parameters, T, L)[1])

    got = values_and_gradients(by_chunks, u, *parameters)
    assert_close(got, values_and_gradients(by_definition, u, *parameters), rtol=1e-9)


@pytest.mark.parametrize("batch", [(), (2,)])
@jax.enable_x64(True)
def test_scan_of_an_accelerator(batch, monkeypatch):
    system, *parameters = arguments("diagonal")

    def by_chunks(u, *parameters):
        return chunked_conv(u, system(*parameters, 4, 9)[0])

    arrays = draw(*batch, 9, H, seed=5), *parameters
    expected = values_and_gradients(by_chunks, *arrays)
    monkeypatch.setattr(_chunked, "scan_algorithm", lambda: "associative")
    monkeypatch.delattr(_chunked, "recur")  # the scan of a CPU
    assert_close(values_and_gradients(by_chunks, *arrays), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("L", "T", "batch"),
    tiers([(1, 4, ()), (9, 8, (2,)), (70, 1, (1, 2)), (130, 2, (0,))], {(9, 8, (2,))}),
)
@pytest.mark.parametrize("kind", ["diagonal", "shared", "dplr", "hope"])
@jax.enable_x64(True)
def test_all_chunks_together(kind, L, T, batch, monkeypatch):
    """Values and all gradients of the form of a GPU; 70 chunks take two levels of groups."""
    system, *parameters = arguments(kind)
    arrays = draw(*batch, L, H, seed=5), *parameters

    def by_chunks(u, *parameters):
        return chunked_conv(u, system(*parameters, T, L)[0])

    def together(u, *parameters):
        return by_chunks(u, *parameters)

    expected = values_and_gradients(by_chunks, *arrays)
    monkeypatch.setattr(_chunked, "target_platform", lambda: "gpu")
    monkeypatch.delattr(_chunked, "_group")  # the form of a CPU
    assert_close(values_and_gradients(together, *arrays), expected, rtol=1e-9)


@pytest.mark.parametrize("dtype", tiers(["float32", "bfloat16"], {"bfloat16"}))
def test_all_chunks_together_in_other_dtypes(dtype, monkeypatch):
    system, *parameters = arguments("dplr")
    u, (tables, K) = draw(2, 40, H).astype(dtype), system(*parameters, 4, 40)
    expected = fft_conv_ref(u, K)
    monkeypatch.setattr(_chunked, "target_platform", lambda: "gpu")
    y = jax.jit(lambda u: chunked_conv(u, tables))(u)
    assert y.dtype == u.dtype
    assert_close(
        y.astype("float32"), expected.astype("float32"), rtol=1e-2 if dtype == "bfloat16" else 1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layer", [S4, S4D, DLR, HOPE])
def test_layers_agree_in_float32(layer, bidirectional, platform, monkeypatch):
    """At 5,000 steps, which are no multiple of a chunk; resets run in another way."""
    monkeypatch.setattr(_chunked, "target_platform", lambda: platform)
    made = {
        name: layer(8, 16, bidirectional=bidirectional, algorithm=name, rngs=nnx.Rngs(0))
        for name in ("fft", "chunked")
    }
    assert {name: m.algorithm_for(5_000) for name, m in made.items()} == {c: c for c in made}

    def loss(m, u):
        return jnp.sum(jnp.tanh(m(u)) * jnp.cos(jnp.arange(5_000.0))[:, None]), m(u)

    u = normal(0, 2, 5_000, 8)
    got, expected = (loss_and_grads(m, loss, u, has_aux=True) for m in made.values())
    assert_close(got, expected, rtol=3e-4)


def test_choice():
    on_cpu = jax.default_backend() == "cpu"
    assert conv_algorithm("auto", 4096, 64) == ("chunked" if on_cpu else "fft")
    assert conv_algorithm("auto", 4096, 64, batch=2) == "fft"
    assert conv_algorithm("auto", 1 << 13, 128) == "fft"
    assert conv_algorithm("auto", 1 << 14, 128) == ("chunked" if on_cpu else "fft")
    assert conv_algorithm("auto", 1 << 16, 64, bidirectional=True) == "fft"
    assert conv_algorithm("auto", 100, 64) == "fft"
    assert conv_algorithm("chunked", 1, 4096, bidirectional=True) == "chunked"


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"`algorithm` must be one of 'auto', 'fft', 'chunked'"):
        conv_algorithm("direct", 1, 1)
    tables = hope_chunks(jnp.ones((H, N)), jnp.ones(H), 4)
    with pytest.raises(ValueError, match=r"`u` must have shape \(\*batch, L, 3\).*got \(5, 2\)"):
        chunked_conv(jnp.ones((5, 2)), tables)
    with pytest.raises(
        ValueError, match="vandermonde_chunks: `T` must be a positive integer; got 0"
    ):
        vandermonde_chunks(jnp.ones((H, N), complex), jnp.ones((H, N), complex), 0)
    with pytest.raises(ValueError, match="hope_chunks: `T` must be a power of two; got 6"):
        hope_chunks(jnp.ones((H, N)), jnp.ones(H), 6)
