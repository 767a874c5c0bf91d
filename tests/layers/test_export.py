"""Programs of `jax.export`: symbolic batches and lengths, and states as arguments."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from helpers import LAYERS, H, assert_close, normal, tiers
from jax import export

import s5jax
from s5jax import DLR, HOPE, S5, Attention, SGConv

OPTIONS = {"d_model": 4, "n_layers": 2}
S5_MODEL = {"layer_options": {"d_state": 4}, **OPTIONS}
ATTENTION_MODEL = {"layer_options": {"n_heads": 2, "l_max": 4}, **OPTIONS}
MODELS = {
    "backbone": lambda: s5jax.SequenceBackbone(S5, d_input=H, rngs=nnx.Rngs(0), **S5_MODEL),
    "classifier": lambda: s5jax.SequenceClassifier(
        Attention, d_input=H, d_output=2, rngs=nnx.Rngs(0), **ATTENTION_MODEL
    ),
    "classifier_last": lambda: s5jax.SequenceClassifier(
        S5, d_input=H, d_output=2, pooling="last", rngs=nnx.Rngs(0), **S5_MODEL
    ),
    "matcher": lambda: s5jax.DocumentMatcher(
        S5, d_input=H, d_output=2, rngs=nnx.Rngs(0), **S5_MODEL
    ),
    "labeler": lambda: s5jax.SequenceLabeler(
        S5, d_input=H, d_output=2, final_norm=True, rngs=nnx.Rngs(0), **S5_MODEL
    ),
    "language": lambda: s5jax.LanguageModel(S5, d_input=9, rngs=nnx.Rngs(0), **S5_MODEL),
    "adaptive": lambda: s5jax.LanguageModel(
        S5, d_input=9, cutoffs=(3,), rngs=nnx.Rngs(0), **S5_MODEL
    ),
    "image": lambda: s5jax.ImageRegressor(
        S5, d_input=64, d_output=2, image_shape=(8, 8), rngs=nnx.Rngs(0), **S5_MODEL
    ),
}
MODULES = {name: row.make for name, row in LAYERS.items()} | MODELS
CAUSAL = [name for name in MODULES if name in MODELS or not LAYERS[name].bidirectional]


def named(names):
    return pytest.mark.parametrize(
        "name", tiers(names, {"s5", "s4", "gru", "classifier", "language"})
    )


every, causal = named(MODULES), named(CAUSAL)


def make(name):
    module = MODULES[name]()
    module.eval()
    return module


def inputs(name, batch, L):
    """An array of these sizes, or its shape and dtype where one is a symbol."""
    tokens = name in ("language", "adaptive")
    pair = [2] if name == "matcher" else []
    shape = (batch, *pair, L, *([] if tokens else [64 if name == "image" else H]))
    if not all(isinstance(n, int) for n in shape):
        return jax.ShapeDtypeStruct(shape, jnp.int32 if tokens else jnp.float32)
    return jnp.arange(batch * L).reshape(batch, L) % 9 if tokens else normal(0, *shape)


def exported(f, *specs):
    return export.export(jax.jit(f), platforms=["cpu"])(*specs)


def lengths_of(u, symbolic):
    shape = symbolic.shape[: 2 if u.ndim == 4 else 1]
    real = jnp.arange(2 * (2 if u.ndim == 4 else 1)).reshape(u.shape[: len(shape)]) + 3
    return jax.ShapeDtypeStruct(shape, jnp.int32), real.astype(jnp.int32)


@every
def test_symbolic_batch(name):
    check_symbolic_sizes(name, "b, 7")


@named([name for name in MODULES if name != "attention_bidirectional"])
def test_symbolic_batch_and_length(name):
    check_symbolic_sizes(name, "b, L")


def check_symbolic_sizes(name, sizes):
    module = make(name)
    spec = inputs(name, *export.symbolic_shape(sizes))
    spec_lengths = lengths_of(inputs(name, 2, 7), spec)[0]

    def call(u, lengths):
        return module(u), module(u, lengths=lengths)

    program = exported(call, spec, spec_lengths)
    for L in (7,) if sizes == "b, 7" else (7, 12):
        u = inputs(name, 2, L)
        lengths = lengths_of(u, spec)[1]
        assert_close(program.call(u, lengths), jax.jit(call)(u, lengths), rtol=2e-5)


@causal
def test_symbolic_stream(name):
    module = make(name)
    b, L = export.symbolic_shape("b, L")
    spec = inputs(name, b, L)
    state = module.init_state((2,))
    specs = jax.tree.map(lambda x: jax.ShapeDtypeStruct((b, *x.shape[1:]), x.dtype), state)

    def read(u, state):
        return module(u, state=state, return_state=True)

    program = exported(read, spec, specs)
    u = inputs(name, 2, 9)
    assert_close(program.call(u, state), jax.jit(read)(u, state), rtol=2e-5)


@causal
def test_steps_are_serialised(name):
    module = make(name)
    u, state = inputs(name, 2, 3), module.init_state((2,))
    first = u[..., 0] if name in ("language", "adaptive") else u[..., 0, :]
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (first, state))
    program = export.deserialize(exported(module.step, *shapes).serialize())
    for _ in range(2):
        y, after = program.call(first, state)
        assert_close((y, after), jax.jit(module.step)(first, state), rtol=2e-5)
        state = after


def test_fast_steps_of_sgconv_are_serialised():
    layer = SGConv(H, 16, kernel_dim=4, rngs=nnx.Rngs(0))
    u, state = normal(0, 2, H), layer.init_multiscale_state((2,))
    program = export.deserialize(exported(layer.step, u, state).serialize())
    assert_close(program.call(u, state), jax.jit(layer.step)(u, state), rtol=2e-5)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: HOPE(H, 4, form="mirrored", bidirectional=True, rngs=nnx.Rngs(0)), "got L"),
        (lambda: DLR(H, 4, version="dss_softmax", rngs=nnx.Rngs(0)), "got L"),
        (lambda: DLR(H, 4, l_kernel=3, rngs=nnx.Rngs(0)), "got L"),
        (lambda: LAYERS["attention_bidirectional"].make(), "got L"),
    ],
)
def test_filters_that_depend_on_the_length_need_a_number(layer, message):
    layer = layer()
    spec = inputs("s5", *export.symbolic_shape("2, L"))
    with pytest.raises(ValueError, match=f"length of the sequence.*{message}. Export with a fixed"):
        exported(lambda u: layer(u), spec)


def test_long_sequences_of_a_symbolic_batch():
    layer = LAYERS["s5_bidirectional"].make()
    spec = inputs("s5", *export.symbolic_shape("b, 5000"))
    u = normal(0, 2, 5000, H)
    assert_close(exported(lambda u: layer(u), spec).call(u), jax.jit(layer)(u), rtol=2e-5)
    conv = LAYERS["s4"].make()
    assert exported(lambda u: conv(u), spec).call(u).shape == u.shape
