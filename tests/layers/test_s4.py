"""What only S4 promises; the contract of all layers is in `test_conformance`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close, run, tiers

from s5jax import S4, param_labels
from s5jax.init import nplr
from s5jax.ops import pair_to_complex

H, N = 4, 6
POSITIVE = {"exp": np.exp, "softplus": lambda x: np.log1p(np.exp(x))}


def s4_ref(layer, u, dt=1.0):
    """The definition, step by step with dense matrices of complex numbers in NumPy."""
    p = {name: np.asarray(value[...]) for name, value in nnx.state(layer).items()}
    P, B, C = (np.asarray(pair_to_complex(p[name])) for name in ("P", "B", "C"))
    step = dt * POSITIVE[layer.dt_transform](p["raw_step"])
    y = p["D"] * u
    for h in range(H):
        s = h % len(B)
        Lambda = -POSITIVE[layer.real_transform](p["raw_decay"][s]) + 1j * p["Lambda_im"][s]
        # The conjugate states, which the layer leaves out, meet the kept ones in P P^*.
        both = np.concatenate([P[s], P[s].conj()], -1)
        A = np.diag(np.concatenate([Lambda, Lambda.conj()])) - both.T @ both.conj()
        half = step[h] / 2 * A
        inverse = np.linalg.inv(np.eye(N) - half)
        A_bar = inverse @ (np.eye(N) + half)
        B_bar = inverse @ (step[h] * np.concatenate([B[s], B[s].conj()]))

        def outputs(C, u, A_bar=A_bar, B_bar=B_bar):
            x, found = np.zeros(N), []
            for u_k in u:
                x = A_bar @ x + B_bar * u_k
                found.append((np.concatenate([C, C.conj()]) @ x).real)
            return np.array(found)

        y[:, h] += outputs(C[0, h], u[:, h])
        if layer.bidirectional:  # of the inputs to come, without the present one
            y[:-1, h] += outputs(C[1, h], u[:0:-1, h])[::-1]
    return y


@pytest.mark.parametrize("bidirectional", tiers([False, True], {True}))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"init": "legt", "n_ssm": 2, "dt_transform": "softplus", "algorithm": "chunked"},
        {"init": "fourier", "real_transform": "softplus", "algorithm": "cauchy"},
    ],
    ids=["plain", "shared", "cauchy"],
)
@jax.enable_x64(True)
def test_layer_is_the_published_recurrence(options, bidirectional):
    layer = S4(
        H, N, bidirectional=bidirectional, param_dtype="float64", rngs=nnx.Rngs(0), **options
    )
    u = np.random.default_rng(0).normal(size=(30, H))
    assert_close(run(layer, jnp.asarray(u)), s4_ref(layer, u), rtol=1e-10)
    assert_close(run(layer, jnp.asarray(u), dt=2.5), s4_ref(layer, u, 2.5), rtol=1e-10)


def test_initial_parameters():
    layer = S4(H, N, n_ssm=2, dt_min=0.01, dt_max=0.02, rngs=nnx.Rngs(0))
    Lambda, P, B, _ = nplr("legs", N)
    for s in range(2):
        assert_close(np.exp(layer.raw_decay[s]), -Lambda.real.astype("float32"))
        assert_close(layer.Lambda_im[s], Lambda.imag.astype("float32"))
        assert_close(pair_to_complex(layer.P[s]), P.astype("complex64"))
        assert_close(pair_to_complex(layer.B[s]), B.astype("complex64"))
    step = np.exp(layer.raw_step[...])
    assert step.min() >= 0.01 * (1 - 1e-5)
    assert step.max() <= 0.02 * (1 + 1e-5)
    C = S4(256, 32, rngs=nnx.Rngs(0)).C[...]
    np.testing.assert_allclose(C.std((0, 1, 2)), 0.5**0.5, rtol=0.05)


def test_optimiser_groups():
    labels = param_labels(S4(H, N, rngs=nnx.Rngs(0)))
    ssm = {"raw_decay", "Lambda_im", "P", "B", "raw_step"}
    assert labels == {name: "ssm" if name in ssm else "regular" for name in (*ssm, "C", "D")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 7}, "S4: `d_state` must be even.*got 7, use 8"),
        ({"n_ssm": 3}, "S4: `n_ssm` must divide `d_model`; got 3 and 4"),
        ({"init": "lin"}, "S4: `init` must be one of 'legs', 'legt', 'fourier'"),
        ({"dt_transform": "log"}, "S4: `dt_transform` must be one of"),
        ({"real_transform": "relu"}, "S4: `real_transform` must be one of"),
        ({"algorithm": "scan"}, "S4: `algorithm` must be one of"),
        ({"dt_max": 0.0}, "0 < `dt_min` <= `dt_max`"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        S4(**({"d_model": H, "d_state": N} | options), rngs=nnx.Rngs(0))
