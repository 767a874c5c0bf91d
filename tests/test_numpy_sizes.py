"""Options that come from NumPy: `y.max() + 1`, a row of a table of hyperparameters."""

import annotations
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import LAYERS, H, assert_close, tiers

import s5jax
from s5jax import init, load, ops, save


@pytest.fixture(scope="module", autouse=True)
def unchecked():
    """Arrays and booleans of NumPy in place of Python's numbers are what is tested."""
    with annotations.off():
        yield


BACKBONE = {"d_input": 6, "d_model": 4, "n_layers": 2, "layer_options": {"d_state": 4}}
MODELS = {
    "backbone": (s5jax.SequenceBackbone, {"ffn_every": 1, "dropout": 0.1, "norm_momentum": 0.8}),
    "classifier": (s5jax.SequenceClassifier, {"d_output": 3, "final_norm": True}),
    "matcher": (s5jax.DocumentMatcher, {"d_output": 3, "norm_epsilon": 1e-4}),
    "labeler": (s5jax.SequenceLabeler, {"d_output": 3, "tie_dropout": True, "dropout": 0.1}),
    "language": (s5jax.LanguageModel, {"cutoffs": [2, 4], "div_val": 2, "embedding_dropout": 0.1}),
    "image": (s5jax.ImageRegressor, {"d_output": 3, "image_shape": [8, 8], "d_input": 66}),
}
INTEGERS = {"int64": np.int64, "int32": np.int32, "uint8": np.uint8, "0-d": np.array}


def from_numpy(value, integer):
    """The same value as NumPy has it; tuples as lists."""
    if isinstance(value, dict):  # kept as they are, where Flax allows no arrays
        scalar = np.int64 if integer is np.array else integer
        return {key: from_numpy(v, scalar) for key, v in value.items()}
    if isinstance(value, tuple | list):
        return [from_numpy(v, integer) for v in value]
    kinds = {bool: np.bool_, int: integer, float: np.float32}
    return kinds.get(type(value), lambda v: v)(value)


def check(make, options, integer, tmp_path):
    """The same model as with Python's numbers, on disk too, and integers are Python's inside."""
    numbers = {name: from_numpy(value, integer) for name, value in options.items()}
    expected, model = make(**options), make(**numbers)
    assert_close(nnx.state(model), nnx.state(expected), rtol=1e-6)
    for name, value in options.items():
        if type(value) is int:
            holder = model if hasattr(model, name) else model.backbone
            assert type(getattr(holder, name)) is int, name
    save(model, tmp_path)
    save(expected, tmp_path / "python")
    assert_close(nnx.state(load(tmp_path)), nnx.state(model), rtol=0)
    configs = [(folder / "model.json").read_text() for folder in (tmp_path, tmp_path / "python")]
    assert configs[0] == configs[1]


SWEPT = [
    pytest.param(name, integer, id=f"{name}-{kind}")
    for name, row in LAYERS.items()
    for kind, integer in INTEGERS.items()
    if not name.startswith("leaky") and (not row.slow or integer is np.int64)
]


@pytest.mark.parametrize(("name", "integer"), SWEPT)
def test_layers(name, integer, tmp_path):
    check(
        lambda **options: LAYERS[name].layer(rngs=nnx.Rngs(0), **options),
        {"d_model": H} | LAYERS[name].options,
        integer,
        tmp_path,
    )


@pytest.mark.parametrize("integer", INTEGERS.values(), ids=INTEGERS)
@pytest.mark.parametrize("name", MODELS)
def test_models(name, integer, tmp_path):
    model, options = MODELS[name]
    check(
        lambda **options: model(s5jax.S5, rngs=nnx.Rngs(0), **options),
        BACKBONE | options,
        integer,
        tmp_path,
    )


