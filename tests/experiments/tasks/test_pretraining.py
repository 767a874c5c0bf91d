"""Pretraining on a task's own inputs: its masks, its losses, and what a later run takes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.errors import UsageError
from experiments.recipes import get_recipe
from experiments.tasks import Pretraining, get_task
from experiments.training import fit
from experiments.training.ledger import read_ledger
from experiments.training.prediction import predict


def make(name, objective):
    return Pretraining(get_task(name)(get_recipe(name, "s5", "smoke").data), objective)


def batch_of(task, rows=(0, 1, 2), *, epoch=0):
    rows = np.array(rows)
    batch = task.source("train", seed=0).batch(rows, epoch=epoch)
    ids = {"index": rows.astype(np.int32), "epoch": np.full(len(rows), epoch, np.int32)}
    return task.expand({**batch, **ids})


def test_masked_steps_are_hidden_and_only_they_count():
    task = make("digits", "masked")
    batch = batch_of(task)
    u, plain = task.inputs(batch)["u"], task.task.inputs(batch)["u"]
    masked = np.asarray(batch["masked"])
    assert masked.mean() == pytest.approx(0.5, abs=0.1)
    assert (u[masked] == 0).all()
    np.testing.assert_array_equal(u[~masked], plain[~masked])
    outputs = jnp.where(masked[..., None], plain + 0.25, 100.0)
    np.testing.assert_allclose(task.measure(outputs, batch)["loss"], 0.25, rtol=1e-5)


def test_masks_are_new_in_each_epoch_and_belong_to_the_example():
    task = make("digits", "masked")
    first, again, later = (batch_of(task, epoch=epoch)["masked"] for epoch in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[2], batch_of(task, [2])["masked"][0])
    assert (first != later).any(axis=1).all()
    assert (first[0] != first[1]).any()


def test_causal_outputs_predict_the_next_step():
    task = make("digits", "causal")
    batch = batch_of(task)
    u = task.inputs(batch)["u"]
    assert task.causal
    outputs = jnp.concatenate([u[:, 1:] - 0.5, jnp.full_like(u[:, :1], 100)], axis=1)
    np.testing.assert_allclose(task.measure(outputs, batch)["loss"], 0.5, rtol=1e-5)


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_padding_does_not_count(objective):
    """Tokens have a cross entropy; what is said of padding changes nothing."""
    task = make("listops", objective)
    batch = batch_of(task)
    inputs = task.task.inputs(batch)
    L = inputs["u"].shape[1]
    assert (inputs["lengths"] < L).any()
    outputs = jax.random.normal(jax.random.key(0), (3, L, task.d_output))
    padded = jnp.arange(L)[None, :, None] >= inputs["lengths"][:, None, None]
    changed = jnp.where(padded, outputs + 7 * jnp.arange(task.d_output), outputs)
    loss = task.measure(outputs, batch)["loss"]
    np.testing.assert_array_equal(loss, task.measure(changed, batch)["loss"])
    logs = np.asarray(jax.nn.log_softmax(outputs))
    steps = [np.arange(n) for n in inputs["lengths"]]
    if objective == "masked":
        steps = [k[np.asarray(batch["masked"])[i, k]] for i, k in enumerate(steps)]
        expected = [-logs[i, k, inputs["u"][i, k]].mean() for i, k in enumerate(steps)]
        assert np.mean([len(k) for k in steps]) < 0.2 * np.mean(inputs["lengths"])
    else:
        expected = [-logs[i, k[:-1], inputs["u"][i, k[1:]]].mean() for i, k in enumerate(steps)]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["pendulum", "chars"])
def test_other_examples_than_single_sequences_are_refused(name):
    with pytest.raises(ValueError, match=r"the head 'classify' or 'label'.*Leave --pretrain out"):
        make(name, "masked")


def test_a_run_of_pretraining_and_one_from_its_model(tmp_path, capsys):
    config = get_recipe("digits", "s5", "smoke")
    pretraining = dataclasses.replace(config, pretrain="masked")
    first = fit(pretraining, tmp_path / "first")
    assert first["metric"] == "loss"
    assert first["pretrain"] == "masked"
    with pytest.raises(UsageError, match="pretrain is masked there, None here"):
        fit(config, tmp_path / "first")
    np.savez(tmp_path / "new.npz", images=np.zeros((2, 8, 8), np.uint8))
    rows = predict(tmp_path / "first", tmp_path / "new.npz")
    assert [list(row) for row in rows] == 128 * [["example", "step", "y0"]]
    capsys.readouterr()
    second = fit(
        dataclasses.replace(config, init_from=str(tmp_path / "first")), tmp_path / "second"
    )
    assert "new: decode.bias, decode.kernel; not used: decode.bias" in capsys.readouterr().out
    assert read_ledger(tmp_path) == [second]


def test_a_causal_objective_needs_a_causal_model(tmp_path):
    config = dataclasses.replace(get_recipe("digits", "s5", "smoke"), pretrain="causal")
    with pytest.raises(UsageError, match="`bidirectional` must be False"):
        fit(config, tmp_path)
