"""Flags with slips, and paths that are no good."""

import json

import numpy as np
import pytest

from experiments import evaluate, export, generate, predict, results, train
from experiments.bench import __main__ as bench
from experiments.data import __main__ as data
from experiments.errors import UsageError, suggest
from experiments.recipes import __main__ as recipes
from experiments.recipes import get_recipe


@pytest.mark.parametrize(
    ("module", "args"),
    [
        (train, ["--task=pathfinder", "--preset=smoke", "--workdir="]),
        (train, ["--task=pathfinder", "--preset=smoke", "--data-dir="]),
        (evaluate, ["--workdir="]),
        (evaluate, ["--workdir=x", "--json="]),
        (predict, ["--workdir=x", "--data.file="]),
        (predict, ["--workdir=x", "--data.file=y.npz", "--out="]),
        (generate, ["--workdir=", "--prompt=a"]),
        (export, ["--workdir=", "--format=onnx"]),
        (export, ["--workdir=x", "--format=onnx", "--out="]),
        (data, ["sample", "--task=pathfinder", "--out="]),
        (data, ["prepare", "--task=smnist", "--source="]),
        (results, ["--folder="]),
        (results, ["--write="]),
        (bench, ["--json="]),
    ],
)
def test_an_empty_path_is_refused(command, module, args):
    code, _, err = command(module, *args)
    assert code == 2
    assert "must not be empty" in " ".join(err.replace("│", " ").split())


def test_outputs_are_checked_before_the_work(command, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    for module, name in ((evaluate, "evaluate_run"), (predict, "predict"), (data, "sample")):
        monkeypatch.setattr(module, name, lambda *args, **options: pytest.fail("has begun"))
    commands = {
        "--json": (evaluate, ["--workdir=x"], ""),
        "--out": (predict, ["--workdir=x", "--data.file=y.npz"], "x.csv"),
    }
    for option, (module, args, name) in commands.items():
        code, _, err = command(module, *args, f"{option}={tmp_path / 'file' / (name or 'x')}")
        assert code == 2
        assert "cannot be written" in err
    for module, args in ((evaluate, ["--workdir=x", "--json"]), (data, ["sample", "--out"])):
        task = ["--task=pathfinder"] if module is data else []
        code, _, err = command(module, *args, str(tmp_path), *task)
        assert code == 2
        assert "must name a file" in err


def test_outputs_go_into_a_folder_that_is_made(copy, command, tmp_path):
    out = tmp_path / "new" / "folder" / "figures.json"
    assert command(evaluate, f"--workdir={copy}", f"--json={out}", "--mesh=data=1")[0] == 0
    assert json.loads(out.read_text())["test"]["accuracy"] >= 0
    out = tmp_path / "other" / "sample"
    code, text, _ = command(data, "sample", "--task=pathfinder", "--n=2", f"--out={out}")
    assert code == 0
    assert "sample.npz" in text
    assert np.load(tmp_path / "other" / "sample.npz")["images"].shape == (2, 32, 32)


def test_names_are_near_in_any_case():
    assert suggest("PathX", ["pathx", "digits"]) == " Did you mean 'pathx'?"
    assert suggest("S5", ["s4", "s5", "lru"]) == " Did you mean 's5'?"
    assert suggest("pathx ", ["pathx"]) == " Did you mean 'pathx'?"
    with pytest.raises(UsageError, match="Unknown preset None"):
        get_recipe("pathx", "s5", None)


@pytest.mark.parametrize(
    ("module", "args", "words"),
    [
        (train, ["--taks=pathx"], ["'--taks'", "Did you mean '--task'?"]),
        (train, ["task=pathx"], ["'task'", "Did you mean '--task'?"]),
        (train, ["pathx"], ["'pathx'", "--task"]),
        (train, ["--task=pathx", "--optim.lr=inf"], ["`lr`", "below 2**31", "inf"]),
        (train, ["--task=pathx", "--train.steps=3000000000"], ["`steps`", "below 2**31"]),
        (recipes, ["--task=pathz"], ["Did you mean 'pathx'?"]),
        (recipes, ["--model=S5"], ["Did you mean 's5'?"]),
        (data, ["sampl"], ["Did you mean 'sample'?"]),
    ],
)
def test_a_slip_is_named(command, module, args, words):
    code, _, err = command(module, *args)
    assert code == 2
    assert all(word in " ".join(err.replace("│", " ").split()) for word in words)
