"""Exported models: read without s5jax, and run by onnxruntime."""

import json
import logging
import os
import re
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import LAYERS, H, assert_close, normal, tiers

import s5jax
from s5jax import S5, Attention, Pipeline, Preprocessing
from s5jax.interop import export_onnx, export_stablehlo, load_exported
from s5jax.interop._real import real_function

ROOT = Path(__file__).parents[2]
SMALL = {"d_model": 4, "n_layers": 2, "layer_options": {"d_state": 4}}


def classifier(**options):
    return s5jax.SequenceClassifier(
        S5, d_input=3, d_output=2, rngs=nnx.Rngs(0), **{**SMALL, **options}
    )


MODELS = {
    "classifier": classifier,
    "labeler": lambda: s5jax.SequenceLabeler(
        S5, d_input=3, d_output=2, norm="layer", rngs=nnx.Rngs(0), **SMALL
    ),
    "language": lambda: s5jax.LanguageModel(S5, d_input=9, rngs=nnx.Rngs(0), **SMALL),
    "stack": lambda: s5jax.SequenceLabeler(
        [(S5, {"d_state": 4}), (Attention, {"n_heads": 2, "l_max": 4})],
        d_input=3,
        d_output=2,
        d_model=4,
        n_layers=2,
        norm="layer",
        rngs=nnx.Rngs(0),
    ),
    "matcher": lambda: s5jax.DocumentMatcher(S5, d_input=3, d_output=2, rngs=nnx.Rngs(0), **SMALL),
}
MODULES = {name: row.make for name, row in LAYERS.items() if not row.bidirectional} | MODELS
STEPS = pytest.mark.parametrize("name", tiers(list(MODULES), {"s5", "labeler"}))


def make(name):
    model = MODULES[name]()
    model.eval()
    return model


def inputs(name, *shape):
    """Inputs of steps of this batch, or of sequences."""
    if name == "language":
        return jnp.arange(np.prod(shape)).reshape(shape) % 9
    pair = (shape[0], 2, *shape[1:]) if name == "matcher" else shape
    return normal(0, *pair, 3 if name in MODELS else H)


