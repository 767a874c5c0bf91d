"""Checkers of the families ``s5*``."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from reference import Golden, assert_close, assert_trees_close, call, take_and_pass

from s5jax.interop import s5_block_from_official, s5_from_official
from s5jax.ops import pair_to_complex

TOLERANCES = {"float64": 1e-9, "float32": 1e-5}


def check_map(golden: Golden) -> None:
    (dt,), options = take_and_pass(golden.options, [s5_from_official], step_rescale=None)
    for dtype, tolerance in TOLERANCES.items():
        layer = s5_from_official(golden, dtype=dtype, **options)
        coefficients = layer.coefficients(dt)
        assert_close(coefficients.Lambda_bar, golden["Lambda_bar"], tolerance)
        assert_close(coefficients.Gamma[:, None] * coefficients.B, golden["B_bar"], tolerance)
        assert_close(call(layer, golden["u"].astype(dtype), dt=dt), golden["y"], tolerance)
        if dtype == "float64":
            check_gradients(layer, jnp.asarray(golden["u"]), dt)


def check_gradients(layer, u, dt) -> None:
    """Compares those of all parameters and of the input with those of the definition."""
    graphdef, params = nnx.split(layer)
    weights = np.cos(np.arange(u.size)).reshape(u.shape)

    def loss(params, u):
        return jnp.sum(weights * nnx.merge(graphdef, params)(u, dt=dt))

    def loss_ref(params, u):
        return jnp.sum(weights * s5_ref(params, u, 1 if dt is None else dt, layer))

    got, got_u = jax.jit(jax.grad(loss, (0, 1)))(params, u)
    expected = jax.jit(jax.grad(loss_ref, (0, 1)))(nnx.to_pure_dict(params), u)
    assert_trees_close((nnx.to_pure_dict(got), got_u), expected)


def s5_ref(params, u, dt, options):
    """The published map with the published formulas, step by step."""
    Lambda_re = params["Lambda_re"]
    if options.clip_eigs:
        Lambda_re = jnp.minimum(Lambda_re, -1e-4)
    Lambda, s = Lambda_re + 1j * params["Lambda_im"], dt * jnp.exp(params["log_step"])
    B, C = pair_to_complex(params["B"]), pair_to_complex(params["C"])
    if options.discretization == "zoh":
        Lambda_bar = jnp.exp(Lambda * s)
        B_bar = ((Lambda_bar - 1) / Lambda)[:, None] * B
    else:
        Lambda_bar = (1 + s * Lambda / 2) / (1 - s * Lambda / 2)
        B_bar = (s / (1 - s * Lambda / 2))[:, None] * B

    def states(inputs):
        def step(x, u):
            x = Lambda_bar * x + B_bar @ u
            return x, x

        return jax.lax.scan(step, jnp.zeros_like(Lambda), inputs)[1]

    x = states(u + 0j)
    if options.bidirectional:
        x = jnp.concatenate([x, states(u[::-1] + 0j)[::-1]], axis=-1)
    return (2 if options.conj_sym else 1) * (x @ C.T).real + params["D"] * u


def check_layer(golden: Golden) -> None:
    (batchnorm, training, dt), options = take_and_pass(
        golden.options,
        [s5_block_from_official, s5_from_official],
        batchnorm=False,
        training=False,
        step_rescale=None,
    )
    assert batchnorm == ("bn_mean" in golden)
    assert not (training and options.get("dropout")), "draws of dropout differ"
    for dtype, tolerance in TOLERANCES.items():
        block = s5_block_from_official(golden, dtype=dtype, **options)
        if training:
            block.train()
        assert_close(call(block, golden["u"].astype(dtype), dt=dt), golden["y"], tolerance)
