"""Sampling from language models."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import LAYERS, Row, assert_close, run, tiers

from s5jax import LanguageModel, SequenceLabeler, generate
from s5jax.models._generate import _choose

V, KEY = 11, jax.random.key(0)
STREAMING = [name for name, row in LAYERS.items() if not row.bidirectional and "leaky" not in name]
STACK = Row([(LAYERS[name].layer, LAYERS[name].options) for name in ("sgconv", "attention")])
FAST = ("gru", "stack")
sampled = functools.partial(jax.jit, static_argnames=("n", "temperature", "top_k", "top_p"))(
    generate
)


def language_model(name="s5", **options):
    row = STACK if name == "stack" else LAYERS[name]
    options = {"d_model": 4, "n_layers": 2, "norm": "layer", "embedding_std": 1.0} | options
    model = LanguageModel(
        row.layer, d_input=V, layer_options=row.options, rngs=nnx.Rngs(0), **options
    )
    model.eval()
    return model


@pytest.mark.parametrize(
    "name",
    tiers([*STREAMING, "stack"], FAST),
)
def test_greedy_output_equals_full_recomputation(name):
    """The likeliest token after all tokens before it, read anew from the start as a whole."""
    model = language_model(name, tie_embedding=False)
    prompts = jax.random.randint(KEY, (6, 6), 0, V)
    lengths = jnp.array([6, 2, 4, 1, 5, 3])
    new = sampled(model, prompts, 12, lengths=lengths, temperature=0.0)
    for prompt, length, tokens in zip(prompts, lengths.tolist(), new, strict=True):
        whole = jnp.concatenate([prompt[:length], tokens, jnp.zeros(6 - length, int)])
        likeliest = run(model, whole[None])[0].argmax(-1)
        assert (likeliest[length - 1 :][:12] == tokens).all()
    assert len(np.unique(new)) > 2  # or the model would be too simple to tell


def test_equal_lengths_need_no_lengths():
    model = language_model(tie_embedding=False)
    prompts = jax.random.randint(KEY, (3, 5), 0, V)
    full = sampled(model, prompts, 7, lengths=jnp.full(3, 5), key=KEY)
    assert full.shape == (3, 7)
    assert full.dtype == jnp.int32
    assert (sampled(model, prompts, 7, key=KEY) == full).all()
    assert (sampled(model, prompts, 7, key=jax.random.key(1)) != full).any()


def test_continues_one_prompt_without_a_batch():
    model = language_model()
    prompt = jnp.array([1, 2, 3])
    alone = sampled(model, prompt, 5, temperature=0.0)
    assert (alone == sampled(model, prompt[None], 5, temperature=0.0)[0]).all()


def frequencies(**options):
    options = {"temperature": 1.0, "top_k": None, "top_p": 1.0} | options
    logits = jnp.log(jnp.array([0.1, 0.4, 0.2, 0.3]))
    draws = _choose(jnp.broadcast_to(logits, (40_000, 4)), KEY, **options)
    return np.bincount(draws, minlength=4) / 40_000


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.1, 0.4, 0.2, 0.3]),
        ({"temperature": 0.0}, [0, 1, 0, 0]),
        ({"temperature": 0.5}, [1 / 30, 16 / 30, 4 / 30, 9 / 30]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_k": 1}, [0, 1, 0, 0]),
        ({"top_p": 0.75}, [0, 4 / 9, 2 / 9, 3 / 9]),
        ({"top_p": 0.3}, [0, 1, 0, 0]),
        ({"top_k": 3, "top_p": 0.5}, [0, 4 / 7, 0, 3 / 7]),
    ],
)
def test_draws_have_the_right_distribution(options, expected):
    np.testing.assert_allclose(frequencies(**options), expected, atol=0.012)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "`n` must be a positive integer"),
        ({"temperature": -1.0}, "`temperature` must not be negative"),
        ({"key": None}, "`key` must be given unless `temperature` is 0"),
        ({"top_k": V + 1}, "`top_k` must be between 1 and the number of tokens 11"),
        ({"top_k": 0}, "`top_k` must be"),
        ({"top_p": 0.0}, r"`top_p` must be in \(0, 1\]"),
        ({"prompts": jnp.zeros((2, 0), int)}, r"`prompts` must have shape .* got \(2, 0\)"),
        ({"prompts": jnp.full((2, 3), V)}, "must hold tokens from 0 to 10; got 11"),
        ({"prompts": jnp.zeros((2, 3))}, "`u` must be integer"),
        ({"lengths": jnp.array([0, 1])}, "`lengths` must be at least 1; got 0. An empty prompt"),
        ({"lengths": jnp.array([4, 1])}, "`lengths` must be between 0 and the padded length 3"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    arguments = {"prompts": jnp.zeros((2, 3), int), "n": 4, "key": KEY} | arguments
    with pytest.raises(ValueError, match=message):
        generate(language_model(), **arguments)


def test_models_that_cannot_step_are_refused():
    prompts = jnp.zeros((1, 3), int)
    batch_norm = language_model(norm="batch")
    batch_norm.train()
    with pytest.raises(ValueError, match=r"Call model.eval\(\) first"):
        generate(batch_norm, prompts, 4, temperature=0.0)
    labeler = SequenceLabeler(
        LAYERS["gru"].layer, d_input=V, d_output=V, d_model=4, n_layers=1,
        layer_options={"d_state": 3}, encoder="embedding", rngs=nnx.Rngs(0),
    )  # fmt: skip
    with pytest.raises(ValueError, match="must be a LanguageModel; got a SequenceLabeler"):
        generate(labeler, prompts, 4, temperature=0.0)


def test_padding_of_prompts_does_not_count():
    model = language_model()
    prompts = jnp.array([[1, 2, 3, 4], [5, 6, -1, 99]])
    padded = sampled(model, prompts, 6, lengths=jnp.array([4, 2]), temperature=0.0)
    assert_close(padded[1], sampled(model, prompts[1, :2], 6, temperature=0.0))