def run_without_s5jax(code, *args):
    """Runs Python in a process that cannot import s5jax, nor Flax."""
    block = "import sys\nsys.modules.update(s5jax=None, flax=None)\n"
    done = subprocess.run(
        [sys.executable, "-I", "-c", block + textwrap.dedent(code), *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_loader_needs_jax_alone(tmp_path):
    model = make("classifier")
    export_stablehlo(model, tmp_path / "exported")
    u = inputs("classifier", 2, 9)
    np.save(tmp_path / "u.npy", u)
    run_without_s5jax(
        """
        import numpy as np
        folder = sys.argv[1]
        sys.path.insert(0, folder + "/exported")
        from load_exported import load_exported
        model, u = load_exported(folder + "/exported"), np.load(folder + "/u.npy")
        state = model.init_state(2)
        for k in range(u.shape[1]):
            y, state = model.step(u[:, k], state)
        np.savez(folder + "/y.npz", whole=model(u), step=y)
        assert sys.modules["s5jax"] is None
        """,
        tmp_path,
    )
    expected = jax.jit(model)(u)
    with np.load(tmp_path / "y.npz") as found:
        assert_close(found["whole"], expected, rtol=2e-5)
        assert_close(found["step"], expected, rtol=2e-5)


@STEPS
def test_steps_and_sequences_of_any_batch_and_length(name, tmp_path):
    model = make(name)
    export_stablehlo(model, tmp_path)
    exported = load_exported(tmp_path)
    for batch, L in ((1, 5), (3, 12)):
        u = inputs(name, batch, L)
        assert_close(exported(u), jax.jit(model)(u), rtol=2e-5)
    state, expected_state = exported.init_state(3), model.init_state((3,))
    assert_close(state, jax.tree.leaves(expected_state))
    step = jax.jit(model.step)
    for k in range(3):
        u_k = inputs(name, 3, 3)[:, :, k] if name == "matcher" else inputs(name, 3, 3)[:, k]
        y, state = exported.step(u_k, state)
        expected, expected_state = step(u_k, expected_state)
        assert_close((y, state), (expected, jax.tree.leaves(expected_state)), rtol=2e-5)


def test_a_model_in_training_mode_is_exported_for_evaluation(tmp_path):
    model = classifier(dropout=0.5, norm="batch")
    model.train()
    export_stablehlo(model, tmp_path, what=["call"], platforms=["cpu"])
    assert model.backbone.blocks[0].dropout.deterministic is False
    model.eval()
    u = inputs("classifier", 2, 9)
    assert_close(load_exported(tmp_path)(u), jax.jit(model)(u), rtol=2e-5)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_one_platform_gets_its_own_algorithm(platform, tmp_path):
    """Blocks on an accelerator have no loop over steps."""
    layer = S5(H, 8, rngs=nnx.Rngs(0))

    def loops(*platforms):
        export_stablehlo(layer, tmp_path, what=["call"], length=64, platforms=platforms)
        data = bytearray((tmp_path / "call.jax").read_bytes())
        program = jax.export.deserialize(data)
        assert program.platforms == platforms
        return program.mlir_module().count("stablehlo.while")

    assert loops("cpu", platform) > loops(platform)


def test_programs_for_one_platform_refuse_another(tmp_path):
    export_stablehlo(S5(H, 8, rngs=nnx.Rngs(0)), tmp_path, platforms=["tpu"])
    with pytest.raises(ValueError, match=r"exported for platforms .*tpu.* used on .*cpu"):
        load_exported(tmp_path)(inputs("s5", 2, 3))


def test_the_description(tmp_path):
    names = Preprocessing(input_mean=(1.0, 2.0, 3.0), classes=("cold", "hot"))
    export_stablehlo(Pipeline(classifier(), names), tmp_path, length=7)
    found = json.loads((tmp_path / "export.json").read_text())
    assert found["model"] == "SequenceClassifier"
    assert found["preprocessing"]["input_mean"] == [1, 2, 3]
    assert found["preprocessing"]["classes"] == ["cold", "hot"]
    (u,) = found["functions"]["call"]["inputs"]
    assert u == {"name": "u", "shape": ["b", 7, 3], "dtype": "float32"}
    step = found["functions"]["step"]
    assert [x["name"] for x in step["inputs"][:2]] == ["u", "state_0"]
    assert [x["name"] for x in step["outputs"][:2]] == ["y", "next_state_0"]
    assert step["inputs"][1]["dtype"] == "complex64"
    assert len(found["paths_of_state"]) == len(step["inputs"]) - 1
    assert found["paths_of_state"][-1] == "state.count"


def bidirectional():
    return S5(H, 4, bidirectional=True, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (lambda: 3, {}, "`model` must be a layer, a model or a Pipeline.*; got a int"),
        (bidirectional, {}, "`step` needs a causal layer"),
        (MODULES["s5"], {"what": ["steps"]}, "`what` must be one of .*'steps'. Did you mean 'st"),
        (MODULES["s5"], {"what": "step"}, "`what` must be a sequence .*; got 'step'"),
        (MODULES["s5"], {"platforms": []}, "`platforms` must be a sequence of at least one"),
        (MODULES["s5"], {"platforms": ["gpu"]}, "`platforms` must be one of 'cpu', 'cuda'"),
        (MODULES["s5"], {"length": 0}, "`length` must be a positive integer; got 0"),
        (
            lambda: S5(H, 4, algorithm="pallas", rngs=nnx.Rngs(0)),
            {"platforms": ["cuda"]},
            "kernels of `algorithm='pallas'` are compiled for one GPU. Build the model with",
        ),
        (
            LAYERS["attention_bidirectional"].make,
            {"what": ["call"]},
            "length of the sequence must be a number.*Export with a fixed length",
        ),
    ],
)
def test_what_cannot_be_exported(model, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_stablehlo(model(), tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_bidirectional_models_are_exported_for_sequences(tmp_path):
    layer = bidirectional()
    export_stablehlo(layer, tmp_path, what=["call"])
    exported, u = load_exported(tmp_path), inputs("s5", 2, 9)
    assert_close(exported(u), jax.jit(layer)(u), rtol=2e-5)
    with pytest.raises(ValueError, match=r"must hold `step`; it holds call. Export .*'step'"):
        exported.init_state()
    with pytest.raises(ValueError, match=r"`u` must have shape \(b, L, 4\); got \(9, 4\)"):
        exported(u[0])


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"export.json does not exist; `folder` must be"):
        load_exported(tmp_path)
    export_stablehlo(S5(H, 4, rngs=nnx.Rngs(0)), tmp_path)
    (tmp_path / "step.jax").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"step.jax is missing or corrupted: .* Export the model"):
        load_exported(tmp_path)
    (tmp_path / "export.json").write_text(json.dumps({"format": "onnx", "functions": {}}))
    with pytest.raises(ValueError, match=r"must be 'stablehlo'; got 'onnx'.*onnxruntime"):
        load_exported(tmp_path)


# ONNX


@STEPS
def test_steps_in_real_arithmetic(name):
    """What the converter is given: no complex number, and no coefficient that is computed."""
    model = make(name)
    leaves, structure = jax.tree.flatten(model.init_state((2,)))

    def step(u, *leaves):
        y, state = model.step(u, jax.tree.unflatten(structure, leaves))
        return y, *jax.tree.leaves(state)

    u = inputs(name, 2, 3)[:, :, 0] if name == "matcher" else inputs(name, 2, 3)[:, 0]
    leaves = [x + jnp.asarray(normal(1, *x.shape), x.dtype) for x in leaves]
    real = real_function(step, structs(u, *leaves))
    pairs = [as_pair(x) for x in leaves]
    program = jax.make_jaxpr(real)(u, *pairs)
    operations = {equation.primitive.name for equation in program.jaxpr.eqns}
    assert operations.isdisjoint({"complex", "real", "imag", "expm1", "sin", "cos", "lu"})
    expected = [as_pair(x) for x in jax.jit(step)(u, *leaves)]
    assert_close(jax.jit(real)(u, *pairs), tuple(expected), rtol=2e-5)


def structs(*arrays):
    return [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays]


def as_pair(x):
    return jnp.stack([x.real, x.imag], -1) if jnp.iscomplexobj(x) else x


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * x + 2j * x - jnp.conj(x),
        lambda x: jnp.where(x.real > 0, x, 1j) + x.astype(jnp.complex64),
        lambda x: x.real.astype(jnp.complex64) - x,
        lambda x: jnp.einsum("ij,kj->ik", x, x * (1 + 2j)),
        lambda x: jnp.tile(jnp.concatenate([x, -x]), (1, 2))[::2].sum(0),
        lambda x: jnp.exp(jnp.arange(3) * 1j) * x.imag,
    ],
)
def test_complex_functions_of_reals(function):
    x = jnp.asarray(normal(0, 2, 3) + 1j * normal(1, 2, 3), jnp.complex64)
    real = real_function(lambda x: (function(x),), structs(x))
    (found,) = jax.jit(real)(as_pair(x))
    assert_close(found, as_pair(function(x)), rtol=1e-5)


