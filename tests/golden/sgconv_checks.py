"""Checker of the family ``sgconv``."""

import jax
import jax.numpy as jnp
import numpy as np
from reference import Golden, assert_close, call, kernel, take_and_pass
from s4_checks import by_steps, output_map
from s5_checks import TOLERANCES

from s5jax import SGConv
from s5jax.interop import sgconv_from_official


def check_sgconv(golden: Golden) -> None:
    (mode, kernel_dim, n_scales, full, postact, *decay), options = take_and_pass(
        golden.options,
        [sgconv_from_official],
        mode=None,
        kernel_dim=None,
        num_scales=None,
        full=False,
        postact=None,
        decay_min=2.0,
        decay_max=2.0,
    )
    assert mode == "cat_randn"
    assert full or postact is None
    for dtype, tolerance in TOLERANCES.items():
        layer = sgconv_from_official(golden, dtype=dtype, **options)
        assert layer.w.shape[1:] == (n_scales, layer.d_model, kernel_dim)
        # The multipliers are in single precision there.
        expected = np.linspace(*decay, layer.d_model)
        assert_close(layer.alpha, expected, 1e-7)
        norm = jnp.stack([jnp.linalg.norm(layer._raw_kernel(w), axis=0) for w in layer.w[...]])
        assert_close(norm, golden["kernel_norm"][..., 0], tolerance)
        check_kernel(layer, golden["k"][0], tolerance)
        u = jnp.asarray(np.moveaxis(golden["u"], -1, -2), dtype)
        y = call(layer, u)
        if not layer.bidirectional:
            assert_close(by_steps(layer, u)[0], y, tolerance)
            if dtype == "float64":
                assert_close(by_fast_steps(layer, u), y)
        if full:
            y = output_map(layer, golden, y, "gelu_linear" if postact is None else postact)
        assert_close(np.moveaxis(y, -1, -2), golden["y"], tolerance)


def check_kernel(layer: SGConv, k: np.ndarray, tolerance: float) -> None:
    """The official kernel of both directions is a circle of 2 L lags, of which -1 is the last."""
    if layer.bidirectional:
        L = k.shape[-1] // 2
        forward, backward = kernel(layer, L)
        K = jnp.concatenate([forward.at[0].add(-layer.D[...]), jnp.flip(backward, 0)])
    else:
        K = kernel(layer, k.shape[-1]).at[0].add(-layer.D[...])
    assert_close(K.T, k, tolerance)


@jax.jit
def by_fast_steps(layer: SGConv, u: jax.Array) -> jax.Array:
    state = layer.init_multiscale_state(u.shape[:-2])
    y = jax.lax.scan(lambda x, u_t: layer.step(u_t, x)[::-1], state, jnp.moveaxis(u, -2, 0))[1]
    return jnp.moveaxis(y, 0, -2)
