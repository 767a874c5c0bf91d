import jax
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close, normal, run
from scipy.special import erf, expit

from s5jax import GRU, SequenceBackbone, load, save

GATES = {"geglu": lambda x: x * (1 + erf(x / np.sqrt(2))) / 2, "swiglu": lambda x: x * expit(x)}


def backbone(activation, d_model=6):
    model = SequenceBackbone(
        GRU, d_input=3, d_model=d_model, n_layers=1, layer_options={"d_state": 2}, norm="layer",
        ffn_every=1, ffn_activation=activation, rngs=nnx.Rngs(0),
    )  # fmt: skip
    model.eval()
    return model


@pytest.mark.parametrize("activation", GATES)
def test_gates_are_their_equations(activation):
    (block,) = backbone(activation).feed_forwards
    u = normal(0, 2, 5, 6)
    W1, b1, W2, b2 = (
        np.asarray(x[...], np.float64)
        for x in (block.widen.kernel, block.widen.bias, block.narrow.kernel, block.narrow.bias)
    )
    v = np.asarray(block.norm(u)) @ W1 + b1
    a, b = v[..., :16], v[..., 16:]  # 8 * 6 / 3
    assert_close(block(u), (u + (GATES[activation](a) * b) @ W2 + b2).astype(np.float32))


@pytest.mark.parametrize("activation", GATES)
def test_gates_have_as_many_parameters(activation):
    sizes = [
        sum(x.size for x in jax.tree.leaves(nnx.state(backbone(name, 64).feed_forwards)))
        for name in (activation, "gelu")
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.005)


def test_a_gated_model_steps_and_is_saved(tmp_path):
    model, u = backbone("swiglu"), normal(0, 2, 4, 3)
    y, state = run(model, u, return_state=True)
    _, before = run(model, u[:, :3], return_state=True)
    assert_close(model.step(u[:, 3], before), (y[:, 3], state))
    save(model, tmp_path)
    loaded = load(tmp_path)
    assert nnx.graphdef(loaded) == nnx.graphdef(model)
