"""The versions that are supported: the table here is what all other places quote."""

import importlib.metadata
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from s5jax._versions import check_versions

ROOT = Path(__file__).parents[1]
MATRIX = {
    "3.11": ("0.10.2", "0.12.8"),
    "3.12": ("0.12.0.1", "0.12.12"),
    "3.13": ("0.12.0.1", "0.12.12"),
}
"""For each Python, the newest JAX and Flax that it could install when this was written."""
BAD = [("0.11.1", "0.12.8"), ("0.11.2", "0.12.9"), ("0.12.0.1", "0.12.9")]
"""JAX and Flax of which ``import flax.nnx`` fails; all of them need Python 3.12."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def allows(name: str, version: str, python: str) -> bool:
    """Whether the metadata let a Python install a version of a package."""
    found = [Requirement(line) for line in PROJECT["dependencies"]]
    found = [each for each in found if each.name == name]
    here = [r for r in found if r.marker is None or r.marker.evaluate({"python_version": python})]
    assert len(here) == 1
    return version in here[0].specifier


@pytest.mark.parametrize("python", MATRIX)
def test_the_metadata_allow_the_matrix(python):
    jax, flax = MATRIX[python]
    assert python in SpecifierSet(PROJECT["requires-python"])
    assert f"Programming Language :: Python :: {python}" in PROJECT["classifiers"]
    assert allows("jax", jax, python)
    assert allows("flax", flax, python)
    check_versions(f"{python}.0", jax, flax)


def test_the_metadata_and_the_import_have_the_same_limits():
    assert not allows("jax", "0.9.2", "3.11")
    assert not allows("flax", "0.12.6", "3.11")
    assert allows("jax", "0.10", "3.11")
    assert allows("flax", "0.12.7", "3.11")
    assert "3.10" not in SpecifierSet(PROJECT["requires-python"])
    check_versions("3.11.0", "0.10.0", "0.12.7")
    check_versions("3.12.1", "0.13.0.dev20270101", "0.13.0")


@pytest.mark.parametrize(("jax", "flax"), BAD)
def test_bad_pairs_are_excluded(jax, flax):
    for python in ("3.12", "3.13"):
        assert not (allows("jax", jax, python) and allows("flax", flax, python))
    sentence = rf"s5jax: flax with jax {jax} must be 0.12.10 or newer; got {flax}: run: pip install"
    with pytest.raises(ImportError, match=re.escape(sentence)):
        check_versions("3.12.0", jax, flax)


def test_the_pages_and_the_workflow_quote_the_matrix():
    oldest, *newest = MATRIX
    sentence = (
        f"Python {oldest} with JAX 0.10, or Python {' and '.join(newest)} with the newest JAX"
    )
    assert sentence in " ".join((ROOT / "README.md").read_text().split())
    assert sentence in " ".join((ROOT / "docs/index.md").read_text().split())
    listed = re.search(r"python: \[(.*)\]", (ROOT / ".github/workflows/test.yml").read_text())
    assert re.findall(r"[\d.]+", listed.group(1)) == [oldest, newest[-1]]


def imported(folder: Path, code: str) -> str:
    """The last line that an import of s5jax prints, with files of a folder before all others."""
    code = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(ROOT)!r}]\n{code}\nimport s5jax"
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert failed.returncode == 1
    return failed.stderr.splitlines()[-1]


def test_an_old_python(tmp_path):
    code = "import platform; platform.python_version = lambda: '3.10.4'"
    sentence = "s5jax: Python must be 3.11 or newer; got 3.10.4: use a newer Python."
    assert imported(tmp_path, code) == f"ImportError: {sentence}"


def test_an_old_jax(tmp_path):
    (tmp_path / "jax.py").write_text("__version__ = '0.9.2'")
    sentence = "jax must be 0.10 or newer; got 0.9.2: run: pip install --upgrade jax flax."
    assert imported(tmp_path, "") == f"ImportError: s5jax: {sentence}"


def test_an_old_flax(tmp_path):
    folder = tmp_path / "flax-0.12.6.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: flax\nVersion: 0.12.6\n")
    sentence = r"s5jax: flax .*must be 0\.12\.\d+ or newer; got 0\.12\.6: run: pip install"
    assert re.match(f"ImportError: {sentence} --upgrade flax.", imported(tmp_path, ""))


def test_this_environment_is_supported():
    versions = [importlib.metadata.version(name) for name in ("jax", "flax")]
    check_versions(f"{sys.version_info[0]}.{sys.version_info[1]}", *versions)


def import_time(module: str) -> float:
    """Seconds that a new Python takes to start and to import a module."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True, cwd=ROOT)
    return time.perf_counter() - start


@pytest.mark.slow
@pytest.mark.alone
def test_importing_takes_little_more_than_flax():
    modules = ("flax.nnx", "s5jax")
    rounds = [[import_time(module) for module in modules] for _ in range(6)]
    flax, ours = map(min, zip(*rounds, strict=True))
    assert ours < 1.5 * flax
