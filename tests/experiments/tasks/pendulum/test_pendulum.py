"""The pendulum: its physics, its images, what the model is told of the time gaps."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.errors import UsageError
from experiments.recipes import RECIPES, describe_changes, get_recipe
from experiments.tasks import get_task
from experiments.tasks.pendulum import simulator as simulator
from experiments.tasks.pendulum.task import Pendulum, PendulumOptions
from experiments.training.setup import make_setup

SMALL = PendulumOptions(n_train=7, n_validation=5, n_test=5, n_frames=20, n_kept=8)


def batch_of(options=SMALL):
    return Pendulum(options).source("train", seed=0).batch(np.arange(7), epoch=0)


def test_without_kicks_it_only_loses_energy():
    start = np.linspace(-3, 3, 7)
    angles = simulator.swing(start, np.zeros((7, 2_000)))
    velocity = np.gradient(angles, simulator.FRAME_S, axis=1)[:, 1:-1]
    energy = velocity**2 / 2 + simulator.STIFFNESS * (1 - np.cos(angles[:, 1:-1]))
    assert (energy[:, ::100][:, 1:] <= energy[:, ::100][:, :-1] + 1e-2).all()
    assert energy[0, -1] < 0.3 * energy[0, 0]


def test_small_swings_are_those_of_a_damped_oscillator():
    t = np.arange(300) * simulator.FRAME_S
    half = simulator.FRICTION / 2
    omega = np.sqrt(simulator.STIFFNESS - half**2)
    exact = 1e-3 * np.exp(-half * t) * (np.cos(omega * t) + half / omega * np.sin(omega * t))
    angles = simulator.swing(np.array([1e-3]), np.zeros((1, 299)))
    np.testing.assert_allclose(angles[0], exact, atol=1e-8)


def test_a_kick_changes_the_velocity():
    kicks = np.zeros((1, 9))
    kicks[0, 4] = 0.5
    angles = simulator.swing(np.zeros(1), kicks)[0]
    assert (angles[:6] == 0).all()
    np.testing.assert_allclose(angles[6], 0.5 * simulator.FRAME_S, rtol=1e-2)


@pytest.mark.parametrize(("angle", "row", "column"), [(0, 1, 0), (np.pi / 2, 0, 1), (np.pi, -1, 0)])
def test_the_rod_points_where_the_angle_says(angle, row, column):
    image = simulator.draw_rods(np.array(angle))
    assert image.shape == (24, 24)
    assert image.min() == 0
    assert 0.7 < image.max() <= 1
    area = simulator.ROD_LENGTH * simulator.ROD_WIDTH
    np.testing.assert_allclose(image.sum(), area, rtol=0.02)
    centre = np.tensordot(image, np.mgrid[:24, :24] - 11.5, axes=([0, 1], [1, 2])) / image.sum()
    np.testing.assert_allclose(
        centre, np.array([row, column]) * simulator.ROD_LENGTH / 2, atol=0.05
    )


def test_noise_is_correlated_and_spares_the_first_frames():
    rng = np.random.default_rng(0)
    walk = np.concatenate([rng.random((500, 1)), rng.uniform(-0.2, 0.2, (500, 99))], 1)
    clear = simulator.clearness(walk, np.full(500, 0.2), np.full(500, 0.8))
    assert (clear[:, :5] == 1).all()
    assert clear.min() == 0
    assert clear.max() == 1
    assert (np.abs(np.diff(clear[:, 5:], axis=1)) <= 0.2 / 0.6 + 1e-9).all()
    later = clear[:, 5:]
    assert np.corrcoef(later[:, :-1].ravel(), later[:, 1:].ravel())[0, 1] > 0.9
    assert 0.1 < (later == 1).mean() < 0.4


def test_a_sequence_is_a_function_of_seed_split_and_index():
    task = Pendulum(SMALL)
    source = task.source("train", seed=3)
    alone = simulator.simulate([(3, 0, 5)], n_frames=20, n_kept=8)
    for name, value in alone.items():
        np.testing.assert_array_equal(source[5][name], value[0])
    targets = {
        task.source(split, seed=seed)[0]["target"].tobytes()
        for split in ("train", "validation", "test")
        for seed in (0, 1)
    }
    assert len(targets) == 6


def test_columns():
    batch = batch_of()
    assert (batch["image"].dtype, batch["image"].shape) == (np.uint8, (7, 8, 24, 24))
    assert (batch["gap"].dtype, batch["gap"].shape) == (np.float32, (7, 8))
    assert (batch["target"].dtype, batch["target"].shape) == (np.float32, (7, 8, 2))
    assert (batch["gap"][:, 0] == 1).all()
    assert (batch["gap"] >= 1).all()
    assert (batch["gap"][:, 1:].sum(1) <= 19).all()
    np.testing.assert_allclose((batch["target"] ** 2).sum(-1), 1, rtol=1e-6)


@pytest.mark.parametrize(("gaps", "d_input"), [("dt", 576), ("append", 577), ("ignore", 576)])
def test_what_the_model_is_told_of_the_gaps(gaps, d_input):
    task = Pendulum(dataclasses.replace(SMALL, gaps=gaps))
    batch = batch_of()
    inputs = task.inputs(batch)
    assert task.d_input == d_input
    assert inputs["u"].shape == (7, 8, d_input)
    np.testing.assert_allclose(
        inputs["u"][..., :576], batch["image"].reshape(7, 8, 576) / 255, rtol=1e-6
    )
    assert ("dt" in inputs) == task.irregular == (gaps == "dt")
    if gaps == "dt":
        np.testing.assert_array_equal(inputs["dt"], batch["gap"])
    if gaps == "append":
        np.testing.assert_array_equal(inputs["u"][..., 576], batch["gap"])


def test_likelihood_and_squared_error():
    task, batch = Pendulum(SMALL), batch_of()
    rng = np.random.default_rng(0)
    mean, variance = rng.normal(size=(7, 8, 2)), rng.uniform(0.1, 2, (7, 8, 2))
    variance[0] = 0  # counts as 1e-6
    values = task.measure(jnp.concatenate([mean, variance], -1), batch)
    floor, error = np.maximum(variance, 1e-6), (mean - batch["target"]) ** 2
    density = np.exp(-error / (2 * floor)) / np.sqrt(2 * np.pi * floor)
    np.testing.assert_allclose(values["loss"][1:], -np.log(density[1:]).sum(-1).mean(-1), rtol=1e-4)
    np.testing.assert_allclose(values["mse"], error.mean((1, 2)), rtol=1e-5)
    assert jnp.isfinite(values["loss"]).all()


def test_more_frames_kept_than_there_are_is_refused():
    with pytest.raises(ValueError, match="`n_kept` must not exceed `n_frames`; got 9 of 8"):
        dataclasses.replace(SMALL, n_frames=8, n_kept=9)


def test_layers_in_discrete_time_append_the_gaps_and_say_so(one_device):
    for (task, model, preset), recipe in RECIPES.items():
        if task == "pendulum":
            continuous = model in ("s5", "s4", "s4d", "linoss", "hyena")
            assert recipe.config.data.gaps == ("dt" if continuous else "append")
            appended = "time gaps appended" in describe_changes(get_recipe(task, model, preset))
            assert appended != continuous
    config = get_recipe("pendulum", "gru", "smoke")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, gaps="dt"))
    with pytest.raises(UsageError, match="append them to the inputs"):
        make_setup(config, one_device)


def test_published_recipe():
    config = get_recipe("pendulum", "s5", "paper")
    assert config.steps_per_epoch == 62
    assert config.train.steps == 6_200
    assert get_task("pendulum")(config.data).length == 50
