"""Tokens and targets outside of the vocabulary, and targets that do not count."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close, loss_and_grads, run, tiers

from s5jax import GRU, LanguageModel, SequenceClassifier, SequenceLabeler, generate
from s5jax.models import _language

V = 7
OPTIONS = {"d_model": 4, "n_layers": 1, "norm": "layer", "layer_options": {"d_state": 3}}


def labeler(encoder, d_input=V):
    return SequenceLabeler(
        GRU, d_input=d_input, d_output=2, encoder=encoder, rngs=nnx.Rngs(0), **OPTIONS
    )


def language_model(d_input=V, **options):
    return LanguageModel(GRU, d_input=d_input, rngs=nnx.Rngs(0), **OPTIONS | options)


MODELS = {
    "embedding": lambda **k: labeler("embedding", **k),
    "one_hot": lambda **k: labeler("one_hot", **k),
    "adaptive": lambda **k: language_model(cutoffs=(3,), div_val=2, **k),
}
each_encoder = pytest.mark.parametrize("make", MODELS.values(), ids=list(MODELS))


@each_encoder
@pytest.mark.parametrize("array", [jnp.array, np.array], ids=["jax", "numpy"])
@pytest.mark.parametrize("bad", [V, -1])
def test_known_values_are_refused(make, array, bad):
    model = make()
    message = rf"`u` must hold tokens from 0 to 6; got {bad}\. Number the tokens from 0"
    with pytest.raises(ValueError, match=message):
        model(array([[1, bad, 3]]))
    with pytest.raises(ValueError, match=message):
        model.step(array([bad]), model.init_state((1,)))
    u = array([[1, bad, bad]])
    assert_close(model(u, lengths=np.array([1]))[:, :1], model(u[:, :1]))


@each_encoder
@pytest.mark.parametrize("bad", tiers([V, -1, 10**9], {-1}))
def test_unknown_values_become_nan(make, bad):
    model, u = make(), jnp.array([[1, bad, 3], [1, 2, 3]])
    y = run(model, u)
    assert jnp.isnan(y[0, 1:]).all()
    assert_close((y[0, 0], y[1]), (run(model, u[1])[0], run(model, u[1])))
    step = jax.jit(lambda m, u: m.step(u, m.init_state((2,)))[0])
    y = step(model, u[:, 1])
    assert jnp.isnan(y[0]).all()
    assert jnp.isfinite(y[1]).all()
    padded = run(model, u, lengths=jnp.array([1, 3]))
    assert_close((padded[0, 0], padded[1]), (run(model, u[1])[0], run(model, u[1])))
    _, (params, _) = loss_and_grads(model, lambda m, u: m(u.astype(int)).sum(), u * 1.0)
    assert any(jnp.isnan(g).any() for g in jax.tree.leaves(params))


@each_encoder
def test_bytes_are_tokens(make):
    """JAX takes 256 for 0 where it compares it with bytes."""
    u = np.array([[0, 200, 255]], np.uint8)
    model = make(d_input=256)
    for array in (u, jnp.asarray(u)):
        assert_close(model(array), run(model, u.astype(np.int32)))
    assert_close(run(model, u), run(model, u.astype(np.int32)))
    small = make(d_input=255)
    with pytest.raises(ValueError, match=r"from 0 to 254; got 255"):
        small(u)
    assert jnp.isnan(run(small, u)[0, 2]).all()


def test_a_vocabulary_of_one_token():
    model = labeler("embedding", d_input=1)
    assert jnp.isnan(run(model, jnp.array([[0, 1]]))[0]).any(-1).tolist() == [False, True]


def test_pooled_logits_of_an_unknown_token_are_nan():
    model = SequenceClassifier(
        GRU, d_input=V, d_output=2, encoder="one_hot", rngs=nnx.Rngs(0), **OPTIONS
    )
    y = run(model, jnp.array([[1, V, 2], [1, 2, 3]]))
    assert jnp.isnan(y).any(-1).tolist() == [True, False]


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_k": 3, "top_p": 0.9}])
def test_generation_after_an_unknown_token(options):
    model = language_model()
    key = jax.random.key(0)
    prompts = jnp.array([[1, V], [1, 2]])
    with pytest.raises(
        ValueError, match=r"generate: `prompts` must hold tokens from 0 to 6; got 7"
    ):
        generate(model, prompts, 5, key=key)
    new = jax.jit(lambda u: generate(model, u, 5, key=key, **options))(prompts)
    assert (new[0] == -1).all()
    assert ((new[1] >= 0) & (new[1] < V)).all()


LOSSES = pytest.mark.parametrize(
    ("options", "few"),
    [({}, False), ({"cutoffs": (3,), "div_val": 2}, False), ({}, True)],
    ids=["plain", "adaptive", "few_logits"],
)
"""With few logits at a time, the memory-saving path."""


def losses_and_grads(model, u, targets, weights, **options):
    def loss(m, weights):
        losses = m(u, targets=targets, **options)
        return jnp.sum(losses * weights), losses

    (_, losses), (grads, _) = loss_and_grads(model, loss, weights, has_aux=True)
    return losses, grads


@LOSSES
@pytest.mark.parametrize("ignored", tiers([-100, 2], {-100}))
def test_ignored_targets_do_not_count(options, few, ignored, monkeypatch):
    """Also with 200 tokens, of which the hundredth from the end is a token."""
    monkeypatch.setattr(_language, "MAX_LOGITS", 2 * 2 * V if few else 2**27)
    for d_input in (V, 200):
        model = language_model(d_input, **options)
        u = jax.random.randint(jax.random.key(0), (2, 5), 0, V)
        targets = jnp.where(u == 2, 3, u).at[0, 1].set(ignored).at[1, 3:].set(ignored)
        weights = jnp.cos(jnp.arange(10.0)).reshape(2, 5)
        counted = targets != ignored
        plain = jnp.where(counted, targets, 0)
        expected, grads = losses_and_grads(model, u, plain, weights * counted)
        losses, ignoring_grads = losses_and_grads(model, u, targets, weights, ignore_index=ignored)
        assert_close(losses, jnp.where(counted, expected, 0), rtol=0)
        assert_close(ignoring_grads, grads, rtol=0)
        assert_close(model(u, targets=targets, ignore_index=ignored), losses)


@LOSSES
@pytest.mark.parametrize("bad", tiers([V, -1, -100], {-1}))
def test_unknown_targets(options, few, bad, monkeypatch):
    monkeypatch.setattr(_language, "MAX_LOGITS", 2 * 2 * V if few else 2**27)
    model, u = language_model(**options), jnp.array([[1, 2, 3], [4, 5, 6]])
    targets, lengths = u.at[0, 1].set(bad), jnp.array([3, 2])
    message = rf"`targets` must hold tokens from 0 to 6; got {bad}\. .* pass `ignore_index={bad}`"
    for array in (targets, np.asarray(targets)):
        with pytest.raises(ValueError, match=message):
            model(u, targets=array)
    weights = jnp.ones((2, 3))
    losses, grads = losses_and_grads(model, u, targets, weights, lengths=lengths)
    assert jnp.isnan(losses).tolist() == [[False, True, False], [False, False, False]]
    assert all(jnp.isnan(g).any() for g in jax.tree.leaves(grads))
    padded = u.at[1, 2].set(bad)
    clean = losses_and_grads(model, u, u, weights, lengths=lengths)
    assert_close(losses_and_grads(model, u, padded, weights, lengths=lengths), clean, rtol=0)
    assert_close(model(u, targets=padded, lengths=lengths), clean[0])


def test_targets_of_bytes():
    model = language_model(256)
    u = np.array([[0, 156, 255]], np.uint8)
    wide = u.astype(np.int32)
    for ignored in (None, -100, 255):
        expected = run(model, wide, targets=wide)[0] * (wide[0] != ignored)
        for array, call in itertools.product((u, jnp.asarray(u)), (model, jitted(model))):
            assert_close(call(array, targets=array, ignore_index=ignored)[0], expected)


def jitted(model):
    return lambda u, targets, ignore_index: jax.jit(
        lambda u, targets: model(u, targets=targets, ignore_index=ignore_index)
    )(u, targets)


def test_ignore_index_needs_targets():
    with pytest.raises(ValueError, match="`ignore_index` must be given together with `targets`"):
        language_model()(jnp.array([[1, 2]]), ignore_index=-100)
