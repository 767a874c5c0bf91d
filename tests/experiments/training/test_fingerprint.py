"""A run knows the data that it was started on, and its model needs them no more."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import s5jax
from experiments import evaluate as evaluate_module
from experiments import train
from experiments.config import read_config, read_fingerprint
from experiments.errors import InterruptedRun, UsageError
from experiments.records import read_results, write_json
from experiments.tasks.arrays.options import ArraysOptions
from experiments.tasks.language.chars import CharsOptions
from experiments.training.evaluation import evaluate_run
from experiments.training.loop import fit
from experiments.training.prediction import predict

N, L = 60, 9
RNG = np.random.default_rng(0)
Y = np.arange(N) % 3
X = (1_000 + 50 * (Y[:, None] - 1) + RNG.normal(size=(N, L)))[..., None]


def write(path: Path, **columns: np.ndarray) -> Path:
    np.savez(path, **{"x": X, "y": Y, **columns})
    return path


@pytest.fixture(scope="module")
def finished(toy, one_device, tmp_path_factory):
    """The folder of a finished run, beside the file that it learnt from; not to be changed."""
    folder = tmp_path_factory.mktemp("own")
    data = ArraysOptions(file=str(write(folder / "data.npz")), n_validation=9, n_test=9)
    config = dataclasses.replace(
        toy(train={"steps": 40, "eval_every": 20}), task="arrays", data=data
    )
    fit(config, folder / "run", mesh=one_device)
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """A copy, whose run has moved; the file is where it was."""
    return shutil.copytree(finished, tmp_path / "moved")


@pytest.fixture
def replaced(finished):
    """Replaces the training file for a while."""
    path = finished / "data.npz"
    original = path.read_bytes()

    def replace(**columns: np.ndarray) -> None:
        write(path, **columns)

    yield replace
    path.write_bytes(original)


CHANGES = {
    "more rows": ({"x": np.tile(X, (2, 1, 1)), "y": np.tile(Y, 2)}, "examples 120 \\(was 60\\)"),
    "other units": ({"x": X / 1_000}, r"mean of x \[0\.99\d+\] \(was \[999"),
    "renumbered classes": ({"y": np.where(Y == 2, 1, 2 * Y)}, "some values differ"),
    "another class": ({"y": np.where(np.arange(N) < 9, 3, Y)}, "3 9|0 17|classes"),
}


def test_raw_values_give_a_loaded_model_what_predict_gives(finished, tmp_path):
    np.savez(tmp_path / "new.npz", x=X)
    rows = predict(finished / "run", tmp_path / "new.npz")
    model = s5jax.load(finished / "run" / "model")
    logits = np.asarray(model(X))
    assert [row["class"] for row in rows] == [
        model.preprocessing.classes[k] for k in logits.argmax(-1)
    ]
    assert np.mean([row["class"] == str(y) for row, y in zip(rows, Y, strict=True)]) > 0.9
    share = np.exp(logits[0]) / np.exp(logits[0]).sum()
    assert rows[0]["p_1"] == pytest.approx(share[1], rel=1e-4)


def test_predict_needs_no_training_file(finished, folder, replaced, tmp_path):
    np.savez(tmp_path / "new.npz", x=X[:4])
    expected = predict(finished / "run", tmp_path / "new.npz")
    replaced(x=X / 1_000, y=np.roll(Y, 1))
    assert predict(folder / "run", tmp_path / "new.npz") == expected
    (finished / "data.npz").unlink()
    assert predict(folder / "run", tmp_path / "new.npz") == expected


@pytest.mark.parametrize("change", CHANGES)
def test_a_finished_run_is_not_reported_for_other_data(finished, replaced, one_device, change):
    columns, words = CHANGES[change]
    replaced(**columns)
    run = finished / "run"
    with pytest.raises(UsageError, match=rf"have changed since.*{words}.*--on-changed-data=use"):
        fit(read_config(run), run, mesh=one_device)
    with pytest.raises(UsageError, match=r"have changed|have the classes 0, 1, 2, 3"):
        evaluate_run(run, "data=1")


def test_changed_data_are_used_if_the_user_says_so(finished, replaced, capsys):
    run = finished / "run"
    replaced(x=X + 0.01)
    results = evaluate_run(run, "data=1", on_changed_data="use")
    assert "Using the new data" in capsys.readouterr().out
    recorded = read_results(run)
    assert results["test"]["accuracy"] == recorded["test"]["accuracy"]
    assert results["test"]["loss"] != recorded["test"]["loss"]
    replaced(x=X / 1_000)
    units = evaluate_run(run, "data=1", on_changed_data="use")
    assert units["test"]["accuracy"] < 0.9, "the statistics are those of training"


def test_a_file_that_has_moved_is_the_same_data(folder, finished, one_device, command):
    run, file = folder / "run", folder / "data.npz"
    config = read_config(run)
    moved = dataclasses.replace(config, data=dataclasses.replace(config.data, file=str(file)))
    assert fit(moved, run, mesh=one_device) == read_results(run)
    (finished / "data.npz").rename(finished / "away.npz")
    try:
        assert fit(config, run, mesh=one_device) == read_results(run), "nothing to compare"
        with pytest.raises(UsageError, match="No file or folder"):
            evaluate_run(run, "data=1")
        args = [f"--workdir={run}", "--mesh=data=1", f"--data.file={file}"]
        code, out, _ = command(evaluate_module, *args)
        assert code == 0
        assert "These are the figures in results.json" in out
    finally:
        (finished / "away.npz").rename(finished / "data.npz")


def test_an_interrupted_run_does_not_go_on_with_other_data(folder, finished, replaced, one_device):
    run = folder / "run"
    (run / "results.json").unlink()
    config = read_config(run)
    replaced(x=X + 0.01)
    with pytest.raises(UsageError, match=r"some values differ|mean of x"):
        fit(config, run, mesh=one_device)
    before = read_fingerprint(run)
    results = fit(config, run, mesh=one_device, on_changed_data="use")
    assert results["steps"] == 40
    assert read_fingerprint(run)["sha256"] != before["sha256"], "from here on these are its data"
    assert fit(config, run, mesh=one_device) == results


def test_a_relative_file_is_found_from_another_folder(toy, one_device, tmp_path, monkeypatch):
    write(tmp_path / "data.npz")
    monkeypatch.chdir(tmp_path)
    data = ArraysOptions(file="data.npz", n_validation=9, n_test=9)
    config = dataclasses.replace(toy(train={"steps": 3}), task="arrays", data=data)
    fit(config, "run", mesh=one_device)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    evaluate_run(tmp_path / "run", "data=1")


def test_a_run_older_than_fingerprints_goes_on_as_it_did(folder, finished, one_device, tmp_path):
    run = folder / "run"
    model = s5jax.load(run / "model").model
    s5jax.save(model, run / "model")
    values = json.loads((run / "config.json").read_text())
    for name in ("fingerprint", "resolved_data"):
        del values[name]
    del values["data"]["normalise_dt"], values["data"]["ignore_index"]
    write_json(run / "config.json", values)
    assert not read_config(run).data.normalise_dt
    np.savez(tmp_path / "new.npz", x=X[:4])
    assert predict(run, tmp_path / "new.npz") == predict(finished / "run", tmp_path / "new.npz")
    assert evaluate_run(run, "data=1")["test"] == read_results(run)["test"]


def test_columns_of_another_order_are_not_taken_for_each_other(toy, one_device, tmp_path):
    root = tmp_path / "tables"
    for name, sign in {"up": 1, "down": -1}.items():
        (root / name).mkdir(parents=True)
        for i in range(8):
            rows = [f"{sign * t};{i}.5".replace(".", ",") for t in np.arange(1, 6) / 2]
            (root / name / f"{i}.csv").write_text("\n".join(["speed;load", *rows]))
    data = ArraysOptions(file=str(root))
    config = dataclasses.replace(toy(train={"steps": 3}), task="arrays", data=data)
    fit(config, tmp_path / "run", mesh=one_device)
    shutil.rmtree(root)
    new = tmp_path / "new.csv"
    new.write_text("speed;load\n0,5;1,5\n1;1,5\n")
    assert predict(tmp_path / "run", new)[0]["class"] in ("up", "down")
    new.write_text("load;speed\n1,5;0,5\n1,5;1\n")
    with pytest.raises(UsageError, match="must have the columns speed, load, as in training"):
        predict(tmp_path / "run", new)


def test_a_text_that_has_changed(toy, one_device, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be, " * 40)
    data = CharsOptions(file=str(text), length=16, n_train=32, n_validation=2, n_test=2)
    config = toy(model={"bidirectional": False, "norm": "layer"}, train={"steps": 3})
    config = dataclasses.replace(config, task="chars", data=data)
    fit(config, tmp_path / "run", mesh=one_device)
    assert isinstance(s5jax.load(tmp_path / "run" / "model"), s5jax.LanguageModel)
    text.write_text("To be or not to be, " * 40)
    with pytest.raises(UsageError, match="The data of chars have changed"):
        evaluate_run(tmp_path / "run", "data=1")


def test_the_command_line_says_which(command, finished, replaced, one_device):
    replaced(x=X + 0.01)
    run = finished / "run"
    values = json.loads((run / "config.json").read_text())
    options = [
        f"--{section}.{name}={value}"
        for section in ("data", "model", "optim", "train")
        for name, value in values[section].items()
        if name != "name" and value not in (None, [])
    ]
    args = ["--task=arrays", "--preset=smoke", f"--workdir={run}", "--mesh=data=1", *options]
    code, _, err = command(train, *args)
    assert (code, "--on-changed-data=use" in err) == (2, True)
    code, out, _ = command(train, *args, "--on-changed-data=use")
    assert code == 0
    assert "This run is finished." in out


def test_step_lengths_are_put_in_relation_to_those_of_the_layers(toy, one_device, tmp_path, capsys):
    def text_of(unit: float, **options) -> str:
        dt = unit * RNG.uniform(0.5, 2, size=(N, L))
        data = ArraysOptions(
            file=str(write(tmp_path / "data.npz", dt=dt)), n_validation=9, n_test=9, **options
        )
        config = toy(train={"steps": 3})
        fit(
            dataclasses.replace(config, task="arrays", data=data), tmp_path / "run", mesh=one_device
        )
        shutil.rmtree(tmp_path / "run")
        return capsys.readouterr().out

    plain = text_of(3_600.0)
    assert "in units of " in plain
    assert "layers start with step sizes from 0.01 to 0.1" in plain
    assert "warning" not in plain
    assert "not 1, and models may learn nothing" in text_of(3_600.0, normalise_dt=False)
    assert "warning" not in text_of(1.0, normalise_dt=False)


def test_interruption(toy, one_device, tmp_path, monkeypatch):
    """Ctrl-C before the first checkpoint leaves the fingerprint."""
    data = ArraysOptions(file=str(write(tmp_path / "data.npz")), n_validation=9, n_test=9)
    config = dataclasses.replace(toy(), task="arrays", data=data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.training.interrupts.Interrupts.check", lambda self: 2)
        with pytest.raises(InterruptedRun, match=r"the same command with --workdir=.*resumes"):
            fit(config, tmp_path / "run", mesh=one_device)
    write(tmp_path / "data.npz", x=X + 1)
    with pytest.raises(UsageError, match="mean of x"):
        fit(config, tmp_path / "run", mesh=one_device)
