import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import ToyTask

from experiments.devices.mesh import make_mesh
from experiments.recipes import get_recipe
from experiments.tasks import TASKS, get_task
from experiments.tasks._task import measure_classification
from experiments.training.evaluation import evaluate
from experiments.training.metrics import summarize
from experiments.training.pipeline import make_batches, on_device
from experiments.training.setup import make_setup

DROPOUT = {"dropout": 0.3}
prepare_once = functools.cache(make_setup)


def run(config, mesh, n):
    """The training rows of ``n`` steps and the state after them."""
    setup = prepare_once(config, mesh)
    dataset = make_batches(
        setup.task, "train", seed=config.seed, batch_size=config.train.batch_size
    )
    leaves, rows = [jnp.copy(leaf) for leaf in setup.steps.initial], []
    for _, batch in zip(range(n), on_device(dataset, mesh), strict=False):
        leaves, meter = setup.steps.train(leaves, batch)
        rows.append(summarize(meter, setup.task))
    return setup, leaves, rows


def named(setup, leaves):
    return dict(zip(setup.steps.names, map(np.asarray, leaves), strict=True))


def test_steps_are_traced_and_compiled_once(toy, one_device, monkeypatch):
    setup = make_setup(toy(model=DROPOUT), one_device)
    traces = {"train": 0, "eval": 0}
    measure = type(setup.task).measure

    def counting(task, outputs, batch):
        traces["eval" if "mask" in batch else "train"] += 1
        return measure(task, outputs, batch)

    monkeypatch.setattr(type(setup.task), "measure", counting)
    dataset = make_batches(setup.task, "train", seed=0, batch_size=8)
    leaves = setup.steps.initial
    compiles = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: "backend_compile" in name and compiles.append(name)
    )
    for k, batch in zip(range(6), on_device(dataset, one_device), strict=False):
        if k == 1:
            compiles.clear()
        leaves, _ = setup.steps.train(leaves, batch)
    assert compiles == []
    for split in ("validation", "test"):
        evaluate(setup, leaves, split)
    assert traces == {"train": 1, "eval": 1}
    jax.monitoring.clear_event_listeners()


def test_eight_devices_give_the_losses_of_one(toy, one_device):
    config = toy(model=DROPOUT)
    _, _, one = run(config, one_device, 20)
    _, _, eight = run(config, make_mesh("data=8", batch_size=8), 20)
    for (a, _), (b, _) in zip(one, eight, strict=True):
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-5)


def test_meter_averages_since_the_last_logged_step(toy, one_device):
    _, _, single = run(toy(model=DROPOUT), one_device, 6)
    _, _, means = run(toy(model=DROPOUT, train={"log_every": 3}), one_device, 6)
    losses = [row["loss"] for row, _ in single]
    np.testing.assert_allclose(means[2][0]["loss"], np.mean(losses[:3]), rtol=1e-6)
    np.testing.assert_allclose(means[5][0]["loss"], np.mean(losses[3:]), rtol=1e-6)


def test_a_step_that_is_not_finite_changes_nothing_and_is_recorded(toy, one_device):
    order = make_batches(get_task("toy")(toy().data), "train", seed=0, batch_size=8)
    bad_index = int(order[2]["index"][3])
    bad = toy(model=DROPOUT, train={"log_every": 3}, data={"bad_index": bad_index})
    setup, before, _ = run(bad, one_device, 2)
    _, after, rows = run(bad, one_device, 3)
    before, after = named(setup, before), named(setup, after)
    for name in before:
        if not name.startswith(("step", "meter")):
            np.testing.assert_array_equal(before[name], after[name], err_msg=name)
    assert after["step"] == 3
    means, record = rows[-1]
    assert (record.count, record.step) == (1, 2)
    assert not np.isfinite(record.loss)
    _, _, good = run(toy(model=DROPOUT, train={"log_every": 3}), one_device, 2)
    np.testing.assert_allclose(means["loss"], good[-1][0]["loss"], rtol=1e-6)


def test_no_finite_step_gives_no_mean(toy, one_device):
    order = make_batches(get_task("toy")(toy().data), "train", seed=0, batch_size=8)
    bad = toy(model=DROPOUT, data={"bad_index": int(order[0]["index"][0])})
    _, _, rows = run(bad, one_device, 1)
    assert rows[0][0] == {"loss": None, "accuracy": None, "grad_norm": None}


