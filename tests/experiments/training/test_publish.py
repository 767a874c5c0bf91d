"""Pretrained models are what `experiments.export` writes, and evaluate to their figures."""

import re
import shlex

import pytest

import s5jax
from experiments import export
from experiments.cli.runs import parse_train
from experiments.config import differences, read_config
from experiments.tasks import TASKS
from experiments.training.evaluation import evaluate_run
from experiments.training.publish import DATA, publish_run, train_command

MODELS = s5jax.list_pretrained()


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", MODELS)
def test_a_published_model_is_written_by_the_command(name, tmp_path):
    folder = MODELS[name]["folder"]
    assert contents(publish_run(folder, tmp_path / name)) == contents(folder)


def test_the_index_is_written_by_the_command(tmp_path, command):
    for name, facts in MODELS.items():
        args = [f"--workdir={facts['folder']}", "--format=pretrained", f"--out={tmp_path / name}"]
        code, out, _ = command(export, *args)
        assert code == 0
        assert "parameters.safetensors: " in out
    index = facts["folder"].parent / "index.json"
    assert (tmp_path / "index.json").read_bytes() == index.read_bytes()


@pytest.mark.parametrize("name", MODELS)
def test_the_command_on_the_card_is_the_run(name):
    folder = MODELS[name]["folder"]
    config = read_config(folder)
    words = shlex.split(train_command(config))
    assert words[:3] == ["python", "-m", "experiments.train"]
    assert differences(parse_train(words[3:]).configs()[0], config) == {}


def test_data_are_of_known_tasks():
    assert DATA.keys() <= TASKS.keys()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "--format=pretrained needs --out=FOLDER/NAME"),
        (["--out=NEW"], "The terms of the data of toy must be known before a model is published"),
        (["--length=8"], "--length must be left out with --format=pretrained"),
    ],
)
def test_what_cannot_be_published(copy, command, args, words):
    args = [arg.replace("NEW", str(copy / "new")) for arg in args]
    code, _, err = command(export, f"--workdir={copy}", "--format=pretrained", *args)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert re.search(words, err)
    assert not (copy / "new").exists()


@pytest.mark.slow
def test_evaluation_gives_the_figure_of_digits():
    folder, facts = MODELS["digits-s5"]["folder"], MODELS["digits-s5"]
    results = evaluate_run(folder, "data=1")
    assert results["test"]["accuracy"] == facts["test"]
