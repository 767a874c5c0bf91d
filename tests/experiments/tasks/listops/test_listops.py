"""Expressions against the reference statistics and an independent interpreter, and their tasks.

Confidence: sample sizes and seeds are fixed, so the tests are deterministic. Under a faithful
generator about 5 % of z-scores exceed 2; of the some hundred here, none may exceed 4.5.
"""

import csv
import dataclasses
import pickle
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from listops_statistics import DATA, OPERATORS, nodes_of, words_of, z_scores
from scipy import special, stats

from experiments.data.sources import Split
from experiments.recipes import get_recipe
from experiments.tasks import get_task
from experiments.tasks.listops.task import (
    EOS,
    ExpressionSource,
    ListOps,
    ListOpsOptions,
    ListOpsSource,
    ListOpsSubTrees,
    SubTreesOptions,
    SubTreesSource,
    evaluate_expression,
)
from experiments.training.pipeline import sample

_Z_MAX = 4.5
_SHORT = {"min_length": 20, "max_length": 60, "max_depth": 4, "max_args": 5}


# --------------------------------------------------------------------------------------- evaluation

_EXPRESSIONS = st.recursive(
    st.integers(0, 9).map(str),
    lambda arguments: st.builds(
        lambda name, values: f"{name} {' '.join(values)} ]",
        st.sampled_from(list(OPERATORS)),
        st.lists(arguments, min_size=1, max_size=12),
    ),
    max_leaves=20,
).filter(lambda text: text.startswith("["))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(_EXPRESSIONS)
def test_every_value_is_that_of_an_independent_interpreter(expression: str) -> None:
    words = expression.split()
    expected = np.full(len(words), -100)
    for node in nodes_of(words):
        expected[node.end - 1] = node.value
    np.testing.assert_array_equal(evaluate_expression(expression), expected)


def test_official_expressions_have_the_official_values() -> None:
    with (DATA / "listops_samples.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) == 3
    for row in rows:
        values = evaluate_expression(row["Source"])
        assert values[-1] == int(row["Target"])
        assert 500 < len(values) < 2000


@pytest.mark.parametrize(
    "expression", ["", "3", "[MAX 1", "[MAX 1 ] ]", "[MAX ]", "1 [MAX 2 ]", "] [MAX", "[MIN 1 ] 2"]
)
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="`expression` must be one operator with all its"):
        evaluate_expression(expression)


def test_an_unknown_token_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Unknown token '\[MEN'.*Did you mean '\[MIN'"):
        evaluate_expression("[MEN 1 2 ]")


# ---------------------------------------------------------------------------- against the reference


@pytest.mark.parametrize(
    ("options", "n"),
    [
        (ListOpsOptions(), 300),
        (SubTreesOptions(), 30),
        pytest.param(ListOpsOptions(), 10_000, marks=pytest.mark.slow),
        pytest.param(SubTreesOptions(), 2_000, marks=pytest.mark.slow),
    ],
)
def test_statistics(options: ListOpsOptions | SubTreesOptions, n: int) -> None:
    scores = z_scores(_source(options), n)
    z = np.abs(np.concatenate(list(scores.values())))
    assert len(z) > 100
    assert z.max() < _Z_MAX, scores
    assert (z > 2).mean() < 0.12, scores


@pytest.mark.parametrize("change", [{"p_operator": 0.27}, {"max_args": 11}, {"max_depth": 9}])
def test_statistics_reject_unfaithful_generators(change: dict[str, Any]) -> None:
    scores = z_scores(_source(ListOpsOptions(**change)), 150)
    assert max(np.abs(z).max() for z in scores.values()) > _Z_MAX


def test_any_argument_may_be_an_expression_but_on_the_lowest_level() -> None:
    source = _source(ListOpsOptions())
    positions: dict[int, list[int]] = {n: [] for n in range(2, 11)}
    for i in range(100):
        for node in nodes_of(words_of(source, i)):
            assert node.depth < 9 or not any(node.are_nodes)
            positions[len(node.operands)] += np.flatnonzero(node.are_nodes).tolist()
    p_values = [
        stats.chisquare(np.bincount(where, minlength=n)).pvalue for n, where in positions.items()
    ]
    assert min(p_values) > 1e-3


def test_the_law_is_that_of_the_published_recursion() -> None:
    """Under other options than the published, where digits at the root are drawn, too."""
    options = ListOpsOptions(p_operator=0.4, **_SHORT)
    rng = random.Random(0)
    theirs = [len(_official_expression(options, rng)) for _ in range(3_000)]
    ours = _source(options, n=3_000).batch(np.arange(3_000), epoch=0)["length"] - 1
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-3


