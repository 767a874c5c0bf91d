"""The user's rules of promotion do not matter: under the strictest all is traced."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import LAYERS, H, each, normal, run, weigh

import s5jax
from s5jax import (
    S5,
    DocumentMatcher,
    ImageRegressor,
    LanguageModel,
    SequenceClassifier,
    SequenceLabeler,
    generate,
    ops,
    reduce_order,
)
from s5jax._promotion import default_promotion


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


def trace_gradient(module, loss, *inputs):
    """Differentiates a jitted function: rules of derivatives are called once that has returned."""
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)

    @jax.jit
    def value(params, rest, *inputs):
        return loss(nnx.merge(graphdef, params, rest), *inputs)

    jax.eval_shape(jax.grad(value), params, rest, *inputs)


@each(LAYERS)
def test_layers(row):
    layer, u = row.make(), normal(0, 2, 130, H)
    resets = np.zeros((2, 130), bool)
    trace_gradient(layer, lambda m, u: weigh(m(u)), u)
    trace_gradient(layer, lambda m, u: weigh(m(u, resets=resets, lengths=jnp.array([9, 4]))), u)
    if row.traits.continuous_time:
        trace_gradient(layer, lambda m, u: weigh(m(u, dt=2.0)), u)
        trace_gradient(layer, lambda m, u: weigh(m(u, dt=jnp.ones((2, 130)))), u)
    if row.traits.linear:
        jax.eval_shape(lambda: layer.kernel(9))
    if not row.bidirectional:
        trace_gradient(layer, lambda m, u: weigh(m(u, return_state=True)[0]), u)
        trace_gradient(layer, lambda m, u: weigh(m.step(u[:, 0], m.init_state((2,)))[0]), u)
    if row.traits.has_ssm and not row.bidirectional:
        jax.eval_shape(lambda: layer.to_ssm())


TOKENS = jnp.array([[1, 2, 3, 4], [5, 6, 7, 8]])
MODELS = {
    "classifier": lambda **k: SequenceClassifier(S5, d_input=3, d_output=2, **k),
    "last": lambda **k: SequenceClassifier(
        S5, d_input=9, d_output=2, encoder="one_hot", pooling="last", activation="full_glu", **k
    ),
    "labeler": lambda **k: SequenceLabeler(S5, d_input=3, d_output=2, final_norm=True, **k),
    "matcher": lambda **k: DocumentMatcher(S5, d_input=9, d_output=2, encoder="embedding", **k),
    "regressor": lambda **k: ImageRegressor(S5, d_input=65, d_output=2, image_shape=(8, 8), **k),
    "language": lambda **k: LanguageModel(S5, d_input=9, ffn_every=1, **k),
    "adaptive": lambda **k: LanguageModel(S5, d_input=9, cutoffs=(3,), div_val=2, **k),
}


@pytest.mark.parametrize("norm", ["layer", "batch", "scalar_layer"])
@pytest.mark.parametrize("name", MODELS)
def test_models(name, norm):
    options = {"d_model": 4, "n_layers": 1, "layer_options": {"d_state": 4}, "dropout": 0.1}
    model = MODELS[name](norm=norm, rngs=nnx.Rngs(0), **options)
    u = TOKENS if model.encoder != "linear" else normal(0, 2, 4, model.d_input)
    u = jnp.stack([u, u], 1) if name == "matcher" else u
    lengths = jnp.full(u.shape[: 2 if name == "matcher" else 1], 3)
    arguments = {"targets": u, "ignore_index": -100} if isinstance(model, LanguageModel) else {}

    def loss(m, u):
        return weigh(m(u, lengths=lengths, rngs=nnx.Rngs(dropout=0), **arguments))

    trace_gradient(model, loss, u)
    model.eval()
    jax.eval_shape(lambda: model(u, return_state=True))
    u_0 = u[..., 0] if model.encoder != "linear" else u[..., 0, :]
    jax.eval_shape(lambda: model.step(u_0, model.init_state((2,))))


def test_functions():
    model = LanguageModel(
        S5, d_input=9, d_model=4, n_layers=1, layer_options={"d_state": 4}, norm="layer",
        rngs=nnx.Rngs(0),
    )  # fmt: skip
    options = {"key": jax.random.key(0), "top_k": 3, "top_p": 0.8}
    jax.eval_shape(lambda u: generate(model, u, 3, lengths=jnp.array([4, 2]), **options), TOKENS)
    reduced = reduce_order(LAYERS["s4_chunked"].make(), 3, l_max=200)
    assert run(reduced, normal(0, 2, 5, H)).shape == (2, 5, H)


def test_operations_and_initialisers_have_their_own_rules():
    for module in (ops, s5jax.init):
        for name, f in vars(module).items():
            if inspect.isfunction(f) and name not in PLAIN:
                assert hasattr(f, "__wrapped__"), name


PLAIN = {"chunk_length", "conv_algorithm", "scan_algorithm", "multiscale_length"}
"""Of numbers and names, not of arrays."""


def add_implicitly(x):
    return x + jnp.ones(3)


@pytest.mark.parametrize(
    "module", ["s5jax.ops._scan", "s5jax.layers._diagonal", "s5jax.models._norm"]
)
def test_axes_that_the_library_adds_implicitly_are_noticed(monkeypatch, module):
    monkeypatch.setattr(add_implicitly, "__module__", module)
    with pytest.raises(ValueError, match="jax_numpy_rank_promotion='raise'"):
        default_promotion(add_implicitly)(jnp.ones((2, 3)))


def test_layers_of_users_may_add_axes_implicitly():
    assert default_promotion(add_implicitly)(jnp.ones((2, 3))).shape == (2, 3)


def test_an_axis_that_a_scan_lacks_is_noticed(monkeypatch):
    monkeypatch.setattr("s5jax.ops._scan.with_axes", lambda x, like: x)
    a, b = jnp.full(3, 0.5), jnp.ones((2, 4, 3))
    with pytest.raises(ValueError, match="jax_numpy_rank_promotion='raise'"):
        ops.linear_scan(a, b, algorithm="associative")


def test_an_axis_that_a_layer_lacks_is_noticed(monkeypatch):
    monkeypatch.setattr("s5jax.layers._diagonal.with_axes", lambda x, like: x)
    layer = LAYERS["s5"].make()
    with pytest.raises(ValueError, match="jax_numpy_rank_promotion='raise'"):
        layer.step(normal(0, 2, H), layer.init_state((2,)))
