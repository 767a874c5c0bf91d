"""Inputs as people type them: what has one clear meaning works, all else is one clear sentence."""

import annotations
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import LAYERS, H, assert_close, tiers

import s5jax
from s5jax import S5


@pytest.fixture(scope="module", autouse=True)
def unchecked():
    """Values of other types than annotations name are what is tested."""
    with annotations.off():
        yield


VALUES = np.random.default_rng(0).integers(0, 9, (2, 5, H))
NAMES = [name for name, row in LAYERS.items() if not row.slow]
CAUSAL = [name for name in NAMES if not LAYERS[name].bidirectional]
each = pytest.mark.parametrize("name", tiers(NAMES, {"s5", "dlr", "attention"}))
OBJECTS = np.array([[[1.0] * H] * 5] * 2, object)

SEQUENCES = {
    "list": VALUES.astype(float).tolist(),
    "list of integers": VALUES.tolist(),
    "tuple": tuple(map(tuple, VALUES.tolist())),
    "list of arrays": list(jnp.asarray(VALUES, jnp.float32)),
    "float64": VALUES.astype(np.float64),
    "int64": VALUES,
    "uint8": VALUES.astype(np.uint8),
    "Fortran order": np.asfortranarray(VALUES.astype(np.float32)),
    "strided view": np.repeat(VALUES, 2, axis=1)[:, ::2].astype(np.float32),
    "reversed view": np.ascontiguousarray(VALUES[:, ::-1])[:, ::-1],
    "read-only": np.broadcast_to(VALUES, (1, *VALUES.shape))[0],
}
NO_SEQUENCES = {
    "float": (1.0, r"got \(\)"),
    "integer": (3, r"got \(\)"),
    "NumPy number": (np.float64(1.0), r"got \(\)"),
    "None": (None, "array of numbers; got NoneType"),
    "text": ("text", "array of numbers; got str"),
    "dictionary": ({"u": VALUES}, "array of numbers; got dict"),
    "array of strings": (VALUES.astype(str), "array of numbers; got <U"),
    "array of objects": (OBJECTS, r"got object of shape \(2, 5, 4\).*numpy.asarray"),
    "dates": (VALUES.astype("datetime64[s]"), "got datetime64"),
    "ragged list": ([[[1.0] * H], [[1.0] * H] * 2], "array of numbers; got list"),
    "complex": (VALUES + 1j, "real numbers; got complex"),
    "booleans": (VALUES > 4, "real numbers; got bool"),
    "key": (jax.random.split(jax.random.key(0), (2, 5, H)), "real numbers; got key"),
    "no batch, no time": (VALUES[0, 0], r"got \(4,\)"),
    "features first": (VALUES.swapaxes(1, 2), r"L, 4\) with L >= 1; got \(2, 4, 5\)"),
    "no step": (VALUES[:, :0], r"got \(2, 0, 4\)"),
    "empty list": ([], r"got \(0,\)"),
}


def refuses(call, where, argument, message):
    """One or two sentences that name the class and the argument, from a ValueError."""
    with pytest.raises(ValueError, match=message) as caught:
        call()
    text = str(caught.value)
    assert text.startswith(where)
    assert f"`{argument}`" in text
    assert "\n" not in text


@each
def test_sequences(name):
    layer = LAYERS[name].make()
    expected = jax.jit(lambda u: layer(u))(jnp.asarray(VALUES, jnp.float32))
    for case, u in SEQUENCES.items():
        y = jax.jit(lambda u=u: layer(u))()
        assert y.dtype == jnp.float32, case
        assert_close(y, expected, rtol=1e-6)
    for u, message in NO_SEQUENCES.values():
        refuses(lambda u=u: layer(u), type(layer).__name__, "u", message)


