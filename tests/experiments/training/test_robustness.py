"""What a hurried user does: each ends in a result, or in one sentence and an exit code."""

import dataclasses
import os
import pathlib
import shutil

import numpy as np
import pytest

from experiments import results
from experiments.config import read_config
from experiments.errors import RunError, UsageError
from experiments.recipes import get_recipe
from experiments.records import read_results
from experiments.training import generation, loop
from experiments.training.evaluation import evaluate_run
from experiments.training.loop import fit


def test_a_run_needs_a_folder(toy, one_device, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "make_setup", pytest.fail)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        fit(toy(), tmp_path / "file", mesh=one_device)
    with pytest.raises(OSError, match="Not a directory"):
        fit(toy(), tmp_path / "file" / "run", mesh=one_device)


def test_python_takes_texts_for_paths(copy, monkeypatch, toy, one_device):
    monkeypatch.chdir(copy.parent)
    assert fit(toy(), "run/", mesh=one_device) == read_results(copy)
    assert evaluate_run("run")["test"].keys() == {"loss", "accuracy"}
    with pytest.raises(UsageError, match="does not predict tokens"):
        generation.generate("run", ["a"], generation.Sampling())


def test_a_moved_run_goes_on(copy, toy, one_device, tmp_path):
    (copy / "results.json").unlink()
    moved = copy.rename(tmp_path / "Läufe mit Leerzeichen")
    (tmp_path / "link").symlink_to(moved)
    assert fit(toy(), tmp_path / "link", mesh=one_device)["steps"] == 12
    assert read_results(moved)["steps"] == 12


def test_options_of_numpy_and_paths_become_python_s(toy, one_device, tmp_path):
    config = dataclasses.replace(
        toy(train={"steps": np.int64(6)}, optim={"lr": np.float32(0.5), "ssm_lr": 1}),
        seed=np.int32(1),
    )
    fit(config, tmp_path / "run", mesh=one_device)
    read = read_config(tmp_path / "run")
    assert (read.seed, read.train.steps, read.optim.lr, read.optim.ssm_lr) == (1, 6, 0.5, 1.0)
    recipe = get_recipe("arrays", "s5", "smoke")
    named = dataclasses.replace(recipe.data, file=pathlib.Path("my data") / "x.npz")
    checked = dataclasses.replace(recipe, data=named).checked()
    assert checked.data.file == os.path.abspath(os.path.join("my data", "x.npz"))


def test_a_rate_beyond_the_sequence_is_refused(copy):
    with pytest.raises(UsageError, match="`dt` is 100000000000000000000"):
        evaluate_run(copy, dt=10**20)


def test_options_of_another_type_are_refused(toy, one_device, tmp_path):
    with pytest.raises(UsageError, match=r"`train\.steps` must be int; got 12\.0"):
        fit(toy(train={"steps": 12.0}), tmp_path / "run", mesh=one_device)
    with pytest.raises(ValueError, match="`steps` must be a number; got '12'"):
        toy(train={"steps": "12"})
    assert not (tmp_path / "run").exists()


def test_a_file_in_place_of_the_checkpoints_is_found_first(copy, toy, one_device, monkeypatch):
    (copy / "results.json").unlink()
    shutil.rmtree(copy / "checkpoints")
    (copy / "checkpoints").touch()
    monkeypatch.setattr(loop._Run, "train", pytest.fail)
    with pytest.raises(RunError, match="Could not open the checkpoints"):
        fit(toy(), copy, mesh=one_device)


@pytest.mark.parametrize("text", ["", "{}", '{"task": "to'])
def test_a_damaged_record_says_how_to_go_on(copy, toy, one_device, text):
    (copy / "results.json").write_text(text)
    with pytest.raises(UsageError, match=r"results\.json is .* Delete it"):
        fit(toy(), copy, mesh=one_device)
    (copy / "results.json").unlink()
    assert fit(toy(), copy, mesh=one_device)["steps"] == 12


def test_the_ledger_writes_into_text_only(command, tmp_path):
    path = tmp_path / "latin.md"
    path.write_bytes(b"caf\xe9")
    folder = pathlib.Path(__file__).parents[3] / "results"
    code, _, err = command(results, f"--folder={folder}", f"--write={path}")
    assert code == 2
    assert "not a valid text in UTF-8" in err
    assert path.read_bytes() == b"caf\xe9"
