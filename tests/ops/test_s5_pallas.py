"""The fused kernels of S5: interpreted on any device, lowered for CUDA on any, run on a GPU."""

import functools
from importlib.metadata import version

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from helpers import assert_close, loss_and_grads, values_and_gradients

from s5jax import S5
from s5jax.ops import _s5_kernels, s5_scan, s5_scan_ref


def problem(L, H, P, *, batch=(2,), dtype="float32", seed=0):
    """Eigenvalues in the unit disc, two matrices, inputs, a state and a skip."""
    keys = iter(jax.random.split(jax.random.key(seed), 9))

    def complex_normal(*shape):
        return jax.lax.complex(*(jax.random.normal(next(keys), shape) for _ in "ri"))

    modulus = jax.random.uniform(next(keys), (P,), minval=0.3, maxval=0.999)
    return (
        modulus * jnp.exp(1j * jnp.linspace(0, 3, P)),
        complex_normal(P, H) / H**0.5,
        complex_normal(H, P) / P**0.5,
        jax.random.normal(next(keys), (*batch, L, H)).astype(dtype),
        complex_normal(*batch, P),
        jax.random.normal(next(keys), (H,)),
    )


def outputs_and_gradients(scan, arguments, **options):
    """Outputs and last state as one vector, and the gradients of all six arguments."""

    def together(Lambda_bar, B_bar, C, u, x0, D):
        y, last = scan(Lambda_bar, B_bar, C, u, x0, D=D, **options)
        assert y.dtype == u.dtype
        return jnp.concatenate([y.astype("float32").ravel(), last.ravel()])

    return values_and_gradients(together, *arguments)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("L", "H", "P", "batch", "reverse"),
    [
        (70, 20, 17, (20,), False),
        pytest.param(64, 16, 5, (), True, marks=SLOW),
        pytest.param(1, 3, 2, (2,), False, marks=SLOW),
        pytest.param(1, 3, 2, (), True, marks=SLOW),
        pytest.param(5, 16, 16, (2, 2), False, marks=SLOW),
        pytest.param(33, 130, 33, (2,), True, marks=SLOW),
        pytest.param(64, 16, 5, (2,), False, marks=SLOW),
        pytest.param(100, 4, 20, (5,), True, marks=SLOW),
        pytest.param(100, 288, 64, (1,), False, marks=SLOW),
    ],
)
def test_values_and_gradients(monkeypatch, L, H, P, batch, reverse):
    monkeypatch.setattr(_s5_kernels, "GROUPS", 3)  # which the tiles do not fill evenly
    arguments = problem(L, H, P, batch=batch)
    fused = outputs_and_gradients(s5_scan, arguments, reverse=reverse, interpret=True)
    assert_close(fused, outputs_and_gradients(s5_scan_ref, arguments, reverse=reverse), 3e-6)


@pytest.mark.slow
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 3e-2), ("float16", 4e-3)])
def test_narrow_inputs(dtype, tolerance, reverse):
    """Products of 16 bits that add up in float32, against float32 throughout."""
    arguments = problem(100, 20, 17, dtype=dtype)
    fused = outputs_and_gradients(s5_scan, arguments, reverse=reverse, interpret=True)
    assert_close(
        jax.tree.map(lambda x: x.astype(jnp.result_type(x, "float32")), fused),
        jax.tree.map(
            lambda x: x.astype(jnp.result_type(x, "float32")),
            outputs_and_gradients(s5_scan_ref, arguments, reverse=reverse),
        ),
        tolerance,
    )


@pytest.mark.slow
def test_many_rows_a_tile(monkeypatch):
    monkeypatch.setattr(_s5_kernels, "PROGRAMS", 1)
    arguments = problem(500, 16, 16, batch=(5,))
    assert _s5_kernels.tile_rows(80, 16, "float32") == 64
    fused = outputs_and_gradients(s5_scan, arguments, interpret=True)
    assert_close(fused, outputs_and_gradients(s5_scan_ref, arguments), 3e-6)


@pytest.mark.slow
def test_float32_where_float64_is_the_default():
    arguments = problem(70, 4, 3)
    with jax.enable_x64(True):
        fused = outputs_and_gradients(s5_scan, arguments, interpret=True)
        assert_close(fused, outputs_and_gradients(s5_scan_ref, arguments), 3e-6)


