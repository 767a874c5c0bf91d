"""Feed-forward blocks, adaptive embeddings and losses of language models."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close, loss_and_grads, run

from s5jax import GRU, LanguageModel, SequenceClassifier, load, save
from s5jax.models import _language

V, CUTOFFS = 23, (5, 11)
ADAPTIVE = {"cutoffs": CUTOFFS, "div_val": 2, "n_layers": 1, "ffn_every": 1}


def language_model(**options):
    options = {"d_model": 4, "n_layers": 2, "norm": "layer"} | options
    model = LanguageModel(GRU, d_input=V, layer_options={"d_state": 3}, rngs=nnx.Rngs(0), **options)
    nnx.update(model, jax.tree.map(shaken, nnx.state(model, nnx.Param)))
    return model


def shaken(x):
    return x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape)


def tokens(L, seed=0, n=2):
    return jax.random.randint(jax.random.key(seed), (n, L), 0, V)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("prenorm", [True, False])
def test_whole_is_chunks_is_steps(norm, prenorm):
    model = language_model(norm=norm, prenorm=prenorm, final_norm=True, **ADAPTIVE)
    model.eval()
    assert len(model.backbone.feed_forwards) == 1
    u = tokens(7)

    def chunks(m, u):
        first, state = m(u[:, :3], return_state=True)
        last, _ = m(u[:, 3:], state=state, return_state=True)
        return jnp.sum(jnp.concatenate([first, last], 1) ** 2)

    def steps(m, u):
        body = lambda state, u_t: m.step(u_t, state)[::-1]  # noqa: E731
        _, y = jax.lax.scan(body, m.init_state((2,)), u.T)
        return jnp.sum(y**2)

    def value(loss):
        graphdef, params = nnx.split(model)
        f = jax.value_and_grad(lambda p: loss(nnx.merge(graphdef, p), u), allow_int=True)
        return jax.jit(f)(params)

    whole = value(lambda m, u: jnp.sum(m(u) ** 2))
    assert_close(value(chunks), whole)
    assert_close(value(steps), whole)


@pytest.mark.slow
def test_streams_and_leaves_padding_out():
    model = language_model(**ADAPTIVE)
    u, lengths = tokens(6), jnp.array([6, 2])
    model.eval()
    y = run(model, jnp.where(jnp.arange(6) < lengths[:, None], u, -1), lengths=lengths)
    assert_close(y[1, :2], run(model, u[1, :2]))
    assert (y[1, 2:] == 0).all()
    _, state = run(model, u, lengths=lengths, return_state=True)
    logits, _ = jax.jit(lambda m, u, state: m.step(u, state))(model, u[:, 2], state)
    assert_close(logits[1], run(model, u[1, :3])[-1])


def test_save_and_load(tmp_path):
    model = language_model(**ADAPTIVE)
    model.eval()
    save(model, tmp_path)
    loaded = load(tmp_path)
    assert nnx.graphdef(loaded) == nnx.graphdef(model)
    assert_close(nnx.state(loaded), nnx.state(model), rtol=0)


def test_adaptive_embedding_is_its_definition():
    """Against the equations of the docstring, one token and one cluster at a time."""
    model = language_model(**ADAPTIVE)
    layer = model.backbone.encode
    bounds = list(itertools.pairwise((0, *CUTOFFS, V)))
    E = [np.asarray(table.embedding[...], np.float64) for table in layer.tables]
    P = [np.asarray(p.kernel[...], np.float64) for p in layer.projections]
    b = np.asarray(layer.bias[...], np.float64)
    assert [e.shape for e in E] == [(5, 4), (6, 2), (12, 1)]

    x = np.random.default_rng(0).normal(size=4)
    head = x @ np.asarray(layer.head.kernel[...])
    clusters = head @ np.asarray(layer.clusters.kernel[...]) + np.asarray(layer.clusters.bias[...])
    joint = np.exp(np.concatenate([E[0] @ head + b[:5], clusters]))
    joint /= joint.sum()
    p = [joint[:5]]
    for i, (start, end) in enumerate(bounds[1:], start=1):
        tail = np.exp(E[i] @ (P[i] @ x) + b[start:end])
        p.append(joint[4 + i] * tail / tail.sum())
    p = np.concatenate(p)
    assert p.sum() == pytest.approx(1)
    assert_close(jnp.exp(model.head(jnp.float32(x))), p.astype(np.float32))

    for i, (start, end) in enumerate(bounds):
        for w in (start, end - 1):
            assert_close(layer(jnp.array(w)), (2 * E[i][w - start] @ P[i]).astype(np.float32))


@pytest.mark.slow
def test_fresh_adaptive_model_has_the_asked_embedding_and_nearly_uniform_clusters():
    model = LanguageModel(
        GRU, d_input=3000, d_model=64, n_layers=1, layer_options={"d_state": 3},
        cutoffs=(1000, 2000), embedding_std=0.25, rngs=nnx.Rngs(0),
    )  # fmt: skip
    embedded = model.backbone.encode(jnp.arange(3000))
    for part in jnp.split(embedded, 3):
        assert 0.2 < part.std() < 0.3
    p = jnp.exp(model.head(jnp.ones(64)))
    assert_close(p[1000:2000].sum(), p[2000:].sum())


@pytest.mark.parametrize(
    "options",
    [ADAPTIVE, pytest.param({"tie_embedding": False}, marks=pytest.mark.slow)],
    ids=["adaptive", "plain"],
)
def test_losses_are_cross_entropies_however_few_logits_are_held(options, monkeypatch):
    model = language_model(**{"n_layers": 1} | options)
    u, targets = tokens(9), tokens(9, seed=1)

    def plain(m, u):
        log_p = jax.nn.log_softmax(m(u))
        losses = -jnp.take_along_axis(log_p, targets[..., None], -1)[..., 0]
        return jnp.sum(losses * jnp.arange(9)), losses

    def lean(m, u):
        losses = m(u, targets=targets)
        return jnp.sum(losses * jnp.arange(9)), losses

    def value(loss):
        graphdef, params = nnx.split(model)
        f = jax.value_and_grad(lambda p: loss(nnx.merge(graphdef, p), u), has_aux=True)
        return jax.jit(f)(params)

    expected = value(plain)
    assert_close(value(lean), expected)
    monkeypatch.setattr(_language, "MAX_LOGITS", 4 * 2 * V + 1)  # four steps at a time, then one
    assert_close(value(lean), expected)


@pytest.mark.slow
def test_embedding_dropout():
    model = language_model(embedding_dropout=0.5, **ADAPTIVE)
    u = tokens(9)
    with pytest.raises(ValueError, match=r"LanguageModel: .*needs `rngs`.*model.eval\(\)"):
        model(u)
    one, same, other = (model(u, rngs=nnx.Rngs(dropout=key)) for key in (0, 0, 1))
    assert_close(one, same, rtol=0)
    assert not jnp.allclose(one, other)
    model.eval()
    assert_close(model(u), language_model(**ADAPTIVE)(u), rtol=0)


@pytest.mark.slow
def test_dropout_of_feed_forward_blocks():
    model = language_model(dropout=0.5, ffn_every=1, n_layers=1)
    block, u = model.backbone.feed_forwards[0], jnp.ones((2, 9, 4))
    with pytest.raises(ValueError, match=r"FeedForward: .*needs `rngs`"):
        block(u)
    dropped = np.asarray(block(u, rngs=nnx.Rngs(dropout=0)) == u)
    assert 0.2 < dropped.mean() < 0.8
    assert len(np.unique(dropped[0], axis=0)) == 1  # tied along time


@pytest.mark.slow
def test_feed_forward_blocks_serve_other_models():
    model = SequenceClassifier(
        GRU, d_input=2, d_output=3, d_model=4, n_layers=2, layer_options={"d_state": 3},
        ffn_every=1, norm="layer", rngs=nnx.Rngs(0),
    )  # fmt: skip
    u = jax.random.normal(jax.random.key(0), (2, 5, 2))
    _, (grads, _) = loss_and_grads(model, lambda m, u: jnp.sum(m(u) ** 2), u)
    kernels = [
        f["widen"]["kernel"] for f in nnx.to_pure_dict(grads)["backbone"]["feed_forwards"].values()
    ]
    assert len(kernels) == 2
    assert all(jnp.abs(kernel).max() > 0 for kernel in kernels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ffn_every": 0}, "`ffn_every` must be a positive integer"),
        ({"ffn_activation": "swiglu"}, "`ffn_activation` needs `ffn_every`, .*; got 'swiglu'"),
        ({"ffn_every": 1, "ffn_activation": "glu"}, "`ffn_activation` must be one of 'gelu'"),
        ({"embedding_dropout": 1.0}, r"`embedding_dropout` must be in \[0, 1\)"),
        ({"cutoffs": (5, 5)}, "`cutoffs` must rise from above 0 to below the number of tokens 23"),
        ({"cutoffs": (5, 23)}, "`cutoffs` must rise"),
        ({"cutoffs": (5, 11), "div_val": 3}, "`d_model` must be at least 9"),
        ({"cutoffs": (5,), "div_val": 0}, "`div_val` must be a positive integer"),
        ({"cutoffs": (5,), "tie_embedding": False}, "`cutoffs` need `tie_embedding=True`"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        language_model(**options)


def test_bad_targets_are_refused():
    model = language_model(n_layers=1)
    for targets in (tokens(5), tokens(6) / 2):
        with pytest.raises(ValueError, match=r"`targets` must be integers of shape \(2, 6\)"):
            model(tokens(6), targets=targets)
