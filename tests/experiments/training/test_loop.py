import dataclasses
import json
import os
import platform
import shutil
import signal
import struct
import subprocess

import jax
import numpy as np
import pytest
from flax import nnx
from tensorboardX.proto.event_pb2 import Event

import s5jax
from experiments.config import read_config
from experiments.devices.mesh import make_mesh
from experiments.errors import InterruptedRun, RunError, UsageError
from experiments.recipes import RECIPES, Recipe
from experiments.records import PACKAGES, describe_changed_environment, environment, read_results
from experiments.training import checkpoint, compile, loop
from experiments.training.evaluation import evaluate_run
from experiments.training.loop import fit
from experiments.training.metrics import read_rows


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of that folder as it was just before the end."""
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    (workdir / "results.json").unlink()
    return workdir


def record(workdir):
    """What must not depend on interruptions."""
    results = read_results(workdir)
    del results["wall_s"], results["samples_per_s"], results["commit"]
    model = (workdir / "model" / "parameters.safetensors").read_bytes()
    return (workdir / "metrics.jsonl").read_text(), results, model


def test_rows_of_a_run(finished, toy):
    rows = read_rows(finished)
    training = [row for row in rows if "loss" in row]
    validation = [row for row in rows if "validation_loss" in row]
    assert [row["step"] for row in training] == list(range(1, 13))
    assert [row["step"] for row in validation] == [6, 12]
    assert set(training[0]) == {"step", "loss", "accuracy", "grad_norm", "lr"}
    assert training[1]["lr"] == pytest.approx(toy().optim.lr / 2)


def test_contents_of_a_finished_folder(finished, toy):
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "checkpoints",
        "config.json",
        "learning_curves.png",
        "metrics.jsonl",
        "model",
        "results.json",
        "tensorboard",
    }
    assert read_config(finished) == toy()


def test_results_name_the_run_and_its_figures(finished):
    results = read_results(finished)
    assert {k: results[k] for k in ("task", "model", "preset", "seed", "steps")} == {
        "task": "toy",
        "model": "s5",
        "preset": "smoke",
        "seed": 0,
        "steps": 12,
    }
    validation = [row for row in read_rows(finished) if "validation_loss" in row]
    best = max(validation, key=lambda row: row["validation_accuracy"])
    assert results["validation"] == {
        "loss": best["validation_loss"],
        "accuracy": best["validation_accuracy"],
    }
    assert results["best_step"] == best["step"]
    assert set(results["test"]) == {"loss", "accuracy"}
    assert results["versions"]["jax"] == jax.__version__
    assert {"wall_s", "samples_per_s", "device", "commit"} <= set(results)
    assert results["samples_per_s"] > 0
    assert (results["epochs"], results["metric"]) == (1.5, "accuracy")


def test_of_steps_with_the_same_metric_the_one_of_the_least_loss_is_kept(
    toy, one_device, tmp_path, monkeypatch
):
    losses = iter([0.3, 0.2, 0.2, 0.4])

    def evaluate(setup, leaves, split, *, between):
        return {"loss": 0.1 if split == "test" else next(losses), "accuracy": 1.0}

    monkeypatch.setattr(loop, "evaluate", evaluate)
    results = fit(toy(train={"eval_every": 3}), tmp_path / "run", mesh=one_device)
    assert (results["best_step"], results["validation"]["loss"]) == (6, 0.2)


def test_config_json_says_where_the_run_ran(finished, one_device):
    recorded = json.loads((finished / "config.json").read_text())["environment"]
    assert recorded == environment(one_device)
    assert recorded.keys() == {"versions", "commit", "device", "processes", "xla_flags"}
    assert recorded["versions"]["python"] == platform.python_version()
    assert set(PACKAGES) < set(recorded["versions"])
    assert recorded["xla_flags"] == os.environ["XLA_FLAGS"]
    assert recorded["device"].startswith("1 x ")
    assert recorded.items() <= read_results(finished).items()


def test_the_plan_of_a_mesh_that_shares_sequences(toy, tmp_path, capsys):
    mesh = make_mesh("data=2,seq=2", batch_size=8)
    fit(toy(train={"steps": 4}), tmp_path / "run", mesh=mesh)
    assert "4 x cpu, of which 2 share each sequence" in capsys.readouterr().out


def test_results_of_an_unknown_run_are_not_those_of_any(finished, toy, one_device, tmp_path):
    shutil.copy(finished / "results.json", tmp_path)
    with pytest.raises(UsageError, match=r"results of a run but not its config\.json"):
        fit(toy(), tmp_path, mesh=one_device)


def test_what_has_changed_since_is_said_in_one_line(finished, copy, toy, one_device, capsys):
    path = copy / "config.json"
    values = json.loads(path.read_text())
    values["environment"]["versions"]["jax"] = "0.9"
    values["environment"]["device"] = "8 x NVIDIA H100"
    path.write_text(json.dumps(values))
    fit(toy(), copy, mesh=one_device)
    assert (
        "Environment changed since this run last started: device 1 x cpu (was 8 x NVIDIA H100), "
        f"jax {jax.__version__} (was 0.9).\n"
    ) in capsys.readouterr().out
    assert path.read_text() == (finished / "config.json").read_text()


def test_a_folder_without_such_a_record_is_gone_on_with(copy, toy):
    path = copy / "config.json"
    values = json.loads(path.read_text())
    for record in (None, "?", {}):
        path.write_text(json.dumps({**values, "environment": record}))
        assert describe_changed_environment(copy, values["environment"]) == ""
    del values["environment"]
    path.write_text(json.dumps(values))
    assert describe_changed_environment(copy, {"device": "1 x cpu"}) == ""
    assert read_config(copy) == toy()


@pytest.mark.parametrize(("published", "word"), [(0.0, "on track"), (1.1, "behind")])
def test_a_run_is_compared_with_the_published_milestones(
    toy, one_device, tmp_path, monkeypatch, capsys, published, word
):
    row = Recipe(config=toy(), source="", milestones=((1, published), (9, 0.5)))
    monkeypatch.setitem(RECIPES, row.key, row)
    fit(toy(), tmp_path, mesh=one_device)
    lines = [line for line in capsys.readouterr().out.splitlines() if "after 1 epochs" in line]
    assert len(lines) == 1
    assert lines[0].endswith(f"{word}.")


def test_a_step_that_does_not_fit_is_refused(toy, one_device, tmp_path, monkeypatch):
    monkeypatch.setattr(compile, "memory_of", lambda device: 1_000)
    with pytest.raises(RunError, match=r"1 kB: reduce --train\.batch_size"):
        fit(toy(), tmp_path, mesh=one_device)


def test_a_finished_run_reports_its_results(finished, toy, one_device, capsys, monkeypatch):
    monkeypatch.setattr(loop, "make_setup", None)
    assert fit(toy(), finished, mesh=one_device) == read_results(finished)
    assert "finished" in capsys.readouterr().out


def test_another_configuration_is_refused(finished, toy, one_device):
    with pytest.raises(UsageError, match=r"optim\.lr is 0\.01 there, 0\.5 here"):
        fit(toy(optim={"lr": 0.5}), finished, mesh=one_device)


def test_impossible_model_is_refused_and_leaves_the_folder_free(toy, one_device, tmp_path):
    with pytest.raises(UsageError, match="d_state"):
        fit(toy(model={"d_state": 3}), tmp_path / "run", mesh=one_device)
    assert not (tmp_path / "run").exists()


def test_evaluation_of_a_finished_run_reproduces_its_figures(finished):
    results = read_results(finished)
    again = evaluate_run(finished)
    for split in ("validation", "test"):
        assert again[split]["accuracy"] == results[split]["accuracy"]
        assert again[split]["loss"] == pytest.approx(results[split]["loss"], rel=1e-6)


def test_evaluation_needs_a_finished_run(copy, tmp_path):
    with pytest.raises(UsageError, match="not finished"):
        evaluate_run(copy)
    with pytest.raises(UsageError, match=r"config\.json"):
        evaluate_run(tmp_path)


def test_the_saved_model_is_the_best_in_evaluation_mode(finished):
    model = s5jax.load(finished / "model")
    u = np.ones((2, 8, 1), np.float32)
    np.testing.assert_array_equal(model(u), model(u))
    assert model(u).shape == (2, 2)
    assert not jax.tree.leaves(nnx.state(model, nnx.RngState))


@pytest.mark.parametrize("lost", [1, 2])
def test_a_damaged_checkpoint_costs_nothing_but_time(finished, copy, toy, one_device, capsys, lost):
    steps = sorted(int(path.name) for path in (copy / "checkpoints").iterdir())
    for step in steps[-lost:]:
        arrays = copy / "checkpoints" / str(step) / "arrays"
        largest = max((p for p in arrays.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        largest.write_bytes(largest.read_bytes()[:-7])
    fit(toy(), copy, mesh=one_device)
    assert record(copy) == record(finished)
    assert f"The checkpoint of step {steps[-1]} is corrupted" in capsys.readouterr().out


def test_a_run_killed_before_its_first_checkpoint_starts_anew(finished, copy, toy, one_device):
    shutil.rmtree(copy / "checkpoints")
    shutil.rmtree(copy / "model")
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "los')
    fit(toy(), copy, mesh=one_device)
    assert record(copy) == record(finished)


def test_what_a_kill_leaves_behind_is_enough(finished, toy, one_device, tmp_path, monkeypatch):
    """Copies of the folder between two steps, and before a checkpoint gets its checksums."""

    def copy_folder(name):
        subprocess.run(["cp", "-r", tmp_path / "run", tmp_path / name], check=False)

    def advance(display):
        shown.append(None)
        if len(shown) in (2, 8):
            copy_folder(f"step{len(shown)}")
        advance_display(display)

    def write_json(path, values):
        if path.parent.name == "6":
            copy_folder("writing")
        write_checksums(path, values)

    shown, advance_display, write_checksums = [], loop.Display.advance, checkpoint.write_json
    monkeypatch.setattr(loop.Display, "advance", advance)
    monkeypatch.setattr(checkpoint, "write_json", write_json)
    fit(toy(), tmp_path / "run", mesh=one_device)
    monkeypatch.undo()
    for name in ("run", "step2", "step8", "writing"):
        fit(toy(), tmp_path / name, mesh=one_device)
        assert record(tmp_path / name) == record(finished)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("step", signal.SIGINT),
        ("validation", signal.SIGTERM),
        ("test", signal.SIGTERM),
        pytest.param("step", signal.SIGTERM, marks=SLOW),
        pytest.param("validation", signal.SIGINT, marks=SLOW),
        pytest.param("test", signal.SIGINT, marks=SLOW),
    ],
)
def test_a_signal_ends_the_run_with_a_checkpoint(
    finished, toy, one_device, tmp_path, monkeypatch, number, moment
):
    if moment == "step":
        advance = loop.Display.advance
        monkeypatch.setattr(loop.Display, "advance", _at_call(4, number, advance))
    else:
        evaluate = loop.evaluate
        monkeypatch.setattr(
            loop, "evaluate", _at_call({"validation": 2, "test": 3}[moment], number, evaluate)
        )
    with pytest.raises(InterruptedRun, match=r"--workdir=.* resumes from here") as error:
        fit(toy(), tmp_path / "run", mesh=one_device)
    assert error.value.exit_code == 128 + number
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    step = {"step": 4, "validation": 12, "test": 12}[moment]
    assert (tmp_path / "run" / "checkpoints" / str(step)).is_dir()
    monkeypatch.undo()
    fit(toy(), tmp_path / "run", mesh=one_device)
    assert record(tmp_path / "run") == record(finished)


def _at_call(n, number, function):
    """Wraps a function: its n-th call is preceded by a signal to this process."""
    calls = []

    def wrapped(*args, **kwargs):
        calls.append(None)
        if len(calls) == n:
            os.kill(os.getpid(), number)
        return function(*args, **kwargs)

    return wrapped


def test_plan_comes_before_the_first_step(toy, one_device, tmp_path, capsys):
    fit(dataclasses.replace(toy(), seed=3), tmp_path / "run", mesh=one_device)
    plan, _, rest = capsys.readouterr().out.partition("\ndevice")
    for word in (
        "parameters",
        "regular",
        "ssm",
        "epochs",
        "temporary",
        "s per step",
        " in total",
    ):
        assert word in plan
    assert "validation loss" not in plan
    assert "step 6: validation loss" in rest


def test_tensorboard_events_are_written(finished):
    """Every number of every row, at its step."""
    (file,) = (finished / "tensorboard").glob("events.*")
    found, data = {}, file.read_bytes()
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + size])
        found |= {(event.step, value.tag): value.simple_value for value in event.summary.value}
        data = data[16 + size :]
    rows = read_rows(finished)
    expected = {
        (row["step"], name.replace("validation_", "validation/")): np.float32(value)
        for row in rows
        for name, value in row.items()
        if name != "step" and value is not None
    }
    assert len(expected) > len(rows) > 0
    assert expected.items() <= found.items()


def test_rows_are_json_that_any_reader_takes(finished):
    for line in (finished / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
