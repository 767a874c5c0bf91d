"""Which accelerator this machine has, without JAX: ``make`` runs this file before it installs."""

import shutil
import subprocess
from pathlib import Path

GOOGLE = "0x1ae0"
TPUS = {"0x0027", "0x0056", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076"}
"""PCI numbers of TPUs; Google's network cards have the same vendor."""


def find_accelerator(root: Path = Path("/")) -> str:
    """Returns the accelerator of this machine: ``"cuda"``, ``"tpu"`` or ``"none"``.

    Args:
        root: folder in which ``dev`` and ``sys`` are.
    """
    if _has_nvidia_gpu() or (root / "dev/nvidia0").exists():
        return "cuda"
    for vendor in root.glob("sys/bus/pci/devices/*/vendor"):
        device = vendor.with_name("device")
        if vendor.read_text().strip() == GOOGLE and device.read_text().strip() in TPUS:
            return "tpu"
    return "none"


def _has_nvidia_gpu() -> bool:
    """Returns whether NVIDIA's tool lists a GPU; it can be installed where there is none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return False
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True)
    return listed.returncode == 0 and listed.stdout.startswith("GPU ")


if __name__ == "__main__":
    print(find_accelerator())
