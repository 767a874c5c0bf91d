"""Reduction of layers to few states; the contract of the result is in `test_conformance`."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import Leaky, assert_close, normal, run

from s5jax import DLR, LRU, S4D, S5, SGConv, load, reduce_order, save
from s5jax.ops import hankel_singular_values

pytestmark = pytest.mark.slow

H = 2


def s4d(**options):
    return S4D(H, 4, dt_min=0.05, dt_max=0.2, **options, rngs=nnx.Rngs(0))


def excess(layer, small, u):
    """Error of the outputs over error bound times inputs, for each system."""
    axis = None if small.multi_input else 0
    error, size = (jnp.linalg.norm(v, axis=axis) for v in (run(layer, u) - run(small, u), u))
    return jnp.max(error / (small.error_bound[...] * size))


def test_a_layer_of_that_order_is_recovered():
    layer = s4d()
    small = reduce_order(layer, 4)
    assert_close(small.kernel(300), layer.kernel(300))
    assert (small.error_bound[...] <= 1e-4 * jnp.abs(layer.kernel(300)).sum(0)).all()
    u = normal(0, 2, 50, H)
    assert_close(run(small, u), run(layer, u))
    state = run(small, u[:, :20], return_state=True)[1]
    y_next, _ = small.step(u[:, 20], state)
    assert_close(y_next, run(layer, u)[:, 20])


@pytest.mark.parametrize("order", [2, 7])
def test_bound_of_a_convolution_holds(order):
    layer = SGConv(H, 64, kernel_dim=8, rngs=nnx.Rngs(0))
    small = reduce_order(layer, order, l_max=200)
    bound = small.error_bound[...]
    sigma = hankel_singular_values(layer.kernel(64)[1:], 63)
    assert (bound <= 2.1 * sigma[:, order:].sum(-1)).all()
    assert (bound >= 0.99 * sigma[:, order]).all()
    assert excess(layer, small, normal(1, 200, H)) <= 1
    # The input at the frequency of the largest error comes near to it.
    gap = np.fft.rfft(np.asarray(layer.kernel(200) - small.kernel(200)), 4096, axis=0)
    omega = 2 * np.pi * np.abs(gap).argmax(0) / 4096
    u = np.cos(np.arange(200)[:, None] * omega) * np.hanning(200)[:, None]
    assert 0.5 < excess(layer, small, jnp.asarray(u, jnp.float32)) <= 1


def test_length_is_found():
    layer = SGConv(H, 2000, kernel_dim=4, decay_min=1.0, decay_max=1.0, rngs=nnx.Rngs(0))
    assert_close(
        reduce_order(layer, 3).error_bound[...],
        reduce_order(layer, 3, l_max=2048).error_bound[...],
        rtol=1e-4,
    )


@pytest.mark.parametrize("layer", [S5, LRU])
def test_layers_that_mix_features_are_reduced_as_a_whole(layer):
    layer, u = layer(H, 6, rngs=nnx.Rngs(0)), normal(2, 100, H)
    states = len(layer.to_ssm().A)
    small = reduce_order(layer, states)
    assert_close(run(small, u), run(layer, u))
    assert small.kernel(5).shape == (5, H, H)
    assert excess(layer, reduce_order(layer, 2), u) <= 1


def test_bound_is_saved(tmp_path):
    small = reduce_order(s4d(), 2)
    save(small, tmp_path)
    assert_close(load(tmp_path).error_bound[...], small.error_bound[...], rtol=0)
    assert (small.error_bound[...] > 0).all()


def test_what_cannot_be_reduced_is_refused():
    with pytest.raises(ValueError, match=r"`reduce_order` needs a causal layer.*bidirectional"):
        reduce_order(s4d(bidirectional=True), 2)
    with pytest.raises(ValueError, match="`order` must be a positive integer; got 0"):
        reduce_order(s4d(), 0)
    with pytest.raises(ValueError, match="less than the number of lags, 5; got 5"):
        reduce_order(s4d(), 5, l_max=5)
    mixing = S5(H, 4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="`l_max` has no meaning for S5"):
        reduce_order(mixing, 2, l_max=10)
    with pytest.raises(ValueError, match="must be at most the number of states, 4; got 9"):
        reduce_order(mixing, 9)
    with pytest.raises(ValueError, match="`reduce_order` needs a recurrence"):
        reduce_order(DLR(H, 4, l_kernel=8, rngs=nnx.Rngs(0)), 2)


def test_a_kernel_without_end_needs_a_length(monkeypatch):
    monkeypatch.setattr("s5jax.layers._reduce._LONGEST", 1024)
    layer = Leaky(H, rngs=nnx.Rngs(0))
    layer.a[...] = jnp.ones((2, H))
    with pytest.raises(ValueError, match=r"has not decayed after 1024 lags\. Pass `l_max`"):
        reduce_order(layer, 1)
    small = reduce_order(layer, 1, l_max=100)
    assert excess(layer, small, normal(3, 100, H)) <= 1
