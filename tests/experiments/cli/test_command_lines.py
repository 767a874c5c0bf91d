import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import evaluate, plan, train
from experiments.cli.process import DETERMINISTIC, use_deterministic_operations
from experiments.cli.runs import parse_train
from experiments.config import Config
from experiments.data import __main__ as data
from experiments.errors import InterruptedRun, RunError, UsageError
from experiments.recipes import OF_DATA_SETS, PRESETS, RECIPES, __main__, get_recipe


def test_help_without_a_task_lists_what_there_is(command):
    code, out, _ = command(train, "--help")
    assert code == 0
    for word in ("pathfinder", "pathx", "path256", "s5", "paper", "cpu", "smoke", "Example:"):
        assert word in out
    for flag in (
        "--task",
        "--model",
        "--preset",
        "--seed",
        "--workdir",
        "--mesh",
        "--deterministic",
    ):
        assert flag in out
    assert "--optim.weight_decay" not in out


def test_help_with_a_task_shows_every_option_with_the_recipe_s_default(command):
    code, out, _ = command(train, "--task=pathx", "--preset=paper", "--help")
    assert code == 0
    config = get_recipe("pathx", "s5", "paper").to_dict()
    for section in ("data", "model", "optim", "train"):
        assert f"{section} options" in out
        for name in config[section].keys() - {"name"}:
            assert f"--{section}.{name} " in out
    flat = " ".join(out.split())
    for default in ("(default: 375000)", "(default: 0.0018)", "(default: 2 3)", "[steps]"):
        assert default in flat
    assert "Example:" in out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], ["--task", "pathx"]),
        (["--task=pathz"], ["'pathz'", "pathfinder", "Did you mean 'pathx'?"]),
        (["--task=pathx", "--model=s55"], ["'s55'", "Did you mean 's5'?"]),
        (["--task=pathx", "--preset=papre"], ["cpu", "smoke", "Did you mean 'paper'?"]),
        (["--task=pathx", "--model.d_sate=8"], ["--model.n_blocks", "'--model.d_state'?"]),
        (["--task=pathx", "--optm.lr=8"], ["--optim.*", "'--optim.lr'?"]),
        (["--task=pathx", "--worker=8"], ["--workdir", "--mesh"]),
        (["--task=pathx", "nonsense"], ["'nonsense'"]),
        (["--task=pathx", "--optim.lr=fast"], ["--optim.lr", "'fast'"]),
        (["--task=pathx", "--optim.lr=-1"], ["`lr`", "positive", "-1"]),
        (["--task=pathx", "--optim.schedule=cos"], ["cosine", "'cos'"]),
        (["--task=pathx", "--train.steps=1"], ["warmup_steps", "train.steps"]),
        (["--task=pathx", "--data.size=0"], ["`size`"]),
        (["--task=pathx", "--seed=-1"], ["`seed`", "-1"]),
        (["--task=pathx", "--on-nan=explode"], ["stop", "skip", "explode"]),
        (["--task=pathx", "--mesh=8"], ["data=N", "'8'"]),
        (["--task=pathx", "--mesh=data=99"], ["99", "8"]),
        (["--task=pathx", "--mesh=data=8", "--train.batch_size=12"], ["12", "8"]),
        (["--task=pathx", "--model.d_state=7", "--preset=smoke"], ["d_state", "7"]),
        (["--task=pathx", "--data.n_paddles=90", "--preset=smoke"], ["n_paddles", "no pair"]),
        (["--task=retrieval", "--model=s4", "--preset=cpu"], ["s4 for retrieval", "smoke"]),
        (["--task=retrieval"], ["no preset for a CPU", "--preset=paper", "--preset=smoke"]),
        (["--task=pathx", "--model.dt_max=1e-5", "--preset=smoke"], ["dt_max", "1e-05"]),
        (
            ["--task=pathx", "--model=sgconv", "--model.kernel_dim=5000", "--preset=smoke"],
            ["kernel_dim", "l_max", "1024"],
        ),
    ],
)
def test_bad_usage_is_one_explanation_and_code_2(command, tmp_path, args, words):
    code, _, err = command(train, *args, *([f"--workdir={tmp_path / 'run'}"] if args else []))
    assert code == 2
    flat = " ".join(err.replace("│", " ").split())
    assert all(word in flat for word in words)
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_print_config_is_the_resolved_configuration(command):
    overrides = ["--model.d_state=64", "--optim.lr=1e-3", "--seed=5", "--data.margins", "1", "2"]
    code, out, _ = command(
        train,
        "--task=pathx",
        "--preset=smoke",
        *overrides,
        "--model.prenorm=False",
        "--print-config",
    )
    assert code == 0
    values = json.loads(out)
    assert values["model"]["d_state"] == 64
    assert values["model"]["prenorm"] is False
    assert values["optim"]["lr"] == 1e-3
    assert values["data"]["margins"] == [1, 2]
    assert (values["task"], values["preset"], values["seed"]) == ("pathx", "smoke", 5)
    assert Config.from_dict(values).model.d_state == 64


def test_without_a_preset_a_cpu_takes_cpu(command):
    _, out, _ = command(train, "--task=pathfinder", "--print-config")
    assert json.loads(out)["preset"] == "cpu"


