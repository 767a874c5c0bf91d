import dataclasses
import itertools
import math
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from true_files import write_archive_set

import s5jax
from experiments.config import Config
from experiments.config.models import MODELS
from experiments.data.prepare import prepare_dataset
from experiments.data.sources import ArraySource, Files
from experiments.recipes import FAMILIES, RECIPES, get_recipe
from experiments.recipes._listing import list_recipes
from experiments.tasks import TASKS, Task
from experiments.tasks.series.informer import INFORMER
from experiments.tasks.speech.task import Speech
from experiments.training.loop import fit
from experiments.training.pipeline import make_batches
from experiments.training.setup import build_setup

ROOT = Path(__file__).parents[3]
PAPER = [key for key in RECIPES if key[2] == "paper"]
SMOKE = [key for key in RECIPES if key[2] == "smoke"]
ALL_TASKS = sorted({task for task, _, _ in RECIPES})
KINDS = (
    "arrays",
    "chars",
    "forecast",
    "listops",
    "pathfinder_segmentation_128",
    "pendulum",
    "retrieval",
    "shift",
)
REAL = {(task, "s5", "smoke") for task in KINDS} | {("digits", model, "smoke") for model in MODELS}
"""The pairs of which the fast tier takes two real steps: each kind of batch, and each model."""


WINDOWS = {
    "x": (("length", "d_input"), np.float32),
    "observed": (("horizon", 1), bool),
    **dict.fromkeys(("y", "season"), (("horizon", 1), np.float32)),
    "last": ((1, 1), np.float32),
}
COLUMNS = {
    "image": {"image": ((32, 32), np.uint8)},
    "scifar": {"image": ((32, 32, 3), np.uint8)},
    "noisy_scifar": {"image": ((32, 32, 3), np.uint8), "key": ((2,), np.uint32)},
    "smnist": {"image": ((28, 28), np.uint8)},
    "psmnist": {"image": ((28, 28), np.uint8)},
    "text": {"token": (("length",), np.uint8), "length": ((), np.int32)},
    "retrieval": {"token": ((2, "length"), np.uint8), "length": ((2,), np.int32)},
    "sc35": {"audio": (("length",), np.float32)},
    "sc10": {"audio": (("length",), np.float32)},
    "wikitext103": {"token": (("longer",), np.int32), "length": ((), np.int32)},
    **dict.fromkeys(INFORMER, WINDOWS),
}
"""The shapes of what some tasks read from files; labels apart."""


@pytest.fixture(scope="session")
def own_arrays(tmp_path_factory):
    """A file for the task `arrays`, which has none by itself."""
    path = tmp_path_factory.mktemp("arrays") / "data.npz"
    np.savez(path, x=np.zeros((80, 128, 3), np.float32), y=np.arange(80) % 3)
    return path


@pytest.fixture(scope="session")
def own_sets(tmp_path_factory):
    """A folder of data with a set for each task of an archive."""
    folder = tmp_path_factory.mktemp("sets")
    for task in ("uea", "tser"):
        source = tmp_path_factory.mktemp(task)
        prepare_dataset(task, folder, write_archive_set(source, "Own", values=task == "tser"))
    return Files(folder)


@pytest.fixture
def recipe(own_arrays, own_sets):
    """The recipe of a key, and its task; what it reads from files is made up."""

    def make(*key: str) -> tuple[Config, Task]:
        config = get_recipe(*key)
        if key[0] == "arrays":
            data = dataclasses.replace(config.data, file=str(own_arrays))
            config = dataclasses.replace(config, data=data)
        if key[0] in ("uea", "tser"):
            config = dataclasses.replace(config, data=dataclasses.replace(config.data, name="Own"))
        task = TASKS[key[0]](config.data, own_sets)
        if key[0] in COLUMNS:
            task.source = lambda split, *, seed: stand_in(key[0], task)
        if key[0] in INFORMER:
            task.preprocessing = s5jax.Preprocessing(input_std=np.ones(task.d_input))
        return config, task

    return make


def stand_in(name: str, task: Task) -> ArraySource:
    """Zeros in the form of a task's examples."""
    sizes = {"length": task.length, "longer": task.length + 1, "d_input": task.d_input}
    sizes["horizon"] = getattr(task.options, "horizon", 0)
    columns = {
        column: np.zeros((64, *(sizes.get(n, n) for n in shape)), dtype)
        for column, (shape, dtype) in COLUMNS[name].items()
    }
    if "observed" in columns:
        columns["observed"][:] = True
    if "length" in columns:
        columns["length"] += task.length
    return ArraySource(**columns, label=np.zeros(64, np.int32))


