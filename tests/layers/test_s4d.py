"""What only S4D promises; the contract of all layers is in `test_conformance`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close, run, tiers

from s5jax import S4D, param_labels
from s5jax.init import s4d
from s5jax.ops import pair_to_complex

H, N = 4, 6
POSITIVE = {"exp": np.exp, "softplus": lambda x: np.log1p(np.exp(x))}


def s4d_ref(layer, u, dt=1.0):
    """The published recurrence, step by step in NumPy; ``dt`` is one number a step."""
    p = {name: np.asarray(value[...]) for name, value in nnx.state(layer).items()}
    B, C = (np.asarray(pair_to_complex(p[name])) for name in ("B", "C"))
    system = np.arange(H) % len(B)
    Lambda = (-POSITIVE[layer.real_transform](p["raw_decay"]) + 1j * p["Lambda_im"])[system]
    step = np.broadcast_to(dt, len(u))[:, None] * POSITIVE[layer.dt_transform](p["raw_step"])
    z = step[..., None] * Lambda
    if layer.discretization == "zoh":
        Lambda_bar, Gamma = np.exp(z), (np.exp(z) - 1) / Lambda
    else:
        Lambda_bar, Gamma = (1 + z / 2) / (1 - z / 2), z / Lambda / (1 - z / 2)

    def states(order):
        x, found = np.zeros(Lambda.shape), np.zeros((len(u), *Lambda.shape), complex)
        for k in order:
            found[k] = x = Lambda_bar[k] * x + Gamma[k] * B[system] * u[k][:, None]
        return found

    y = p["D"] * u + 2 * (C[0] * states(range(len(u)))).sum(-1).real
    if layer.bidirectional:  # of the inputs to come, without the present one
        y[:-1] += 2 * (C[1] * states(reversed(range(len(u))))).sum(-1).real[1:]
    return y


@pytest.mark.parametrize("bidirectional", tiers([False, True], {True}))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"init": "lin", "discretization": "bilinear", "n_ssm": 2, "dt_transform": "softplus"},
        {"init": "inv", "real_transform": "softplus", "algorithm": "chunked"},
        {"algorithm": "scan"},
    ],
    ids=["plain", "shared", "chunked", "scan"],
)
@jax.enable_x64(True)
def test_layer_is_the_published_recurrence(options, bidirectional):
    """On plain sequences and on irregular ones."""
    layer = S4D(
        H, N, bidirectional=bidirectional, param_dtype="float64", rngs=nnx.Rngs(0), **options
    )
    u = np.random.default_rng(0).normal(size=(30, H))
    assert_close(run(layer, jnp.asarray(u)), s4d_ref(layer, u), rtol=1e-11)
    dt = np.random.default_rng(1).uniform(0.2, 3.0, size=30)
    y = run(layer, jnp.asarray(u), dt=jnp.asarray(dt))
    assert_close(y, s4d_ref(layer, u, dt), rtol=1e-11)


@pytest.mark.parametrize("init", ["legs", "lin", "inv", "inv2", "quad", "real"])
def test_initial_parameters(init):
    layer = S4D(H, N, init=init, dt_min=0.01, dt_max=0.02, rngs=nnx.Rngs(0))
    Lambda, B = s4d(init, N)
    for h in range(H):
        assert_close(np.exp(layer.raw_decay[h]), -Lambda.real.astype("float32"))
        expected = np.minimum(Lambda.imag, -1e-4).astype("float32")
        assert_close(layer.Lambda_im[h], expected)
        assert_close(pair_to_complex(layer.B[h]), B.astype("complex64"))
    step = np.exp(layer.raw_step[...])
    assert step.min() >= 0.01 * (1 - 1e-5)
    assert step.max() <= 0.02 * (1 + 1e-5)


@jax.enable_x64(True)
@pytest.mark.parametrize("transform", ["exp", "softplus"])
def test_fourier_poles_in_discrete_time(transform):
    """Their sizes are drawn from the range of ``dt``, their angles follow from the sizes alone."""
    options = {"init": "dfout", "dt_transform": transform, "real_transform": transform}
    layer = S4D(H, N, dt_min=1e-5, dt_max=1e-3, param_dtype="float64", rngs=nnx.Rngs(0), **options)
    poles = np.asarray(layer.coefficients().Lambda_bar)
    angles = np.pi * (np.arange(N // 2)[None] + np.arange(H)[:, None] / H) / (N // 2)
    assert_close(-np.angle(poles) % (2 * np.pi), angles.ravel(), rtol=1e-9)
    damping = -2 * np.log(np.abs(poles)).reshape(H, -1)
    assert damping.min() >= 1e-5 * (1 - 1e-6)
    assert damping.max() <= 1e-3 * (1 + 1e-6)
    assert len(np.unique(damping[:, 0].round(9))) == H
    assert_close(pair_to_complex(layer.B[...]), damping, rtol=1e-6)
    u = np.random.default_rng(0).normal(size=(30, H))
    assert_close(run(layer, jnp.asarray(u)), s4d_ref(layer, u), rtol=1e-11)


@jax.enable_x64(True)
def test_random_eigenvalues_keep_the_layer():
    """Each feature draws its own, also where the layer is made while JAX traces."""

    def make():
        options = {"init": "random", "param_dtype": "float64", "rngs": nnx.Rngs(0)}
        return S4D(H, N, dt_min=0.1, dt_max=0.1, **options)

    layer = make()
    assert len(np.unique(layer.Lambda_im[...])) == H * N // 2
    u = np.random.default_rng(0).normal(size=(30, H))
    assert_close(run(layer, jnp.asarray(u)), s4d_ref(layer, u), rtol=1e-11)
    assert nnx.eval_shape(make).Lambda_im.shape == layer.Lambda_im.shape


def test_optimiser_groups():
    labels = param_labels(S4D(H, N, rngs=nnx.Rngs(0)))
    ssm = {"raw_decay", "Lambda_im", "B", "raw_step"}
    assert labels == {name: "ssm" if name in ssm else "regular" for name in (*ssm, "C", "D")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 7}, "S4D: `d_state` must be even.*got 7, use 8"),
        ({"n_ssm": 3}, "S4D: `n_ssm` must divide `d_model`; got 3 and 4"),
        ({"init": "legt"}, "S4D: `init` must be one of 'legs', 'lin', 'inv'"),
        ({"discretization": "euler"}, "S4D: `discretization` must be one of"),
        (
            {"init": "dfout", "discretization": "bilinear"},
            "S4D: `init='dfout'` places the poles of the zero-order hold.*got 'bilinear'",
        ),
        ({"dt_transform": "log"}, "S4D: `dt_transform` must be one of"),
        ({"real_transform": "relu"}, "S4D: `real_transform` must be one of"),
        ({"algorithm": "parallel"}, "S4D: `algorithm` must be one of"),
        ({"dt_max": 0.0}, "0 < `dt_min` <= `dt_max`"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        S4D(**({"d_model": H, "d_state": N} | options), rngs=nnx.Rngs(0))
