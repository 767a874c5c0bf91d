"""Under a mesh with explicit axes, which JAX makes by default, everything is as on one device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import LAYERS, assert_close, each, make_for_devices, normal, tiers, weigh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from s5jax import GRU, S5, LanguageModel, SequenceClassifier, SequenceLabeler, generate

SPECS = [P(), P("data"), P("data", "seq")]


@functools.cache
def mesh():
    return jax.make_mesh((2, 4), ("data", "seq"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)


def put(x, spec):
    return jax.device_put(x, NamedSharding(mesh(), P(*spec[: np.ndim(x)])))


def gradients(module, loss, *inputs):
    """Of the parameters and, with the outputs of ``loss``, whatever it does not put first."""
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)

    @jax.jit
    def value(params, *inputs):
        y = loss(nnx.merge(graphdef, params, rest), *inputs)
        return weigh(y), y

    floats = [i + 1 for i, x in enumerate(inputs) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jax.grad(value, (0, *floats), has_aux=True)(params, *inputs)


def check(module, loss, *inputs, specs=SPECS):
    """The same on one device and, for each split, on eight; the split of the first output."""
    expected = jax.device_get(gradients(module, loss, *inputs))
    for spec in specs:
        with jax.set_mesh(mesh()):
            actual = gradients(module, loss, *(put(x, spec) for x in inputs))
            first = jax.tree.leaves(actual[1])[0]
        assert_close(jax.device_get(actual), expected, rtol=2e-5)
        split = jax.typeof(first).sharding.spec
        assert split == P(*spec, *[None] * (first.ndim - len(spec)))


@each(LAYERS, fast={"s4"})
def test_layers(row):
    layer = make_for_devices(row)
    u, lengths, resets = (
        normal(0, 4, 16, layer.d_model),
        jnp.array([16, 4, 0, 9]),
        np.zeros((4, 16), bool),
    )
    resets[0, 3] = resets[1, 2] = True
    check(layer, lambda m, u: m(u), u)
    check(layer, lambda m, u, n, r: m(u, lengths=n, resets=r), u, lengths, resets, specs=SPECS[1:])
    if not layer.bidirectional:
        check(layer, lambda m, u: m(u, return_state=True), u, specs=SPECS[1:])


@pytest.mark.parametrize("name", tiers(["s5", "s4_chunked", "gru", "sgconv", "attention"], {"s5"}))
def test_steps_in_a_loop(name):
    """The state keeps its split, as a loop needs it."""
    layer = make_for_devices(LAYERS[name])
    u = normal(0, 16, 4, layer.d_model)

    def loss(m, u):
        batch = P(jax.typeof(u).sharding.spec[1])
        start = jax.tree.map(lambda x: jax.sharding.reshard(x, batch), m.init_state((4,)))
        return jax.lax.scan(lambda state, u: m.step(u, state)[::-1], start, u)[1]

    expected = gradients(layer, lambda m, u: jnp.moveaxis(m(jnp.moveaxis(u, 0, 1)), 1, 0), u)
    with jax.set_mesh(mesh()):
        actual = gradients(layer, loss, put(u, P(None, "data")))
    assert_close(jax.device_get(actual), jax.device_get(expected), rtol=2e-5)


OPTIONS = {"d_model": 8, "n_layers": 2, "layer_options": {"d_state": 8}}


@pytest.mark.parametrize("spec", tiers([P(), P("data")], {P("data")}), ids=str)
def test_train_step(spec):
    """With running statistics and dropout, which writes into the model and the source of keys."""
    u, labels = normal(0, 8, 16, 3), jnp.arange(8) % 3

    def train():
        model = SequenceClassifier(
            S5, d_input=3, d_output=3, dropout=0.2, norm="batch", rngs=nnx.Rngs(0), **OPTIONS
        )
        rngs = nnx.Rngs(dropout=1)

        @nnx.jit
        def step(model, rngs, u, labels):
            def loss(model, rngs):
                log_p = jax.nn.log_softmax(model(u, rngs=rngs))
                return -jnp.mean(log_p * jax.nn.one_hot(labels, 3))

            value, grads = nnx.value_and_grad(loss)(model, rngs)
            params = jax.tree.map(lambda p, g: p - 0.1 * g, nnx.state(model, nnx.Param), grads)
            nnx.update(model, params)
            return value

        values = [step(model, rngs, u, labels) for _ in range(3)]
        return jax.device_get((values, nnx.state(model), rngs.dropout.count[...]))

    expected = train()
    assert expected[2] > 0
    with jax.set_mesh(mesh()):
        u, labels = put(u, spec), put(labels, spec)
        assert_close(train(), expected, rtol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"cutoffs": (3,), "div_val": 2}], ids=["plain", "adaptive"]
)
def test_language_models(options):
    model = LanguageModel(GRU, d_input=9, norm="layer", rngs=nnx.Rngs(0), **OPTIONS | options)
    u = jax.random.randint(jax.random.key(0), (4, 16), 0, 9)
    check(model, lambda m, u: m(u), u)
    check(model, lambda m, u: m(u, targets=u, ignore_index=3), u)
    prompts, lengths, key = u[:, :8], jnp.array([8, 3, 1, 5]), jax.random.key(1)
    new = generate(model, prompts, 4, lengths=lengths, key=key)
    for spec in SPECS[:2]:
        with jax.set_mesh(mesh()):
            split = generate(model, put(prompts, spec), 4, lengths=put(lengths, spec), key=key)
        np.testing.assert_array_equal(split, new)


@pytest.mark.slow
def test_without_jit():
    model = SequenceLabeler(S5, d_input=3, d_output=2, norm="layer", rngs=nnx.Rngs(0), **OPTIONS)
    u = normal(0, 4, 16, 3)
    y, state = model(u, return_state=True)
    next_y, _ = model.step(u[:, 0], state)
    with jax.set_mesh(mesh()):
        u = put(u, P("data"))
        split_y, split_state = model(u, return_state=True)
        assert jax.typeof(split_y).sharding.spec[0] == "data"
        assert_close(jax.device_get((split_y, split_state)), jax.device_get((y, state)))
        assert_close(jax.device_get(model.step(u[:, 0], split_state)[0]), jax.device_get(next_y))
        assert_close(
            np.asarray(model.backbone.blocks[0].layer.kernel(5)),
            model.backbone.blocks[0].layer.kernel(5),
        )
