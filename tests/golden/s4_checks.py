"""Checkers of the families ``s4*``."""

from collections import ChainMap

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from reference import Golden, assert_close, call, kernel, take, take_and_pass
from s5_checks import TOLERANCES

from s5jax import ResidualBlock
from s5jax.interop import s4_from_official, s4d_from_official, s4d_minimal_from_official
from s5jax.ops import fft_conv, pair_to_complex


def check_s4d_kernel(golden: Golden) -> None:
    (_, state, _), options = take_and_pass(
        golden.options,
        [s4d_from_official],
        C=1,
        state=False,
        init=None,  # drawn there, read here
    )
    for dtype, tolerance in TOLERANCES.items():
        for channel, C in enumerate(golden["C"]):
            arrays = ChainMap({"C": C[None]}, golden)
            layer = s4d_from_official(arrays, dtype=dtype, **options)
            assert_close(layer.raw_decay, golden["A_real_raw"], tolerance)
            assert_close(-layer.Lambda_im[...], golden["A_imag_raw"], tolerance)
            assert_close(layer.raw_step[:, None], golden["inv_dt_raw"], tolerance)
            coefficients = layer.coefficients()
            assert_close(coefficients.Lambda_bar, golden["dA"].ravel(), tolerance)
            assert_close(coefficients.B_bar, golden["dB"].ravel(), tolerance)
            check_kernel_and_steps(layer, golden, channel, tolerance)
            if state:
                check_state(layer, golden, channel, tolerance)


def check_kernel_and_steps(
    layer, golden: Golden, channel: int, tolerance: float, y_name: str = "y_step"
) -> None:
    K = golden["K"][channel].T
    assert_close(kernel(layer, len(K)), K, tolerance)
    u, y = (jnp.asarray(golden[name], layer.param_dtype) for name in ("u_step", y_name))
    assert_close(call(layer, u), y[..., channel, :], tolerance)
    assert_close(by_steps(layer, u)[0], y[..., channel, :], tolerance)


def check_state(layer, golden: Golden, channel: int, tolerance: float) -> None:
    u, K_state, state, last = (golden[n] for n in ("u_state", "K_state", "state0", "next_state"))
    u = jnp.asarray(np.moveaxis(u, -1, -2), layer.param_dtype)
    state = jnp.asarray(state).reshape(layer.init_state((len(u),)).shape)
    state = state.astype(layer.init_state().dtype)
    y, _ = call(layer, 0 * u, state=state, return_state=True)
    assert_close(y, np.moveaxis(K_state[:, channel], -1, -2), tolerance)
    for run in (by_steps, lambda m, u, s: call(m, u, state=s, return_state=True)):
        assert_close(run(layer, u, state)[1].reshape(last.shape), last, tolerance)


@jax.jit
def by_steps(layer, u, state=None):
    state = layer.init_state(u.shape[:-2]) if state is None else state
    state, y = jax.lax.scan(lambda x, u_t: layer.step(u_t, x)[::-1], state, jnp.moveaxis(u, -2, 0))
    return jnp.moveaxis(y, 0, -2), state


def check_s4d_block(golden: Golden) -> None:
    check_layer(golden, s4d_from_official)


def check_layer(golden: Golden, build) -> None:
    (full, l_max, _), options = take_and_pass(
        golden.options, [build], full=False, l_max=None, init=None
    )
    for dtype, tolerance in TOLERANCES.items():
        layer = build(golden, dtype=dtype, **options)
        if l_max is None:
            check_block(layer, golden, full, tolerance)
        else:
            check_short_kernels(layer, golden, l_max, full, tolerance)


def check_block(layer, golden: Golden, full: bool, tolerance: float) -> None:
    L = golden["K"].shape[-1]
    kernels = jnp.stack(kernel(layer, L) if layer.bidirectional else [kernel(layer, L)])
    kernels = kernels.at[0, 0].add(-layer.D[...])  # of the library's kernels, not of the official
    assert_close(np.moveaxis(kernels, -1, -2), golden["K"], tolerance)
    u = jnp.asarray(np.moveaxis(golden["u"], -1, -2), layer.param_dtype)
    y = call(layer, u)
    if "y_pre" in golden:
        assert_close(np.moveaxis(y, -1, -2), golden["y_pre"], tolerance)
    if full:
        y = output_map(layer, golden, y)
    assert_close(np.moveaxis(y, -1, -2), golden["y"], tolerance)


