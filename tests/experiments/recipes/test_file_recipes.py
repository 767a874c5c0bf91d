"""Recipes of the tasks whose data come from files, and of the digits."""

import dataclasses

import pytest
from flax import nnx

from experiments.bench import pipelines
from experiments.config.models import MODELS
from experiments.data.sources import Files
from experiments.recipes import RECIPES, get_recipe
from experiments.tasks import TASKS
from experiments.training.loop import fit
from experiments.training.optim import group_labels

PUBLISHED = {
    "text": {"s4": 86.82, "s4d": 86.18, "s5": 89.31, "sgconv": 89.2, "hope": 89.83, "lru": 89.4},
    "retrieval": {"s4": 90.9, "s4d": 89.46, "s5": 91.4, "sgconv": 91.11, "hope": 91.8, "lru": 89.9},
    "image": {"s4": 88.65, "s4d": 88.19, "s5": 88.0, "sgconv": 87.97, "hope": 88.68},
    "scifar": {"s4": 91.8, "s4d": 89.92, "s5": 90.1, "lru": 89.0},
    "smnist": {"s4": 99.55, "s5": 99.65},
    "psmnist": {"s4": 98.7, "s5": 98.67},
    "noisy_scifar": {},
    "digits": {},
}


@pytest.mark.parametrize("task", PUBLISHED)
def test_published_figures_are_those_of_the_papers(task):
    found = {
        key[1]: round(100 * row.published, 2)
        for key, row in RECIPES.items()
        if key[0] == task and row.published is not None
    }
    assert found == PUBLISHED[task]


def test_milestones_are_those_of_s4_s_documentation():
    found = {
        key[:2]: row.milestones
        for key, row in RECIPES.items()
        if key[0] in PUBLISHED and row.milestones
    }
    early, late = ((10, 0.8),), ((20, 0.8),)
    assert found == {
        **dict.fromkeys([(t, m) for t in ("text", "retrieval") for m in ("s4", "s4d")], early),
        ("image", "s4"): late,
    }


@pytest.mark.parametrize("task", PUBLISHED)
def test_the_published_data_are_taken_whole(task):
    for key, row in RECIPES.items():
        if key[0] == task and key[2] == "paper":
            assert row.config.data in (
                TASKS[task].options_type(),
                *([get_recipe("scifar", "s5", "paper").data] if task == "scifar" else []),
            )
            assert row.config.train.steps >= 3 * row.config.steps_per_epoch


def test_every_model_learns_mnist_on_two_cores():
    assert {key[1] for key in RECIPES if key[0] == "smnist" and key[2] == "cpu"} == set(MODELS)


@pytest.mark.parametrize(
    ("model", "opt_config", "expected"),
    [
        ("hope", "frozen_h", {"h": "frozen", "raw_step": "ssm", "D": "regular"}),
        ("s4d", "fast_A", {"raw_decay": "regular", "Lambda_im": "regular", "B": "ssm"}),
    ],
)
def test_groups_of_published_mistakes(model, opt_config, expected):
    config = get_recipe("digits", model, "smoke")
    task = TASKS["digits"](config.data)
    built = config.model.build(task, rngs=nnx.Rngs(0))
    optim = dataclasses.replace(config.optim, opt_config=opt_config)
    layer = group_labels(built, optim)["backbone"]["blocks"][0]["layer"]
    assert {name: layer[name] for name in expected} == expected


def test_input_rates_are_measured_where_there_are_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pipelines, "SECONDS", 0.01)
    tasks = {name: pipelines.TASKS[name] for name in ("digits", "chars", "smnist")}
    monkeypatch.setattr(pipelines, "TASKS", tasks)
    rows = list(pipelines.task_rows(Files(tmp_path)))
    expected = [f"{name}_pipeline" for name in ("digits", "chars", "sc35", "wikitext103")]
    assert [row.name for row in rows] == expected
    assert all(row.ratio > 0 for row in rows)
    assert "pipeline of smnist is skipped: The data set mnist" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "model"),
    [
        *((task, "s5") for task in PUBLISHED),
        *(("retrieval", "hope"), ("noisy_scifar", "hope"), ("image", "sgconv")),
    ],
)
def test_smoke_run(task, model, files, one_device, tmp_path, capsys):
    results = fit(get_recipe(task, model, "smoke"), tmp_path, mesh=one_device, files=files)
    assert results["steps"] == 20
    assert ("is not IMDB's" in capsys.readouterr().out) == (task == "text")
