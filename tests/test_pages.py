"""The pages of the documentation: their code runs, their commands, links and figures are right."""

import importlib
import itertools
import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tomllib
import types
from pathlib import Path
from typing import NamedTuple

import figures
import offline_wandb
import processes
import pytest
from markdown_it import MarkdownIt

import s5jax
from experiments.bench.suites import BenchFlags
from experiments.cli import finished, runs
from experiments.cli.flags import read_flags
from experiments.errors import UsageError
from experiments.recipes.__main__ import ListFlags
from experiments.results import LedgerFlags

ROOT = Path(__file__).parents[1]
SOURCES = [p for p in (ROOT / "docs").rglob("*.md") if not {"_build", "notebooks"} & set(p.parts)]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(SOURCES)]
SLOW = {"export.md", "own_data.md", "own_layer.md", "plain_jax.md", "programs.md", "pytorch.md"}
SLOW |= {"forecasting.md", "pretrained.md", "saving.md", "sequences.md", "streaming.md"}
"""Pages whose Python takes more than a few seconds, most of them to compile."""
NOT_RUN = {"bench", "data prepare"}
"""Commands that take minutes, or need the internet; their flags are read."""


class Block(NamedTuple):
    """A block of code: its language, its text, and the line before it."""

    language: str
    text: str
    line: int


class Command(NamedTuple):
    """``python -m experiments.NAME ARGS``, or ``s5jax NAME ARGS``."""

    name: str
    args: list[str]


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page; an indented one is commands."""
    return [
        Block("bash" if token.type == "code_block" else token.info, token.content, token.map[0] + 1)
        for token in MarkdownIt().parse(page.read_text())
        if token.type in ("fence", "code_block") and not token.info.startswith("{")
    ]


def command_of(line: str) -> Command | None:
    """The command of this project in a line of a shell, if there is one."""
    words = shlex.split(line.removesuffix("&"), comments=True)
    if words[:1] == ["s5jax"] and words[1] != "--help":
        words = ["python", "-m", f"experiments.{words[1]}", *words[2:]]
    for i, word in enumerate(words):
        if word.startswith("experiments.") and words[i - 1] == "-m":
            name, args = word.removeprefix("experiments."), words[i + 1 :]
            return Command(f"data {args[0]}", args[1:]) if name == "data" else Command(name, args)
    return None


def commands_of(block: Block) -> list[Command]:
    """The commands of this project in a block of a shell."""
    return [found for line in block.text.splitlines() if (found := command_of(line))]


def name_of(page: Path) -> str:
    """The name of a page in the repository."""
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_languages(page):
    assert {block.language for block in blocks_of(page)} <= {"python", "bash", "text"}


def read_command(command: Command) -> None:
    """Reads the flags of a command, and runs nothing."""
    parsers = {"train": runs.parse_train, "plan": runs.parse_plan}
    parsers |= {"data sample": runs.parse_sample, "data prepare": runs.parse_prepare}
    flags = {"evaluate": finished.EvaluateFlags, "predict": finished.PredictFlags}
    flags |= {"generate": finished.GenerateFlags, "bench": BenchFlags}
    flags |= {"export": finished.ExportFlags, "stream": finished.StreamFlags}
    flags |= {"results": LedgerFlags, "recipes": ListFlags}
    if command.name in parsers:
        parsers[command.name](command.args)
    else:
        read_flags(flags[command.name], args=command.args, use_underscores=True)


def check_line(line: str) -> None:
    """Checks a line of a shell: this project's commands, make, pip, venv and pytest."""
    words = shlex.split(line, comments=True)
    if command := command_of(line):
        read_command(command)
    elif words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets, f"no target {words[1]}"
    elif words[0].endswith("pip"):
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        named = re.findall(r"[\w-]+", words[-1].partition("[")[2])
        assert set(named) <= set(extras["optional-dependencies"]), f"no extra among {named}"
    elif words[1:3] == ["-m", "pytest"]:
        missing = [w for w in words[3:] if not (w.startswith("-") or (ROOT / w).exists())]
        assert missing == [], "no such tests"
    else:
        assert words[1:3] == ["-m", "venv"], "no command that is known here"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist(page, monkeypatch):
    monkeypatch.setattr(runs.TrainSelection, "connect", lambda flags: None)
    for block in blocks_of(page):
        lines = block.text.splitlines()
        if block.language == "text":  # an output, or a script for other machines
            lines = [line for line in lines if command_of(line) and "..." not in line]
        elif block.language != "bash":
            continue
        for line in lines:
            if line.strip() and "--help" not in line:
                check_line(line)


@pytest.mark.parametrize(
    ("line", "error", "words"),
    [
        ("make trian", AssertionError, "no target trian"),
        ("pip install -e '.[tarin]'", AssertionError, "no extra"),
        ("python -m pytest tests/nowhere", AssertionError, "no such tests"),
        ("pip install 's5jax[tarin]'", AssertionError, "no extra"),
        ("s5jax trian --task=pathx", KeyError, "trian"),
        ("curl example.com", AssertionError, "no command"),
        ("python -m experiments.trian --task=pathx", KeyError, "trian"),
        ("srun python -m experiments.train --task=pathx --model.d_sate=8", UsageError, "d_state"),
        ("python -m experiments.bench --suit=ci", SystemExit, "2"),
    ],
)
def test_what_is_wrong_is_found(line, error, words):
    with pytest.raises(error, match=words):
        check_line(line)


