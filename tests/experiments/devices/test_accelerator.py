import subprocess
import sys
from pathlib import Path

import pytest

from experiments.devices import accelerator
from experiments.devices.accelerator import find_accelerator


@pytest.fixture
def listed(monkeypatch, tmp_path):
    """Puts a program in the place of ``nvidia-smi``, and nothing else on the path."""

    def install(script: str) -> None:
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path))
    return install


def pci(root: Path, vendor: str, device: str) -> None:
    folder = root / f"sys/bus/pci/devices/{device}"
    folder.mkdir(parents=True)
    (folder / "vendor").write_text(f"{vendor}\n")
    (folder / "device").write_text(f"{device}\n")


def test_a_machine_without(listed, tmp_path):
    assert find_accelerator(tmp_path) == "none"


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("echo 'GPU 0: NVIDIA H200 (UUID: GPU-0)'", "cuda"),
        ("echo 'No devices found.'", "none"),
        ("echo 'GPU 0'; exit 9", "none"),
    ],
)
def test_what_nvidias_tool_lists(listed, tmp_path, script, found):
    listed(script)
    assert find_accelerator(tmp_path) == found


def test_a_gpu_without_the_tool(listed, tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    assert find_accelerator(tmp_path) == "cuda"


def test_a_tpu(listed, tmp_path):
    pci(tmp_path, "0x1ae0", "0x0042")  # a network card
    pci(tmp_path, "0x10de", "0x0063")
    assert find_accelerator(tmp_path) == "none"
    pci(tmp_path, "0x1ae0", "0x006f")
    assert find_accelerator(tmp_path) == "tpu"


def test_it_runs_before_anything_is_installed(listed):
    command = [sys.executable, "-I", "-S", accelerator.__file__]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.strip() in ("cuda", "tpu", "none")
