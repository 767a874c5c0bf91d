"""Runs that start from a saved model: what they take, and what they refuse."""

import dataclasses
import re
import shlex
import shutil
import sys

import jax
import numpy as np
import pytest
from flax import nnx
from offline_hub import OfflineHub

import s5jax
from experiments.cli.runs import parse_train
from experiments.config import read_config
from experiments.errors import UsageError
from experiments.training import fit
from experiments.training.initial import find_model, initialize, with_checksum
from experiments.training.publish import train_command


def make(**options):
    options = {"d_output": 2, "d_model": 4, "n_layers": 1, "layer": s5jax.S5, **options}
    layer = options.pop("layer")
    sizes = {"layer_options": {"d_state": 4}, "d_input": 3, "norm": "layer"}
    return s5jax.SequenceClassifier(layer, rngs=nnx.Rngs(1), **{**sizes, **options})


def values(model):
    flat = nnx.to_flat_state(nnx.state(model))
    return {".".join(map(str, path)): np.asarray(variable[...]) for path, variable in flat}


def different(old, new):
    """The names of the arrays that differ."""
    return {name for name in new if name not in old or not np.array_equal(old[name], new[name])}


@pytest.fixture
def saved(tmp_path):
    model = make()
    nnx.update(model, jax.tree.map(lambda x: x + 1, nnx.state(model)))
    s5jax.save(model, tmp_path / "saved")
    return str(tmp_path / "saved")


def test_equal_models_share_everything(saved, capsys):
    model = make()
    initialize(model, saved)
    assert different(values(s5jax.load(saved)), values(model)) == set()
    n = len(values(model))
    assert f"{n} of {n} arrays" in capsys.readouterr().out


def test_heads_and_encoders_of_other_shapes_stay(saved, capsys):
    model = make(d_output=5, d_input=2, n_layers=2)
    before = values(model)
    initialize(model, saved)
    new = different(values(s5jax.load(saved)), values(model))
    assert {name for name in new if "blocks.1" not in name} == {
        *("backbone.encode.kernel", "decode.kernel", "decode.bias"),
    }
    assert all(np.array_equal(before[name], values(model)[name]) for name in new)
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 1
    assert ", ".join(sorted(new)) in out


def test_a_backbone_alone(tmp_path):
    model = make()
    options = {"d_input": 3, "d_model": 4, "n_layers": 1, "layer_options": {"d_state": 4}}
    backbone = s5jax.SequenceBackbone(s5jax.S5, norm="layer", rngs=nnx.Rngs(7), **options)
    s5jax.save(backbone, tmp_path / "backbone")
    initialize(model, str(tmp_path / "backbone"))
    assert different(values(backbone), values(model.backbone)) == set()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"d_model": 6},
            r"blocks.0.layer.B has shape \(2, 4, 2\) there and shape \(2, 6, 2\) here",
        ),
        ({"layer": s5jax.GRU}, r"blocks.0.layer.\S+ has .* no values here"),
        ({"norm": "batch"}, r"blocks.0.norm.mean has no values there and shape \(4,\) here"),
    ],
)
def test_other_blocks_are_refused(saved, options, words):
    model = make(**options)
    before = values(model)
    with pytest.raises(UsageError, match=words):
        initialize(model, saved)
    assert different(before, values(model)) == set()


def test_a_layer_alone_is_refused(tmp_path):
    s5jax.save(s5jax.S5(d_model=4, d_state=4, rngs=nnx.Rngs(0)), tmp_path / "layer")
    with pytest.raises(UsageError, match=r"has no parameters under backbone.blocks.0.*it has B"):
        initialize(make(), str(tmp_path / "layer"))


def test_damaged_models_are_refused(saved, tmp_path):
    (tmp_path / "saved/parameters.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match=r"parameters.safetensors is corrupted"):
        initialize(make(), saved)


def test_flags():
    args = ["--task=digits", "--init-from=digits-s5", "--optim.freeze", "encoder", "blocks"]
    config = parse_train(args).configs()[0]
    assert config.init_from == "digits-s5"
    assert config.optim.freeze == ("encoder", "blocks")
    command = shlex.split(train_command(with_checksum(config)))
    assert parse_train(command[3:]).configs()[0] == config


def test_sources(copy):
    assert find_model(str(copy)) == copy / "model" == find_model(str(copy / "model"))
    assert find_model("digits-s5") == s5jax.list_pretrained()["digits-s5"]["folder"] / "model"
    with pytest.raises(UsageError, match=r"or one of .*digits-s5, .*; got nowhere\."):
        find_model("nowhere")


def test_models_of_the_hub(saved, tmp_path, monkeypatch, toy):
    (tmp_path / "empty").mkdir()
    folders = {"some/model": tmp_path / "saved", "some/texts": tmp_path / "empty"}
    monkeypatch.setitem(sys.modules, "huggingface_hub", OfflineHub(folders))
    model, config = make(), dataclasses.replace(toy(), init_from="hf://some/model")
    initialize(model, "hf://some/model")
    assert different(values(s5jax.load(saved)), values(model)) == set()
    checksum = with_checksum(dataclasses.replace(config, init_from=saved)).init_sha256
    assert with_checksum(config).init_sha256 == checksum
    with pytest.raises(UsageError, match=r"hf://OWNER/NAME with .*; got hf://some/texts\.$"):
        find_model("hf://some/texts")
    with pytest.raises(UsageError, match=r"hf://some/other cannot be downloaded: 404"):
        find_model("hf://some/other")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=r"needs the package .* pip install huggingface_hub\.$"):
        with_checksum(config)


def test_a_run_starts_from_a_model_and_refuses_another(toy, copy, one_device, tmp_path):
    source = shutil.copytree(copy, tmp_path / "source")
    config = toy(train={"steps": 3}, optim={"warmup_steps": 1, "freeze": ("encoder", "blocks")})
    config = dataclasses.replace(config, init_from=source)
    fit(config, tmp_path / "tuned", mesh=one_device)
    old, new = (values(s5jax.load(folder / "model")) for folder in (source, tmp_path / "tuned"))
    trained = {name for name in different(old, new) if not name.endswith(("norm.mean", "norm.var"))}
    assert trained == {"model.decode.bias", "model.decode.kernel"}
    config = dataclasses.replace(config, init_from=str(source))
    recorded = read_config(tmp_path / "tuned")
    assert recorded == with_checksum(config)
    assert re.fullmatch(r"[0-9a-f]{64}", recorded.init_sha256)
    fit(config, tmp_path / "tuned", mesh=one_device)  # the same model: the run is finished
    path = source / "model" / "model.json"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(UsageError, match=r"another configuration \(init_sha256 is"):
        fit(config, tmp_path / "tuned", mesh=one_device)