def output_map(layer, golden: Golden, x: jax.Array, activation="glu") -> jax.Array:
    """What the library's block does after its layer: exact GELU, a linear map and GLU, if named."""
    dtype = layer.param_dtype
    block = ResidualBlock(layer, activation=activation, param_dtype=dtype, rngs=nnx.Rngs(0))
    block.out2.kernel.set_value(jnp.asarray(golden["W_out"].T, dtype))
    block.out2.bias.set_value(jnp.asarray(golden["b_out"], dtype))
    return block._activate(x, None)


def check_s4d_minimal(golden: Golden) -> None:
    take(golden.options)
    for dtype, tolerance in TOLERANCES.items():
        layer = s4d_minimal_from_official(golden, dtype=dtype)
        K = kernel(layer, golden["K"].shape[-1]).at[0].add(-layer.D[...])
        assert_close(K.T, golden["K"], tolerance)
        y = call(layer, jnp.asarray(np.moveaxis(golden["u"], -1, -2), dtype))
        assert_close(np.moveaxis(y, -1, -2), golden["y_pre"], tolerance)
        y = output_map(layer, golden, y)
        assert_close(np.moveaxis(y, -1, -2), golden["y"], tolerance)


def check_s4_kernel(golden: Golden) -> None:
    (_, init, _, rank, state), options = take_and_pass(
        golden.options, [s4_from_official], C=1, init=None, l_max=None, rank=1, state=False
    )
    assert len(golden["P"]) == rank
    # Recovering C divides by what has decayed after l_kernel steps, little under Fourier.
    inverse = 1e-8 if init in ("fourier", "hippo") else 1e-9
    arrays = {name: golden[name] for name in ("dt", "A", "B", "P", "C_tilde", "l_kernel")}
    for channel, C in enumerate(golden["C"]):
        cut = arrays | {"C_tilde": golden["C_tilde"][channel][None]}
        recovered = s4_from_official(cut, dtype="float64", **options)
        assert_close(pair_to_complex(recovered.C[0]), C, inverse)
        for dtype, tolerance in TOLERANCES.items():
            one = ChainMap({"C": C[None]}, golden)
            layer = s4_from_official(one, dtype=dtype, **options)
            check_dense(layer, golden, channel, tolerance, max(tolerance, inverse))
            check_kernel_and_steps(layer, golden, channel, tolerance, "y_step_linear")
            u = jnp.asarray(golden["u_step"], dtype)
            for name in ("y_step_dense", "y_step_diagonal"):
                assert_close(call(layer, u), golden[name][..., channel, :], tolerance)
            for last in (by_steps(layer, u)[1], call(layer, u, return_state=True)[1]):
                assert_close(last, golden["state_step_linear"], tolerance)
            if state:
                check_state(layer, golden, channel, tolerance)
        cauchy = options | {"algorithm": "cauchy", "dtype": "float64"}
        layer = s4_from_official(one, **cauchy)
        K = golden["K"][channel].T
        assert_close(kernel(layer, len(K)), K)


def check_dense(layer, golden: Golden, channel: int, tolerance: float, inverse: float) -> None:
    """Dense matrices, from real and imaginary parts to states and their conjugates."""
    H, N = layer.d_model, layer.d_state
    ssm, h, I = jax.jit(lambda: layer.to_ssm())(), np.arange(layer.d_model), np.eye(N // 2)
    U = np.block([[I, 1j * I], [I, -1j * I]])
    A = np.asarray(ssm.A).reshape(H, N, H, N)[h, :, h]
    assert_close(U @ A @ np.linalg.inv(U), golden["dA"], tolerance)
    assert_close(np.asarray(ssm.B).reshape(H, N, H)[h, :, h] @ U.T, golden["dB"], tolerance)
    C = np.asarray(ssm.C).reshape(H, H, N)[h, h] @ np.linalg.inv(U)
    assert_close(C, golden["dC"][channel], inverse)


def check_s4_block(golden: Golden) -> None:
    check_layer(golden, s4_from_official)


def check_short_kernels(layer, golden: Golden, l_max: int, full: bool, tolerance: float) -> None:
    """The official layer cuts its kernels; ours never does, so they are cut here."""
    kernels = kernel(layer, l_max) if layer.bidirectional else (kernel(layer, l_max), None)
    forward, backward = kernels
    own = forward.at[0].add(-layer.D[...])
    K = np.stack([own] if backward is None else [own, backward])
    assert_close(np.moveaxis(K, -1, -2), golden["K"], tolerance)
    u = jnp.asarray(np.moveaxis(golden["u"], -1, -2), layer.param_dtype)
    y = fft_conv(u, forward, k_reverse=backward)
    y = output_map(layer, golden, y) if full else y
    assert_close(np.moveaxis(y, -1, -2), golden["y"], tolerance)
