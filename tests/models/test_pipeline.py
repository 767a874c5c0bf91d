"""A trained model on raw data: standardised inputs, and outputs in the units of the targets."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from s5jax import (
    S5,
    LanguageModel,
    Pipeline,
    Preprocessing,
    SequenceClassifier,
    SequenceLabeler,
    load,
    param_labels,
    save,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 7, 2))
MEAN, STD = (1e6, -3.0), (0.25, 4.0)
RAW = X * STD + MEAN
PREPROCESSING = Preprocessing(
    input_mean=MEAN,
    input_std=STD,
    target_mean=(100.0, 0.0, -1.0),
    target_std=(10.0, 1.0, 0.1),
    dt_unit=3_600.0,
    features=("a", "b"),
)


def make(model, **options):
    options = {
        "d_model": 4,
        "n_layers": 1,
        "norm": "layer",
        "layer_options": {"d_state": 4},
        **options,
    }
    built = model(S5, d_input=2, d_output=3, rngs=nnx.Rngs(0), **options)
    built.eval()
    return built


@pytest.fixture(scope="module")
def labeler():
    return make(SequenceLabeler)


def test_raw_inputs_give_what_standardised_ones_give_the_model(labeler):
    pipeline = Pipeline(labeler, PREPROCESSING)
    dt = RNG.uniform(1, 2, (3, 7))
    expected = np.asarray(labeler(jnp.asarray(X), dt=dt)) * [10, 1, 0.1] + [100, 0, -1]
    np.testing.assert_allclose(pipeline(RAW, dt=3_600 * dt), expected, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(
        pipeline(RAW.tolist(), dt=3_600 * dt), expected, rtol=1e-6, atol=1e-5
    )


def test_digits_survive_a_large_mean(labeler):
    """Float32 keeps 1/16 of a unit at a million; the readings differ by a quarter."""
    pipeline = Pipeline(labeler, PREPROCESSING)
    shift = Preprocessing(input_mean=(1e9, 1e9), input_std=(1e-3, 1e-3))
    far = Pipeline(labeler, shift)(X * 1e-3 + 1e9)
    np.testing.assert_allclose(far, labeler(jnp.asarray(X)), atol=1e-3)
    assert pipeline.preprocessing.standardize(RAW).dtype == np.float64


def test_jax_arrays_and_jit(labeler):
    pipeline = Pipeline(labeler, dataclasses.replace(PREPROCESSING, input_mean=(1.0, 2.0)))
    raw = jnp.asarray(X * STD + [1, 2], jnp.float32)
    np.testing.assert_allclose(jax.jit(pipeline)(raw), pipeline(raw), rtol=1e-6)
    whole = jnp.arange(14).reshape(1, 7, 2)
    np.testing.assert_allclose(pipeline(whole), pipeline(whole.astype(jnp.float32)))
    half = pipeline(raw.astype(jnp.bfloat16))
    np.testing.assert_allclose(half, pipeline(raw), rtol=0.05, atol=0.5)


def test_steps_and_chunks_are_the_sequence(labeler):
    pipeline = Pipeline(labeler, PREPROCESSING)
    whole = pipeline(RAW)
    head, state = pipeline(RAW[:, :4], state=pipeline.init_state((3,)), return_state=True)
    outputs = [head]
    for k in range(4, 7):
        y, state = pipeline.step(RAW[:, k], state, dt=3_600.0)
        outputs.append(y[:, None])
    np.testing.assert_allclose(np.concatenate(outputs, 1), whole, rtol=1e-5)


def test_padded_outputs_stay_zero(labeler):
    lengths = np.array([7, 3, 1])
    y = Pipeline(labeler, PREPROCESSING)(RAW, lengths=lengths)
    padding = np.arange(7) >= lengths[:, None]
    assert not np.asarray(y)[padding].any()
    assert np.asarray(y)[~padding].all()
    one = make(SequenceClassifier)
    assert Pipeline(one, PREPROCESSING)(RAW, lengths=lengths).shape == (3, 3)


def test_tokens_pass_unchanged():
    options = {"d_model": 4, "n_layers": 1, "norm": "layer", "layer_options": {"d_state": 4}}
    model = LanguageModel(S5, d_input=5, rngs=nnx.Rngs(0), **options)
    pipeline = Pipeline(model, Preprocessing(vocabulary=tuple("abcde")))
    tokens = np.array([[1, 2, 4]])
    np.testing.assert_array_equal(pipeline(tokens, targets=tokens), model(tokens, targets=tokens))


def test_saved_with_the_model_to_the_last_digit(tmp_path):
    model = make(SequenceClassifier)
    per_step = Preprocessing(
        input_mean=RNG.normal(size=(7, 2)) * 1e9, classes=("ä", "b", "c"), sample_rate=16_000
    )
    pipeline = Pipeline(model, per_step)
    save(pipeline, tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert loaded.preprocessing == per_step
    np.testing.assert_array_equal(loaded(RAW), pipeline(RAW))
    save(model, tmp_path / "model")
    assert isinstance(load(tmp_path / "model"), SequenceClassifier), (
        "no preprocessing is left behind"
    )


def test_fine_tuning(tmp_path, labeler):
    save(Pipeline(labeler, PREPROCESSING), tmp_path)
    pipeline = load(tmp_path)
    labels = param_labels(pipeline.model)
    assert "ssm" in jax.tree.leaves(labels)
    pipeline.train()
    optimizer = nnx.Optimizer(pipeline, optax.adam(1e-2), wrt=nnx.Param)
    before = pipeline(RAW)
    grads = nnx.grad(lambda p: (p(jnp.asarray(RAW)) ** 2).mean())(pipeline)
    optimizer.update(pipeline, grads)
    assert not np.allclose(before, pipeline(RAW))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"input_std": (1.0, 0.0)}, "`input_std` must be finite and positive; got"),
        ({"target_mean": (float("nan"),)}, "`target_mean` must be finite; got"),
        ({"dt_unit": 0.0}, "`dt_unit` must be positive and finite; got 0"),
        ({"sample_rate": "8k"}, "`sample_rate` must be an integer; got '8k'"),
    ],
)
def test_statistics_that_cannot_be(options, words):
    with pytest.raises(ValueError, match=words):
        Preprocessing(**options)


def test_names_that_do_not_fit_the_model(tmp_path, labeler):
    with pytest.raises(ValueError, match=r"`preprocessing\.classes` must have 3 entries.*got 2"):
        Pipeline(labeler, Preprocessing(classes=("a", "b")))
    save(Pipeline(labeler, Preprocessing(classes=("a", "b", "c"))), tmp_path)
    path = tmp_path / "preprocessing.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "classes": ["a"]}))
    with pytest.raises(ValueError, match=r"preprocessing\.json is corrupted.*3 entries"):
        load(tmp_path)
