"""The notebooks run from top to bottom, and both files of a pair hold the same cells."""

import os
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
SCRIPTS = sorted(FOLDER.glob("*.py"))
SLOW = {"04_time_series", "06_reinforcement_learning", "07_fine_tuning"}
"""Notebooks that train for more than half a minute."""


def marked(script: Path):
    """The script, as a slow one if it is."""
    return pytest.param(script, id=script.stem, marks=[pytest.mark.slow] * (script.stem in SLOW))


@pytest.mark.parametrize("script", [marked(script) for script in SCRIPTS])
def test_runs(script, tmp_path):
    environment = os.environ | {"MPLBACKEND": "agg"}
    finished = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_pair_agrees(script):
    texts = [
        [(cell.cell_type, cell.source) for cell in jupytext.read(path).cells]
        for path in (script, script.with_suffix(".ipynb"))
    ]
    assert texts[0] == texts[1], "Run `make notebooks`."