def test_repetition_is_exact(toy, one_device):
    config = toy(model=DROPOUT)
    (_, one, a), (_, two, b) = run(config, one_device, 3), run(config, one_device, 3)
    assert a == b
    assert all(np.array_equal(x, y) for x, y in zip(one, two, strict=True))


def test_evaluation_is_exact_over_a_ragged_split(toy, one_device):
    figures = []
    for batch_size in (1, 8):
        setup = prepare_once(toy(train={"batch_size": batch_size}), one_device)
        figures.append(evaluate(setup, setup.steps.initial, "validation"))
    assert figures[0]["accuracy"] == figures[1]["accuracy"]
    assert figures[0]["accuracy"] * 21 == pytest.approx(round(figures[0]["accuracy"] * 21))
    assert figures[0]["loss"] == pytest.approx(figures[1]["loss"], rel=1e-6)


def test_seed_decides_the_parameters(toy, one_device):
    a = prepare_once(toy(), one_device).steps
    b = prepare_once(dataclasses.replace(toy(), seed=1), one_device).steps
    kernel = a.names.index("params/backbone/encode/kernel")
    assert not np.array_equal(a.initial[kernel], b.initial[kernel])


class SpreadTask(ToyTask):
    """Reports the standard deviation of all inputs, which no mean over batches gives."""

    measures = ("loss", "spread")

    @property
    def quantities(self):
        return {"loss": (), "moments": (2,)}

    def expand(self, batch):
        return {**batch, "x": 2 * batch["x"]}

    def measure(self, outputs, batch):
        x = batch["x"][..., 0]
        loss = measure_classification(outputs, batch["label"])["loss"]
        return {"loss": loss, "moments": jnp.stack([x.mean(-1), (x**2).mean(-1)], -1)}

    def report(self, means):
        mean, square = means["moments"]
        return {"loss": float(means["loss"]), "spread": float(np.sqrt(square - mean**2))}


def test_a_task_may_report_what_is_no_mean_over_examples(toy, one_device, monkeypatch):
    monkeypatch.setitem(TASKS, "toy", SpreadTask)
    setup = make_setup(toy(), one_device)
    figures = evaluate(setup, setup.steps.initial, "validation")
    source = setup.task.source("validation", seed=0)
    x = np.stack([2 * source[i]["x"] for i in range(len(source))])
    assert figures["spread"] == pytest.approx(x.std(), rel=1e-5)
    dataset = make_batches(setup.task, "train", seed=0, batch_size=8)
    batch = next(on_device(dataset, one_device))
    _, meter = setup.steps.train(setup.steps.initial, batch)
    row, _ = summarize(meter, setup.task)
    assert row["spread"] == pytest.approx(2 * np.asarray(batch["x"]).std(), rel=1e-5)


@pytest.mark.parametrize("bad", [3, -1, -100, 255])
def test_a_label_that_is_not_a_class_gives_nan(bad):
    """Also in bytes, of which JAX takes 256 for 0."""
    logits = jnp.log(jnp.arange(1.0, 7.0).reshape(2, 3))
    labels = jnp.array([1, bad % 256 if bad == 255 else bad])
    labels = labels.astype(jnp.uint8) if bad == 255 else labels

    def loss(logits):
        values = measure_classification(logits, labels)
        return values["loss"].mean(), values

    (mean, values), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(logits)
    assert jnp.isnan(mean)
    np.testing.assert_allclose(values["loss"], [np.log(3), np.nan], rtol=1e-6)
    np.testing.assert_array_equal(values["accuracy"], [0, np.nan])
    assert jnp.isnan(gradient[1]).all()


@pytest.mark.parametrize("name", ["pathfinder_segmentation_128", "listops_subtrees"])
def test_a_label_of_a_step_that_is_not_a_class_gives_nan(name):
    task = get_task(name)(get_recipe(name, "dlr" if "seg" in name else "s5", "smoke").data)
    column = "label" if name == "listops_subtrees" else "target"
    outputs = jnp.zeros((2, 16, task.d_output))
    labels = jnp.ones((2, 16), jnp.int8).at[1, 3].set(task.d_output)
    loss = jax.jit(lambda labels: task.measure(outputs, {column: labels})["loss"])
    assert jnp.isfinite(loss(jnp.ones_like(labels))).all()
    assert jnp.isnan(loss(labels))[1]
    assert jnp.isnan(loss(labels.at[1, 3].set(-1)))[1]
