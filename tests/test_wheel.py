"""The wheel: what is in it, and what its commands do in environments with nothing else.

An installation takes a minute, and downloads its packages.
"""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import s5jax
import s5jax_experiments

ROOT = Path(__file__).parents[1]
MAX_WHEEL = 2_000_000
"""Bytes; it had 1,060,000 when this was written, half of them trained models."""


def call(*command, cwd=ROOT):
    """Runs a command in an environment without the paths of this one."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command = [str(word) for word in command]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def done(*command, cwd=ROOT):
    """Runs a command that must succeed, and returns its output."""
    result = call(*command, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the wheel and the archive of its sources, from which it was built."""
    folder = tmp_path_factory.mktemp("dist")
    done(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def library(wheel, tmp_path_factory):
    """The programs of an environment with the library alone."""
    return install(tmp_path_factory.mktemp("library"), wheel)


@pytest.fixture(scope="module")
def complete(wheel, tmp_path_factory):
    """The programs of an environment with the extra train."""
    return install(tmp_path_factory.mktemp("complete"), f"{wheel}[train]")


def install(folder, requirement):
    done(sys.executable, "-m", "venv", folder)
    done(folder / "bin/python", "-m", "pip", "install", "--quiet", requirement)
    return folder / "bin"


def sources(package):
    """The files of a package in this checkout."""
    paths = [p for p in (ROOT / package).rglob("*") if "__pycache__" not in p.parts]
    return {str(path.relative_to(ROOT)) for path in paths if path.is_file()}


@pytest.mark.slow
def test_contents(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    ours = sources("s5jax") | sources("s5jax_experiments")
    assert names == ours | {f"s5jax_experiments/{name}" for name in sources("experiments")}
    assert "s5jax/py.typed" in names
    assert wheel.stat().st_size < MAX_WHEEL


@pytest.mark.slow
def test_metadata(wheel):
    archive = zipfile.ZipFile(wheel)
    folder = f"s5jax-{s5jax.__version__}.dist-info"
    names = {n.removeprefix(folder) for n in archive.namelist() if n.startswith(folder)}
    assert {"/METADATA", "/entry_points.txt", "/licenses/LICENSE"} <= names
    assert "s5jax = s5jax_experiments:main" in archive.read(f"{folder}/entry_points.txt").decode()


@pytest.mark.slow
def test_archive_of_sources(built):
    (path,) = built.glob("*.tar.gz")
    names = {name.partition("/")[2] for name in tarfile.open(path).getnames()}
    assert sources("s5jax") | sources("experiments") | sources("s5jax_experiments") <= names
    rest = {n for n in names if not n.startswith(("s5jax/", "s5jax_experiments/", "experiments/"))}
    files = {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "pyproject.toml"}
    assert rest == files | {"PKG-INFO", ".gitignore"}


def test_the_version_has_one_place():
    assert version("s5jax") == s5jax.__version__
    for name in ("pyproject.toml", "CITATION.cff"):
        assert s5jax.__version__ not in (ROOT / name).read_text()


@pytest.mark.slow
def test_the_library_alone(library, tmp_path):
    code = (
        "import jax.numpy as jnp, s5jax; from flax import nnx; "
        "print(s5jax.S5(d_model=4, d_state=8, rngs=nnx.Rngs(0))(jnp.ones((2, 9, 4))).shape)"
    )
    assert done(library / "python", "-c", code, cwd=tmp_path) == "(2, 9, 4)\n"
    assert "bench" in done(library / "s5jax", "--help", cwd=tmp_path)
    failed = call(library / "s5jax", "train", "--task=digits", cwd=tmp_path)
    sentence = (
        r"s5jax train needs packages that are not installed \(grain, .* and \d+ more\): install "
        r"them with: pip install 's5jax\[train\]'\n"
    )
    assert failed.returncode == 2
    assert re.fullmatch(sentence, failed.stderr)


@pytest.mark.slow
def test_pretrained_models(library, tmp_path):
    code = "import s5jax as s; [print(n, bool(s.load_pretrained(n))) for n in s.list_pretrained()]"
    output = done(library / "python", "-c", code, cwd=tmp_path)
    assert output.splitlines() == [f"{name} True" for name in s5jax.list_pretrained()]


@pytest.mark.slow
def test_commands(complete, tmp_path):
    (tmp_path / "experiments").mkdir()  # of the user, whose name does not collide
    (tmp_path / "experiments" / "__init__.py").write_text("raise ImportError('of the user')")
    output = done(complete / "s5jax", "train", "--task=digits", "--preset=smoke", cwd=tmp_path)
    assert "test loss" in output
    workdir = tmp_path / "runs/digits-s5-smoke-seed0"
    output = done(complete / "s5jax", "evaluate", f"--workdir={workdir}", cwd=tmp_path)
    assert "These are the figures in results.json." in output
    code = "import s5jax_experiments; import experiments.training; print(experiments.__file__)"
    found = done(complete / "python", "-I", "-c", code, cwd=tmp_path)
    assert "s5jax_experiments/experiments/__init__.py" in found


@pytest.mark.slow
@pytest.mark.parametrize("name", s5jax_experiments.COMMANDS)
def test_every_command_has_help(name, complete, tmp_path):
    text = done(complete / "s5jax", name, "--help", cwd=tmp_path)
    assert text.startswith(f"usage: s5jax {name}")
    assert "python -m" not in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["data", "prepar"], "Unknown command 'prepar': the usage is s5jax data sample|prepare"),
        (["bench", "--suite=gpu"], "which a wheel does not carry: run `make gpu-report` in a"),
    ],
)
def test_errors(args, sentence, complete, tmp_path):
    failed = call(complete / "s5jax", *args, cwd=tmp_path)
    assert failed.returncode == 2
    assert sentence in failed.stderr


