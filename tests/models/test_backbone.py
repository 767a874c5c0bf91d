"""Backbones and classifiers: padding, streaming, resets, labels, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close, loss_and_grads, normal, run, shaken, tiers

from s5jax import S5, SequenceBackbone, SequenceClassifier, param_labels


def classifier(**options):
    options = {"d_input": 2, "d_output": 3, "d_model": 4, "n_layers": 2} | options
    layer_options = {"d_state": 8} | options.pop("layer_options", {})
    rngs = nnx.Rngs(options.pop("seed", 0))
    return SequenceClassifier(S5, layer_options=layer_options, rngs=rngs, **options)


def test_one_hot_encoder_is_a_linear_map_of_one_hot_vectors():
    model = classifier(d_input=5, encoder="one_hot")
    same = classifier(d_input=5)
    nnx.update(same, nnx.state(model))
    tokens = jnp.array([[0, 3, 1, 1, 4]])
    assert_close(run(model, tokens), run(same, jax.nn.one_hot(tokens, 5)))


def test_embedding_std():
    models = [classifier(d_input=500, encoder="embedding", embedding_std=s) for s in (None, 1.0)]
    stds = [float(model.backbone.encode.embedding[...].std()) for model in models]
    np.testing.assert_allclose(stds, [0.5, 1.0], rtol=0.1)


@pytest.mark.slow
def test_unmasked_padding_reaches_the_backward_direction_but_not_the_pool():
    options = {"layer_options": {"bidirectional": True}, "mask_padding": False}
    model = shaken(classifier(**options))
    masked = shaken(classifier(layer_options={"bidirectional": True}))
    u, lengths = normal(3, 2, 7, 2), jnp.array([7, 4])
    logits = run(model, u, lengths=lengths)
    assert_close(logits[0], run(masked, u, lengths=lengths)[0])
    assert not np.allclose(logits[1], run(masked, u, lengths=lengths)[1], atol=1e-3)
    features = model.backbone(u)
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
@pytest.mark.parametrize("encoder", tiers(["linear", "embedding"], {"linear"}))
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
        ({"dropout": 1.0}, r"`dropout` must be in \[0, 1\)"),
        ({"tie_dropout": "residuals"}, "`tie_dropout` must be one of.*mean 'residual'"),
        ({"pooling": "max"}, "`pooling` must be one of 'mean', 'last'"),
        ({"encoder": "lineal"}, "`encoder` must be one of.*mean 'linear'"),
        ({"n_layers": 0}, "`n_layers` must be a positive integer; got 0"),
        ({"d_output": -1}, "`d_output` must be a positive integer; got -1"),
        ({"d_model": 4.0}, "`d_model` must be a positive integer; got 4.0"),
        ({"layer_options": {"d_state": 7}}, "even number of states.*got `d_state` 7"),
        ({"layer_options": {"n_blocks": 3}}, "multiple of `n_blocks`"),
        ({"layer_options": {"C_init": "normal"}}, "`C_init` must be one of"),
        ({"layer_options": {"discretization": "zho"}}, "mean 'zoh'"),
        ({"layer_options": {"algorithm": "scan"}}, "`algorithm` must be one of"),
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
    assert labels["backbone"]["blocks"][1]["layer"] == layer | {"C": "regular", "D": "regular"}
    assert labels["backbone"]["encode"] == {"kernel": "regular", "bias": "regular"}
    changed = param_labels(model, {"C": "ssm", "bias": "no_decay"})
    assert changed["backbone"]["blocks"][0]["layer"]["C"] == "ssm"
    assert changed["backbone"]["encode"]["bias"] == "no_decay"
    with pytest.raises(ValueError, match=r"`groups` must be one of.*'log_step'.*mean 'log_step'"):
        param_labels(model, {"logstep": "regular"})
