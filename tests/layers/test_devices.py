"""A layer whose sequences are split over devices is the layer on one of them."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from helpers import (
    LAYERS,
    assert_close,
    loss_and_grads,
    make_for_devices,
    normal,
    run,
    tiers,
    weigh,
)
from jax.sharding import AxisType
from programs import collectives

from s5jax import (
    DLR,
    GRU,
    HOPE,
    LRU,
    S4,
    S4D,
    S5,
    Attention,
    SequenceClassifier,
    SequenceLabeler,
    SGConv,
)

B, L = 2, 16
LENGTHS = jnp.array([L, 6])
RESETS = jnp.zeros((B, L), bool).at[0, jnp.array([3, 8, 9])].set(True).at[1, 4].set(True)
FAST = ("s5_bidirectional", "leaky_lagging")
BUILT = {
    "s5": lambda: S5(16, 16, bidirectional=True, rngs=nnx.Rngs(0)),
    "lru": lambda: LRU(16, 16, rngs=nnx.Rngs(0)),
    "s4": lambda: S4(16, 16, bidirectional=True, rngs=nnx.Rngs(0)),
    "s4d": lambda: S4D(16, 16, bidirectional=True, rngs=nnx.Rngs(0)),
    "dlr": lambda: DLR(16, 16, rngs=nnx.Rngs(0)),
    "sgconv": lambda: SGConv(16, 16_384, bidirectional=True, rngs=nnx.Rngs(0)),
    "hope": lambda: HOPE(16, 16, bidirectional=True, rngs=nnx.Rngs(0)),
    "gru": lambda: GRU(16, 16, bidirectional=True, rngs=nnx.Rngs(0)),
    "attention": lambda: Attention(16, 4, 256, bidirectional=True, rngs=nnx.Rngs(0)),
}


@functools.cache
def split(data: int = 2, seq: int = 4) -> jax.sharding.Mesh:
    return jax.make_mesh((data, seq), ("data", "seq"), axis_types=(AxisType.Auto,) * 2)


@functools.partial(jax.jit, static_argnums=(0, 1))
def outputs_and_grads(graphdef, return_state, variables, u, state, arguments):
    def loss(variables, u, state):
        options = {"state": state, "return_state": True} if return_state else {}
        y = nnx.merge(graphdef, variables)(u, **arguments, **options)
        return weigh(y), y

    return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(variables, u, state)


def both_ways(layer, arguments):
    """Outputs and gradients with time split over devices, and without."""
    streams = not layer.bidirectional
    state = layer.init_state((B,))
    if streams:
        state = run(layer, normal(5, B, 3, layer.d_model), return_state=True)[1]
    given = (*nnx.split(layer), normal(1, B, L, layer.d_model))
    call = functools.partial(outputs_and_grads, given[0], streams, *given[1:], state, arguments)
    with jax.set_mesh(split()):
        found = call()
    return found, call()


def everything(row):
    """Arguments that make every step another one."""
    dt = jax.random.uniform(jax.random.key(1), (B, L), minval=0.2, maxval=3.0)
    own = {"dt": dt} if row.traits.continuous_time else {}
    return {"lengths": LENGTHS, "resets": RESETS, **own}


@pytest.mark.parametrize("name", tiers(LAYERS, FAST))
def test_a_split_layer_with_all_edits_is_the_whole_one(name):
    layer = make_for_devices(LAYERS[name])
    assert_close(*both_ways(layer, everything(LAYERS[name])), rtol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "edits"),
    [
        pytest.param(name, edits, id=f"{name}-{edits}")
        for name, row in LAYERS.items()
        for edits in [(), ("lengths",), ("resets",), ("dt",)]
        if row.traits.continuous_time or edits != ("dt",)
    ],
)
def test_a_split_layer_is_the_whole_one(name, edits):
    """One gradient of attention is a small difference of large numbers: hence the tolerance."""
    layer = make_for_devices(LAYERS[name])
    arguments = {k: everything(LAYERS[name])[k] for k in edits}
    rtol = 1e-4 if (name, edits) == ("attention", ("lengths",)) else 2e-5
    assert_close(*both_ways(layer, arguments), rtol=rtol)


@pytest.mark.slow
def test_a_split_stack_is_the_whole_one():
    layers = [
        (S5, {"d_state": 8}),
        (Attention, {"n_heads": 4, "l_max": 5}),
        (SGConv, {"l_max": L, "kernel_dim": 3}),
    ]
    model = SequenceLabeler(
        layers, d_input=3, d_output=2, d_model=8, n_layers=3, norm="layer", rngs=nnx.Rngs(0)
    )

    def loss(model, u):
        return weigh(model(u, lengths=LENGTHS, resets=RESETS))

    u = normal(1, B, L, 3)
    with jax.set_mesh(split()):
        found = loss_and_grads(model, loss, u)
    assert_close(found, loss_and_grads(model, loss, u), rtol=2e-5)


def test_one_step_length_for_all():
    layer, u = LAYERS["s4_chunked"].make(), normal(1, B, L, 4)
    with jax.set_mesh(split()):
        found = run(layer, u, dt=jnp.float32(0.5))
    assert_close(found, run(layer, u, dt=jnp.float32(0.5)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s4", "sgconv", "hope"])
def test_examples_of_a_convolution_stay_where_they_are(name):
    """The compiler by itself gathers the whole batch for a Fourier transform."""
    layer = LAYERS[name].make()
    graphdef, variables = nnx.split(layer)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    u = jax.device_put(normal(1, 8, 32, 4), jax.NamedSharding(mesh, jax.P("data")))

    @jax.jit
    def gradient(variables, u):
        return jax.grad(lambda v, u: weigh(nnx.merge(graphdef, v)(u)), argnums=(0, 1))(variables, u)

    expected = gradient(variables, normal(1, 8, 32, 4))
    with jax.set_mesh(mesh):
        program = gradient.lower(variables, u).compile()
        assert_close(gradient(variables, u), expected)
        alone = jax.jit(lambda u: jnp.fft.rfft(u, axis=-2)).lower(u).compile()
    assert "all-gather" in dict(collectives(alone))
    assert not {"all-gather", "all-to-all"} & dict(collectives(program)).keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layer", "options"),
    [
        (DLR, {"d_state": 5, "version": "dss_softmax", "bidirectional": True}),
        (DLR, {"d_state": 5, "l_kernel": 5}),
        (HOPE, {"d_state": 5, "form": "mirrored", "bidirectional": True}),
        (HOPE, {"d_state": 5, "form": "circular", "bidirectional": True}),
        (SGConv, {"l_max": 8, "kernel_dim": 2, "decay": "power"}),
    ],
)
def test_layers_without_a_state(layer, options):
    layer, u = layer(4, rngs=nnx.Rngs(0), **options), normal(1, B, L, 4)
    with jax.set_mesh(split()):
        found = run(layer, u)
    assert_close(found, run(layer, u))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s5", "gru", "sgconv"])
def test_a_nan_stays_in_its_segment_on_other_devices_too(name):
    layer = LAYERS[name].make()
    u = normal(1, B, L, 4).at[0, 4, 1].set(jnp.nan)
    with jax.set_mesh(split()):
        y = run(layer, u, resets=RESETS)
    poisoned = jnp.zeros((B, L), bool).at[0, 4:8].set(True)
    assert (jnp.isnan(y).all(-1) == poisoned).all()


def test_only_an_axis_named_seq_of_type_auto_splits_time():
    layer, u = LAYERS["leaky"].make(), normal(1, 3, 5, 4)
    expected = run(layer, u)
    for sizes, names in [((8,), ("data",)), ((8, 1), ("data", "seq")), ((8,), ("time",))]:
        mesh = jax.make_mesh(sizes, names, axis_types=(AxisType.Auto,) * len(sizes))
        with jax.set_mesh(mesh):
            assert_close(run(layer, u), expected, rtol=0)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (LAYERS["s5"].make, (B, 18, 4), r"S5: the mesh splits time over 4 devices.*got 18"),
        (
            lambda: SGConv(6, 16, kernel_dim=4, rngs=nnx.Rngs(0)),
            (B, L, 6),
            r"SGConv: `d_model` must be a multiple of 4.*got 6",
        ),
        (LAYERS["attention"].make, (B, L, 4), r"Attention: `n_heads` must be a multiple of 4.*2"),
        (
            lambda: S5(4, 8, algorithm="pallas", rngs=nnx.Rngs(0)),
            (B, L, 4),
            "S5: `algorithm='pallas'` scans whole sequences",
        ),
    ],
)
def test_what_cannot_be_split_is_refused(layer, shape, message):
    with jax.set_mesh(split()), pytest.raises(ValueError, match=message):
        jax.eval_shape(layer(), jax.ShapeDtypeStruct(shape, jnp.float32))


def compiled_gradient(module, u, seq):
    """The program of a gradient on a mesh that splits time over ``seq`` devices."""
    graphdef, variables = nnx.split(module)

    @jax.jit
    def gradient(variables, u):
        return jax.grad(lambda v, u: weigh(nnx.merge(graphdef, v)(u)), argnums=(0, 1))(variables, u)

    by_step = jax.NamedSharding(split(1, seq), jax.P("data", "seq"))
    with jax.set_mesh(split(1, seq)):
        shape = jax.ShapeDtypeStruct(u.shape, u.dtype, sharding=by_step)
        return gradient.lower(variables, shape).compile()


def temporary(name, seq):
    u = jax.ShapeDtypeStruct((4, 16_384, 16), jnp.float32)
    return compiled_gradient(BUILT[name](), u, seq).memory_analysis().temp_size_in_bytes


SHARES = {"gru": (0.85, 0.45), "attention": (1, 1)}
"""Largest memory on two and on four devices, of that on one.