def test_other_complex_operations_are_refused():
    x = jnp.ones(3, jnp.complex64)
    real = real_function(lambda x: (jnp.exp(x),), structs(x))
    with pytest.raises(
        ValueError, match=r"must be sums, products .*; got `exp`. Export .*stablehlo"
    ):
        real(as_pair(x))


def session_of(folder):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    return onnxruntime.InferenceSession(folder / "step.onnx")


def converted(model, folder, **options):
    """Exports a model; the converter and its dependencies warn of their own affairs."""
    pytest.importorskip("jax2onnx", reason="needs the extra onnx", exc_type=ImportError)
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(action="ignore"):
        export_onnx(model, folder, **options)
    logging.disable(logging.NOTSET)
    return session_of(folder)


@STEPS
def test_onnxruntime_streams_a_thousand_steps(name, tmp_path):
    model, batch = make(name), 2
    session = converted(model, tmp_path, batch=batch)
    description = json.loads((tmp_path / "export.json").read_text())["functions"]["step"]
    assert [x.name for x in session.get_inputs()] == [x["name"] for x in description["inputs"]]
    assert [x.name for x in session.get_outputs()] == [x["name"] for x in description["outputs"]]
    u = np.asarray(inputs(name, batch, 1000))
    u = np.moveaxis(u, 2 if name == "matcher" else 1, 0)
    u = u.astype(np.int32) if name == "language" else u
    names = [x["name"] for x in description["inputs"][1:]]
    state = [np.zeros(x["shape"], x["dtype"]) for x in description["inputs"][1:]]
    found = []
    for u_k in u:
        y, *state = session.run(None, {"u": u_k, **dict(zip(names, state, strict=True))})
        found.append(y)

    def advance(state, u_k):
        y, state = model.step(u_k, state)
        return state, y

    last, expected = jax.jit(lambda u: jax.lax.scan(advance, model.init_state((batch,)), u))(u)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(np.stack(found), expected, rtol=0, atol=1e-5 * scale)
    for x, leaf in zip(state, jax.tree.leaves(last), strict=True):
        leaf = np.asarray(as_pair(leaf))
        np.testing.assert_allclose(x, leaf, rtol=0, atol=1e-5 * max(1, np.abs(leaf).max()))