def test_a_page_that_fails_names_its_line(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```python\nx = 1\n```\n\n- item\n\n  ```python\n  x / 0\n  ```\n")
    with pytest.raises(ZeroDivisionError) as error:
        run_page(page, commands=False)
    assert error.traceback[-1].lineno + 1 == 10


def shrink(command: Command) -> list[str]:
    """The arguments of a command, for a run of the preset smoke."""
    run_folder = "-(cpu|paper)(-masked|-causal)?-seed"
    args = [re.sub(run_folder, r"-smoke\2-seed", arg) for arg in command.args]
    if command.name in ("train", "plan", "data sample") and "--help" not in args:
        args = [arg for arg in args if not arg.startswith("--preset=")] + ["--preset=smoke"]
    if command.name == "train" and "--help" not in args:
        flags = runs.parse_train(args)  # a finished run would only report its results
        run = flags.configs()[0].run_name
        shutil.rmtree(flags.workdir or f"runs/{run}", ignore_errors=True)
    return args


def run_command(command: Command) -> None:
    """Runs a command in the current folder."""
    args = shrink(command)
    devices = 8 if any(arg.startswith("--mesh") for arg in args) else 1
    environment = {"PYTHONPATH": str(ROOT), "XLA_FLAGS": processes.flags(devices)}
    module, *subcommand = command.name.split()
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{module}", *subcommand, *args],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"


def run_page(page: Path, *, commands: bool) -> None:
    """Runs the blocks of a page in their order; those of Python share one namespace."""
    names = {"__name__": "__main__"}
    for block in blocks_of(page):
        if block.language == "python":
            code = "\n" * block.line + block.text
            exec(compile(code, page, "exec"), names)
        elif block.language == "bash" and commands:
            for command in commands_of(block):
                if command.name not in NOT_RUN:
                    run_command(command)


def pages_with(language: str) -> list[Path]:
    """Pages with code of a language."""
    return [p for p in PAGES if any(block.language == language for block in blocks_of(p))]


def runs_commands(page: Path) -> bool:
    """Whether a page has commands that can run here."""
    found = itertools.chain.from_iterable(
        commands_of(block) for block in blocks_of(page) if block.language == "bash"
    )
    return any(command.name not in NOT_RUN for command in found)


def marked(page: Path):
    """The page, as a slow one if it is."""
    return pytest.param(page, marks=[pytest.mark.slow] * (page.name in SLOW))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder, in a process that has wandb."""
    monkeypatch.setitem(sys.modules, "wandb", offline_wandb)
    monkeypatch.chdir(tmp_path)
    return tmp_path


IN_TEST_COMMANDS = [page for page in PAGES if page.name in SLOW and runs_commands(page)]


@pytest.mark.parametrize(
    "page", [marked(p) for p in pages_with("python") if p not in IN_TEST_COMMANDS], ids=name_of
)
@pytest.mark.usefixtures("folder")
def test_python(page):
    run_page(page, commands=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if runs_commands(page)], ids=name_of)
def test_commands(page, folder):
    (folder / "results").symlink_to(ROOT / "results")
    run_page(page, commands=True)


def public(module: types.ModuleType) -> set[str]:
    """The names that a package exports."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }


PACKAGES = ["s5jax", *(f"s5jax.{name}" for name in ("layers", "models", "ops", "init", "interop"))]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_a_reference(package):
    documented, module = set(), ""
    for page in sorted((ROOT / "docs/reference").glob("*.md")):
        for directive, name in re.findall(r"^\.\. (\w+):: (\S+)", page.read_text(), re.MULTILINE):
            if directive == "currentmodule":
                module = name
            else:
                documented.add(f"{module}.{name}")
    names = public(importlib.import_module(package))
    assert names
    assert {n for n in names if not {f"{package}.{n}", f"s5jax.{n}"} & documented} == set()


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links(page):
    """Sphinx checks those of all other pages."""
    for link in re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text()):
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_figures_of_forecasting():
    page = (ROOT / "docs/forecasting.md").read_text()
    runs = [json.loads(path.read_text()) for path in ROOT.glob("results/forecast-*/*.json")]
    assert len(runs) == 5

    def cell(measure: str, split: str = "test") -> str:
        values = [run[split][measure] for run in runs]
        return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}".removesuffix(
            " ± 0.000"
        )

    for name in ("mse", "mae", "mse_units", "mae_units"):
        cells = [cell(name + naive) for naive in ("", "_last", "_season")]
        assert f"| `{name}` | {' | '.join(cells)} |" in page
    assert f"the model\n{cell('mse', 'validation')}" in page


def test_figures_of_stacks():
    page = (ROOT / "docs/training.md").read_text()
    rows = list(figures.stack_rows())
    assert len(rows) == 4
    assert [row for row in rows if row not in page] == []


def test_figures_of_pretrained_models():
    page = (ROOT / "docs/pretrained.md").read_text()
    found = re.findall(r"^\| `(.*?)` \|.*\| (\S+ \S+) \|$", page, re.MULTILINE)
    models = s5jax.list_pretrained().items()
    assert found == [(name, f"{facts['metric']} {facts['test']:.4f}") for name, facts in models]


def test_figures():
    """A row that has changed is to be copied from here to the page."""
    page = (ROOT / "docs/benchmarks.md").read_text()
    for name, cells in figures.ci_rows():
        assert re.search(f"^. `{name}` .*{re.escape(cells)}$", page, re.MULTILINE), (name, cells)
    tables = figures.model_rows(), figures.series_rows(), figures.pipeline_rows()
    for row in itertools.chain(*tables):
        assert row in page.splitlines(), row
    assert figures.ci_sentence() in " ".join(page.split())
    archives = (ROOT / "docs/archives.md").read_text().splitlines()
    assert [row for row in figures.archive_rows() if row not in archives] == []
    readme = (ROOT / "README.md").read_text()
    for ours, other, ratio in figures.readme_rows():
        pattern = rf"\| (S5: )?{ours} m?s \| [^|]*: {other} m?s \| {ratio} \|"
        assert re.search(pattern, readme), (ours, other, ratio)