def _official_expression(options: ListOpsOptions, rng: random.Random) -> list[str]:
    """The published rule, word by word."""

    def tree(depth: int) -> list[str]:
        if depth == options.max_depth or rng.random() > options.p_operator:
            return [str(rng.randrange(10))]
        operands = [tree(depth + 1) for _ in range(rng.randint(2, options.max_args))]
        return [rng.choice(list(OPERATORS)), *(word for x in operands for word in x), "]"]

    while True:
        words = tree(1)
        if options.min_length < len(words) < options.max_length:
            return words


@pytest.mark.slow
def test_twenty_times_as_fast_as_the_published_recursion() -> None:
    """Which here leaves out the evaluation, the nested tuples and the texts of the official one."""
    source, rng = _source(ListOpsOptions(), n=10_000), random.Random(0)
    source.batch(np.arange(100), epoch=0)
    start = time.thread_time()
    source.batch(np.arange(5_000), epoch=0)
    ours = (time.thread_time() - start) / 5_000
    start = time.thread_time()
    for _ in range(200):
        _official_expression(source.options, rng)
    theirs = (time.thread_time() - start) / 200
    assert theirs > 20 * ours


# -------------------------------------------------------------------------------------- the sources


def _source(
    options: ListOpsOptions | SubTreesOptions,
    n: int = 10_000,
    seed: int = 0,
    split: Split = "train",
) -> ExpressionSource:
    options = dataclasses.replace(options, n_train=n, n_validation=n)
    kind = ListOpsSource if isinstance(options, ListOpsOptions) else SubTreesSource
    return kind(options, seed=seed, split=split)


def test_listops_columns() -> None:
    source = _source(ListOpsOptions())
    batch = source.batch(np.arange(50), epoch=0)
    assert {name: (x.dtype, x.shape) for name, x in batch.items()} == {
        "token": (np.uint8, (50, 2048)),
        "length": (np.int32, (50,)),
        "label": (np.int32, (50,)),
    }
    for i, (token, length, label) in enumerate(zip(*batch.values(), strict=True)):
        assert 501 < length < 2001
        assert token[length - 1] == EOS == 2
        assert not token[length:].any()
        assert token[: length - 1].min() >= 3
        assert token.max() == 17
        assert label == evaluate_expression(" ".join(words_of(source, i)))[-1]


def test_subtrees_columns() -> None:
    source = _source(SubTreesOptions())
    batch = source.batch(np.arange(10), epoch=0)
    assert {name: (x.dtype, x.shape) for name, x in batch.items()} == {
        "token": (np.uint8, (10, 8192)),
        "length": (np.int32, (10,)),
        "label": (np.int8, (10, 8192)),
    }
    for i, (token, length, label) in enumerate(zip(*batch.values(), strict=True)):
        assert 7000 < length < 8180
        assert not token[length:].any()
        assert token[:length].min() >= 2
        assert token.max() == 16
        values = evaluate_expression(" ".join(words_of(source, i)))
        np.testing.assert_array_equal(label[:length], np.where(values < 0, values, values + 2))
        assert (label[length:] == -100).all()


@pytest.mark.parametrize("options", [ListOpsOptions(**_SHORT), SubTreesOptions(**_SHORT)])
def test_examples_are_pure_functions_of_their_address(
    options: ListOpsOptions | SubTreesOptions,
) -> None:
    first, again = _source(options, 300), pickle.loads(pickle.dumps(_source(options, 400)))
    forwards = first.batch(np.arange(300), epoch=0)
    backwards = again.batch(np.arange(300)[::-1], epoch=7)
    for name, column in forwards.items():
        np.testing.assert_array_equal(column, backwards[name][::-1])
        np.testing.assert_array_equal(column[123], first[123][name])
    for other in (_source(options, 300, seed=1), _source(options, 300, split="validation")):
        tokens = other.batch(np.arange(300), epoch=0)["token"]
        assert not (tokens == forwards["token"]).all(axis=1).any()


def test_threads_draw_what_one_thread_draws() -> None:
    source = _source(ListOpsOptions(**_SHORT))
    parts = np.arange(4_000).reshape(40, 100)
    with ThreadPoolExecutor(8) as pool:
        drawn = list(pool.map(lambda part: source.batch(part, epoch=0)["token"], parts))
    whole = source.batch(parts.ravel(), epoch=0)["token"]
    np.testing.assert_array_equal(np.concatenate(drawn), whole)


