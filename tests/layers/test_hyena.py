"""Hyena against its equations, and what it is for."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import normal

from s5jax import Hyena


@pytest.mark.parametrize("K", [1, 3, 5])
def test_the_equations(K):
    layer = Hyena(d_model=4, d_state=8, filter_length=K, rngs=nnx.Rngs(0))
    u = normal(0, 2, 9, 4)
    z = u @ layer.W_in[...]
    filters = layer.filters[0]
    padded = np.pad(z, [(0, 0), (K - 1, 0), (0, 0)])
    f = sum(filters[j][None, None] * padded[:, K - 1 - j : K - 1 - j + 9] for j in range(K))
    q, k, v = jnp.split(f, 3, -1)
    y = (q * layer.ssm(k * v)) @ layer.W_out[...]
    np.testing.assert_allclose(layer(u), y, rtol=1e-4, atol=1e-5)


def test_both_directions_are_the_sum_of_two_layers():
    both = Hyena(d_model=4, d_state=8, bidirectional=True, rngs=nnx.Rngs(0))
    u = normal(0, 2, 9, 4)

    def one_way(direction):
        layer = Hyena(d_model=4, d_state=8, rngs=nnx.Rngs(1))
        for name in ("W_in", "W_out"):
            getattr(layer, name)[...] = getattr(both, name)[...]
        layer.filters[...] = both.filters[direction][None]
        for name in ("Lambda_re", "Lambda_im", "log_step", "B"):
            getattr(layer.ssm, name)[...] = getattr(both.ssm, name)[...]
        P = layer.ssm.C.shape[1]
        layer.ssm.C[...] = both.ssm.C[:, direction * P : (direction + 1) * P]
        layer.ssm.D[...] = both.ssm.D[...] * (1 - direction)
        return layer

    expected = one_way(0)(u) + jnp.flip(one_way(1)(jnp.flip(u, 1)), 1)
    np.testing.assert_allclose(both(u), expected, rtol=1e-4, atol=1e-5)
