"""A run that an earlier version began, at commit 22034eb, is resumed and finished.

Its models had no backbone, and S4D had the option ``conv``. The run folder is one that this commit
finished, cut back to its checkpoint of step 20. ``earlier/run/remaining.jsonl`` holds the rows that
the commit wrote after it.
"""

import json
import shutil
from pathlib import Path

import pytest

from experiments import train

DATA = Path(__file__).parent / "earlier" / "run"
OPTIONS = ["--task=pathfinder", "--preset=smoke", "--model=s4d", "--seed=3", "--mesh=data=1"]
OPTIONS += ["--model.n_layers=2", "--model.d_model=4", "--model.d_state=4", "--model.norm=batch"]
OPTIONS += ["--optim.clip_norm=0.5", "--optim.ema=0.9", "--train.steps=30"]
OPTIONS += [f"--train.{name}_every=10" for name in ("checkpoint", "eval", "log")]


def read_rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def workdir(tmp_path):
    shutil.copytree(DATA, tmp_path / "run")
    (tmp_path / "run" / "remaining.jsonl").unlink()
    return tmp_path / "run"


def test_the_rest_of_a_run_is_as_if_nothing_had_changed(workdir, command):
    code, out, err = command(train, *OPTIONS, "--model.conv=chunked", f"--workdir={workdir}")
    assert code == 0, err
    assert "resuming at step 20" in out
    remaining = read_rows(workdir / "metrics.jsonl")[4:]
    expected = read_rows(DATA / "remaining.jsonl")
    assert len(remaining) == len(expected) == 2
    for row, earlier in zip(remaining, expected, strict=True):
        assert row == pytest.approx(earlier, rel=1e-5)
    assert json.loads((workdir / "config.json").read_text())["model"]["algorithm"] == "chunked"


def test_another_algorithm_is_another_configuration(workdir, command):
    code, _, err = command(train, *OPTIONS, "--model.algorithm=fft", f"--workdir={workdir}")
    assert code == 2
    assert "model.algorithm" in err


@pytest.mark.parametrize(
    ("model", "flags"),
    [("s5", ["--model.backend=associative"]), ("s4", ["--model.conv", "fft"])],
)
def test_earlier_names_of_flags(model, flags, command):
    args = ["--task=smnist", f"--model={model}", "--preset=smoke", "--print-config"]
    _, expected, _ = command(train, *args, f"--model.algorithm={flags[-1].split('=')[-1]}")
    code, out, err = command(train, *args, *flags)
    assert (code, out) == (0, expected), err
    assert "algorithm" in json.loads(out)["model"]