@pytest.mark.slow
def test_processes_of_a_command_find_the_wheel(complete, tmp_path):
    """The benchmark measures memory in new processes."""
    code = (
        "import sys, s5jax_experiments as command; sys.argv = ['s5jax', 'results', '--help']\n"
        "try: command.main()\n"
        "except SystemExit: pass\n"
        "import subprocess\n"
        "subprocess.run([sys.executable, '-m', 'experiments.results', '--help'], check=True)"
    )
    assert "usage: python -m experiments.results" in done(
        complete / "python", "-I", "-c", code, cwd=tmp_path
    )


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ([], 0, "usage: s5jax COMMAND"),
        (["--help"], 0, "usage: s5jax COMMAND"),
        (["trian"], 2, "Unknown command 'trian': choose from train, .*Did you mean 'train'\\?"),
    ],
)
def test_other_command_lines(args, code, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["s5jax", *args])
    try:
        s5jax_experiments.main()
        left = 0
    except SystemExit as leaving:
        left = leaving.code
    out, err = capsys.readouterr()
    assert left == code
    assert re.match(words, err if code else out)


def test_help_imports_nothing_heavy():
    code = "import sys, s5jax_experiments as c; c.main(); print({'jax', 'tyro'} & set(sys.modules))"
    assert done(sys.executable, "-c", code).endswith("set()\n")


def test_commands_are_files():
    for name in s5jax_experiments.COMMANDS:
        file = f"{name}/__main__.py" if name in s5jax_experiments.PACKAGES else f"{name}.py"
        assert (ROOT / "experiments" / file).is_file()


def test_a_command_of_the_checkout(tmp_path, monkeypatch, capsys):
    """An editable installation has the same command, which runs the files of the checkout."""
    monkeypatch.setattr(sys, "argv", ["/bin/s5jax", "recipes", "--task=digits", "--model=s5"])
    monkeypatch.setattr(s5jax_experiments, "missing_packages", list)
    s5jax_experiments.main()
    assert "experiments/recipes/pixels.py" in capsys.readouterr().out
    assert not s5jax_experiments.INSTALLED