@pytest.mark.parametrize("name", CAUSAL)
def test_steps_and_states(name):
    layer = LAYERS[name].make()
    kind, u, start = type(layer).__name__, VALUES[:, 0], layer.init_state((2,))
    step = jax.jit(layer.step)
    _, state = step(jnp.asarray(u, jnp.float32), start)
    expected = step(jnp.asarray(u, jnp.float32), state)
    for typed in (u, u.tolist(), u.astype(float), np.asfortranarray(u), u.astype(np.uint8)):
        result = jax.jit(lambda state, typed=typed: layer.step(typed, state))(state)
        assert_close(result, expected, rtol=1e-6)
    for case in ("float", "None", "text", "array of strings", "complex"):
        refuses(lambda u=NO_SEQUENCES[case][0]: layer.step(u, start), f"{kind}.step", "u", "got")
    refuses(lambda: layer.step(u[:, :3], start), f"{kind}.step", "u", r"got \(2, 3\)")

    from_numpy = jax.tree.map(np.asarray, state)
    assert_close(step(jnp.asarray(u, jnp.float32), from_numpy), expected, rtol=0)
    integers = jax.tree.map(lambda x: np.zeros(x.shape, int), start)
    assert_close(
        jax.jit(lambda: layer.step(u, integers))(), jax.jit(lambda: layer.step(u, start))()
    )
    assert_close(
        jax.jit(lambda: layer(VALUES, state=integers, return_state=True))(),
        jax.jit(lambda: layer(VALUES, return_state=True))(),
    )
    leaves, tree = jax.tree.flatten(start)
    for bad, message in [
        (None, "structure and shapes"),
        ("state", "structure and shapes"),
        ([leaves[0], leaves[0], leaves[0], 1], "structure and shapes"),
        (layer.init_state((3,)), "structure and shapes"),
        (tree.unflatten([x[..., :0] for x in leaves]), "structure and shapes"),
        (tree.unflatten([np.zeros(x.shape, "U3") for x in leaves]), "array of numbers"),
    ]:
        refuses(lambda bad=bad: layer.step(u, bad), f"{kind}.step", "state", message)
        if bad is not None:
            refuses(lambda bad=bad: layer(VALUES, state=bad), kind, "state", message)
    if not any(jnp.iscomplexobj(x) for x in leaves):
        bad = jax.tree.map(lambda x: x + 0j, start)
        refuses(lambda: layer.step(u, bad), kind, "state", "must hold float32 .* got complex64")


@each
def test_lengths_and_resets(name):
    layer = LAYERS[name].make()
    kind, resets = type(layer).__name__, np.arange(10).reshape(2, 5) % 4 == 3
    expected = jax.jit(lambda: layer(VALUES, lengths=jnp.array([3, 5]), resets=resets))()
    for lengths, marks in [
        ([3, 5], resets.tolist()),
        ((3, 5), tuple(map(tuple, resets))),
        (np.uint8([3, 5]), np.asfortranarray(resets)),
        ([np.int64(3), np.int64(5)], resets),
    ]:
        call = jax.jit(lambda n=lengths, r=marks: layer(VALUES, lengths=n, resets=r))
        assert_close(call(), expected, rtol=0)
    assert_close(
        jax.jit(lambda: layer(VALUES[0], lengths=3))(),
        jax.jit(lambda: layer(VALUES[0], lengths=jnp.asarray(3)))(),
    )
    for bad, message in [
        ([3.0, 5.0], "integers of shape"),
        ([True, False], "integers of shape"),
        (3, r"integers of shape \(2,\)"),
        ([[3, 5]], r"integers of shape \(2,\)"),
        (["3", "5"], "array of numbers"),
        ([3, None], "array of numbers"),
        ("35", "array of numbers"),
        ([3, 6], "got values from 3 to 6"),
    ]:
        refuses(lambda bad=bad: layer(VALUES, lengths=bad), kind, "lengths", message)
    for bad, message in [
        (resets.astype(int), "boolean with shape"),
        (resets.astype(float).tolist(), "boolean with shape"),
        (True, r"boolean with shape \(2, 5\)"),
        (resets[0], r"boolean with shape \(2, 5\)"),
        (resets.astype(str), "array of numbers"),
        ([[True], [True, False]], "array of numbers"),
    ]:
        refuses(lambda bad=bad: layer(VALUES, resets=bad), kind, "resets", message)


@each
def test_step_lengths(name):
    layer = LAYERS[name].make()
    kind, gaps = type(layer).__name__, np.array([[1, 2, 1, 1, 3], [2, 2, 1, 0, 1]])
    if not LAYERS[name].traits.continuous_time:
        for dt in (2, [1.0] * 5, "2", gaps):
            refuses(lambda dt=dt: layer(VALUES, dt=dt), kind, "dt", "continuous-time layer")
        return
    expected = jax.jit(lambda: layer(VALUES, dt=jnp.float32(2)))()
    for dt in (2, 2.0, np.float64(2), np.int32(2), np.array(2.0), jnp.array(2)):
        assert_close(jax.jit(lambda dt=dt: layer(VALUES, dt=dt))(), expected, rtol=1e-6)
    expected = jax.jit(lambda: layer(VALUES, dt=jnp.asarray(gaps, jnp.float32)))()
    for dt in (gaps, gaps.tolist(), gaps.astype(float), np.asfortranarray(gaps)):
        assert_close(jax.jit(lambda dt=dt: layer(VALUES, dt=dt))(), expected, rtol=1e-6)
    bad_steps = np.where(gaps == 3, np.nan, gaps)
    for dt, message in [
        (0, "must be positive, and finite; got 0"),
        (-1.0, "must be positive"),
        (np.nan, "must be positive, and finite; got nan"),
        (np.inf, "must be positive, and finite; got inf"),
        ("2", "array of numbers"),
        (True, "real numbers; got bool"),
        (2j, "real numbers; got complex"),
        (-gaps, "must not be negative, and finite; got -1"),
        (bad_steps, "must not be negative, and finite; got nan"),
        (gaps[0], r"one number or have shape \(2, 5\)"),
        ([[1.0], [1.0, 2.0]], "array of numbers"),
    ]:
        refuses(lambda dt=dt: layer(VALUES, dt=dt), kind, "dt", message)
    padded = [4, 5]  # the step that is not a number is padding
    clean = jnp.where(np.isnan(bad_steps), 1.0, bad_steps)
    assert_close(
        layer(VALUES, dt=bad_steps, lengths=padded), layer(VALUES, dt=clean, lengths=padded), rtol=0
    )
    if not layer.bidirectional:
        state = layer.init_state((2,))
        for dt in (-1.0, [1.0, -1.0], [1.0, np.nan], "1"):
            refuses(lambda dt=dt: layer.step(VALUES[:, 0], state, dt), kind, "dt", "must")
        assert_close(
            layer.step(VALUES[:, 0], state, [1, 2]),
            layer.step(VALUES[:, 0], state, jnp.array([1.0, 2.0])),
        )


