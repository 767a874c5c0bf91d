import itertools

import jax
import numpy as np
import pytest

import s5jax
from experiments.build import prepare
from experiments.config import Config
from experiments.loop import fit
from experiments.models import MODELS
from experiments.recipes import RECIPES, get_recipe
from experiments.tasks import TASKS

PAPER = [key for key in RECIPES if key[2] == "paper"]
SMOKE = [key for key in RECIPES if key[2] == "smoke"]


def shapes_of_a_step(config: Config, mesh):
    """The shapes that a train step takes and gives, without computing anything."""
    setup = prepare(config, mesh)
    example = setup.task.source("train", seed=0)[0]
    batch = {
        name: jax.ShapeDtypeStruct((config.train.batch_size, *value.shape), value.dtype)
        for name, value in example.items()
    }
    number = jax.ShapeDtypeStruct((config.train.batch_size,), np.dtype(np.int32))
    batch |= {"index": number, "epoch": number}
    leaves, _ = jax.eval_shape(setup.steps.train, setup.steps.initial, batch)
    return setup.steps.initial, leaves


@pytest.mark.parametrize("key", [pytest.param(key, marks=pytest.mark.slow) for key in PAPER])
def test_train_step_of_a_published_recipe_keeps_its_shapes(key, one_device):
    before, after = shapes_of_a_step(get_recipe(*key), one_device)
    assert [(x.shape, x.dtype) for x in before] == [(x.shape, x.dtype) for x in after]


@pytest.mark.parametrize(
    ("task", "length"), [("pathfinder", 1024), ("pathx", 16384), ("path256", 65536)]
)
def test_sequences_have_the_published_length(task, length):
    assert TASKS[task](get_recipe(task, "s5", "paper").data).length == length


def test_smoke_recipes_are_as_agreed():
    """20 steps, a batch that 8 devices share, a length that 4 devices share, few checkpoints."""
    for key in SMOKE:
        config = get_recipe(*key)
        assert config.train.steps == 20, key
        assert config.train.batch_size % 8 == 0, key
        assert TASKS[config.task](config.data).length % 4 == 0, key
        assert config.train.checkpoint_every == 5, key


@pytest.mark.parametrize("preset", ["paper", "smoke"])
def test_every_model_has_a_recipe_for_every_task(preset):
    recipes = {key[:2] for key in RECIPES if key[2] == preset}
    assert recipes == set(itertools.product(TASKS.keys() - {"toy"}, MODELS))


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_smoke_run_of_every_model(model, one_device, tmp_path):
    fit(get_recipe("pathfinder", model, "smoke"), tmp_path, mesh=one_device)
    again = s5jax.load(tmp_path / "model")
    assert again(np.zeros((1, 1024, 1), np.float32)).shape == (1, 2)
