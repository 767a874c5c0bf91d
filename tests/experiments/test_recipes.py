import jax
import pytest

from experiments.build import prepare
from experiments.config import Config
from experiments.recipes import RECIPES, get_recipe
from experiments.tasks import TASKS

PAPER = [key for key in RECIPES if key[2] == "paper"]


def shapes_of_a_step(config: Config, mesh):
    """The shapes that a train step takes and gives, without computing anything."""
    setup = prepare(config, mesh)
    example = setup.task.source("train", seed=0)[0]
    batch = {
        name: jax.ShapeDtypeStruct((config.train.batch_size, *value.shape), value.dtype)
        for name, value in example.items()
    }
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


@pytest.mark.parametrize("key", [key for key in RECIPES if key[2] == "smoke"], ids="-".join)
def test_smoke_recipes_are_as_agreed(key):
    """20 steps, a batch that 8 devices share, a length that 4 devices share, few checkpoints."""
    config = get_recipe(*key)
    assert config.train.steps == 20
    assert config.train.batch_size % 8 == 0
    assert TASKS[config.task](config.data).length % 4 == 0
    assert config.train.checkpoint_every == 5
