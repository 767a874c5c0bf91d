"""The house: which package may import which, how large its parts are, what an import must not do.

Every rule is a function of ``code_graph`` that is called twice: on this project, where it must find
nothing, and on a small tree that breaks it, where it must find that.
"""

import subprocess
import sys
from pathlib import Path

import code_graph
import pytest
from code_graph import Tree, read_tree

ROOT = Path(__file__).parents[1]
PROJECT = read_tree(ROOT, "s5jax", "experiments")

LIBRARY_ORDER = (
    *("s5jax", "interop", "models", "layers", "init", "ops"),
    *("_promotion", "_errors", "_keep", "_versions"),
)
EXPERIMENTS_ORDER = (
    *(
        "commands",
        "cli",
        "evidence",
        "bench",
        "training",
        "recipes",
        "config",
        "tasks",
        "data",
        "devices",
    ),
    *("records", "files", "errors"),
)
"""Each room imports itself and those after it. A ``__main__`` is a command wherever it is, so that
``python -m experiments.data`` works and nothing in ``data`` knows of command lines."""
PURE = frozenset({"jax", "numpy", "scipy", "jaxtyping"})
LIBRARIES = {
    "ops": PURE,
    "init": PURE,
    "layers": PURE | {"flax"},
    # In a function, as they are no dependencies: huggingface_hub and jax2onnx.
    "models": PURE | {"flax", "safetensors", "huggingface_hub"},
    "interop": PURE | {"flax", "safetensors", "jax2onnx"},
}
"""What a package of s5jax may import besides the standard library."""
IMPURE = frozenset({"os", "io", "pathlib", "shutil", "subprocess", "tempfile"})
"""What ``ops`` and ``init``, pure functions on arrays, may not import of the standard library."""
MAX_FUNCTION, MAX_COMMAND, MAX_FILE = 60, 60, 400
LONGER = {
    "s5jax.layers._base": 444,
}
"""Files that are longer today. These numbers may fall, and end at the limit."""


def room_of_library(module: str) -> str:
    """A package of s5jax, or s5jax itself, which re-exports them."""
    return module.split(".")[1] if "." in module else module


def room_of_experiments(module: str) -> str | None:
    """A package or file of experiments, or ``commands``."""
    parts = module.split(".")
    if parts[0] != "experiments":
        return None
    if is_command(module):
        return "commands"
    return parts[1] if len(parts) > 1 else "errors"  # the package itself is empty


def is_command(module: str) -> bool:
    """Whether ``python -m`` runs it: a ``__main__``, or a file that is no room itself."""
    parts = module.split(".")
    if parts[0] != "experiments":
        return False
    return parts[-1] == "__main__" or (len(parts) == 2 and parts[1] not in EXPERIMENTS_ORDER)


def family(module: str) -> str | None:
    """The family of a task: a folder or a file beside ``_task``."""
    parts = module.split(".")
    is_task = parts[:2] == ["experiments", "tasks"] and len(parts) > 2 and parts[2] != "_task"
    return parts[2] if is_task else None


def may_read_flags(module: str) -> bool:
    """Command lines are read by ``cli`` and the commands."""
    return is_command(module) or f"{module}.".startswith("experiments.cli.")


def libraries_of(module: str) -> frozenset[str] | None:
    """What a module of s5jax may import."""
    room = room_of_library(module)
    if room not in LIBRARIES:
        return None
    impure = IMPURE if room in ("ops", "init") else frozenset()
    return LIBRARIES[room] | (sys.stdlib_module_names - impure)


def families_in(tree: Tree) -> list[str]:
    """Imports of a task from another family."""
    return [
        f"{tree.where(each.importer, each.line)}: imports {each.target}"
        for each in tree.imports
        if family(each.importer) and family(each.target)
        if family(each.importer) != family(each.target)
    ]


