import dataclasses
import itertools

import jax
import numpy as np
import pytest
from flax import nnx

import s5jax
from experiments.build import prepare
from experiments.config import Config
from experiments.loop import fit
from experiments.models import MODELS
from experiments.recipes import RECIPES, get_recipe
from experiments.tasks import TASKS, ArraySource
from experiments.tasks.speech import Speech

PAPER = [key for key in RECIPES if key[2] == "paper"]
SMOKE = [key for key in RECIPES if key[2] == "smoke"]


@pytest.fixture(scope="session")
def own_arrays(tmp_path_factory):
    """A file for the task `arrays`, which has none by itself."""
    path = tmp_path_factory.mktemp("arrays") / "data.npz"
    np.savez(path, x=np.zeros((80, 128, 3), np.float32), y=np.arange(80) % 3)
    return path


@pytest.fixture
def recipe(monkeypatch, own_arrays):
    """The recipe of a key; what it reads from files is made up."""

    def make(*key: str) -> Config:
        config = get_recipe(*key)
        if key[0] == "arrays":
            data = dataclasses.replace(config.data, file=str(own_arrays))
            config = dataclasses.replace(config, data=data)
        return config

    clip = ArraySource(audio=np.zeros((1, 16_000), np.float32), label=np.zeros(1, np.int32))
    monkeypatch.setattr(Speech, "source", lambda self, split, *, seed: clip)
    return make


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
def test_train_step_of_a_published_recipe_keeps_its_shapes(key, recipe, one_device):
    before, after = shapes_of_a_step(recipe(*key), one_device)
    assert [(x.shape, x.dtype) for x in before] == [(x.shape, x.dtype) for x in after]


@pytest.mark.parametrize(
    ("task", "length"), [("pathfinder", 1024), ("pathx", 16384), ("path256", 65536)]
)
def test_sequences_have_the_published_length(task, length):
    assert TASKS[task](get_recipe(task, "s5", "paper").data).length == length


@pytest.mark.parametrize(("model", "parameters"), [("s5", 280_000), ("s4", 307_000)])
def test_speech_models_have_the_published_size(model, parameters):
    """S4's is printed as 307K; S5's, 280K, is from memory."""
    config = get_recipe("sc35", model, "paper")
    task = Speech(config.data)
    built = nnx.eval_shape(lambda: config.model.build(task, rngs=nnx.Rngs(0)))
    size = sum(x.size for x in jax.tree.leaves(nnx.state(built, nnx.Param)))
    assert size == pytest.approx(parameters, rel=0.015)


def test_smoke_recipes_are_as_agreed(recipe):
    """20 steps, a batch that 8 devices share, a length that 4 devices share, few checkpoints."""
    for key in SMOKE:
        config = recipe(*key)
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
