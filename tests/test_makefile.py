"""``make train`` installs for the accelerator of the machine, and runs the preset for it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
make = shutil.which("make")
pytestmark = pytest.mark.skipif(make is None, reason="needs make")


def plan(*arguments: str, cwd: Path = ROOT, path: str | None = None) -> subprocess.CompletedProcess:
    """What ``make`` would do, without doing it."""
    environment = {**outside_make(), "PATH": path or os.environ["PATH"]}
    command = [make, "--dry-run", f"PYTHON={sys.executable}", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def outside_make() -> dict[str, str]:
    """The environment, without what `make test` adds for a `make` inside of it."""
    theirs = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "ACCELERATOR", "ARGS")
    return {name: value for name, value in os.environ.items() if name not in theirs}


@pytest.fixture
def clone(tmp_path):
    """What ``make`` reads of a fresh clone."""
    for name in ("Makefile", "pyproject.toml", "experiments/devices/accelerator.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("accelerator", "extras", "command"),
    [
        ("none", "train", ".venv/bin/python -m experiments.train --task=pathx"),
        (
            "cuda",
            "train,cuda",
            "JAX_PLATFORMS=cuda .venv/bin/python -m experiments.train --task=pathx --preset=paper",
        ),
        (
            "tpu",
            "train,tpu",
            "JAX_PLATFORMS=tpu .venv/bin/python -m experiments.train --task=pathx --preset=paper",
        ),
    ],
)
def test_training(clone, accelerator, extras, command):
    lines = plan("train", f"ACCELERATOR={accelerator}", cwd=clone).stdout.splitlines()
    (install,) = [line for line in lines if " pip install " in line]
    assert install.endswith(f"--editable '.[{extras}]'")
    assert lines[-1].strip() == command


def test_options_come_last(clone):
    done = plan("train", "ACCELERATOR=cuda", "ARGS=--preset=smoke", cwd=clone)
    assert done.stdout.rstrip().endswith("--preset=paper --preset=smoke")


def test_a_gpu_is_found(clone):
    tools = clone / "bin"
    tools.mkdir()
    tool = tools / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-0)'\n")
    tool.chmod(0o755)
    done = plan("train", cwd=clone, path=f"{tools}:{os.environ['PATH']}")
    assert "'.[train,cuda]'" in done.stdout


@pytest.mark.parametrize("value", ["gpu", "cuda tpu", ""])
def test_an_unknown_accelerator(value):
    done = plan("train", f"ACCELERATOR={value}")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"ACCELERATOR must be cuda, tpu or none; got '{value}'" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("stamps", "fresh"),
    [([], True), (["cuda-venv"], True), (["none-python3.13"], True), (["none-venv"], False)],
)
def test_another_accelerator_or_python_starts_afresh(clone, stamps, fresh):
    """What make compares are the stamps of an environment; here `venv` and `pip` write nothing."""
    python = clone / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to("/bin/true")
    calls = clone / "calls"
    venv = clone / "venv"
    venv.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    venv.chmod(0o755)
    for name in (".train", *(f".for-{stamp}" for stamp in stamps)):
        (clone / ".venv" / name).touch()
    command = [make, ".venv/.train", "ACCELERATOR=none", f"PYTHON={venv}"]
    done = subprocess.run(
        command, cwd=clone, env=outside_make(), check=True, capture_output=True, text=True
    )
    assert ("pip install" in done.stdout) == fresh
    assert calls.exists() == (bool(stamps) and fresh)
    if calls.exists():
        assert calls.read_text() == "-m venv --clear .venv\n"


def test_the_release_check_tests_what_it_built(clone):
    lines = plan("release-check", "ACCELERATOR=none", cwd=clone).stdout.splitlines()
    (install,) = [line for line in lines if " pip install " in line]
    assert install.endswith("--editable '.[release]'")
    assert [line.split(".venv/bin/python -m ")[-1] for line in lines[-3:]] == [
        "build --outdir dist",
        "twine check --strict dist/*",
        "pytest tests/test_wheel.py ",
    ]


def test_the_report_installs_the_tests_for_the_gpu(clone):
    lines = plan("gpu-report", "ACCELERATOR=cuda", cwd=clone).stdout.splitlines()
    (install,) = [line for line in lines if " pip install " in line]
    assert install.endswith("--editable '.[test,cuda]'")
    report = ".venv/bin/python -m experiments.bench --suite=gpu --json=results/bench/gpu.json"
    assert lines[-1].strip() == report