@pytest.mark.parametrize("size", [True, np.True_, 3.0, np.float32(3), "3", None, np.ones(2, int)])
def test_what_is_no_integer_is_refused(size):
    with pytest.raises(ValueError, match="S5: `d_model` must be a positive integer; got"):
        s5jax.S5(size, 4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="`L` must be at least 1; got"):
        s5jax.S5(4, 4, rngs=nnx.Rngs(0)).kernel(size)


FUNCTIONS = {
    "kernel": lambda n: s5jax.S5(4, 4, rngs=nnx.Rngs(0)).kernel(n(5)),
    "init_state": lambda n: s5jax.S4(4, 4, rngs=nnx.Rngs(0)).init_state([n(2), n(3)]),
    "hippo": lambda n: init.hippo("legs", n(6)),
    "hippo_rank_correction": lambda n: init.hippo_rank_correction("legt", n(6)),
    "nplr": lambda n: init.nplr("legs", n(6)),
    "dplr_hippo": lambda n: init.dplr_hippo(n(6)),
    "block_diagonal_hippo": lambda n: init.block_diagonal_hippo(n(8), n(2)),
    "block_diagonal_random": lambda n: init.block_diagonal_random(jax.random.key(0), n(8), n(2)),
    "s4d": lambda n: init.s4d("inv", n(6)),
    "s4d_random": lambda n: init.s4d_random(jax.random.key(0), n(3), n(6)),
    "s4d_dfout": lambda n: init.s4d_dfout(jnp.ones(2), n(6)),
    "dlr_eigenvalues": lambda n: init.dlr_eigenvalues(jax.random.key(0), n(6), 0.1, 0.1),
    "dss_eigenvalues": lambda n: init.dss_eigenvalues("hippo", n(6)),
    "lru_ring": lambda n: init.lru_ring(jax.random.key(0), n(6)),
    "log_uniform_step": lambda n: init.log_uniform_step(jax.random.key(0), (n(6),), 0.1, 1.0),
    "multiscale_length": lambda n: ops.multiscale_length(n(8), n(40), init_scale=n(1)),
    "init_multiscale_state": lambda n: ops.init_multiscale_state(
        n(3), n(2), n(200), batch_shape=[n(2)]
    ),
    "chunk_length": lambda n: ops.chunk_length(n(200), n(2)),
    "conv_algorithm": lambda n: len(ops.conv_algorithm("auto", n(200), n(64), batch=n(200))),
    "vandermonde": lambda n: ops.vandermonde(
        jnp.ones((2, 3), complex), -jnp.ones((2, 3)) + 1j, n(9)
    ),
    "vandermonde_chunks": lambda n: ops.vandermonde_chunks(
        jnp.ones((2, 3), complex), -jnp.ones((2, 3)) + 1j, n(4)
    ),
    "hope_kernel": lambda n: ops.hope_kernel(jnp.ones((2, 3)), jnp.ones(2), n(9)),
    "hope_chunks": lambda n: ops.hope_chunks(jnp.ones((2, 3)), jnp.ones(2), n(4)),
    "window_attention": lambda n: ops.window_attention(*[jnp.ones((9, 2, 4))] * 3, n(3)),
    "reduce_order": lambda n: s5jax.reduce_order(
        s5jax.S4D(2, 4, dt_min=0.1, rngs=nnx.Rngs(0)), n(3), l_max=n(200)
    ).A[...],
}


@pytest.mark.parametrize("integer", tiers([np.int64, np.int32, np.array], {np.int64}))
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name, integer):
    assert_close(FUNCTIONS[name](integer), FUNCTIONS[name](int), rtol=0)


def test_generate_takes_numpy_sizes():
    model = s5jax.LanguageModel(s5jax.S5, rngs=nnx.Rngs(0), **BACKBONE)
    model.eval()
    options = {"key": jax.random.key(0), "temperature": np.float32(1.0)}
    tokens = s5jax.generate(model, [[1, 2]], np.int64(3), top_k=np.uint8(2), **options)
    assert tokens.shape == (1, 3)
