"""The model of a finished run, for machines without s5jax."""

import json
import re
import sys

import numpy as np
import pytest
from flax import nnx

import s5jax
from experiments import export
from experiments.training import export_run
from experiments.training.export import ExportOptions
from s5jax.interop import load_exported


@pytest.fixture
def causal(copy):
    """A finished run whose model can step, with its preprocessing."""
    save(copy, bidirectional=False)
    return copy


def save(folder, **layer_options):
    model = s5jax.SequenceClassifier(
        s5jax.S5,
        d_input=1,
        d_output=2,
        d_model=4,
        n_layers=1,
        layer_options={"d_state": 4, **layer_options},
        rngs=nnx.Rngs(0),
    )
    preprocessing = s5jax.Preprocessing(input_mean=2.0, classes=("cold", "hot"))
    s5jax.save(s5jax.Pipeline(model, preprocessing), folder / "model")


def test_the_command_exports_a_run(causal, command):
    code, out, _ = command(export, f"--workdir={causal}", "--format=stablehlo")
    assert code == 0
    folder = causal / "export-stablehlo"
    files = ["call.jax", "export.json", "load_exported.py", "step.jax"]
    assert [line.partition(":")[0] for line in out.splitlines()] == [str(folder / f) for f in files]
    exported, pipeline = load_exported(folder), s5jax.load(causal / "model")
    assert exported.description["preprocessing"]["classes"] == ["cold", "hot"]
    raw = np.linspace(0, 4, 18).reshape(2, 9, 1)
    mean = exported.description["preprocessing"]["input_mean"]
    np.testing.assert_allclose(exported(raw - mean), pipeline(raw), rtol=1e-5)


def test_options_reach_the_export(causal, tmp_path):
    options = ExportOptions(what=("call",), length=8, platforms=("cpu",))
    folder = export_run(causal, "stablehlo", tmp_path / "out", options)
    description = load_exported(folder).description
    assert description["platforms"] == ["cpu"]
    assert description["functions"].keys() == {"call"}
    assert description["functions"]["call"]["inputs"][0]["shape"] == ["b", 8, 1]


def test_onnx(causal, monkeypatch):
    class Graph:
        @staticmethod
        def SerializeToString():
            return b"graph"

    class Converter:
        @staticmethod
        def to_onnx(*args, **options):
            return Graph

    monkeypatch.setitem(sys.modules, "jax2onnx", Converter)
    folder = export_run(str(causal), "onnx")
    assert (folder / "step.onnx").read_bytes() == b"graph"
    assert json.loads((folder / "export.json").read_text())["format"] == "onnx"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--format=onnx"], "`step` needs a causal layer.*use --format=stablehlo --what call."),
        (["--format=stablehlo"], "`step` needs a causal layer.*--format=stablehlo --what call."),
        (["--format=onnx", "--length=8"], "--length must be left out with --format=onnx"),
        (["--format=html", "--what", "call"], "--what must be left out with --format=html"),
        (["--format=html"], "--format=html needs the task digits or smnist; this run has toy"),
        (["--format=stablehlo", "--what", "call", "--length=0"], "`length` must be a positive"),
    ],
)
def test_what_cannot_be_exported(copy, command, args, words):
    save(copy, bidirectional=True)
    code, _, err = command(export, f"--workdir={copy}", *args)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert re.search(words, err)


def test_a_folder_that_is_no_run(command, tmp_path):
    code, _, err = command(export, f"--workdir={tmp_path}", "--format=stablehlo")
    assert code == 2
    assert "config.json" in err
    assert len(err.splitlines()) == 1


def test_a_missing_extra(causal, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    code, _, err = command(export, f"--workdir={causal}", "--format=onnx")
    assert code == 2
    assert "pip install 's5jax[onnx]'" in err
    assert len(err.splitlines()) == 1


def test_help(command):
    code, out, _ = command(export, "--help")
    assert code == 0
    for word in (
        "--workdir",
        "--format {stablehlo,onnx,html,pretrained}",
        "--what",
        "--platforms",
        "Example:",
    ):
        assert word in out
