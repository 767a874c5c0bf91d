"""A batch of no sequence through blocks, models and losses, as a last shard may hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import LAYERS, assert_close, normal

import s5jax
from s5jax import S5, ResidualBlock, SequenceClassifier

OPTIONS = {"d_model": 4, "n_layers": 2, "layer_options": {"d_state": 4}}
MODELS = {
    "backbone": (s5jax.SequenceBackbone, {"d_input": 3, "ffn_every": 1, "final_norm": True}, (4,)),
    "classifier": (SequenceClassifier, {"d_input": 3, "d_output": 2}, (2,)),
    "classifier_last": (SequenceClassifier, {"d_input": 3, "d_output": 2, "pooling": "last"}, (2,)),
    "matcher": (s5jax.DocumentMatcher, {"d_input": 3, "d_output": 2}, (2,)),
    "labeler": (s5jax.SequenceLabeler, {"d_input": 3, "d_output": 2}, (2,)),
    "language": (s5jax.LanguageModel, {"d_input": 11}, (11,)),
    "language_adaptive": (s5jax.LanguageModel, {"d_input": 11, "cutoffs": (3,)}, (11,)),
    "image": (s5jax.ImageRegressor, {"d_input": 65, "d_output": 2, "image_shape": (8, 8)}, (4,)),
}
MODES = ("train", "eval")
POOLED = ("classifier", "classifier_last", "matcher")


def make(name, **options):
    kind, own, outputs = MODELS[name]
    return kind(S5, rngs=nnx.Rngs(0), **OPTIONS, **own, **options), outputs


CASES = [
    (name, batch, mode, "batch") for name in MODELS for batch in ((0,), (2, 0)) for mode in MODES
]
CASES += [("backbone", (0,), "eval", norm) for norm in ("layer", "scalar_layer")]
FAST = [(name, (0,), mode, "batch") for name in ("classifier", "language") for mode in MODES]


@pytest.mark.parametrize(
    ("name", "batch", "mode", "norm"),
    [pytest.param(*case, marks=[pytest.mark.slow] * (case not in FAST)) for case in CASES],
)
def test_models(name, batch, mode, norm):
    model, outputs = make(name, norm=norm)
    getattr(model, mode)()
    inner, L = ((*batch, 2) if name == "matcher" else batch), 6
    tokens = name.startswith("language")
    u = jnp.zeros((*inner, L), int) if tokens else jnp.zeros((*inner, L, model.d_input))
    expected = (*batch, *outputs) if name in POOLED else (*batch, L, *outputs)
    lengths, resets = jnp.zeros(inner, int), jnp.zeros((*inner, L), bool)

    @nnx.jit
    def call(model, u):
        def loss(model):
            results = [
                model(u),
                model(u, lengths=lengths, resets=resets, dt=jnp.ones(resets.shape)),
            ]
            if tokens:
                results.append(model(u, targets=u)[..., None])
            return sum(y.sum() for y in results), results

        gradients, results = nnx.grad(loss, has_aux=True)(model)
        return results, nnx.to_pure_dict(gradients)

    before = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
    results, gradients = call(model, u)
    assert results[0].shape == results[1].shape == expected
    if tokens:
        assert results[2].shape == (*batch, L, 1)
    assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(gradients))
    assert_close(nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)), before, rtol=0)
    if mode == "eval":
        y, state = jax.jit(lambda u: model(u, return_state=True))(u)
        y, state = jax.jit(model.step)(u[..., 0] if tokens else u[..., 0, :], state)
        assert y.shape == (*batch, *outputs)


@pytest.mark.parametrize("prenorm", [True, False])
def test_statistics_ignore_a_batch_of_padding(prenorm):
    """All lengths are zero: outputs are zero, and statistics and gradients stay finite."""
    rngs = nnx.Rngs(0)
    block = ResidualBlock(S5(4, 4, rngs=rngs), prenorm=prenorm, rngs=rngs)
    u = normal(0, 2, 5, 4)
    nnx.jit(lambda block, u: block(u))(block, u)
    before = nnx.to_pure_dict(nnx.state(block, nnx.BatchStat))

    @nnx.jit
    def call(block, u):
        loss = lambda block: (lambda y: (jnp.sin(y).sum(), y))(  # noqa: E731
            block(u, lengths=jnp.zeros(2, int))
        )
        return nnx.grad(loss, has_aux=True)(block)

    gradients, y = call(block, u)
    assert (y == 0).all()
    assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(nnx.to_pure_dict(gradients)))
    assert_close(nnx.to_pure_dict(nnx.state(block, nnx.BatchStat)), before, rtol=0)


@pytest.mark.parametrize("axis", ["data", "seq"])
@pytest.mark.parametrize("layer", ["s5", "s4_chunked", "gru"])
def test_over_devices(layer, axis):
    layer = LAYERS[layer].make()
    with jax.set_mesh(jax.make_mesh((2,), (axis,), axis_types=(jax.sharding.AxisType.Auto,))):
        assert jax.jit(layer)(jnp.zeros((0, 6, 4))).shape == (0, 6, 4)


def test_generate():
    model, _ = make("language")
    model.eval()
    tokens = s5jax.generate(model, jnp.zeros((0, 4), int), 3, temperature=0.0)
    assert tokens.shape == (0, 3)
