"""The JSON files of a run: its results and its environment."""

import importlib.metadata
import json
import math
import os
import platform
import reprlib
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from experiments.errors import UsageError, blaming_file, shorten
from experiments.files import replacing

Results = dict[str, Any]
MAX_JSON = 2**20
MEASURES_IN_LINE = 6
KINDS: dict[str, Any] = {
    **{"task": str, "model": str, "preset": str, "seed": int, "validation": dict, "test": dict},
    **{"wall_s": float | int, "device": str, "commit": str | None},
}
"""Fields of ``results.json`` that its readers rely on."""
PACKAGES = ("s5jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def read_results(workdir: Path) -> Results | None:
    """Reads the results of a run; returns None if the run is not finished.

    Raises:
        UsageError: if the file holds something else.
    """
    path = workdir / "results.json"
    if not path.is_file():
        return None
    try:
        results = read_json(path)
        with blaming_file(path, "record of a finished run"):
            _check_results(results)
    except UsageError as error:
        raise UsageError(f"{error} Delete it: the run then resumes from its checkpoints.") from None
    return results


def _check_results(results: Any) -> None:
    values = {name: results.get(name) for name in KINDS}
    kinds = dict(KINDS)
    for split in ("validation", "test"):
        for name, value in dict(values[split] or {}).items():
            values[f"{split}.{name}"], kinds[f"{split}.{name}"] = value, float | int
    for name, kind in kinds.items():
        if not isinstance(values[name], kind):
            raise ValueError(f"`{name}` is {reprlib.repr(values[name])}")


def read_json(path: Path) -> Any:
    """Reads a JSON file of a run; such files are small.

    Raises:
        UsageError: if it is too large or not valid; NaN and Infinity are not valid in JSON.
    """
    with blaming_file(path, "JSON file of a run"):
        if path.stat().st_size > MAX_JSON:
            raise ValueError(f"it is larger than {MAX_JSON:,} bytes")
        return parse_json(path.read_text(encoding="utf-8"))


def parse_json(text: str) -> Any:
    """Parses JSON as ``json.loads`` does, but refuses NaN, Infinity and numbers that overflow.

    Raises:
        ValueError: if the text is not valid JSON.
    """

    def number(text: str) -> float:
        if not math.isfinite(value := float(text)):
            raise ValueError(f"{shorten(text, 40)} is not valid JSON")
        return value

    try:
        return json.loads(text, parse_float=number, parse_constant=number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def write_json(path: Path, values: Results) -> None:
    """Writes a file in one piece: a reader finds the whole file or none."""
    with replacing(path) as file:
        file.write(json.dumps(values, indent=2) + "\n")


def environment(mesh: Mesh | None = None) -> Results:
    """Returns what the numbers of a run may depend on besides its configuration.

    These are versions and the commit of this checkout; with a mesh also its devices, the number of
    processes and the flags of XLA.
    """
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    found = {"versions": {"python": platform.python_version(), **versions}, "commit": _commit()}
    if mesh is None:
        return found
    return {
        "device": device_name(mesh),
        "processes": jax.process_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        **found,
    }


def describe_changed_environment(workdir: Path, now: Results) -> str:
    """Describes how `environment` differs from the run's ``config.json``; empty if it does not."""
    path = workdir / "config.json"
    before = read_json(path).get("environment") if path.is_file() else None
    changes = list_changes(before, now) if isinstance(before, Mapping) else []
    if not changes:
        return ""
    return f"Environment changed since this run last started: {', '.join(changes)}."


def list_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Lists common entries that differ, such as ``"device 8 x cpu (was 1 x cpu)"``."""
    found = []
    for name in now.keys() & before.keys():
        old, new = before[name], now[name]
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += list_changes(old, new)
        elif old != new:
            found.append(f"{name} {shorten(new, 100)} (was {shorten(old, 100)})")
    return sorted(found)


def device_name(mesh: Mesh) -> str:
    """Returns number and kind of the devices, such as ``"8 x NVIDIA H100"``."""
    return f"{mesh.size} x {mesh.devices.flat[0].device_kind}"


def _commit() -> str | None:
    """Returns the commit, with "-dirty" if files differ; None outside a checkout."""
    checkout = Path(__file__).parents[1]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    options: dict[str, Any] = {"capture_output": True, "text": True, "check": True}
    try:
        return subprocess.run(command, cwd=checkout, **options).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def describe_results(results: Results) -> str:
    """Returns the figures of a run: in one line, or in a table if there are many."""
    validation, test = results["validation"], results["test"]
    run = f"{results['task']}, {results['model']}, seed {results['seed']}"
    if len(test) > MEASURES_IN_LINE:
        rows = [("", "validation", "test")]
        rows += [(name, f"{validation[name]:.4f}", f"{test[name]:.4f}") for name in test]
        return "\n".join([f"{run}:", *(f"{a:<18}{b:>12}{c:>12}" for a, b, c in rows)])
    figures = "; ".join(
        f"{split} " + ", ".join(f"{name} {value:.4f}" for name, value in values.items())
        for split, values in (("validation", validation), ("test", test))
    )
    return f"{run}: {figures}."
