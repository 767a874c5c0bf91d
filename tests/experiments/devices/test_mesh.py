"""Devices are a matter of speed and memory: the numbers of a run are the same on any mesh."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import plan
from experiments.config import Config
from experiments.config.models import MODELS, SGConvOptions
from experiments.devices.mesh import make_mesh
from experiments.errors import UsageError
from experiments.recipes import get_recipe
from experiments.training.evaluation import evaluate
from experiments.training.metrics import summarize
from experiments.training.pipeline import on_device
from experiments.training.setup import make_setup

MESHES = ("data=8", "data=2,seq=4")


@functools.cache
def train(config: Config, spec: str, n: int = 20):
    """The losses of ``n`` steps, and the figures of the validation split after them."""
    mesh = make_mesh(spec, batch_size=config.train.batch_size)
    setup = make_setup(config, mesh)
    leaves, losses = [jnp.copy(leaf) for leaf in setup.steps.initial], []
    for _, batch in zip(range(n), on_device(setup.batches("train"), mesh), strict=False):
        leaves, meter = setup.steps.train(leaves, batch)
        losses.append(summarize(meter, setup.task)[0]["loss"])
    return losses, evaluate(setup, leaves, "validation")


def assert_same_run(config: Config, mesh: str) -> None:
    (losses, figures), (expected, expected_figures) = train(config, mesh), train(config, "data=1")
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert figures["accuracy"] == expected_figures["accuracy"]
    assert figures["loss"] == pytest.approx(expected_figures["loss"], rel=1e-4)


def test_the_mesh_of_a_run():
    mesh = make_mesh("data=2,seq=4", batch_size=8)
    assert dict(mesh.shape) == {"data": 2, "seq": 4}
    assert dict(make_mesh("seq=4", batch_size=1).shape) == {"data": 1, "seq": 4}
    assert dict(make_mesh("data=4", batch_size=8).shape) == {"data": 4}
    assert dict(make_mesh(None, batch_size=8).shape) == {"data": 8}


@pytest.mark.parametrize(
    ("spec", "batch_size", "message"),
    [
        ("seq=4,data=2", 8, "must read data=N, seq=M or data=N,seq=M; got 'seq=4,data=2'"),
        ("model=2", 8, "must read data=N, seq=M or data=N,seq=M; got 'model=2'"),
        ("", 8, "must read data=N"),
        (",seq=2", 8, "must read data=N"),
        ("data=0", 8, "needs 0 devices, but there are 8"),
        ("data=2,seq=0", 8, "needs 0 devices"),
        ("data=4,seq=4", 8, "needs 16 devices, but there are 8"),
        ("data=8", 12, "batch of 12 examples cannot be divided among 8 devices"),
        ("data=4,seq=2", 6, "batch of 6 examples cannot be divided among 4 devices"),
    ],
)
def test_a_mesh_that_cannot_be(spec, batch_size, message):
    with pytest.raises(UsageError, match=message):
        make_mesh(spec, batch_size=batch_size)


@pytest.mark.parametrize("model", ["s5", pytest.param("sgconv", marks=pytest.mark.slow)])
def test_a_small_run_is_the_same_with_split_sequences(toy, model):
    config = toy(model={"dropout": 0.3})
    if model == "sgconv":
        options = SGConvOptions(n_layers=1, d_model=4, kernel_dim=2, dropout=0.3)
        config = dataclasses.replace(config, model=options)
    assert_same_run(config, "data=2,seq=4")


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("model", MODELS)
def test_every_model_trains_the_same_on_any_mesh(model, mesh):
    assert_same_run(get_recipe("pathfinder", model, "smoke"), mesh)


@pytest.mark.slow
def test_a_plan_names_the_mesh_and_what_it_cannot_split(command):
    arguments = ("--task=pathfinder", "--model=gru", "--preset=smoke", "--train.batch_size=4")
    code, out, _ = command(plan, *arguments, "--mesh=data=2,seq=4")
    assert code == 0
    assert "8 x cpu, of which 4 share each sequence" in out
    code, _, err = command(plan, *arguments, "--mesh=seq=3")
    assert code == 2
    assert "the length of `u` must be a multiple of 3; got 1024" in err