A GRU runs its steps twice where they are split. The scores of attention fill a constant space.
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT)
def test_memory_per_device_falls_with_their_number(name):
    one, *several = (temporary(name, n) for n in (1, 2, 4))
    for memory, share in zip(several, SHARES.get(name, (0.65, 0.4)), strict=True):
        assert memory < share * one


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT)
def test_no_device_gathers_the_features_of_all_steps(name):
    L, H = 1024, 16
    layer = BUILT[name]()
    options = {k: getattr(layer, k) for k in ("d_state", "n_heads", "l_max") if hasattr(layer, k)}
    model = SequenceClassifier(
        type(layer),
        d_input=1,
        d_output=3,
        d_model=H,
        n_layers=2,
        layer_options={**options, "bidirectional": layer.bidirectional},
        dropout=0.1,
        rngs=nnx.Rngs(0),
    )
    graphdef, variables = nnx.split(model)

    @jax.jit
    def loss(variables, u):
        model = nnx.merge(graphdef, variables)
        return jax.grad(lambda m: weigh(m(u, rngs=nnx.Rngs(dropout=0))))(model)

    with jax.set_mesh(split()):
        program = loss.lower(variables, jnp.ones((4, L, 1))).compile()
    gathered = [n for name, n in collectives(program) if name in ("all-gather", "all-reduce")]
    assert 0 < max(gathered) < 2 * L * H


def test_gathered_features_are_noticed():
    """Several arrays in one operation, too."""
    by_step, whole = (jax.NamedSharding(split(), jax.P(None, axis)) for axis in ("seq", None))
    gather = jax.jit(lambda u: (u + 1, u * 2), in_shardings=by_step, out_shardings=whole)
    shape = jax.ShapeDtypeStruct((4, 1024, 16), "float32")
    found = collectives(gather.lower(shape).compile())
    assert ("all-gather", 4 * 1024 * 16) in found
    reduce = jax.jit(lambda u: (u.sum(1), u.max(1)), in_shardings=by_step, out_shardings=whole)
    assert ("all-reduce", 4 * 16) in collectives(reduce.lower(shape).compile())
