"""The residual block: activations, norms, dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close, normal, run, shaken, tiers

from s5jax import S5, ResidualBlock

ACTIVATIONS = ("full_glu", "half_glu1", "half_glu2", "gelu", "glu")


def block(**options):
    rngs = nnx.Rngs(0)
    return ResidualBlock(S5(4, 8, rngs=rngs), rngs=rngs, **options)


@pytest.mark.parametrize("activation", tiers(ACTIVATIONS, {"full_glu", "gelu"}))
@pytest.mark.parametrize(("norm", "prenorm"), [("batch", True), ("layer", False)])
def test_block_streams(activation, prenorm, norm):
    model = shaken(block(activation=activation, prenorm=prenorm, norm=norm))
    u = normal(0, 2, 9, 4)
    whole, last = run(model, u, return_state=True)
    head, state = run(model, u[:, :4], return_state=True)
    tail, state = run(model, u[:, 4:], state=state, return_state=True)
    assert_close((jnp.concatenate([head, tail], 1), state), (whole, last))
    y, state = model.step(u[:, 0], model.init_state((2,)))
    assert_close(y, whole[:, 0])


def test_scalar_layer_norm_is_the_formula_and_survives_equal_features():
    model = block(norm="scalar_layer")
    model.norm.scale[...], model.norm.bias[...] = jnp.array([2.0]), jnp.array([0.5])
    x = normal(4, 2, 3, 4)
    expected = 2 * (x - x.mean(-1, keepdims=True) + 0.5) / x.std(-1, keepdims=True)
    assert_close(model.norm(x), expected)
    gradient = jax.grad(lambda x: model.norm(x).sum())(jnp.zeros((1, 4)))
    assert not np.any(gradient)
    assert not np.any(model.norm(jnp.ones((1, 4))))


@pytest.mark.parametrize(("tied", "distinct"), [(True, 1), (False, 9)])
def test_dropout(tied, distinct):
    model = block(norm="layer", activation="gelu", dropout=0.5, tie_dropout=tied)
    u = normal(7, 2, 9, 4)
    with pytest.raises(ValueError, match=r"needs `rngs`.*model.eval\(\)"):
        model(u)
    key = jax.random.key(0)
    y = model(u, rngs=nnx.Rngs(dropout=key))
    assert_close(model(u, rngs=nnx.Rngs(dropout=key)), y, rtol=0)
    dropped = np.asarray(y == u)
    assert 0.2 < dropped.mean() < 0.8
    patterns = len(np.unique(dropped[0], axis=0))
    assert patterns == 1 if tied else 1 < patterns <= distinct
    model.eval()
    assert_close(model(u), block(norm="layer", activation="gelu")(u))


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"tie_dropout": True}, 0.25),
        ({"tie_dropout": "residual"}, 0.25),
        ({"tie_dropout": "residual", "layer_dropout": True}, 0.125),
    ],
)
def test_dropout_before_and_after_the_linear_map(options, kept):
    model = block(activation="gelu_linear", dropout=0.5, **options)
    model.out2.kernel[...] = jnp.eye(4)
    x = normal(7, 512, 9, 4)
    y = np.asarray(model._activate(x, nnx.Rngs(dropout=0)) != 0)
    assert abs(y.mean() - kept) < 0.04
    features = y.any(1).mean()  # those that no tied drop took away
    assert abs(features - (0.25 if options["tie_dropout"] is True else 0.5)) < 0.06
    model.eval()
    assert_close(model._activate(x, None), jax.nn.gelu(x, approximate=False))