def test_s5_is_products_and_sums(tmp_path):
    converted(S5(H, 4, rngs=nnx.Rngs(0)), tmp_path)
    onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
    found = {node.op_type for node in onnx.load(tmp_path / "step.onnx").graph.node}
    shapes = {"Slice", "Squeeze", "Unsqueeze", "Reshape", "Concat", "Identity"}
    assert found - shapes == {"Gemm", "Mul", "Add", "Sub"}


def test_onnx_needs_a_causal_model_and_a_batch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", FakeConverter)
    with pytest.raises(ValueError, match=r"`step` needs a causal layer"):
        export_onnx(bidirectional(), tmp_path)
    with pytest.raises(ValueError, match=r"export_onnx: `batch` must be a positive integer; got 0"):
        export_onnx(S5(H, 4, rngs=nnx.Rngs(0)), tmp_path, batch=0)
    with pytest.raises(ValueError, match=r"`model` must be a layer, a model or a Pipeline"):
        export_onnx("model", tmp_path)
    with pytest.raises(ValueError, match=r"know all operations of S5.step; .* no fft Export"):
        export_onnx(S5(H, 4, rngs=nnx.Rngs(0)), tmp_path)


class FakeConverter:
    """A converter that lacks an operation."""

    @staticmethod
    def to_onnx(*args, **options):
        raise NotImplementedError("no fft")


def test_onnx_without_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(ImportError, match=r"must be installed.*pip install 's5jax\[onnx\]'"):
        export_onnx(S5(H, 4, rngs=nnx.Rngs(0)), tmp_path)


# int8


@pytest.mark.slow
def test_weights_in_int8(tmp_path, monkeypatch):
    """The example of the page on exporting."""
    pytest.importorskip("qwix", reason="needs the extra int8")
    monkeypatch.chdir(tmp_path)
    model, u = make("classifier"), inputs("classifier", 2, 9)
    before, expected = nnx.to_pure_dict(nnx.state(model)), model(u)
    blocks = re.findall(r"```text\n(.*?)```", (ROOT / "docs/export.md").read_text(), re.DOTALL)
    (example,) = [block for block in blocks if "import qwix" in block]
    names = {"model": model, "jnp": jnp, "np": np, "nnx": nnx}
    exec(example, names)
    after = nnx.to_pure_dict(nnx.state(model))
    for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        if x.ndim < 2:
            np.testing.assert_array_equal(x, y)
            continue
        step = np.abs(x).max(axis=tuple(range(1, x.ndim)), keepdims=True) / 127
        assert 0 < np.abs(x - y).max()
        assert (np.abs(x - y) <= 0.51 * step).all()
    matrices = [x for x in names["arrays"] if x.dtype == jnp.int8]
    assert sum(x.size for x in matrices) == sum(
        x.size for x in jax.tree.leaves(before) if x.ndim > 1
    )
    assert_close(model(u), expected, rtol=0.05)
