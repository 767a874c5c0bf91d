from pathlib import Path

import pytest

COPIES = Path(__file__).parent
FAST = (
    "hippo",
    "s4_block_full_bidirectional",
    "s4_dplr_state_L30",
    "s4d_minimal",
    "s5_bidirectional",
    "s5_layer_half_glu1_prenorm_batchnorm",
    "s5_zoh",
    "dlr_dss_init",
    "dlr_layer_short_kernel_bidirectional",
    "dss_kernel_softmax",
    "sgconv_cat_bidirectional_L100",
    "hope_block_L33",
    "task_",
)
"""Beginnings of the names of the files that the fast tier checks: some of each family."""


def pytest_addoption(parser):
    parser.addoption(
        "--golden-dir",
        type=Path,
        default=COPIES,
        metavar="DIR",
        help="folder of reference files, all of which are checked (default: tests/golden)",
    )


def pytest_generate_tests(metafunc):
    if "golden_file" in metafunc.fixturenames:
        folder = metafunc.config.getoption("--golden-dir", default=COPIES)
        files = sorted(folder.glob("*.npz"))
        if not files:
            raise pytest.UsageError(f"--golden-dir: {folder.absolute()} holds no .npz files.")
        slow = pytest.mark.slow
        metafunc.parametrize(
            "golden_file",
            [
                pytest.param(f, id=f.stem, marks=[] if f.stem.startswith(FAST) else [slow])
                for f in files
            ],
        )