def test_train_says_what_it_runs_and_what_differs_from_the_paper(command, monkeypatch):
    calls = []
    monkeypatch.setattr(train, "fit", lambda *args, **options: calls.append((args, options)))
    code, out, _ = command(train, "--task=pathx", "--mesh=data=4", "--on-nan=skip")
    assert code == 0
    (config, workdir), options = calls[0]
    assert config == get_recipe("pathx", "s5", "cpu")
    assert workdir == Path("runs/pathx-s5-cpu-seed0")
    assert (options["mesh"].size, options["on_nan"]) == (4, "skip")
    assert "cpu" in out
    assert "the default preset on cpu" in out
    assert sum("Changed against the paper" in line for line in out.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (RunError("a b"), 1, "a b"),
        (UsageError("c d"), 2, "c d"),
        (
            InterruptedRun(15, "w"),
            143,
            "Interrupted; the same command with --workdir=w resumes from here.",
        ),
    ],
)
def test_a_failed_run_ends_with_a_sentence(command, monkeypatch, error, code, sentence):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(train, "fit", fail)
    left, _, err = command(train, "--task=pathx")
    assert (left, err) == (code, f"{sentence}\n")


def test_deterministic_asks_xla(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--a=b")
    use_deterministic_operations()
    assert os.environ["XLA_FLAGS"] == f"--a=b {DETERMINISTIC}"


def test_the_flags_are_set_before_a_device_is_used(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    flags = []

    def backend() -> str:
        flags.append(os.environ["XLA_FLAGS"])
        return "cpu"

    monkeypatch.setattr("jax.default_backend", backend)
    monkeypatch.setattr("jax.devices", backend)
    parse_train(["--task=pathx", "--deterministic"])
    assert set(flags) == {DETERMINISTIC}


@pytest.mark.slow
def test_xla_knows_the_flags():
    program = "import jax; print(jax.numpy.ones(3).sum())"
    environment = {**os.environ, "XLA_FLAGS": DETERMINISTIC}
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "3.0"


def test_sample_writes_a_file(command, tmp_path):
    out = tmp_path / "sample.npz"
    args = ["--task=pathfinder", "--n=12", "--seed=7", "--split=train", f"--out={out}"]
    code, text, _ = command(data, "sample", *args)
    assert code == 0
    assert str(out) in text
    with np.load(out, allow_pickle=False) as arrays:
        assert arrays["images"].shape == (12, 32, 32)
        assert arrays["images"].dtype == np.uint8
        assert arrays["labels"].shape == arrays["margins"].shape == (12,)


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ([], 0, "usage: python -m experiments.data sample|prepare --task=NAME"),
        (["--help"], 0, "usage: python -m experiments.data sample|prepare --task=NAME"),
        (["sampl"], 2, "Unknown command 'sampl': the usage is python -m experiments.data"),
        (["sample", "--help"], 0, "usage: python -m experiments.data sample"),
        (["sample"], 2, "Choose a task with --task=NAME: listops, text"),
    ],
)
def test_data_command_explains_itself(command, args, code, words):
    left, *texts = command(data, *args)
    assert left == code
    said, empty = texts if code == 0 else reversed(texts)
    assert said.startswith(words)
    assert empty == ""


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--split=tran"], "invalid choice 'tran' for argument '--split'"),
        (["--n=0"], "--n must be between 1 and 160,000, the size of train; got 0."),
        (["--data.siz=3"], "Unknown option '--data.siz'"),
        (["--data.n_paddles=90"], "no pair of contours fits in 1,000,000 attempts"),
    ],
)
def test_sample_refuses_bad_usage(command, args, words):
    code, _, err = command(data, "sample", "--task=pathfinder", *args)
    assert code == 2
    assert words in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err


def test_sample_says_that_it_cannot_write(command, tmp_path):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "x"
    code, _, err = command(data, "sample", "--task=pathfinder", "--n=2", f"--out={out}")
    assert code == 2
    assert f"{out} cannot be written" in err


def test_evaluate_refuses_a_folder_without_a_run(command, tmp_path):
    code, _, err = command(evaluate, f"--workdir={tmp_path}")
    assert code == 2
    assert "config.json" in err


def test_recipes_are_listed(command):
    code, out, _ = command(__main__, "--task=pathx")
    assert code == 0
    rows = [line for line in out.splitlines() if any(preset in line for preset in PRESETS)]
    assert len(rows) == sum(task == "pathx" for task, _, _ in RECIPES)
    assert "Smith et al. 2023" in out


def test_recipes_are_listed_for_machines(command):
    _, out, _ = command(__main__, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    keys = [(row["task"], row["model"], row["preset"], row["set"]) for row in rows]
    assert keys == [*((*key, "") for key in RECIPES), *OF_DATA_SETS]
    assert all(row["source"] for row in rows)


def test_plan_says_what_a_run_takes(command):
    code, out, _ = command(plan, "--task=pathfinder", "--preset=smoke")
    assert code == 0
    for word in ("parameters", "temporary, per device", "s per step", "Recipe of the paper"):
        assert word in out
