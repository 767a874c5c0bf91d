import dataclasses
import json
import subprocess
from pathlib import Path

import pytest

from experiments.bench import compiled, targets
from experiments.bench.compiled import all_cases, compile_apart
from experiments.bench.programs import Case

RECORDED = json.loads(
    (Path(__file__).parents[3] / "results/bench/compiled.json").read_text(encoding="utf-8")
)["rows"]
CASE = Case(target="v5e", name="S5", mode="forward")


def test_a_compiler_that_is_missing(monkeypatch):
    monkeypatch.setattr(targets.importlib.util, "find_spec", lambda name: None)
    row = compile_apart(CASE)
    assert row.failure == "skipped: libtpu is not installed: pip install --editable '.[tpu]'"
    assert str(row).endswith(row.failure)


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(compiled, "missing", lambda name: None)


def test_a_compilation_that_takes_too_long(installed, monkeypatch):
    def run(*_, timeout, **__):
        raise subprocess.TimeoutExpired("", timeout)

    monkeypatch.setattr(subprocess, "run", run)
    assert compile_apart(CASE, limit_s=7).failure == "did not compile in 7 s"


def test_a_program_that_does_not_compile(installed):
    """The last line of its error is the reason, whether or not the compiler is here."""
    failure = compile_apart(dataclasses.replace(CASE, name="S6")).failure
    assert failure is not None
    assert failure.startswith("does not compile: ")
    assert "Error" in failure


def test_every_layer_is_compiled_for_every_target():
    cases = list(all_cases())
    assert len(cases) == len({str(case) for case in cases})
    for target in targets.TARGETS:
        for name in compiled.CONTESTANTS:
            modes = {case.mode for case in cases if (case.target, case.name) == (target, name)}
            assert modes == {"forward", "forward+backward"}


def test_what_is_recorded_is_what_is_compiled():
    assert [row["case"] for row in RECORDED] == [dataclasses.asdict(case) for case in all_cases()]


@pytest.mark.aot
@pytest.mark.slow
@pytest.mark.parametrize(
    "recorded", RECORDED, ids=lambda row: " ".join(str(Case(**row["case"])).split())
)
def test_budget(recorded, monkeypatch):
    """Nothing needs a tenth more than what is recorded in ``results/bench/compiled.json``."""
    if recorded["failure"]:
        pytest.skip(f"there is no program to compare with: {recorded['failure']}")
    monkeypatch.delenv("XLA_FLAGS")  # those of the tests turn optimisations off
    row = compile_apart(Case(**recorded["case"]))
    if row.failure and row.failure.startswith("skipped"):
        pytest.skip(row.failure)
    assert row.failure is None
    for name in ("moved", "temporary", "launches", "spilled"):
        assert (getattr(row, name) or 0) <= 1.1 * (recorded[name] or 0), name