@pytest.mark.parametrize("index", [-1, 10_000, 10**30])
def test_index_out_of_range(index: int) -> None:
    with pytest.raises(IndexError, match=r"ListOpsSource: index must be in \[0, 10000\)"):
        _source(ListOpsOptions())[index]


def test_bad_source() -> None:
    with pytest.raises(ValueError, match="Did you mean 'validation'"):
        ListOpsSource(ListOpsOptions(), seed=0, split="valid")
    with pytest.raises(ValueError, match=r"ListOpsSource: `seed` must be in"):
        ListOpsSource(ListOpsOptions(), seed=-1, split="train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_depth": 1}, "`max_depth` must be at least 2; got 1"),
        ({"max_args": 1}, "`max_args` must be at least 2; got 1"),
        ({"p_operator": 1.0}, r"`p_operator` must be in \[0, 1\)"),
        ({"min_length": 0}, "`min_length` must be positive"),
        ({"max_length": 501}, "`max_length` must exceed `min_length` by 2 or more"),
        ({"vocabulary_size": 17}, "ListOpsOptions: `vocabulary_size` must be at least 18; got 17"),
        ({"n_test": 0}, "`n_test` must be positive"),
    ],
)
def test_bad_options(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ListOpsOptions(**change)


def test_impossible_options_end_in_an_error() -> None:
    source = _source(ListOpsOptions(max_depth=3))
    with pytest.raises(ValueError, match="none of 1,000,000 trees has an allowed length"):
        source[0]


# ---------------------------------------------------------------------------------------- the tasks


@pytest.mark.parametrize(
    ("task", "length", "sizes"), [("listops", 2048, (20, 10)), ("listops_subtrees", 8192, (17, 17))]
)
def test_published_sizes(task: str, length: int, sizes: tuple[int, int]) -> None:
    made = get_task(task)(get_recipe(task, "s5" if task == "listops" else "dlr", "paper").data)
    assert made.length == length
    assert (made.d_input, made.d_output) == sizes


def test_sample_has_the_agreed_names() -> None:
    task = ListOps(get_recipe("listops", "s5", "smoke").data)
    arrays = sample(task, "train", seed=3, n=7)
    shapes = {name: array.shape for name, array in arrays.items()}
    assert shapes == {"tokens": (7, 64), "lengths": (7,), "labels": (7,), "indices": (7,)}


def test_tokens_enter_the_model_with_their_lengths() -> None:
    task = ListOps(ListOpsOptions(**_SHORT))
    batch = task.source("train", seed=0).batch(np.arange(3), epoch=0)
    inputs = task.inputs(batch)
    assert inputs["u"].dtype == jnp.int32
    np.testing.assert_array_equal(inputs["u"], batch["token"])
    np.testing.assert_array_equal(inputs["lengths"], batch["length"])


def test_every_bracket_of_the_subtrees_counts_the_same() -> None:
    """In the loss of a batch, and in what is reported over batches."""
    task = ListOpsSubTrees(SubTreesOptions(**_SHORT))
    source, rng = task.source("train", seed=0), np.random.default_rng(0)
    batches = [source.batch(np.arange(i, i + 5), epoch=0) for i in (0, 5)]
    logits = [rng.normal(size=(5, 64, 17)).astype(np.float32) for _ in batches]
    measure = jax.jit(task.measure)
    measured = [jax.device_get(measure(z, batch)) for z, batch in zip(logits, batches, strict=True)]
    assert measured[0].keys() == task.quantities.keys()
    losses, hits = [], []
    for z, batch, values in zip(logits, batches, measured, strict=True):
        at = batch["label"] >= 0
        labels = batch["label"][at].astype(np.int32)
        scores = special.log_softmax(z[at], axis=-1)
        losses.append(-np.take_along_axis(scores, labels[:, None], axis=-1))
        hits.append(z[at].argmax(axis=-1) == labels)
        np.testing.assert_allclose(values["loss"].mean(), losses[-1].mean(), rtol=1e-5)
    means = {
        name: np.mean([values[name].mean() for values in measured]) for name in task.quantities
    }
    assert task.report(means) == pytest.approx(
        {"loss": np.concatenate(losses).mean(), "accuracy": np.concatenate(hits).mean()}
    )
