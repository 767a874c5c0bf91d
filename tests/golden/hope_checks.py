"""Checkers of the families ``hope*``."""

import jax
import jax.numpy as jnp
import numpy as np
from reference import Golden, assert_close, call, take, take_and_pass
from s4_checks import output_map
from s5_checks import TOLERANCES

from s5jax import HOPE
from s5jax.interop import hope_block_from_official, hope_from_official
from s5jax.ops import hope_transfer_function


def check_hope_minimal(golden: Golden) -> None:
    (d_state,) = take(golden.options, d_state=None)
    for dtype, tolerance in TOLERANCES.items():
        layer = hope_from_official(golden, dtype=dtype)
        assert layer.d_state == d_state // 2
        check_samples(layer, golden["K"].reshape(2, layer.d_model, -1), tolerance)
        check_outputs(layer, golden, tolerance)


def check_hope_block(golden: Golden) -> None:
    (d_state, bidirectional, _), options = take_and_pass(
        golden.options,
        [hope_block_from_official],
        d_state=None,
        bidirectional=None,
        scale_factor=None,
    )
    assert bidirectional
    for dtype, tolerance in TOLERANCES.items():
        layer = hope_block_from_official(golden, dtype=dtype, **options)
        assert layer.d_state == d_state
        check_samples(layer, golden["K"][0], tolerance)
        check_outputs(layer, golden, tolerance)


def check_samples(layer: HOPE, K: np.ndarray, tolerance: float) -> None:
    turns = np.arange(K.shape[-1]) / K.shape[-1]
    theta = jnp.asarray(2 * np.pi * (turns - np.round(turns)), layer.param_dtype)
    G = jax.jit(hope_transfer_function)(*layer._system(), theta)
    assert_close(np.moveaxis(G, -1, -2), K, tolerance)


def check_outputs(layer: HOPE, golden: Golden, tolerance: float) -> None:
    y = call(layer, jnp.asarray(np.moveaxis(golden["u"], -1, -2), layer.param_dtype))
    assert_close(np.moveaxis(y, -1, -2), golden["y_pre"], tolerance)
    assert_close(np.moveaxis(output_map(layer, golden, y), -1, -2), golden["y"], tolerance)
