"""The atomic tasks of DLR: their laws, keys and metric; the reference files check the rules."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.errors import UsageError
from experiments.recipes import get_recipe
from experiments.tasks import get_task
from experiments.tasks.atomic import rules as rules
from experiments.tasks.atomic.task import ATOMIC, AtomicOptions
from experiments.training.pipeline import make_batches

SMALL = AtomicOptions(length=40, n_marked=6, n_train=16, n_validation=9, n_test=5)
LONG = 1 << 20


@functools.cache
def draw(name, split="train", seed=0, epoch=0, options=SMALL):
    """Five examples."""
    task = ATOMIC[name](options)
    batch = task.source(split, seed=seed).batch(np.arange(5), epoch=epoch)
    batch["epoch"] = np.full(5, epoch, np.int32)
    return jax.device_get(expand(task)(batch))


@functools.cache
def expand(task):
    return jax.jit(task.expand)


@pytest.mark.parametrize("name", ATOMIC)
def test_examples_have_the_shapes_that_the_task_says(name):
    task, batch = ATOMIC[name](SMALL), draw(name)
    assert batch["x"].shape == (5, task.length, task.d_input)
    assert batch["y"].shape == (5, task.l_output, task.d_output)
    assert np.isfinite(batch["x"]).all()
    assert len({example.tobytes() for example in batch["x"]}) == 5


@pytest.mark.parametrize("name", ["cumsum", "cummax", "reverse", "sort", "shift"])
def test_signals_are_at_most_one(name):
    s = draw(name)["x"][..., 0]
    np.testing.assert_allclose(np.abs(s).max(1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("length", "shapes"),
    [
        (4_096, {"solve": (4_096, 63), "sort": (8_192, 4_096), "masked_select": (4_160, 32)}),
        (512, {"solve": (512, 21), "reverse": (1_024, 512), "mips": (512, 512)}),
        (4, {"solve": (4, 1)}),
    ],
)
def test_published_lengths(length, shapes):
    for name, (n_inputs, n_outputs) in shapes.items():
        task = ATOMIC[name](AtomicOptions(length=length, n_shifts=1))
        assert (task.length, task.l_output) == (n_inputs, n_outputs)


def test_an_example_is_a_function_of_seed_split_and_index():
    source = ATOMIC["shift"](SMALL).source("train", seed=3)
    more = ATOMIC["shift"](AtomicOptions()).source("train", seed=3)
    assert len(source) == 16
    np.testing.assert_array_equal(source[7]["key"], more[7]["key"])
    np.testing.assert_array_equal(source[7]["key"], source.batch(np.array([7]), epoch=2)["key"][0])
    keys = {
        tuple(ATOMIC["shift"](SMALL).source(split, seed=seed)[i]["key"].tolist())
        for split in ("train", "validation", "test")
        for seed in (0, 1)
        for i in range(5)
    }
    assert len(keys) == 30


def test_training_is_new_in_every_epoch():
    first, again, second = (draw("shift", epoch=epoch)["x"] for epoch in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.isclose(first[..., 0], second[..., 0]).any(1).all()


def test_evaluation_is_the_same_every_time():
    task = ATOMIC["cumsum"](SMALL)
    batches = make_batches(task, "validation", seed=0, batch_size=4)
    assert all((batches[k]["epoch"] == 0).all() for k in range(3))


def test_marks_are_drawn_anew_or_fixed():
    free, fixed = draw("masked_select")["x"][..., 1], draw("masked_select_fixed")["x"][..., 1]
    assert (free.sum(1) == 6).all()
    assert (fixed.sum(1) == 6).all()
    assert (free != free[0]).any()
    assert (fixed == fixed[0]).all()
    assert (fixed == draw("masked_select_fixed", "test", 1)["x"][0, :, 1]).all()


def test_matrices_are_drawn_anew_or_fixed():
    for name, is_fixed in (("solve", False), ("solve_fixed", True)):
        batch = draw(name)
        N = batch["y"].shape[1]
        assert N == 5
        A, b = np.split(batch["x"][:, : N * (N + 1), 0].reshape(5, N, N + 1), [N], axis=2)
        np.testing.assert_allclose(
            A @ A.swapaxes(1, 2), np.broadcast_to(np.eye(N), A.shape), atol=1e-6
        )
        np.testing.assert_allclose(A @ batch["y"], b, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(batch["y"], axis=1), 1, rtol=1e-6)
        assert (A == A[0]).all() == is_fixed


def test_delays_cover_what_they_should():
    task = ATOMIC["context_shift"](AtomicOptions(length=8))
    batch = task.source("train", seed=0).batch(np.arange(200), epoch=0)
    x = expand(task)({**batch, "epoch": np.zeros(200, np.int32)})["x"]
    delays = np.rint(np.arctan2(x[:, 1, 0], x[:, 0, 0]) * 8 / (2 * np.pi)).astype(int) % 8
    assert set(delays.tolist()) == set(range(6))


def test_inner_products_in_blocks_are_those_at_once(monkeypatch):
    q, k, v = (
        np.asarray(jax.random.normal(key, (30, 3)))
        for key in jax.random.split(jax.random.key(0), 3)
    )
    scores = np.where(np.tri(30, dtype=bool), q @ k.T, -np.inf)
    for size in (30, 7, 1):
        monkeypatch.setattr(rules, "MAX_SCORES", 30 * size)
        y = jax.jit(lambda q, k, v: rules.mips(q, k, v)[1])(q, k, v)
        np.testing.assert_array_equal(y, v[scores.argmax(1)])


def test_metric_is_that_of_the_whole_split():
    task, batch = ATOMIC["shift"](SMALL), draw("shift")
    y, noise = batch["y"], np.random.default_rng(0).normal(size=batch["y"].shape)
    means = {k: np.mean(v) for k, v in task.measure(jnp.asarray(y + 0.1 * noise), batch).items()}
    report = task.report(means)
    np.testing.assert_allclose(report["loss"], np.mean((0.1 * noise) ** 2), rtol=1e-5)
    np.testing.assert_allclose(report["r2"], 1 - report["loss"] / np.var(y), rtol=1e-5)
    flat = {"loss": np.float32(1e-6), "y": np.float32(0.5), "y_squared": np.float32(0.25)}
    np.testing.assert_allclose(task.report(flat)["r2"], 1 - 1e-6 / 1e-5)


def test_only_the_last_outputs_count():
    task, batch = ATOMIC["masked_select"](SMALL), draw("masked_select")
    outputs = jnp.full((5, task.length, 1), jnp.nan).at[:, -6:].set(batch["y"])
    assert (task.measure(outputs, batch)["loss"] == 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 3}, "`length` must be at least 4"),
        ({"length": 20, "n_shifts": 21}, "`length` must be at least 4 and at least `n_shifts`"),
        ({"n_marked": 0}, "`n_marked` must be positive"),
        ({"n_test": 0}, "`n_test` must be positive"),
    ],
)
def test_impossible_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        AtomicOptions(**changes)


def test_an_unknown_split_is_refused():
    with pytest.raises(UsageError, match="Unknown split 'valid'"):
        ATOMIC["shift"](SMALL).source("valid", seed=0)


def test_positions_keep_their_digits_at_a_million_steps():
    T = 2 * LONG
    t = np.concatenate([np.arange(0, T, 997), T // 8 + np.arange(-3, 4), [T // 2 - 1, T - 1]])
    points = jax.jit(lambda t: rules.circle(t, T))(t)
    angle = 2 * np.pi * t / T
    np.testing.assert_allclose(points, np.stack([np.cos(angle), np.sin(angle)], -1), atol=1e-7)


@pytest.mark.slow
def test_sums_keep_their_digits_at_a_million_steps():
    s = np.random.default_rng(0).uniform(-1, 1, LONG).astype(np.float32)
    _, y = jax.jit(rules.cumsum)(s)
    exact = np.cumsum(s.astype(np.float64)) / np.sqrt(np.arange(1, LONG + 1))
    np.testing.assert_allclose(y[:, 0], exact, atol=1e-6 * np.abs(exact).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ATOMIC.keys() - {"mips"}))  # which takes L^2 products
def test_a_million_steps(name):
    task = ATOMIC[name](AtomicOptions(length=LONG))
    batch = task.source("train", seed=0).batch(np.arange(1), epoch=0)
    drawn = jax.jit(task.expand)({**batch, "epoch": np.zeros(1, np.int32)})
    assert drawn["x"].shape == (1, task.length, task.d_input)
    assert jnp.isfinite(drawn["x"]).all()
    assert jnp.isfinite(drawn["y"]).all()


def test_published_steps():
    steps = {
        ("shift", "dlr"): 43_200,
        ("shift", "sgconv"): 86_400,
        ("mips", "attention"): 172_800,
    }
    for (task, model), n in steps.items():
        config = get_recipe(task, model, "paper")
        assert config.train.steps == n
        assert get_task(task)(config.data).length == config.data.length
