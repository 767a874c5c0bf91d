from pathlib import Path

import pytest

COPIES = Path(__file__).parent


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
        metafunc.parametrize("golden_file", files, ids=[f.stem for f in files])