def batch_of(config: Config, task: Task) -> dict[str, np.ndarray]:
    """The first training batch."""
    return make_batches(task, "train", seed=0, batch_size=config.train.batch_size)[0]


def shapes_of_batch(config: Config, task: Task) -> dict[str, jax.ShapeDtypeStruct]:
    example, size = task.source("train", seed=0)[0], config.train.batch_size
    number = {name: np.zeros((), np.int32) for name in ("index", "epoch")}
    return {
        name: jax.ShapeDtypeStruct((size, *np.shape(value)), np.asarray(value).dtype)
        for name, value in {**example, **number, "mask": np.zeros((), bool)}.items()
    }


def check_shapes_of_evaluation(config: Config, task: Task, mesh) -> None:
    """That task, model and state fit together, without computing anything."""

    def evaluate(batch):
        steps = build_setup(config, task, mesh).steps
        return steps.evaluate(steps.initial, batch)

    sums = jax.eval_shape(evaluate, shapes_of_batch(config, task))
    shapes = {name: x.shape for name, x in sums.items()}
    assert shapes == {**task.quantities, "examples": ()}


def check_shapes_of_a_step(config: Config, task: Task, mesh) -> None:
    """That a train step keeps the shapes of its state, without computing anything."""

    def step(batch):
        steps = build_setup(config, task, mesh).steps
        return steps.initial, steps.train(steps.initial, batch)[0]

    batch = shapes_of_batch(config, task)
    del batch["mask"]
    before, after = jax.eval_shape(step, batch)
    assert [(x.shape, x.dtype) for x in before] == [(x.shape, x.dtype) for x in after]


def with_one_block(config: Config) -> Config:
    """The same with the fewest blocks that hold one of each kind."""
    n_layers = math.lcm(config.model.ffn_every or 1, len(getattr(config.model, "layers", "1")))
    return dataclasses.replace(config, model=dataclasses.replace(config.model, n_layers=n_layers))


def check_two_steps(config: Config, task: Task, mesh) -> None:
    steps = build_setup(config, task, mesh).steps
    batch = batch_of(config, task)
    leaves = steps.initial
    for _ in range(2):
        leaves, meter = steps.train(leaves, batch)
    assert meter.bad == 0
    assert np.isfinite(meter.totals["loss"])


@pytest.mark.parametrize("task", ALL_TASKS)
def test_one_recipe_of_the_papers_fits_together(task, recipe, one_device):
    """With one block, and another model for each task."""
    model = list(MODELS)[ALL_TASKS.index(task) % len(MODELS)]
    config, made = recipe(task, model, "paper")
    check_shapes_of_a_step(with_one_block(config), made, one_device)


@pytest.mark.slow
@pytest.mark.parametrize("task", ALL_TASKS)
def test_evaluation_in_recipes_of_the_papers_keeps_its_shapes(task, recipe, one_device):
    for model in MODELS:
        config, made = recipe(task, model, "paper")
        check_shapes_of_evaluation(with_one_block(config), made, one_device)


@pytest.mark.slow
@pytest.mark.parametrize("key", PAPER, ids="-".join)
def test_train_step_of_a_published_recipe_keeps_its_shapes(key, recipe, one_device):
    check_shapes_of_a_step(*recipe(*key), one_device)


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(key, marks=[] if key in REAL else pytest.mark.slow, id="-".join(key))
        for key in SMOKE
    ],
)
def test_two_real_steps(key, recipe, one_device):
    config, task = recipe(*key)
    check_two_steps(with_one_block(config) if key in REAL else config, task, one_device)


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
        config, task = recipe(*key)
        assert config.train.steps == 20, key
        assert config.train.batch_size % 8 == 0, key
        assert task.length % 4 == 0, key
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


def test_a_recipe_names_its_file():
    families = {task: set() for task in ALL_TASKS}
    for family in FAMILIES:
        for recipe in family.ROWS:
            families[recipe.config.task].add(Path(family.__file__))
    for row in list_recipes():
        assert families[row["task"]] == {ROOT / row["file"]}
