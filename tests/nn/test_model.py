"""The residual block, whole models, labels and files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close, loss_and_grads, normal, run

from s5jax import S5, ResidualBlock, SequenceBackbone, SequenceClassifier, load, param_labels, save

ACTIVATIONS = ("full_glu", "half_glu1", "half_glu2", "gelu", "glu")


def classifier(**options):
    options = {"d_input": 2, "d_output": 3, "d_model": 4, "n_layers": 2} | options
    layer_options = {"d_state": 8} | options.pop("layer_options", {})
    rngs = nnx.Rngs(options.pop("seed", 0))
    return SequenceClassifier(S5, layer_options=layer_options, rngs=rngs, **options)


def shaken(model):
    """The model in evaluation mode, with norms that do something."""
    keys = iter(jax.random.split(jax.random.key(7), 100))

    def shake(x):
        return x + 0.3 * jax.random.uniform(next(keys), x.shape)

    nnx.update(model, jax.tree.map(shake, nnx.state(model)))
    model.eval()
    return model


def block(**options):
    rngs = nnx.Rngs(0)
    return ResidualBlock(S5(4, 8, rngs=rngs), rngs=rngs, **options)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("norm", "prenorm"), [("batch", True), ("layer", False)])
def test_block_streams(activation, prenorm, norm):
    model = shaken(block(activation=activation, prenorm=prenorm, norm=norm))
    u = normal(0, 2, 9, 4)
    whole, last = run(model, u, return_state=True)
    head, state = run(model, u[:, :4], return_state=True)
    tail, state = run(model, u[:, 4:], state=state, return_state=True)
    assert_close((jnp.concatenate([head, tail], 1), state), (whole, last))
    y, state = model.step(u[:, 0], model.init_state((2,)))
    assert_close(y, whole[:, 0])


def test_one_hot_encoder_is_a_linear_map_of_one_hot_vectors():
    model = classifier(d_input=5, encoder="one_hot")
    same = classifier(d_input=5)
    nnx.update(same, nnx.state(model))
    tokens = jnp.array([[0, 3, 1, 1, 4]])
    assert_close(run(model, tokens), run(same, jax.nn.one_hot(tokens, 5)))


def test_scalar_layer_norm_is_the_formula_and_survives_equal_features():
    model = block(norm="scalar_layer")
    model.norm.scale[...], model.norm.bias[...] = jnp.array([2.0]), jnp.array([0.5])
    x = normal(4, 2, 3, 4)
    expected = 2 * (x - x.mean(-1, keepdims=True) + 0.5) / x.std(-1, keepdims=True)
    assert_close(model.norm(x), expected)
    gradient = jax.grad(lambda x: model.norm(x).sum())(jnp.zeros((1, 4)))
    assert not np.any(gradient)
    assert not np.any(model.norm(jnp.ones((1, 4))))


def test_embedding_std():
    models = [classifier(d_input=500, encoder="embedding", embedding_std=s) for s in (None, 1.0)]
    stds = [float(model.encode.embedding[...].std()) for model in models]
    np.testing.assert_allclose(stds, [0.5, 1.0], rtol=0.1)


def test_unmasked_padding_reaches_the_backward_direction_but_not_the_pool():
    options = {"layer_options": {"bidirectional": True}, "mask_padding": False}
    model = shaken(classifier(**options))
    masked = shaken(classifier(layer_options={"bidirectional": True}))
    u, lengths = normal(3, 2, 7, 2), jnp.array([7, 4])
    logits = run(model, u, lengths=lengths)
    assert_close(logits[0], run(masked, u, lengths=lengths)[0])
    assert not np.allclose(logits[1], run(masked, u, lengths=lengths)[1], atol=1e-3)
    features = SequenceBackbone.__call__(model, u)
    assert_close(logits[1], model.decode(features[1, :4].mean(0)))
    with pytest.raises(ValueError, match="mask_padding=True"):
        model(u, return_state=True)


@pytest.mark.slow
def test_six_layer_model_streams_with_gradients():
    model = shaken(classifier(n_layers=6, final_norm=True, norm="batch"))
    u = normal(1, 2, 12, 2)

    def chunked(m, u):
        _, state = m(u[:, :5], return_state=True)
        return jnp.sum(m(u[:, 5:], state=state, return_state=True)[0] ** 2)

    def stepped(m, u):
        def body(state, u_t):
            logits, state = m.step(u_t, state)
            return state, logits

        _, logits = jax.lax.scan(body, m.init_state((2,)), jnp.moveaxis(u, 1, 0))
        return jnp.sum(logits[-1] ** 2)

    whole = loss_and_grads(model, lambda m, u: jnp.sum(m(u) ** 2), u)
    assert_close(loss_and_grads(model, chunked, u), whole)
    assert_close(loss_and_grads(model, stepped, u), whole)


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("encoder", ["linear", "embedding"])
def test_lengths_equal_trimming(pooling, encoder):
    model = shaken(classifier(pooling=pooling, encoder=encoder, final_norm=True, d_input=5))
    lengths = jnp.array([8, 3])
    u, padding = normal(2, 2, 8, 5), jnp.nan
    if encoder == "embedding":
        u, padding = jax.random.randint(jax.random.key(0), (2, 8), 0, 5), -1
    valid = jnp.arange(8) < lengths[:, None]
    u = jnp.where(valid[..., None] if u.ndim == 3 else valid, u, padding)
    logits, state = run(model, u, lengths=lengths, return_state=True)
    for i, n in enumerate(lengths.tolist()):
        assert_close(logits[i], run(model, u[i, :n]))
    more = jax.random.randint(jax.random.key(1), (2, 4), 0, 5)
    more = more if encoder == "embedding" else normal(3, 2, 4, 5)
    after, _ = run(model, more, state=state, lengths=jnp.array([0, 4]), return_state=True)
    assert_close(after[0], logits[0])
    assert_close(after[1], run(model, jnp.concatenate([u[1, :3], more[1]])))


def test_padding_does_not_move_batch_statistics():
    trimmed, padded = classifier(), classifier()
    u = normal(4, 2, 6, 2)
    trimmed(u)
    padded(jnp.pad(u, ((0, 0), (0, 3), (0, 0)), constant_values=np.nan), lengths=jnp.array([6, 6]))
    statistics = [nnx.state(m, nnx.BatchStat) for m in (padded, trimmed)]
    assert_close(*statistics)
    assert any(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(statistics[0]))


def test_nan_padding_reaches_no_gradient():
    model, lengths = classifier(norm="layer", prenorm=False, final_norm=True), jnp.array([6, 2])
    valid = (jnp.arange(6) < lengths[:, None])[..., None]
    u = normal(5, 2, 6, 2)

    def loss(m, u):
        return jnp.sum(m(u, lengths=lengths) ** 2)

    clean = loss_and_grads(model, loss, jnp.where(valid, u, 0.0))
    assert_close(loss_and_grads(model, loss, jnp.where(valid, u, jnp.nan)), clean, rtol=0)


def test_backbone_keeps_resets_and_dt():
    model = SequenceBackbone(
        S5, d_input=2, d_model=4, n_layers=2, layer_options={"d_state": 8}, norm="layer",
        rngs=nnx.Rngs(0),
    )  # fmt: skip
    u, resets = normal(6, 7, 2), jnp.zeros(7, bool).at[3].set(True)
    assert_close(run(model, u, resets=resets)[3:], run(model, u[3:]))
    assert_close(run(model, u, dt=2.0), run(model, u, dt=jnp.full(7, 2.0)))
    y, _ = model.step(u[0], model.init_state(), 2.0)
    assert_close(y, run(model, u, dt=2.0)[0])


@pytest.mark.parametrize(("tied", "distinct"), [(True, 1), (False, 9)])
def test_dropout(tied, distinct):
    model = block(norm="layer", activation="gelu", dropout=0.5, tie_dropout=tied)
    u = normal(7, 2, 9, 4)
    with pytest.raises(ValueError, match=r"needs `rngs`.*model.eval\(\)"):
        model(u)
    key = jax.random.key(0)
    y = model(u, rngs=nnx.Rngs(dropout=key))
    assert_close(model(u, rngs=nnx.Rngs(dropout=key)), y, rtol=0)
    dropped = np.asarray(y == u)
    assert 0.2 < dropped.mean() < 0.8
    patterns = len(np.unique(dropped[0], axis=0))
    assert patterns == 1 if tied else 1 < patterns <= distinct
    model.eval()
    assert_close(model(u), block(norm="layer", activation="gelu")(u))


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"tie_dropout": True}, 0.25),
        ({"tie_dropout": "residual"}, 0.25),
        ({"tie_dropout": "residual", "layer_dropout": True}, 0.125),
    ],
)
def test_dropout_before_and_after_the_linear_map(options, kept):
    model = block(activation="gelu_linear", dropout=0.5, **options)
    model.out2.kernel[...] = jnp.eye(4)
    x = normal(7, 512, 9, 4)
    y = np.asarray(model._activate(x, nnx.Rngs(dropout=0)) != 0)
    assert abs(y.mean() - kept) < 0.04
    features = y.any(1).mean()  # those that no tied drop took away
    assert abs(features - (0.25 if options["tie_dropout"] is True else 0.5)) < 0.06
    model.eval()
    assert_close(model._activate(x, None), jax.nn.gelu(x, approximate=False))


def test_streaming_needs_evaluation_mode():
    model = classifier()
    for call in [
        lambda: model(normal(8, 2, 5, 2), return_state=True),
        lambda: model.step(normal(8, 2, 2), model.init_state((2,))),
    ]:
        with pytest.raises(ValueError, match=r"evaluation mode.*model.eval\(\)"):
            call()


def test_bad_options():
    for options, message in [
        ({"norm": "bach"}, "`norm` must be one of 'batch', 'layer'.*mean 'batch'"),
        ({"activation": "glue"}, "`activation` must be one of.*mean 'glu'"),
        ({"dropout": 1.0}, r"`dropout` must lie in \[0, 1\)"),
        ({"tie_dropout": "residuals"}, "`tie_dropout` must be one of True, False, 'residual'"),
        ({"pooling": "max"}, "`pooling` must be one of 'mean', 'last'"),
        ({"encoder": "lineal"}, "`encoder` must be one of.*mean 'linear'"),
        ({"n_layers": 0}, "`n_layers` must be a positive integer; got 0"),
        ({"d_output": -1}, "`d_output` must be a positive integer; got -1"),
        ({"d_model": 4.0}, "`d_model` must be a positive integer; got 4.0"),
        ({"layer_options": {"d_state": 7}}, "even number of states.*got `d_state` 7"),
        ({"layer_options": {"n_blocks": 3}}, "multiple of `n_blocks`"),
        ({"layer_options": {"C_init": "normal"}}, "`C_init` must be one of"),
        ({"layer_options": {"discretization": "zho"}}, "mean 'zoh'"),
        ({"layer_options": {"backend": "scan"}}, "`backend` must be one of"),
        ({"layer_options": {"dt_min": 0.0}}, "0 < `dt_min` <= `dt_max`"),
    ]:
        with pytest.raises(ValueError, match=message):
            classifier(**options)


def test_bad_inputs():
    model, tokens = classifier(), classifier(encoder="embedding")
    with pytest.raises(ValueError, match=r"`u` must be floating of shape \(\*batch, L, 2\)"):
        model(jnp.zeros((2, 5, 3)))
    with pytest.raises(ValueError, match=r"`u` must be integer of shape \(\*batch, L\)"):
        tokens(jnp.zeros((2, 5)))
    with pytest.raises(ValueError, match="got int32"):
        model(jnp.zeros((2, 5, 2), jnp.int32))


def test_labels():
    model = classifier()
    labels = param_labels(model)
    parameters = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    assert jax.tree.structure(labels(parameters)) == jax.tree.structure(parameters)
    assert jax.tree.leaves(labels(parameters)) == jax.tree.leaves(labels)
    layer = {"B": "ssm", "Lambda_re": "ssm", "Lambda_im": "ssm", "log_step": "ssm"}
    assert labels["blocks"][1]["layer"] == layer | {"C": "regular", "D": "regular"}
    assert labels["encode"] == {"kernel": "regular", "bias": "regular"}
    changed = param_labels(model, {"C": "ssm", "bias": "no_decay"})
    assert changed["blocks"][0]["layer"]["C"] == "ssm"
    assert changed["encode"]["bias"] == "no_decay"
    with pytest.raises(ValueError, match=r"`groups` must be one of.*'log_step'.*mean 'log_step'"):
        param_labels(model, {"logstep": "regular"})


@pytest.mark.parametrize(
    "model",
    [
        classifier(
            layer_options={"bidirectional": True, "C_init": "complex_normal"}, final_norm=True
        ),
        classifier(
            norm="layer", encoder="embedding", pooling="last", dtype=jnp.bfloat16, dropout=0.1
        ),
        S5(4, 8, conj_sym=False, clip_eigs=True, rngs=nnx.Rngs(0)),
    ],
    ids=["classifier", "tokens", "layer"],
)
def test_save_and_load(model, tmp_path):
    shaken(model)
    save(model, tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert nnx.graphdef(loaded) == nnx.graphdef(model)
    assert_close(nnx.state(loaded), nnx.state(model), rtol=0)
    assert (
        json.loads((tmp_path / "model" / "model.json").read_text())["class"] == type(model).__name__
    )


def test_load_says_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model.json does not exist"):
        load(tmp_path)
    with pytest.raises(ValueError, match=r"`model` must be one of.*got 'ResidualBlock'"):
        save(block(), tmp_path)
    save(S5(4, 8, rngs=nnx.Rngs(0)), tmp_path)
    good = (tmp_path / "model.json").read_text()
    for bad, message in [
        (good[:20], "is damaged"),
        ("[]", "is damaged"),
        (good.replace('"S5"', '"S6"'), "`class` must be one of.*mean 'S5'"),
        (good.replace('"d_state": 8', '"d_state": 16'), "must be float32 of shape"),
        (good.replace('"d_state"', '"d_sate"'), "does not describe a model of this version"),
        (good.replace('"float32"', '"floaty"'), "does not describe a model of this version"),
    ]:
        (tmp_path / "model.json").write_text(bad)
        with pytest.raises(ValueError, match=message):
            load(tmp_path)
    (tmp_path / "model.json").write_text(good)
    arrays = tmp_path / "parameters.safetensors"
    arrays.write_bytes(arrays.read_bytes()[:-5])
    with pytest.raises(ValueError, match="is damaged"):
        load(tmp_path)
