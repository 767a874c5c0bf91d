"""Every reference file of a folder, checked by the family that its ``meta`` names."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from atomic_checks import check_atomic
from dlr_checks import check_dlr_init, check_dlr_kernel, check_dlr_layer, check_dss_kernel
from hippo_checks import check_blocks, check_dplr, check_nplr, check_s4d, check_transitions
from hope_checks import check_hope_block, check_hope_minimal
from listops_checks import check_listops
from reference import Golden, call, kernel
from s4_checks import (
    check_s4_block,
    check_s4_kernel,
    check_s4d_block,
    check_s4d_kernel,
    check_s4d_minimal,
    output_map,
)
from s5_checks import check_layer, check_map
from segmentation_checks import check_segmentation
from sgconv_checks import check_sgconv

from s5jax.interop import hope_block_from_official, s4d_from_official, s5_block_from_official
from s5jax.ops import hope_transfer_function

CHECKERS = {
    "dlr_init": check_dlr_init,
    "dlr_kernel": check_dlr_kernel,
    "dlr_layer": check_dlr_layer,
    "dss_kernel": check_dss_kernel,
    "hippo": check_transitions,
    "hippo_nplr": check_nplr,
    "hippo_s4d": check_s4d,
    "hippo_s5": check_dplr,
    "hippo_s5_blocks": check_blocks,
    "hope_block": check_hope_block,
    "hope_ssm": check_hope_minimal,
    "s4_block": check_s4_block,
    "s4_dplr": check_s4_kernel,
    "s4d": check_s4d_kernel,
    "s4d_block": check_s4d_block,
    "s4d_minimal": check_s4d_minimal,
    "s5_layer": check_layer,
    "s5_ssm": check_map,
    "sgconv": check_sgconv,
    "task": check_atomic,
    "task_listops": check_listops,
    "task_pathfinder": check_segmentation,
}


def check(path):
    golden = Golden(path)
    if golden.family not in CHECKERS:
        pytest.fail(f"{path.name}: no checker for family {golden.family!r} yet", pytrace=False)
    with jax.enable_x64(True):
        CHECKERS[golden.family](golden)
    assert not golden.unread, "arrays that nothing was compared with"


def test_golden(golden_file):
    check(golden_file)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        "hippo_transition",
        "hippo_nplr_s4_legs",
        "hippo_s4d_init",
        "hippo_dplr_s5",
        "hippo_s5_blocks_conj",
        "s5_zoh",
        "s5_layer_half_glu1_prenorm_batchnorm",
        "s4_dplr_state_L30",
        "s4d_nssm2_state",
        "s4_block_full",
        "dlr_kernel_default",
        "dss_kernel_softmax",
        "dlr_layer_full_glu",
        "sgconv_full_glu",
        "hope_ssm_L50",
        "hope_block_L33",
        "task_context_shift",
        "task_masked_select",
        "task_mips",
        "task_solve",
    ],
)
def test_a_wrong_array_is_noticed(tmp_path, case):
    """Perturbs each array in turn, in one file of each family."""
    with np.load(Path(__file__).with_name(f"{case}.npz")) as file:
        arrays = {name: file[name] for name in file.files}
    for name in arrays.keys() - {"meta"}:
        wrong = arrays[name].copy()
        whole = np.issubdtype(wrong.dtype, np.integer)
        wrong.flat[-1] += 1 if whole else 1e-3 * (1 + np.abs(wrong).max())
        np.savez(tmp_path / "wrong.npz", **arrays | {name: wrong})
        with pytest.raises((AssertionError, ValueError)) as noticed:
            check(tmp_path / "wrong.npz")
        if isinstance(noticed.value, ValueError):  # refused before anything was compared
            assert re.match(rf"\w+_from_official: .*'{name}'", str(noticed.value))


def vary_s5(arrays, options):
    """A block that runs in both directions, by the bilinear rule, at half the rate."""
    C = np.concatenate([arrays["C_tilde"], 0.5 * arrays["C_tilde"].conj()], -1)
    own = {"bidirectional": True, "clip_eigs": True}
    arrays = arrays | {"C_tilde": C}
    names = {name: options[name] for name in ("activation", "prenorm")}
    block = s5_block_from_official(
        arrays, **names, **own, discretization="bilinear", dtype="float64"
    )
    y = call(block, arrays["u"], dt=2.0)
    return arrays | {"y": y}, own | {"disc": "bilinear", "step_rescale": 2.0}


def vary_s4d(arrays, options):
    """Other rules, of which one is seen in the outputs."""
    own = {"dt_transform": "softplus", "real_transform": "softplus"}
    layer = s4d_from_official(arrays, discretization="bilinear", dtype="float64", **own)
    K = kernel(layer, arrays["K"].shape[-1]).at[0].add(-layer.D[...])
    y = output_map(layer, arrays, call(layer, np.moveaxis(arrays["u"], -1, -2)))
    arrays = arrays | {"K": np.moveaxis(K, -1, -2)[None], "y": np.moveaxis(y, -1, -2)}
    return arrays, own | {"disc": "bilinear"}


def vary_hope(arrays, options):
    own = {"dt_transform": "softplus", "decay_exp": 0.25}
    layer = hope_block_from_official(arrays, dtype="float64", **own)
    revolutions = np.arange(arrays["K"].shape[-1]) / arrays["K"].shape[-1]
    theta = jnp.asarray(2 * np.pi * (revolutions - np.round(revolutions)))
    G = hope_transfer_function(*layer._system(), theta)
    y = call(layer, np.moveaxis(arrays["u"], -1, -2))
    made = {"y_pre": y, "y": output_map(layer, arrays, y), "K": G[None]}
    return arrays | {name: np.moveaxis(v, -1, -2) for name, v in made.items()}, own


@pytest.mark.parametrize(
    ("case", "vary", "seen"),
    [
        ("s5_layer_full_glu_prenorm", vary_s5, ["bidirectional", "disc", "step_rescale"]),
        pytest.param("s4d_block_full", vary_s4d, ["disc"], marks=pytest.mark.slow),
        pytest.param(
            "hope_block_L33", vary_hope, ["dt_transform", "decay_exp"], marks=pytest.mark.slow
        ),
    ],
)
def test_any_option_of_the_layer_may_be_in_a_file(tmp_path, case, vary, seen):
    """The outputs are the library's: this is about the way of the options only."""
    with np.load(Path(__file__).with_name(f"{case}.npz")) as file:
        arrays = {name: file[name] for name in file.files}
    meta = json.loads(str(arrays.pop("meta")))
    with jax.enable_x64(True):
        arrays, options = vary(arrays, meta["options"])

    def write(options):
        text = json.dumps(meta | {"options": meta["options"] | options})
        np.savez(tmp_path / "varied.npz", meta=text, **arrays)
        return tmp_path / "varied.npz"

    check(write(options))
    for name in seen:
        with pytest.raises((AssertionError, ValueError), match=r"differ|must have shape"):
            check(write({k: v for k, v in options.items() if k != name}))
    with pytest.raises(AssertionError, match=r"options that nothing takes: \['gate'\]"):
        check(write(options | {"gate": 2}))


def test_an_unknown_family_fails(tmp_path):
    np.savez(tmp_path / "new.npz", meta='{"family": "mamba", "options": {}}')
    with pytest.raises(pytest.fail.Exception, match="no checker for family 'mamba' yet"):
        check(tmp_path / "new.npz")
