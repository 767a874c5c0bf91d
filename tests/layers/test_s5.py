"""What only S5 promises; the contract of all layers is in `test_conformance`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close, normal, run, tiers

from s5jax import S5, param_labels
from s5jax.init import block_diagonal_hippo
from s5jax.ops import pair_to_complex

H, N = 3, 8


def s5_ref(layer, u, dt=1.0):
    """The published equations, step by step in NumPy; ``dt`` is one number a step."""
    p = {name: np.asarray(value[...]) for name, value in nnx.state(layer).items()}
    B, C = (np.asarray(pair_to_complex(p[name])) for name in ("B", "C"))
    re = np.minimum(p["Lambda_re"], -1e-4) if layer.clip_eigs else p["Lambda_re"]
    Lambda = re + 1j * p["Lambda_im"]
    z = np.broadcast_to(dt, len(u))[:, None] * np.exp(p["log_step"]) * Lambda
    if layer.discretization == "zoh":
        Lambda_bar, Gamma = np.exp(z), (np.exp(z) - 1) / Lambda
    else:
        Lambda_bar, Gamma = (1 + z / 2) / (1 - z / 2), z / Lambda / (1 - z / 2)

    def states(order):
        x, found = np.zeros(len(Lambda)), np.zeros((len(u), len(Lambda)), complex)
        for k in order:
            found[k] = x = Lambda_bar[k] * x + Gamma[k] * (B @ u[k])
        return found

    x = states(range(len(u)))
    if layer.bidirectional:
        x = np.concatenate([x, states(reversed(range(len(u))))], axis=-1)
    return (2 if layer.conj_sym else 1) * (x @ C.T).real + p["D"] * u


@pytest.mark.parametrize("bidirectional", tiers([False, True], {True}))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"discretization": "bilinear", "n_blocks": 2},
        {"conj_sym": False, "clip_eigs": True, "algorithm": "sequential"},
        {"init": "random"},
    ],
    ids=["plain", "bilinear", "all_states", "random"],
)
@jax.enable_x64(True)
def test_layer_is_the_published_recurrence(options, bidirectional):
    """On plain sequences and on irregular ones; some eigenvalues grow, unless clipped."""
    layer = S5(
        H, N, bidirectional=bidirectional, param_dtype="float64", rngs=nnx.Rngs(0), **options
    )
    layer.Lambda_re[...] = layer.Lambda_re[...].at[0].set(0.3)
    u = np.random.default_rng(0).normal(size=(30, H))
    assert_close(run(layer, jnp.asarray(u)), s5_ref(layer, u), rtol=1e-12)
    dt = np.random.default_rng(1).uniform(0.2, 3.0, size=30)
    y = run(layer, jnp.asarray(u), dt=jnp.asarray(dt))
    assert_close(y, s5_ref(layer, u, dt), rtol=1e-12)


@jax.enable_x64(True)
def test_conjugate_states_may_be_left_out():
    """All states, of which half are the conjugates of the others, give the same outputs."""
    kept = S5(H, N, conj_sym=True, param_dtype="float64", rngs=nnx.Rngs(0))
    full = S5(H, N, conj_sym=False, param_dtype="float64", rngs=nnx.Rngs(0))
    for name in ("Lambda_re", "log_step", "D"):
        value = getattr(kept, name)[...]
        getattr(full, name)[...] = value if name == "D" else jnp.tile(value, 2)
    full.Lambda_im[...] = jnp.concatenate([kept.Lambda_im[...], -kept.Lambda_im[...]])
    for name, axis in (("B", 0), ("C", 1)):
        value = getattr(kept, name)[...]
        getattr(full, name)[...] = jnp.concatenate([value, value * jnp.array([1, -1])], axis)
    u = normal(0, 2, 20, H).astype("float64")
    assert_close(run(full, u), run(kept, u), rtol=1e-12)


def test_initial_parameters():
    layer = S5(64, 48, n_blocks=3, dt_min=0.01, dt_max=0.02, rngs=nnx.Rngs(0))
    Lambda, _, _ = block_diagonal_hippo(48, 3)
    assert_close(layer.Lambda_re[...], Lambda.real.astype("float32"), rtol=1e-6)
    assert_close(layer.Lambda_im[...], Lambda.imag.astype("float32"), rtol=1e-6)
    step = np.exp(layer.log_step[...])
    assert step.min() >= 0.01 * (1 - 1e-5)
    assert step.max() <= 0.02 * (1 + 1e-5)
    assert len(np.unique(step)) == 24
    assert float(layer.D[...].std()) == pytest.approx(1, rel=0.3)
    two_sided = S5(64, 48, bidirectional=True, rngs=nnx.Rngs(0))
    assert two_sided.C.shape == (64, 48, 2)
    assert not np.allclose(two_sided.C[:, :24], two_sided.C[:, 24:])


def test_optimiser_groups():
    labels = param_labels(S5(H, N, rngs=nnx.Rngs(0)))
    ssm = {"Lambda_re", "Lambda_im", "log_step", "B"}
    assert labels == {name: "ssm" if name in ssm else "regular" for name in (*ssm, "C", "D")}


def test_clipped_eigenvalues_are_stable_whatever_the_parameters():
    layer = S5(H, N, clip_eigs=True, rngs=nnx.Rngs(0))
    layer.Lambda_re[...] = normal(1, N // 2) * 3
    assert (jnp.abs(layer.coefficients().Lambda_bar) < 1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 0}, "S5: `d_state` must be a positive integer"),
        ({"d_state": 7}, "even number of states.*got `d_state` 7"),
        ({"n_blocks": 3}, "multiple of `n_blocks`"),
        ({"C_init": "normal"}, "S5: `C_init` must be one of"),
        ({"discretization": "zho"}, "S5: `discretization` must be one of.*mean 'zoh'"),
        ({"algorithm": "scan"}, "S5: `algorithm` must be one of"),
        ({"dt_min": 0.0}, "0 < `dt_min` <= `dt_max`"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        S5(**({"d_model": H, "d_state": N} | options), rngs=nnx.Rngs(0))


def rounding_matmul(bits):
    """A product whose operands, also in the gradient, have so many bits of mantissa."""
    matmul = jnp.matmul

    def product(a, b):
        a, b = (jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=bits) for x in (a, b))
        return matmul(a, b, precision="highest")

    @jax.custom_vjp
    def rounding(a, b):
        return product(a, b)

    def backward(operands, g):
        g = jax.lax.reduce_precision(g, exponent_bits=8, mantissa_bits=bits)
        return jax.vjp(product, *operands)[1](g)

    rounding.defvjp(lambda a, b: (product(a, b), (a, b)), backward)

    def replacement(a, b, **options):
        return rounding(a, b) if a.dtype == jnp.float32 else matmul(a, b, **options)

    return replacement


@pytest.mark.slow
@pytest.mark.parametrize("bits", [10, 7], ids=["tf32", "bfloat16"])
def test_blocks_are_as_accurate_as_the_scan_on_matrix_units(bits, monkeypatch):
    """Values and gradients against float64, with the initialisation of Path-X at its length."""

    def results(algorithm, dtype):
        layer = S5(
            8,
            256,
            n_blocks=16,
            dt_min=1e-4,
            C_init="complex_normal",
            bidirectional=True,
            algorithm=algorithm,
            rngs=nnx.Rngs(0),
        )
        graphdef, params = nnx.split(layer)
        params = jax.tree.map(lambda x: x.astype(dtype), params)
        u, w = (normal(seed, 1, 16_384, 8).astype(dtype) for seed in (1, 2))

        def loss(params, u):
            y = nnx.merge(graphdef, params)(u)
            return jnp.sum(w * y), y

        return jax.device_get(jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, u))

    with jax.enable_x64(True):
        exact = results("sequential", jnp.float64)
    monkeypatch.setattr(jnp, "matmul", rounding_matmul(bits))
    errors = {}
    for algorithm in ("block", "sequential"):
        off = jax.tree.map(
            lambda a, b: np.abs(a - b).max() / np.abs(b).max(), results(algorithm, "float32"), exact
        )
        errors[algorithm] = jax.tree.leaves(off)
    assert max(errors["block"]) < 1.2 * max(errors["sequential"])
    assert max(errors["sequential"]) > 2.0 ** -(bits + 3)