RULES = {
    "the library imports one way": lambda tree: code_graph.check_direction(
        only(tree, "s5jax"), LIBRARY_ORDER, room_of_library
    ),
    "experiments import one way": lambda tree: code_graph.check_direction(
        only(tree, "experiments"), EXPERIMENTS_ORDER, room_of_experiments
    ),
    "no circles": code_graph.find_circles,
    "the library knows no experiments": lambda tree: code_graph.check_rooms_of(
        only(tree, "s5jax"), {"experiments": lambda module: False}
    ),
    "only public names of the library": lambda tree: code_graph.check_public(tree, "s5jax"),
    "private files stay in their package": lambda tree: code_graph.check_private_files(
        only(tree, "experiments")
    ),
    "nothing imports a command": lambda tree: code_graph.check_not_imported(tree, is_command),
    "tasks of different families do not know each other": families_in,
    "the library's dependencies": lambda tree: code_graph.check_libraries(
        only(tree, "s5jax"), libraries_of
    ),
    "pure functions open no files": lambda tree: code_graph.check_calls(
        only(tree, "s5jax"),
        frozenset({"open", "print", "input"}),
        lambda module: room_of_library(module) in ("ops", "init"),
    ),
    "command lines and progress bars in their rooms": lambda tree: code_graph.check_rooms_of(
        tree,
        {
            "tyro": may_read_flags,
            "argparse": may_read_flags,
            "sys.argv": may_read_flags,
            "rich": lambda module: module == "experiments.training.display",
        },
    ),
    "short commands": lambda tree: code_graph.check_file_lengths(
        tree.only(is_command), MAX_COMMAND, {}
    ),
    "short functions": lambda tree: code_graph.check_function_lengths(tree, MAX_FUNCTION),
    "short files": lambda tree: code_graph.check_file_lengths(
        tree, MAX_FILE, LONGER if tree is PROJECT else {}
    ),
}


def only(tree: Tree, package: str) -> Tree:
    """The part of a tree that is in one package."""
    return tree.only(lambda module: module.split(".")[0] == package)


@pytest.mark.parametrize("rule", RULES)
def test_the_house_is_in_order(rule):
    assert RULES[rule](PROJECT) == []


