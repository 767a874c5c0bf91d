"""Files of models: `load` gives what `save` got, and `save` refuses what `load` cannot build."""

import json

import jax.numpy as jnp
import pytest
from flax import nnx
from helpers import assert_close, normal, run, shaken

from s5jax import S4D, S5, ResidualBlock, SequenceClassifier, load, save
from s5jax.models import BlockOptions

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
        change("backbone.blocks.0.layer", lambda: S4D(4, 4, **RNGS)),
        "blocks.0.layer is S4D and not S5",
    ),
    "another norm": (
        change("backbone.blocks.0.norm", lambda: nnx.LayerNorm(4, **RNGS)),
        "blocks.0.norm is LayerNorm and not BatchNorm",
    ),
    "an option of a block": (
        change("backbone.blocks.1.options", BlockOptions(activation="gelu")),
        "backbone.blocks.1.options.activation is 'gelu' and not 'half_glu1'",
    ),
    "an option of a layer": (
        change("backbone.blocks.1.layer.clip_eigs", True),
        "blocks.1.layer.clip_eigs is True and not False",
    ),
    "an option of the model": (
        change("backbone.options", BlockOptions(dropout=0.5)),
        "backbone.blocks.0.dropout.rate is 0.0 and not 0.5",
    ),
    "a part more": (
        change("extra", lambda: nnx.Linear(2, 2, **RNGS)),
        "extra is Linear and not missing",
    ),
    "a part less": (change("backbone.blocks.0.out2", None), "blocks.0.out2 is None and not Linear"),
    "fewer blocks": (
        lambda model: model.backbone.blocks.pop(),
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
    "an impossible option": (
        change("backbone.blocks.0.layer.d_state", 5),
        "d_state is 5 and not 4",
    ),
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


def classifier(**options):
    options = {"d_input": 2, "d_output": 3, "d_model": 4, "n_layers": 2} | options
    layer_options = {"d_state": 8} | options.pop("layer_options", {})
    rngs = nnx.Rngs(options.pop("seed", 0))
    return SequenceClassifier(S5, layer_options=layer_options, rngs=rngs, **options)


@pytest.mark.parametrize(
    "model",
    [
        classifier(
            layer_options={"bidirectional": True, "C_init": "complex_normal"}, final_norm=True
        ),
        classifier(
            norm="layer", encoder="embedding", pooling="last", dtype=jnp.bfloat16, dropout=0.1
        ),
        S5(4, 8, conj_sym=False, clip_eigs=True, rngs=nnx.Rngs(0)),
    ],
    ids=["classifier", "tokens", "layer"],
)
def test_save_and_load(model, tmp_path):
    shaken(model)
    save(model, tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert nnx.graphdef(loaded) == nnx.graphdef(model)
    assert_close(nnx.state(loaded), nnx.state(model), rtol=0)
    assert (
        json.loads((tmp_path / "model" / "model.json").read_text())["class"] == type(model).__name__
    )


def test_load_says_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model.json does not exist"):
        load(tmp_path)
    with pytest.raises(ValueError, match=r"`model` must be one of.*got 'ResidualBlock'"):
        save(ResidualBlock(S5(4, 8, **RNGS), **RNGS), tmp_path)
    save(S5(4, 8, rngs=nnx.Rngs(0)), tmp_path)
    good = (tmp_path / "model.json").read_text()
    for bad, message in [
        (good[:20], "is corrupted"),
        ("[]", "is corrupted"),
        (good.replace('"S5"', '"S6"'), "`class` must be one of.*mean 'S5'"),
        (good.replace('"d_state": 8', '"d_state": 16'), "must be float32 of shape"),
        (good.replace('"d_state"', '"d_sate"'), "does not describe a model of this version"),
        (good.replace('"float32"', '"floaty"'), "does not describe a model of this version"),
    ]:
        (tmp_path / "model.json").write_text(bad)
        with pytest.raises(ValueError, match=message):
            load(tmp_path)
    (tmp_path / "model.json").write_text(good)
    arrays = tmp_path / "parameters.safetensors"
    arrays.write_bytes(arrays.read_bytes()[:-5])
    with pytest.raises(ValueError, match="is corrupted"):
        load(tmp_path)
