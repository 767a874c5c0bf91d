"""Long sequences run in blocks, of which nobody must see the seams."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from helpers import assert_close, loss_and_grads, normal

from s5jax import LRU, S5
from s5jax.nn import _diagonal

H, N = 3, 4


@pytest.mark.parametrize("layer", [S5, LRU])
@pytest.mark.parametrize("L", [32, 37])
def test_blocks_agree_with_one_scan(layer, L, monkeypatch):
    """Outputs, last state and gradients, with a state handed in, with and without a rest."""
    monkeypatch.setattr(_diagonal, "_BLOCK", 8)
    made = {b: layer(H, N, backend=b, rngs=nnx.Rngs(0)) for b in ("sequential", "associative")}
    u = normal(0, 1, L, H)

    def loss(m, u):
        y, state = m(u, state=jnp.full_like(m.init_state((1,)), 0.5), return_state=True)
        return jnp.sum(jnp.tanh(y) * jnp.cos(jnp.arange(L))[:, None]), (y, state)

    blocked = jax.make_jaxpr(lambda u: made["sequential"](u))(u)
    assert f"f32[1,{L // 8},8,{H}]" in str(blocked)
    got, expected = (loss_and_grads(m, loss, u, has_aux=True) for m in made.values())
    assert_close(got, expected, rtol=1e-5)