LONG = "\n".join(["    x = 1"] * 61)
VIOLATIONS = [
    ("the library imports one way", {"s5jax/ops/_a.py": "from s5jax import init"}),
    ("the library imports one way", {"s5jax/ops/_a.py": "from ..layers._b import C"}),
    ("the library imports one way", {"s5jax/layers/_a.py": "import s5jax"}),
    ("the library imports one way", {"s5jax/_errors.py": "import s5jax._promotion as p"}),
    ("the library imports one way", {"s5jax/new/_a.py": ""}),
    ("experiments import one way", {"experiments/tasks/text.py": "import experiments.config"}),
    (
        "experiments import one way",
        {"experiments/tasks/text.py": "def f():\n    from experiments.training import fit"},
    ),
    (
        "experiments import one way",
        {
            "experiments/data/sources.py": "from typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    from experiments.tasks._task import Task"
        },
    ),
    ("experiments import one way", {"experiments/errors.py": "from . import files"}),
    ("experiments import one way", {"experiments/training/loop.py": "from ..cli import flags"}),
    ("experiments import one way", {"experiments/odd/loop.py": ""}),
    (
        "no circles",
        {"s5jax/ops/_a.py": "from s5jax.ops import _b", "s5jax/ops/_b.py": "from ._a import f"},
    ),
    (
        "no circles",
        {
            "experiments/tasks/__init__.py": "from experiments.tasks.text import T",
            "experiments/tasks/text.py": "def f():\n    from experiments.tasks import TASKS",
        },
    ),
    (
        "no circles",
        {
            "s5jax/layers/_base.py": "from s5jax.layers._devices import f",
            "s5jax/layers/_devices.py": "from typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    from s5jax.layers._base import Base",
        },
    ),
    ("no circles", {"s5jax/ops/_a.py": "import s5jax.ops._a"}),
    ("the library knows no experiments", {"s5jax/models/_a.py": "from experiments import errors"}),
    (
        "the library knows no experiments",
        {"s5jax/models/_a.py": "import importlib\nimportlib.import_module('experiments.errors')"},
    ),
    ("only public names of the library", {"experiments/errors.py": "import s5jax._errors"}),
    ("only public names of the library", {"experiments/errors.py": "from s5jax import _errors"}),
    ("only public names of the library", {"experiments/errors.py": "from s5jax.ops import _fft"}),
    (
        "only public names of the library",
        {"experiments/errors.py": "import s5jax\ns5jax.ops._scan.linear_scan()"},
    ),
    (
        "only public names of the library",
        {"experiments/errors.py": "from s5jax import ops as o\no._scan.linear_scan()"},
    ),
    (
        "private files stay in their package",
        {"experiments/training/loop.py": "from experiments.tasks._task import Task"},
    ),
    ("nothing imports a command", {"experiments/training/loop.py": "import experiments.train"}),
    ("nothing imports a command", {"experiments/train.py": "from experiments import evaluate"}),
    (
        "nothing imports a command",
        {"experiments/train.py": "from experiments.data.__main__ import main"},
    ),
    (
        "tasks of different families do not know each other",
        {"experiments/tasks/text.py": "from experiments.tasks.arrays.csv_files import read_csvs"},
    ),
    ("the library's dependencies", {"s5jax/ops/_a.py": "import flax"}),
    ("the library's dependencies", {"s5jax/init/_a.py": "from optax import adam"}),
    ("the library's dependencies", {"s5jax/layers/_a.py": "import optax"}),
    ("the library's dependencies", {"s5jax/ops/_a.py": "from os import environ"}),
    ("the library's dependencies", {"s5jax/init/_a.py": "def f():\n    import pathlib"}),
    ("pure functions open no files", {"s5jax/ops/_a.py": "def f():\n    open('x')"}),
    (
        "command lines and progress bars in their rooms",
        {"experiments/training/loop.py": "import tyro"},
    ),
    (
        "command lines and progress bars in their rooms",
        {"experiments/bench/suites.py": "from tyro.conf import arg"},
    ),
    ("command lines and progress bars in their rooms", {"s5jax/ops/_a.py": "import sys\nsys.argv"}),
    (
        "command lines and progress bars in their rooms",
        {"experiments/files.py": "import sys as system\nsystem.argv[1:]"},
    ),
    (
        "command lines and progress bars in their rooms",
        {"experiments/training/loop.py": "from sys import argv"},
    ),
    (
        "command lines and progress bars in their rooms",
        {"experiments/recipes/__main__.py": "from rich.table import Table"},
    ),
    ("short commands", {"experiments/train.py": "x = 1\n" * 61}),
    ("short commands", {"experiments/data/__main__.py": "x = 1\n" * 61}),
    ("short functions", {"s5jax/ops/_a.py": f'def f():\n    """Docstring."""\n{LONG}'}),
    ("short functions", {"experiments/errors.py": f"class A:\n  def f(self):\n{LONG}"}),
    ("short files", {"s5jax/ops/_a.py": "x = 1\n" * 401}),
]
"""A rule, and files that break it."""


@pytest.mark.parametrize(("rule", "files"), VIOLATIONS)
def test_what_breaks_a_rule_is_found(rule, files, tmp_path):
    assert len(RULES[rule](make_tree(tmp_path, files))) == 1


def test_every_rule_is_tried():
    assert {rule for rule, _ in VIOLATIONS} == set(RULES)


