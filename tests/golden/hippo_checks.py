"""Checkers of the families ``hippo*``."""

import numpy as np
from reference import Golden, assert_close

from s5jax.init import block_diagonal_hippo, dplr_hippo, hippo, hippo_rank_correction, nplr, s4d

SINGLE = 2e-6  # some official initialisers work in float32


def check_transitions(golden: Golden) -> None:
    N = golden.options["N"]
    for key, measure in golden.options["measures"].items():
        A, B = hippo(measure, N)
        assert_close(A, golden[f"A_{key}"])
        assert_close(B, golden[f"B_{key}"])
        assert_close(hippo_rank_correction(measure, N), golden[f"P_{key}"])


def phases(V: np.ndarray, golden: Golden) -> np.ndarray:
    """Eigenvectors are unique up to a phase each; these turn ours into the golden ones."""
    phase = np.sum(V.conj() * golden["V"], axis=0)
    assert_close(V * phase, golden["V"])
    return phase


def check_nplr(golden: Golden) -> None:
    measure, N, B_clip = (golden.options[name] for name in ("measure", "N", "B_clip"))
    Lambda, P, B, V = nplr(measure, N, B_clip=B_clip)
    phase = phases(V, golden)
    assert_close(phase.imag, np.zeros_like(Lambda.imag))
    assert_close(Lambda, golden["Lambda"])
    assert_close(P * phase.conj(), golden["P"])
    assert len(P) == golden.options["rank"]
    assert_close(B * phase.conj(), golden["B"])
    assert_close(nplr(measure, N, B_clip=None)[2] * phase.conj(), golden["B_unclipped"])
    A_dense, B_dense = hippo(measure, N)
    assert_close(A_dense, golden["A_dense"])
    assert_close(B_dense, golden["B_dense"])


def check_dplr(golden: Golden) -> None:
    N = golden.options["N"]
    Lambda, P, B, V = dplr_hippo(N)
    phase = phases(V, golden)
    assert_close(Lambda, golden["Lambda"])
    assert_close(P * phase.conj(), golden["P"])
    assert_close(B * phase.conj(), golden["B"])
    A_dense, B_dense = hippo("legs", N)
    assert_close(A_dense, golden["A_dense"])
    assert_close(B_dense, golden["B_orig"])


def check_blocks(golden: Golden) -> None:
    d_state, n_blocks, conj_sym = (golden.options[k] for k in ("ssm_size", "blocks", "conj_sym"))
    Lambda, V, V_inv = block_diagonal_hippo(d_state, n_blocks, conj_sym=conj_sym)
    phase = phases(V, golden)
    assert_close(Lambda, golden["Lambda"])
    assert_close(V_inv * phase.conj()[:, None], golden["Vinv"])


def check_s4d(golden: Golden) -> None:
    N, scales = golden.options["N"], dict(golden.options)
    B_scale, N = scales.pop("B_scale"), scales.pop("N")
    for method in ("lin", "inv", "inv2", "quad", "real"):
        Lambda, B = s4d(method, N)
        assert_close(Lambda, golden[f"A_{method}"])
        assert_close(B, golden[f"B_{method}"])
    Lambda, B = s4d("legs", N)
    assert_close(Lambda, golden["A_legs"], SINGLE)
    sign = np.sign(np.real(B.conj() * golden["B_legs"]))
    assert_close(B * sign, golden["B_legs"], SINGLE)
    Lambda, B = s4d("lin", N, B_scale=B_scale, **scales)
    assert_close(Lambda, golden["A_lin_scaled"])
    assert_close(B, golden["B_lin_scaled"])
    assert_close(s4d("lin", N, normalize=True)[1], golden["B_lin_normalized"])
    for B_init in ("alternating", "unit-cw", "unit-ccw"):
        B = s4d("lin", N, B_init=B_init)[1]
        assert_close(B, golden[f"B_{B_init.replace('-', '_')}"])
