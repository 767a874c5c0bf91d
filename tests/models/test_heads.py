"""Document matching, outputs at every step, language models."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from helpers import assert_close, loss_and_grads, normal, run, tiers

from s5jax import (
    GRU,
    S5,
    Attention,
    DocumentMatcher,
    ImageRegressor,
    LanguageModel,
    SequenceLabeler,
    SGConv,
    load,
    save,
)

SIZES = {"d_model": 4, "n_layers": 1, "final_norm": True, "norm": "layer"}
GRU_OPTIONS, ATTENTION_OPTIONS = {"d_state": 3}, {"n_heads": 2, "l_max": 5}


def matcher(layer=GRU, **options):
    options = {"layer_options": GRU_OPTIONS} | options
    return DocumentMatcher(layer, d_input=2, d_output=3, rngs=nnx.Rngs(0), **SIZES | options)


def labeler(layer=GRU, **options):
    options = {"d_output": 3, "layer_options": GRU_OPTIONS} | options
    return SequenceLabeler(layer, d_input=2, rngs=nnx.Rngs(0), **SIZES | options)


def language_model(layer=Attention, **options):
    options = {"layer_options": ATTENTION_OPTIONS} | options
    return LanguageModel(layer, d_input=7, rngs=nnx.Rngs(0), **SIZES | options)


def image_regressor(layer=GRU, **options):
    """With 16 features: a layer norm of four multiplies the rounding of products by a hundred."""
    sizes = {"image_shape": (8, 16), "d_input": 129, "d_output": 2, **SIZES, "d_model": 16}
    options = sizes | {"layer_options": GRU_OPTIONS} | options
    return ImageRegressor(layer, rngs=nnx.Rngs(0), **options)


def inputs(model, L, seed=0):
    """Three inputs of a model: numbers, or tokens."""
    if model.encoder == "embedding":
        return jax.random.randint(jax.random.key(seed), (3, L), 0, model.d_input)
    pair = (2,) if isinstance(model, DocumentMatcher) else ()
    return normal(seed, 3, *pair, L, model.d_input)


LOCAL = (Attention, ATTENTION_OPTIONS)
STACKS = {
    "language": [(S5, {"d_state": 8}), LOCAL],
    "labeler": [(SGConv, {"l_max": 6, "kernel_dim": 3}), LOCAL, (GRU, GRU_OPTIONS)],
}
MODELS = {
    "matcher": lambda: matcher(prenorm=False),
    "matcher_batch_norm": lambda: matcher(S5, layer_options={"d_state": 8}, norm="batch"),
    "labeler": lambda: labeler(activation="gelu_linear"),
    "image_regressor": image_regressor,
    "language_model": language_model,
    "language_model_untied": lambda: language_model(
        S5, layer_options={"d_state": 8}, tie_embedding=False
    ),
    "language_stack": lambda: language_model(STACKS["language"], layer_options={}, n_layers=2),
    "labeler_stack": lambda: labeler(STACKS["labeler"], layer_options={}, n_layers=3, ffn_every=2),
}
each = pytest.mark.parametrize("name", tiers(MODELS, {"image_regressor", "language_stack"}))


@functools.cache
def build(name):
    model = MODELS[name]()
    model.eval()
    return model


@jax.jit
def features(model, u):
    return model.backbone(u)


@each
def test_whole_is_chunks_is_steps(name):
    model = build(name)
    u = inputs(model, 9)
    axis = u.ndim - 1 if model.encoder == "embedding" else u.ndim - 2

    def outputs(m, u):
        head, tail = jnp.split(u, [4], axis)
        first, state = m(head, return_state=True)
        last, state = m(tail, state=state, return_state=True)
        return (
            last if isinstance(m, DocumentMatcher) else jnp.concatenate([first, last], 1)
        ), state

    def steps(m, u):
        def body(state, u_t):
            return m.step(u_t, state)[::-1]

        state, y = jax.lax.scan(body, m.init_state((3,)), jnp.moveaxis(u, axis, 0))
        return (y[-1] if isinstance(m, DocumentMatcher) else jnp.moveaxis(y, 0, 1)), state

    def loss(forward):
        def value(params, u):
            y, state = forward(nnx.merge(graphdef, params), u)
            return jnp.sum(jnp.tanh(y) ** 2), (y, state)

        return jax.jit(jax.value_and_grad(value, has_aux=True))(params, u)

    graphdef, params = nnx.split(model)
    whole = loss(lambda m, u: m(u, return_state=True))
    assert_close(loss(outputs), whole)
    assert_close(loss(steps), whole)


@each
def test_padding_never_leaks(name):
    model = build(name)
    u, tokens = inputs(model, 8), model.encoder == "embedding"
    pair = isinstance(model, DocumentMatcher)
    lengths = jnp.array([[8, 3], [1, 8], [5, 5]]) if pair else jnp.array([8, 3, 0])
    valid = jnp.arange(8) < lengths[..., None]
    valid = valid if tokens else valid[..., None]
    clean, dirty = jnp.where(valid, u, 0), jnp.where(valid, u, -1 if tokens else jnp.nan)

    def loss(m, u):
        return jnp.sum(jnp.tanh(m(u, lengths=lengths)) ** 2)

    if not tokens:
        assert_close(loss_and_grads(model, loss, dirty), loss_and_grads(model, loss, clean), rtol=0)
    y = run(model, dirty, lengths=lengths)
    if pair:
        assert_close(y[2], run(model, u[2, :, :5]))
        return
    assert_close(y[1, :3], run(model, u[1, :3]))
    assert (y[1, 3:] == 0).all()
    assert (y[2] == 0).all()


@each
def test_save_and_load(name, tmp_path):
    model = build(name)
    save(model, tmp_path)
    loaded = load(tmp_path)
    assert nnx.graphdef(loaded) == nnx.graphdef(model)
    assert_close(nnx.state(loaded), nnx.state(model), rtol=0)


def test_matching_head():
    model = build("matcher")
    u = inputs(model, 6)
    a, b = jnp.moveaxis(features(model, u).mean(-2), 1, 0)
    z = model.compare(jnp.concatenate([a, b, a - b, a * b], -1))
    assert_close(run(model, u), model.decode(nnx.gelu(z)))
    with pytest.raises(ValueError, match="`u` must have an axis of size 2"):
        model(u[:, 0])
    with pytest.raises(ValueError, match="`u` must have an axis of size 2"):
        model.step(u[:, 0, 0], model.init_state((3,)))


def test_images_are_seen_one_by_one_and_variances_are_positive():
    model = build("image_regressor")
    u = inputs(model, 6)
    y = run(model, u)
    assert y.shape == (3, 6, 4)
    assert (y[..., 2:] > 0).all()
    encode = jax.jit(lambda model, u: model.backbone.encode(u))
    x = encode(model, u)
    assert_close(x[:, 3], encode(model, u[:, 3]))
    assert (x != encode(model, u.at[..., 128].add(1))).any(-1).all()
    assert (x != encode(model, u.at[..., 77].add(9))).any()
    low, high = (model.head(jnp.full((1, model.d_model), x))[..., 2:] for x in (-1.0, 1.0))
    signs = jnp.array([[-1.0], [1.0]]) * jnp.ones(model.d_model)
    v = model.variance_decode(jnp.tanh(model.variance_hidden(signs)))
    assert_close(jnp.concatenate([low, high]), nnx.elu(v) + 1)


def test_one_document_can_wait():
    model = build("matcher")
    u = inputs(model, 6)
    _, state = run(model, u[:, :, :4], return_state=True)
    lengths = jnp.broadcast_to(jnp.array([2, 0]), (3, 2))
    y, _ = run(model, u[:, :, 4:], state=state, lengths=lengths, return_state=True)
    assert_close(y, run(model, u, lengths=jnp.broadcast_to(jnp.array([6, 4]), (3, 2))))


def test_tied_logits_are_products_with_the_embedding():
    model = build("language_model")
    u = inputs(model, 6)
    E = model.backbone.encode.embedding[...]
    assert_close(run(model, u), features(model, u) @ E.T)
    counts = [
        sum(p.size for p in jax.tree.leaves(nnx.state(m, nnx.Param)))
        for m in (model, language_model(tie_embedding=False))
    ]
    assert counts[1] - counts[0] == E.size + 7


def test_bad_options_are_refused():
    for make, message in [
        (lambda: labeler(d_output=0), "`d_output` must be a positive integer"),
        (
            lambda: language_model(S5, layer_options={"d_state": 8, "bidirectional": True}),
            "must not ask for a bidirectional layer",
        ),
        (
            lambda: language_model(
                [LOCAL, (GRU, {"d_state": 3, "bidirectional": True})], layer_options={}, n_layers=2
            ),
            "must not ask for a bidirectional layer",
        ),
        (lambda: language_model(encoder="linear"), "`encoder` must be one of 'embedding'"),
        (lambda: matcher(pooling="max"), "`pooling` must be one of"),
        (lambda: image_regressor(d_output=0), "`d_output` must be a positive integer"),
        (lambda: image_regressor(encoder="embedding"), "`encoder` must be one of 'linear'"),
        (lambda: image_regressor(image_shape=(8, 12)), "`image_shape` must be multiples of 8"),
        (lambda: image_regressor(d_input=127), "at most `d_input` pixels"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