@pytest.mark.slow
def test_accuracy_at_16k():
    """Slow decays suffer from powers that are rounded, as in the associative scan."""
    with jax.enable_x64(True):
        Lambda_bar, B_bar, C, u, _, _ = problem(16384, 16, 16, batch=())
        Lambda_bar = (1 - jnp.geomspace(1e-4, 0.5, 16)) * Lambda_bar / jnp.abs(Lambda_bar)
        narrow = [v.astype("complex64") for v in (Lambda_bar, B_bar, C)]
        u = u.astype("float32")
        y, last = s5_scan(*narrow, u, interpret=True)
        exact, exact_last = s5_scan_ref(
            *(v.astype("complex128") for v in narrow), u.astype("float64")
        )
        assert_close((y, last), (exact, exact_last), 1e-4)


needs_lowering = pytest.mark.skipif(
    tuple(map(int, version("jaxlib").split(".")[:2])) > (0, 10) and jax.default_backend() != "gpu",
    reason="newer versions compile a Triton kernel as they lower it, with the CUDA plugin",
)


@needs_lowering
@pytest.mark.parametrize(
    ("L", "H", "P", "dtype"),
    [
        (16384, 128, 128, "float32"),
        pytest.param(16384, 128, 128, "bfloat16", marks=SLOW),
        pytest.param(1000, 96, 192, "float16", marks=SLOW),
        pytest.param(2**20, 512, 256, "float32", marks=SLOW),
        pytest.param(5, 1, 1, "float32", marks=SLOW),
    ],
)
def test_kernels_lower_for_cuda(monkeypatch, L, H, P, dtype):
    """Every operation of every kernel has a form in Triton: to write it needs no GPU."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")

    def loss(Lambda_bar, B_bar, C, u, x0, D):
        y, last = s5_scan(Lambda_bar, B_bar, C, u, x0, D=D, reverse=True)
        return y.astype("float32").sum() + last.real.sum()

    arguments = jax.eval_shape(functools.partial(problem, L, H, P, batch=(32,), dtype=dtype))
    traced = jax.jit(jax.value_and_grad(loss, argnums=range(6))).trace(*arguments)
    program = traced.lower(lowering_platforms=("cuda",)).as_text()
    calls = {"chunk_ends": 2, "outputs": 2, "outer_products": 2, "slopes": 1}
    assert {name: program.count(f'name = "s5_{name}"') for name in calls} == calls


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "kernels run on a GPU, but the default device is a cpu. Use `linear_scan`"),
        ({"Lambda_bar": (2, 5, 4)}, r"`Lambda_bar` must be constant over time.*got \(2, 5, 4\)"),
        ({"u": (3,)}, r"`u` must have shape \(\*batch, L, H\), L >= 1; got \(3,\)"),
        ({"u": (0, 3)}, r"L >= 1; got \(0, 3\)"),
        ({"B_bar": (3, 4)}, r"`B_bar` must have shape \(4, 3\).*got \(3, 4\)"),
        ({"C": (4, 3)}, r"`C` must have shape \(3, 4\)"),
        ({"x0": (4,)}, r"`x0` must have shape \(2, 4\)"),
        ({"D": (4,)}, r"`D` must have shape \(3,\)"),
        ({"Lambda_bar": (257,), "B_bar": (257, 3), "C": (3, 257)}, "at most 256 states.*got 257"),
        ({"u": (5, 513), "B_bar": (4, 513), "C": (513, 4)}, "at most 512 features.*got 513"),
        ({"u": jnp.int32}, "`u` must have one of the dtypes float32, bfloat16, float16; got int32"),
        ({"C": jnp.float32}, "`C` must be complex64; got float32"),
    ],
)
def test_bad_arguments(changes, message):
    shapes = {"Lambda_bar": (4,), "B_bar": (4, 3), "C": (3, 4), "u": (2, 5, 3)}
    arguments = {n: jnp.ones(s, "float32" if n == "u" else "complex64") for n, s in shapes.items()}
    for name, change in changes.items():
        if isinstance(change, tuple):
            arguments[name] = jnp.ones(change, "complex64" if name not in "uD" else "float32")
        else:
            arguments[name] = arguments[name].real.astype(change)
    with pytest.raises(ValueError, match=message):
        s5_scan(**arguments)


def layers(*backends, **options):
    return [
        S5(20, 16, n_blocks=2, algorithm=name, rngs=nnx.Rngs(0), **options) for name in backends
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "kernels run on a GPU"),
        ({"resets": jnp.bool_}, "S5: with `algorithm='pallas'` all steps are equal"),
        ({"dt": jnp.float32}, "all steps are equal"),
        ({"lengths": jnp.int32, "return_state": True}, "all steps are equal"),
    ],
)
def test_layer_that_cannot_run(arguments, message):
    (layer,) = layers("pallas")

    def call(u):
        shapes = {"lengths": (2,)}
        edits = {
            name: value if value is True else jnp.zeros(shapes.get(name, (2, 5)), value)
            for name, value in arguments.items()
        }
        return layer(u, **edits)

    with pytest.raises(ValueError, match=message):
        jax.eval_shape(call, jnp.ones((2, 5, 20)))


@pytest.fixture
def interpreted(monkeypatch):
    monkeypatch.setattr("s5jax.layers._s5.s5_scan", functools.partial(s5_scan, interpret=True))


@pytest.mark.slow
def test_layer_streams(interpreted):
    fused, plain = layers("pallas", "sequential", conj_sym=False)
    u = problem(40, 20, 1)[3]

    @nnx.jit(static_argnames="cut")
    def in_two_parts(layer, u, cut):
        first, state = layer(u[:, :cut], return_state=True)
        second, state = layer(u[:, cut:], state=state, return_state=True)
        return jnp.concatenate([first, second], 1), state

    assert_close(in_two_parts(fused, u, cut=33), in_two_parts(plain, u, cut=33), 3e-6)


@pytest.mark.slow
def test_layer_in_both_directions(interpreted):
    def loss(layer, u):
        y = layer(u, dt=2.0, lengths=jnp.array([40, 7]))
        return jnp.sum(jnp.cos(jnp.arange(y.size).reshape(y.shape)) * y), y

    u = problem(40, 20, 1)[3]
    fused, plain = (
        loss_and_grads(layer, loss, u, has_aux=True)
        for layer in layers("pallas", "sequential", bidirectional=True)
    )
    assert_close(fused, plain, 3e-6)


@pytest.fixture
def gpu():
    if jax.default_backend() != "gpu":
        pytest.skip("needs a GPU: JAX_PLATFORMS=cuda python -m pytest -m gpu")


@pytest.mark.gpu
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 3e-2), ("float16", 4e-3)]
)
@pytest.mark.parametrize(
    ("L", "H", "P"),
    [(1, 1, 1), (1000, 3, 2), (2048, 128, 128), (3000, 96, 48), (1024, 512, 256), (900, 40, 256)],
)
def test_on_gpu(gpu, L, H, P, dtype, tolerance, reverse):
    arguments = problem(L, H, P, batch=(8,), dtype=dtype)
    fused, plain = (
        jax.tree.map(
            lambda x: x.astype(jnp.result_type(x, "float32")),
            outputs_and_gradients(scan, arguments, reverse=reverse),
        )
        for scan in (s5_scan, s5_scan_ref)
    )
    assert_close(fused, plain, tolerance)


@pytest.mark.gpu
@pytest.mark.parametrize("bidirectional", [False, True])
def test_layer_on_gpu(gpu, bidirectional):
    """The size of Path-X, with a quarter of the batch."""

    def loss(layer, u):
        y = layer(u)
        return jnp.mean(jnp.cos(jnp.arange(y.size).reshape(y.shape)) * y), y

    u = jax.random.normal(jax.random.key(1), (8, 16384, 128))
    with jax.default_matmul_precision("highest"):
        fused, plain = (
            loss_and_grads(
                S5(128, 256, bidirectional=bidirectional, algorithm=name, rngs=nnx.Rngs(0)),
                loss,
                u,
                has_aux=True,
            )
            for name in ("pallas", "associative")
        )
    assert_close(fused, plain, 1e-4)
