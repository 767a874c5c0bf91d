"""What only LinOSS promises; the contract of all layers is in `test_conformance`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close, normal, run

from s5jax import LinOSS, param_labels
from s5jax.ops import pair_to_complex

H, P = 3, 5


def make(**options):
    return LinOSS(H, P, rngs=nnx.Rngs(0), **options)


def linoss_ref(layer, u, dt=1.0):
    """The published steps of velocity and position, in NumPy; ``dt`` is one number a step."""
    p = {name: np.asarray(value[...]) for name, value in nnx.state(layer).items()}
    B, C = (np.asarray(pair_to_complex(p[name])) for name in ("B", "C"))
    A = np.maximum(p["A"], 0)

    def positions(u, dt):
        z, x, found = np.zeros(P, complex), np.zeros(P, complex), []
        for u_k, dt_k in zip(u, dt, strict=True):
            Delta = dt_k / (1 + np.exp(-p["raw_step"]))
            z = z + Delta * (B @ u_k - A * x)
            if layer.discretization == "im":
                z = z / (1 + Delta**2 * A)
            x = x + Delta * z
            found.append(x)
        return np.array(found)

    dt = np.broadcast_to(dt, len(u))
    x = positions(u, dt)
    if layer.bidirectional:
        x = np.concatenate([x, positions(u[::-1], dt[::-1])[::-1]], axis=-1)
    return (x @ C.T).real + p["D"] * u


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("discretization", ["im", "imex"])
@jax.enable_x64(True)
def test_layer_is_the_published_recurrence(discretization, bidirectional):
    layer = make(discretization=discretization, bidirectional=bidirectional, param_dtype="float64")
    u = np.random.default_rng(0).normal(size=(40, H))
    assert_close(run(layer, jnp.asarray(u)), linoss_ref(layer, u), rtol=1e-11)
    assert_close(run(layer, jnp.asarray(u), dt=1.5), linoss_ref(layer, u, 1.5), rtol=1e-11)


@jax.enable_x64(True)
def test_irregular_steps_are_integrated_one_by_one():
    layer = make(param_dtype="float64")
    u = np.random.default_rng(0).normal(size=(40, H))
    dt = np.random.default_rng(1).uniform(0.2, 3, size=40)
    assert_close(
        run(layer, jnp.asarray(u), dt=jnp.asarray(dt)), linoss_ref(layer, u, dt), rtol=1e-11
    )
    with pytest.raises(ValueError, match=r"`dt` must be one number; got shape \(40,\).*'im'"):
        run(make(discretization="imex"), normal(0, 40, H), dt=jnp.asarray(dt))


def value_and_gradients(layer, u):
    y = layer(u)
    grads = nnx.grad(lambda layer: jnp.mean(layer(u) ** 2))(layer)
    return {"y": np.asarray(y), **{name: np.asarray(g[...]) for name, g in grads.items()}}


@pytest.mark.parametrize("discretization", ["im", "imex"])
@pytest.mark.parametrize("A", [1e-4, 1e-2, 1.0])
def test_slow_oscillators_keep_their_digits(discretization, A):
    """In float32 over 2,000 steps, down to the smallest A."""
    layer, u = make(discretization=discretization), normal(0, 2_000, H)
    layer.A[...] = jnp.full(P, 1.001 * A)
    found = value_and_gradients(layer, u)
    with jax.enable_x64(True):
        exact = make(discretization=discretization, param_dtype="float64")
        nnx.update(exact, jax.tree.map(lambda x: x.astype("float64"), nnx.state(layer)))
        expected = value_and_gradients(exact, jnp.asarray(u, "float64"))
    for name, array in expected.items():
        assert_close(found[name], array, rtol=1e-3 if name != "A" else 2e-2)


def test_memory_decays_or_is_conserved():
    implicit, symplectic = (make(discretization=d).coefficients() for d in ("im", "imex"))
    assert (jnp.abs(implicit.Lambda_bar) < 1).all()
    np.testing.assert_allclose(jnp.abs(symplectic.Lambda_bar), 1, rtol=1e-6)


@pytest.mark.parametrize("discretization", ["im", "imex"])
def test_stable_whatever_the_parameters(discretization):
    layer = make(discretization=discretization)
    layer.A[...] = jnp.array([-3.0, 0.0, 1.0, 30.0, 1e6])
    layer.raw_step[...] = jnp.full(P, 9.0)
    y = run(layer, normal(0, 3_000, H))
    assert jnp.isfinite(y).all()
    assert (jnp.abs(layer.coefficients().Lambda_bar) <= 1 + 1e-6).all()
    grads = nnx.grad(lambda layer: jnp.sum(layer(normal(0, 50, H)) ** 2))(layer)
    assert all(np.isfinite(g[...]).all() for g in grads.values())


def test_optimiser_groups():
    labels = param_labels(make())
    ssm = {"A", "raw_step"}
    assert labels == {name: "ssm" if name in ssm else "regular" for name in (*ssm, "B", "C", "D")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 0}, "LinOSS: `d_state` must be a positive integer"),
        ({"discretization": "zoh"}, "LinOSS: `discretization` must be one of 'im', 'imex'"),
        ({"algorithm": "parallel"}, "LinOSS: `algorithm` must be one of"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LinOSS(**({"d_model": H, "d_state": P} | options), rngs=nnx.Rngs(0))
