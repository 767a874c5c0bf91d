"""``results.json``: what a finished run found, and where; ``python -m experiments.results``."""

import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

Results = dict[str, Any]
PACKAGES = ("s5jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def read_results(workdir: Path) -> Results | None:
    """The results of a run, or None if it is not finished."""
    path = workdir / "results.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write_json(path: Path, values: Results) -> None:
    """Writes a file in one piece: whoever reads it finds all of it or nothing."""
    partial = path.with_name(path.name + ".tmp")
    partial.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def environment() -> Results:
    """Versions and the commit of this checkout."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"versions": {"python": platform.python_version(), **versions}, "commit": _commit()}


def device_name(mesh: Mesh) -> str:
    """For example ``"8 x NVIDIA H100"``."""
    return f"{mesh.size} x {mesh.devices.flat[0].device_kind}"


def _commit() -> str | None:
    """The commit, with ``-dirty`` after it if files differ; None outside a git checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


if __name__ == "__main__":
    from experiments.errors import run_command
    from experiments.ledger import main

    run_command(main)
