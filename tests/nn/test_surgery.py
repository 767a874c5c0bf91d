"""`save` refuses a model that `load` would not build again."""

import jax.numpy as jnp
import pytest
from flax import nnx
from helpers import assert_close, normal, run

from s5jax import S4D, S5, SequenceClassifier, load, save

RNGS = {"rngs": nnx.Rngs(0)}


def make():
    options = {"d_model": 4, "n_layers": 2, "layer_options": {"d_state": 4}}
    return SequenceClassifier(S5, d_input=3, d_output=2, rngs=nnx.Rngs(0), **options)


def change(path, value):
    """Surgery that sets the attribute of this path."""

    def operate(model):
        *parents, name = path.split(".")
        for parent in parents:
            model = model[int(parent)] if parent.isdigit() else getattr(model, parent)
        setattr(model, name, value() if callable(value) else value)

    return operate


SURGERY = {
    "a wider head": (
        change("decode", lambda: nnx.Linear(4, 5, **RNGS)),
        r"decode.bias is Param of float32 with shape \(5,\) and not .* shape \(2,\)",
    ),
    "another layer": (
        change("blocks.0.layer", lambda: S4D(4, 4, **RNGS)),
        "blocks.0.layer is S4D and not S5",
    ),
    "another norm": (
        change("blocks.0.norm", lambda: nnx.LayerNorm(4, **RNGS)),
        "blocks.0.norm is LayerNorm and not BatchNorm",
    ),
    "an option of a block": (
        change("blocks.1.activation", "gelu"),
        "blocks.1.activation is 'gelu' and not 'half_glu1'",
    ),
    "an option of a layer": (
        change("blocks.1.layer.clip_eigs", True),
        "blocks.1.layer.clip_eigs is True and not False",
    ),
    "an option of the model": (change("dropout", 0.5), "dropout.rate is 0.0 and not 0.5"),
    "a part more": (
        change("extra", lambda: nnx.Linear(2, 2, **RNGS)),
        "extra is Linear and not missing",
    ),
    "a part less": (change("blocks.0.out2", None), "blocks.0.out2 is None and not Linear"),
    "fewer blocks": (
        lambda model: model.blocks.pop(),
        "blocks.1 is missing and not ResidualBlock",
    ),
    "another dtype": (
        lambda model: model.decode.bias.set_value(jnp.zeros(2, jnp.bfloat16)),
        "decode.bias is Param of bfloat16",
    ),
    "a frozen parameter": (
        change("decode.bias", lambda: nnx.Variable(jnp.zeros(2))),
        "decode.bias is Variable of float32",
    ),
    "an impossible option": (change("blocks.0.layer.d_state", 5), "d_state is 5 and not 4"),
}


@pytest.mark.parametrize("name", SURGERY)
def test_save_refuses(name, tmp_path):
    operate, message = SURGERY[name]
    model = make()
    operate(model)
    with pytest.raises(ValueError, match=f"save: `model` must be what .*{message}.*Build a Seq"):
        save(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_an_argument_that_no_constructor_takes(tmp_path):
    layer = S5(4, 4, rngs=nnx.Rngs(0))
    layer.discretization = "euler"
    with pytest.raises(ValueError, match=r"save: .*`discretization` must be one of"):
        save(layer, tmp_path)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_what_load_builds_is_saved(mode, tmp_path):
    """A new head with its option, other values, and either mode."""
    model = make()
    model.decode, model.d_output = nnx.Linear(4, 5, rngs=nnx.Rngs(1)), 5
    getattr(model, mode)()
    save(model, tmp_path)
    model.eval()
    u = normal(0, 2, 6, 3)
    assert_close(run(load(tmp_path), u), run(model, u), rtol=0)
