"""Checkers of the families ``dlr*`` and ``dss*``."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from hippo_checks import SINGLE
from reference import Golden, assert_close, call, kernel, take, take_and_pass
from s4_checks import output_map
from s5_checks import TOLERANCES

from s5jax import DLR
from s5jax.interop import dlr_from_official
from s5jax.ops import KernelToReal


def check_dlr_kernel(golden: Golden) -> None:
    version, channels = take(golden.options, version=None, channels=None)
    assert (version, channels) == ("", 1)
    for dtype, tolerance in TOLERANCES.items():
        kernels = {}
        for made_real in get_args(KernelToReal):
            layer = dlr_from_official(golden, kernel_to_real=made_real, dtype=dtype)
            assert_close(layer.raw_Lambda_re, golden["Lambda_re_raw"], tolerance)
            assert_close(layer.Lambda_im, golden["Lambda_im_raw"], tolerance)
            K = golden[f"K_{made_real}"][0].T
            kernels[made_real] = check_kernel(layer, K, tolerance)
        half = layer.d_model // 2  # the official option 'real-prod' is one of these by feature
        mixed = jnp.concatenate([kernels["real"][:, :half], kernels["prod"][:, half:]], -1)
        assert_close(mixed, golden["K_real_prod"][0].T, tolerance)


def check_kernel(layer: DLR, K: np.ndarray, tolerance: float) -> jax.Array:
    """The kernel, and the response of the recurrence to an impulse."""
    got = kernel(layer, len(K))
    assert_close(got, K, tolerance)
    if layer.version != "dss_softmax":
        impulse = jnp.zeros_like(got).at[0].set(1)
        assert_close(by_steps(layer, impulse), K, tolerance)
    return got


@jax.jit
def by_steps(layer: DLR, u: jax.Array) -> jax.Array:
    return jax.lax.scan(lambda x, u_t: layer.step(u_t, x)[::-1], layer.init_state(), u)[1]


def check_dss_kernel(golden: Golden) -> None:
    version, channels, *fixed = take(
        golden.options,
        version=None,
        channels=None,
        sep_dt_re_im=None,
        epsilon=None,
        max_real_Lambda=None,
    )
    assert (channels, *fixed) == (1, False, 1e-7, 1e-4)
    expected = {name: golden[f"K_{name}"] for name in ("imag", "sum", "prod")}
    expected["real"], imag = np.moveaxis(golden["K_complex_parts"], -1, 0)
    assert_close(imag, expected["imag"])
    assert_close(expected["real"], golden["K_real_f32"], SINGLE)
    for dtype, tolerance in TOLERANCES.items():
        for made_real, K in expected.items():
            layer = dlr_from_official(
                golden, version=f"dss_{version}", kernel_to_real=made_real, dtype=dtype
            )
            check_kernel(layer, K[0].T, tolerance)


def check_dlr_init(golden: Golden) -> None:
    N, rngs = golden.options["N"], nnx.Rngs(0)
    options = {"dt_min": 1e-5, "dt_max": 1e-5, "param_dtype": "float64", "rngs": rngs}
    layer = DLR(2, N, **options)
    assert_close(layer.raw_Lambda_re, golden["dlr_omega_re_const"], SINGLE)
    assert_close(layer.Lambda_im, golden["dlr_omega_im"], SINGLE)
    for version in ("dss_exp", "dss_softmax"):
        for name in ("lin", "hippo"):
            layer = DLR(2, N, version=version, Lambda_init=name, **options)
            assert_close(layer.coefficients().z / 1e-5, [golden[f"dss_Lambda_{name}"]] * 2, SINGLE)


def check_dlr_layer(golden: Golden) -> None:
    (kernel_type, full, postact), options = take_and_pass(
        golden.options, [dlr_from_official], kernel_type=None, full=False, postact=None
    )
    assert kernel_type == "dlr"
    for dtype, tolerance in TOLERANCES.items():
        layer = dlr_from_official(golden, dtype=dtype, **options)
        check_layer_kernels(layer, golden["K"], tolerance)
        u = jnp.asarray(np.moveaxis(golden["u"], -1, -2), dtype)
        y = call(layer, u)
        assert_close(np.moveaxis(y, -1, -2), golden["y_pre"], tolerance)
        scan = dlr_from_official(golden, dtype=dtype, **options | {"algorithm": "scan"})
        assert_close(np.moveaxis(call(scan, u), -1, -2), golden["y_pre"], tolerance)
        if full:
            y = output_map(layer, golden, y, "gelu_linear" if postact is None else postact)
            assert_close(np.moveaxis(y, -1, -2), golden["y"], tolerance)


def check_layer_kernels(layer: DLR, K: np.ndarray, tolerance: float) -> None:
    kernels = jnp.stack(
        kernel(layer, K.shape[-1]) if layer.bidirectional else [kernel(layer, K.shape[-1])]
    )
    kernels = kernels.at[0, 0].add(-layer.D[...])  # the skip is no part of the official kernel
    assert_close(np.moveaxis(kernels, -1, -2), K, tolerance)
