"""What only the GRU promises; the contract of all layers is in `test_conformance`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close, normal, run

from s5jax import GRU
from s5jax.layers import _steps

H, N = 3, 5


def gru_ref(layer, u):
    """The equations, step by step in NumPy."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def states(cell, u):
        W_i, b, W_h = (np.asarray(p[...]) for p in (
            cell.dense_i.kernel, cell.dense_i.bias, cell.dense_h.kernel
        ))  # fmt: skip
        x = np.zeros((len(u) + 1, N))
        for k, u_k in enumerate(u):
            (ir, iz, i_n), (hr, hz, hn) = (np.split(a, 3) for a in (u_k @ W_i + b, x[k] @ W_h))
            z = sigmoid(iz + hz)
            x[k + 1] = (1 - z) * np.tanh(i_n + sigmoid(ir + hr) * hn) + z * x[k]
        return x[1:]

    x = states(layer.cells[0], u)
    if layer.bidirectional:
        x = np.concatenate([x, states(layer.cells[1], u[::-1])[::-1]], axis=-1)
    return x @ np.asarray(layer.C[...]).T


@pytest.mark.parametrize("bidirectional", [False, True])
@jax.enable_x64(True)
def test_layer_is_the_published_recurrence(bidirectional):
    layer = GRU(H, N, bidirectional=bidirectional, param_dtype="float64", rngs=nnx.Rngs(0))
    for cell in layer.cells:
        cell.dense_i.bias[...] = jnp.linspace(-1, 1, 3 * N)
    u = np.random.default_rng(0).normal(size=(2, 20, H))
    for lengths in (None, [20, 13]):
        y = run(layer, jnp.asarray(u), lengths=lengths and jnp.asarray(lengths))
        for i, n in enumerate(lengths or [20, 20]):
            assert_close(y[i, :n], gru_ref(layer, u[i, :n]), rtol=1e-12)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="GRU: `d_state` must be a positive integer"):
        GRU(H, 0, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("L", [20, 300])
def test_steps_are_unrolled_for_a_gpu(L, monkeypatch):
    """The same values and gradients, by iterations of sixteen steps."""
    layer, u = GRU(3, 4, rngs=nnx.Rngs(0)), normal(0, 2, L, 3)

    def loss(u):
        y = layer(u)
        return jnp.sum(y**2), y

    expected = jax.jit(jax.value_and_grad(loss, has_aux=True))(u)
    monkeypatch.setattr(_steps, "target_platform", lambda: "gpu")
    assert "unroll=16" in str(jax.make_jaxpr(layer)(u))
    assert_close(jax.jit(jax.value_and_grad(loss, has_aux=True))(u), expected)
