"""Associative recall: what an example is, and what is right without a memory."""

import dataclasses
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from experiments.recipes import get_recipe
from experiments.tasks.recall import AssociativeRecall, RecallOptions, most_frequent_value

SMALL = RecallOptions(n_train=300, n_validation=50, n_test=50, length=20, vocabulary=10)


def draw(options=SMALL, split="train", seed=0):
    source = AssociativeRecall(options).source(split, seed=seed)
    return source, source.batch(np.arange(len(source)), epoch=0)


@pytest.mark.parametrize(("length", "vocabulary"), [(20, 10), (4, 4), (258, 30)])
def test_an_example_is_a_list_of_pairs_and_a_query(length, vocabulary):
    options = dataclasses.replace(SMALL, length=length, vocabulary=vocabulary)
    _, batch = draw(options)
    n = vocabulary // 2
    assert batch["token"].shape == (300, length)
    for tokens, label in zip(batch["token"].tolist(), batch["label"].tolist(), strict=True):
        *pairs, separator, query = tokens
        table = {}
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            assert 0 <= key < n <= value < 2 * n
            assert table.setdefault(key, value) == value
        assert separator == 2 * n
        assert table[query] - n == label


def test_everything_is_drawn_uniformly():
    _, batch = draw(dataclasses.replace(SMALL, n_train=3_000))
    for column in (batch["token"][:, 0], batch["token"][:, 1] - 5, batch["label"]):
        np.testing.assert_allclose(np.bincount(column, minlength=5) / 3_000, 0.2, atol=0.03)
    keys, query = batch["token"][:, :-2:2], batch["token"][:, -1:]
    positions = [np.flatnonzero(row) for row in keys == query]
    first = np.mean([0 in found for found in positions])
    last = np.mean([8 in found for found in positions])
    assert first == pytest.approx(1 / 9 + 8 / 9 / 5, abs=0.03)
    assert last == pytest.approx(first, abs=0.04)


def test_an_example_depends_on_its_address_only():
    source, batch = draw()
    for name, column in source.batch(np.array([7, 3]), epoch=5).items():
        np.testing.assert_array_equal(column, batch[name][[7, 3]])
    others = (draw(split="test")[1], draw(seed=1)[1])
    assert all((other["token"][:50] != batch["token"][:50]).any(1).all() for other in others)
    tokens = [3, 9, 2, 6, 1, 5, 2, 6, 3, 9, 2, 6, 4, 7, 1, 5, 0, 7, 10, 3]
    assert source[0]["token"].tolist() == tokens  # on any machine, in any version


def test_the_baseline_of_a_run():
    task = AssociativeRecall(get_recipe("associative_recall", "s5", "cpu").data)
    _, batch = draw(dataclasses.replace(task.options, n_train=3_000))
    guesses = [most_frequent_value(tokens, task.d_output) for tokens in batch["token"]]
    right = np.mean(guesses == batch["label"])
    stated = re.search(r"right in ([\d.]+)% of examples, any value in 10.0%", task.note)
    assert float(stated[1]) / 100 == pytest.approx(right, abs=0.07)
    assert 0.2 < right < 0.4
    page = Path(__file__).parents[3] / "docs/results.md"
    assert f"right in {stated[1]} %" in page.read_text()


def test_the_answer_is_that_of_the_last_step():
    config = get_recipe("associative_recall", "hybrid", "smoke")
    task = AssociativeRecall(config.data)
    model = config.model.build(task, rngs=nnx.Rngs(0))
    assert model.pooling == "last"
    assert not any(layer.bidirectional for layer in model.layers)
    shape = jax.eval_shape(lambda u: model(u), np.zeros((2, task.length), np.int32)).shape
    assert shape == (2, task.d_output)


@pytest.mark.parametrize("wrong", [{"length": 21}, {"length": 2}, {"vocabulary": 9}])
def test_odd_sizes_are_refused(wrong):
    (name, value), *_ = wrong.items()
    with pytest.raises(ValueError, match=f"`{name}` must be an even number .*got {value}"):
        dataclasses.replace(SMALL, **wrong)