OPTIONS = {"d_model": 4, "n_layers": 2, "layer_options": {"d_state": 4}, "norm": "layer"}
MODELS = {
    "backbone": (s5jax.SequenceBackbone, {"d_input": H}),
    "classifier": (s5jax.SequenceClassifier, {"d_input": H, "d_output": 2}),
    "matcher": (s5jax.DocumentMatcher, {"d_input": H, "d_output": 2}),
    "labeler": (s5jax.SequenceLabeler, {"d_input": H, "d_output": 2}),
    "tokens": (s5jax.SequenceClassifier, {"d_input": 9, "d_output": 2, "encoder": "one_hot"}),
    "language": (s5jax.LanguageModel, {"d_input": 9}),
    "image": (s5jax.ImageRegressor, {"d_input": 64, "d_output": 2, "image_shape": (8, 8)}),
}


@pytest.mark.parametrize("name", tiers(MODELS, {"classifier", "language"}))
def test_models(name):
    kind, own = MODELS[name]
    model = kind(S5, rngs=nnx.Rngs(0), **OPTIONS, **own)
    name_of, tokens = kind.__name__, name in ("tokens", "language")
    shape = (3, *([2] if name == "matcher" else []), 5, *([] if tokens else [model.d_input]))
    values = np.random.default_rng(0).integers(0, 9, shape)
    u = values if tokens else values.astype(np.float64)
    expected = jax.jit(lambda u: model(u))(jnp.asarray(u))
    for typed in (u.tolist(), np.asfortranarray(u), u[::-1].copy()[::-1]):
        assert_close(jax.jit(lambda typed=typed: model(typed))(), expected, rtol=1e-6)
    if tokens:
        assert_close(jax.jit(lambda: model(u.astype(np.uint8)))(), expected, rtol=1e-6)
    wrong = values.astype(float) if tokens else values
    for bad in (None, "text", u.astype(str), u.astype(object), wrong, 1.0, 3, []):
        refuses(lambda bad=bad: model(bad), name_of, "u", "must be|must have")
    batch = shape[:1]
    first = u[..., 0] if tokens else u[..., 0, :]
    step, start = jax.jit(model.step), model.init_state(batch)
    expected = step(jnp.asarray(first), start)
    result = jax.jit(lambda state: model.step(first.tolist(), state))(start)
    assert_close(result, expected, rtol=1e-6)
    integers = jax.tree.map(lambda x: np.zeros(x.shape, int), start)
    assert_close(jax.jit(lambda: model.step(first, integers))(), expected, rtol=1e-6)
    wrong_shapes = model.init_state((batch[0] + 1,))
    for bad in ("state", 3, [], {}, (1, 2), jnp.zeros(3), wrong_shapes):
        with pytest.raises(ValueError, match="`state` must"):
            model.step(first, bad)
        with pytest.raises(ValueError, match="`state` must"):
            model(u, state=bad)
    with pytest.raises(ValueError, match="`state` must"):
        model.step(first, None)


def test_targets():
    model = s5jax.LanguageModel(S5, rngs=nnx.Rngs(0), **OPTIONS, d_input=9)
    tokens = VALUES[..., 0].tolist()
    expected = jax.jit(lambda u: model(u, targets=u))(jnp.asarray(tokens))
    assert_close(jax.jit(lambda: model(tokens, targets=tokens))(), expected)
    for bad in ("text", tokens[0], VALUES[..., 0] + 0.5, 3):
        refuses(lambda bad=bad: model(tokens, targets=bad), "LanguageModel", "targets", "must be")
