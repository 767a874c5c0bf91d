"""What only the LRU promises; the contract of all layers is in `test_conformance`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close, normal, run

from s5jax import LRU, param_labels
from s5jax.ops import pair_to_complex

H, N = 3, 5


def lru_ref(layer, u):
    """The published equations, step by step in NumPy."""
    p = {name: np.asarray(value[...]) for name, value in nnx.state(layer).items()}
    B, C = (np.asarray(pair_to_complex(p[name])) for name in ("B", "C"))
    Lambda = np.exp(-np.exp(p["nu_log"]) + 1j * np.exp(p["theta_log"]))
    B = np.exp(p["gamma_log"])[:, None] * B

    def states(u):
        x = np.zeros((len(u) + 1, N), complex)
        for k, u_k in enumerate(u):
            x[k + 1] = Lambda * x[k] + B @ u_k
        return x[1:]

    x = states(u)
    if layer.bidirectional:
        x = np.concatenate([x, states(u[::-1])[::-1]], axis=-1)
    return (x @ C.T).real + p["D"] * u


@pytest.mark.parametrize("bidirectional", [False, True])
@jax.enable_x64(True)
def test_layer_is_the_published_recurrence(bidirectional):
    layer = LRU(H, N, bidirectional=bidirectional, param_dtype="float64", rngs=nnx.Rngs(0))
    u = np.random.default_rng(0).normal(size=(40, H))
    assert_close(run(layer, jnp.asarray(u)), lru_ref(layer, u), rtol=1e-12)


def test_states_keep_the_variance_of_the_drive():
    """Unit variance for white inputs, whatever the eigenvalues."""
    layer = LRU(64, 16, r_min=0.5, r_max=0.95, rngs=nnx.Rngs(0))
    c = layer.coefficients()
    u = normal(0, 4096, 64)
    x = jax.lax.scan(
        lambda x, b: (c.Lambda_bar * x + pair_to_complex(b, axis=-2),) * 2,
        layer.init_state(),
        layer.drive(c, u),
    )[1]
    np.testing.assert_allclose(jnp.mean(jnp.abs(x) ** 2, 0), jnp.ones(16), atol=0.5)
    assert float(jnp.mean(jnp.abs(x) ** 2)) == pytest.approx(1, rel=0.1)


def test_optimiser_groups():
    labels = param_labels(LRU(H, N, rngs=nnx.Rngs(0)))
    ssm = {"nu_log", "theta_log", "gamma_log"}
    assert labels == {name: "ssm" if name in ssm else "regular" for name in (*ssm, "B", "C", "D")}


def test_stable_whatever_the_parameters():
    layer = LRU(H, N, rngs=nnx.Rngs(0))
    layer.nu_log[...] = normal(1, N) * 3
    assert (jnp.abs(layer.coefficients().Lambda_bar) <= 1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 0}, "LRU: `d_state` must be a positive integer"),
        ({"r_min": 1.0}, "`r_min` < `r_max`"),
        ({"max_phase": 0.0}, "`max_phase` must be positive"),
        ({"algorithm": "parallel"}, "`algorithm` must be one of"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LRU(**({"d_model": H, "d_state": N} | options), rngs=nnx.Rngs(0))


def test_steps_have_no_length():
    layer = LRU(H, N, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="`dt` needs a continuous-time layer"):
        layer(jnp.ones((5, H)), dt=2.0)