def make_tree(folder: Path, files: dict[str, str]) -> Tree:
    """A house in order, with some files replaced."""
    house = {
        "s5jax/__init__.py": "from s5jax.layers import S5 as S5\nfrom s5jax.ops import f as f",
        "s5jax/_errors.py": "import difflib",
        "s5jax/_promotion.py": "import functools, jax\nfrom s5jax._errors import check",
        "s5jax/ops/__init__.py": "from s5jax.ops._scan import f as f",
        "s5jax/ops/_scan.py": "import jax.numpy as jnp\nimport math",
        "s5jax/init/__init__.py": "from s5jax.ops import f",
        "s5jax/layers/__init__.py": "from s5jax.layers._s5 import S5 as S5",
        "s5jax/layers/_base.py": "from flax import nnx\nfrom s5jax import init",
        "s5jax/layers/_s5.py": "from . import _base\nfrom ._base import Base",
        "s5jax/models/_saving.py": "import os, safetensors\nfrom s5jax.layers import S5",
        "experiments/__init__.py": "",
        "experiments/errors.py": "",
        "experiments/files.py": "from . import errors",
        "experiments/data/sources.py": "import s5jax\ns5jax.ops.fft_conv",
        "experiments/data/__main__.py": "from experiments.cli.flags import read_flags",
        "experiments/tasks/__init__.py": "from experiments.tasks.text import T as T",
        "experiments/tasks/_task.py": "from experiments.data.sources import Source",
        "experiments/tasks/text.py": "from experiments.tasks._task import Task",
        "experiments/tasks/arrays/csv_files.py": "from experiments.tasks._task import Task",
        "experiments/config/__init__.py": "from experiments.tasks import T",
        "experiments/training/__init__.py": "from experiments.training.loop import fit as fit",
        "experiments/training/loop.py": "from experiments import config\nimport s5jax.ops",
        "experiments/training/display.py": "import rich.table",
        "experiments/cli/flags.py": "import tyro, sys\nsys.argv",
        "experiments/evaluate.py": "from experiments.cli import flags",
        "experiments/train.py": "from experiments.training import fit\nimport sys\nsys.argv",
    }
    for name, text in {**house, **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_tree(folder, "s5jax", "experiments")


@pytest.mark.parametrize("rule", RULES)
def test_a_house_in_order_breaks_no_rule(rule, tmp_path):
    assert RULES[rule](make_tree(tmp_path, {})) == []


def test_a_higher_limit_ends_when_it_is_not_needed(tmp_path):
    tree = make_tree(tmp_path, {"s5jax/ops/_scan.py": "x = 1\n" * 3})
    found = code_graph.check_file_lengths(tree, 5, {"s5jax.ops._scan": 9, "s5jax.ops._gone": 9})
    assert len(found) == 2


def test_constructors_and_docstrings_may_be_long(tmp_path):
    text = f'class A:\n  def __init__(self):\n{LONG}\n  def f(self):\n    """{LONG}\n    """\n'
    assert RULES["short functions"](make_tree(tmp_path, {"s5jax/ops/_a.py": text})) == []


def strangers(tests: Path, code: Path) -> list[str]:
    """Folders of tests that stand for no folder of the code."""
    folders = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")}
    return sorted(str(folder) for folder in folders if not (code / folder).is_dir())


def test_the_tests_mirror_the_code(tmp_path):
    assert strangers(ROOT / "tests" / "experiments", ROOT / "experiments") == []
    library = strangers(ROOT / "tests", ROOT / "s5jax")
    assert [name for name in library if name.split("/")[0] not in ("golden", "experiments")] == []
    for folder in ("tests/data", "tests/old/data", "code/data"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "test_a.py").touch()
    assert strangers(tmp_path / "tests", tmp_path / "code") == ["old/data"]


def modules_after(code: str) -> set[str]:
    """The modules that a new Python has loaded when it has run some code."""
    command = [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"]
    printed = subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    return set(printed.stdout.split())


HEAVY = {"tensorflow", "torch", "matplotlib", "grain", "numba", "tensorflow_datasets", "pyarrow"}
HEAVY |= {"soundfile", "scipy"}


def test_import_is_light():
    """No device is touched and no heavy library loaded."""
    code = (
        "import jax, s5jax\n"
        "assert not jax._src.xla_bridge._backends, 'a device was initialised'\n"
        "assert not jax.config.jax_enable_x64\n"
    )
    assert not HEAVY & modules_after(code)
    assert HEAVY & modules_after("import s5jax, matplotlib")


def test_fit_reads_no_command_line():
    """A notebook that trains loads neither the library of flags nor a command."""
    commands = set(filter(is_command, PROJECT.files))
    unwanted = {"tyro", "experiments.cli", "experiments.bench", *commands}
    assert not unwanted & modules_after("from experiments.training import fit")
    assert {"tyro", "experiments.cli", "experiments.train"} <= modules_after(
        "import experiments.train"
    )
