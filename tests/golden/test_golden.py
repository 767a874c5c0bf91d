"""Every reference file of a folder, checked by the family that its ``meta`` names."""

from pathlib import Path

import jax
import numpy as np
import pytest
from atomic_checks import check_atomic
from dlr_checks import check_dlr_init, check_dlr_kernel, check_dlr_layer, check_dss_kernel
from hippo_checks import check_blocks, check_dplr, check_nplr, check_s4d, check_transitions
from hope_checks import check_hope_block, check_hope_minimal
from listops_checks import check_listops
from reference import Golden
from s4_checks import (
    check_s4_block,
    check_s4_kernel,
    check_s4d_block,
    check_s4d_kernel,
    check_s4d_minimal,
)
from s5_checks import check_layer, check_map
from segmentation_checks import check_segmentation
from sgconv_checks import check_sgconv

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
        with pytest.raises((AssertionError, ValueError)):
            check(tmp_path / "wrong.npz")


def test_an_unknown_family_fails(tmp_path):
    np.savez(tmp_path / "new.npz", meta='{"family": "mamba", "options": {}}')
    with pytest.raises(pytest.fail.Exception, match="no checker for family 'mamba' yet"):
        check(tmp_path / "new.npz")
