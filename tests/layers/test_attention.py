"""What only attention promises; the contract of all layers is in `test_conformance`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close, normal, run

from s5jax import Attention
from s5jax.ops import window_attention_ref

H = 4


def attention_ref(layer, u, segments):
    """The equation, with all scores of all pairs of steps."""
    W_qkv, W_o, scale = layer.coefficients()
    q, k, v = jnp.split(u @ W_qkv, 3, axis=-1)
    q, k, v = (x.reshape(*u.shape[:-1], layer.n_heads, -1) for x in (scale * q, k, v))
    bidirectional = layer.bidirectional
    y = window_attention_ref(q, k, v, layer.l_max, segments=segments, bidirectional=bidirectional)
    return y.reshape(u.shape) @ W_o


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("l_max", [3, 11])
@jax.enable_x64(True)
def test_layer_is_the_equation(l_max, bidirectional):
    layer = Attention(
        H, 2, l_max, bidirectional=bidirectional, param_dtype="float64", rngs=nnx.Rngs(0)
    )
    u = jnp.asarray(np.random.default_rng(0).normal(size=(2, 11, H)))
    resets = jnp.zeros((2, 11), bool).at[0, 4].set(True)
    segments = jnp.cumsum(resets, -1).at[1, 7:].set(9)
    y = run(layer, u, resets=resets, lengths=jnp.array([11, 7]))
    expected = attention_ref(layer, u, segments).at[1, 7:].set(0)
    assert_close(y, expected, rtol=1e-13)
    plain = attention_ref(layer, u, jnp.zeros((2, 11), jnp.int32))
    assert_close(run(layer, u), plain, rtol=1e-13)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_step_sees_l_max_steps(bidirectional):
    layer = Attention(H, 1, 3, bidirectional=bidirectional, rngs=nnx.Rngs(0))
    jacobian = jax.jit(jax.jacrev(lambda u: layer(u).sum(-1)))(normal(0, 8, H))
    lag = np.arange(8)[:, None] - np.arange(8)
    seen = (lag < 3) & (lag > (-3 if bidirectional else -1))
    np.testing.assert_array_equal(jnp.abs(jacobian).sum(-1) > 0, seen)


def test_a_nan_leaves_the_cache():
    layer, u = Attention(H, 2, 3, rngs=nnx.Rngs(0)), normal(1, 9, H)
    state = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), layer.init_state())
    step = jax.jit(layer.step)
    for t in range(9):
        y, state = step(u[t], state)
        assert jnp.isnan(y).all() == (t < 3)
    assert_close(y, run(layer, u)[-1])


def test_bad_options_are_refused():
    for options, message in [
        ({"n_heads": 0}, "`n_heads` must be a positive integer"),
        ({"l_max": 2.5}, "`l_max` must be a positive integer"),
        ({"n_heads": 4}, r"multiple of 2 \* `n_heads`.*got 4 and 4 heads"),
    ]:
        with pytest.raises(ValueError, match=message):
            Attention(**({"d_model": H, "n_heads": 2, "l_max": 8} | options), rngs=nnx.Rngs(0))
