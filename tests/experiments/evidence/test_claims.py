import json
import shlex
from pathlib import Path

import pytest

from experiments import claims
from experiments.cli.runs import parse_train
from experiments.evidence import CLAIMS, make_tables
from experiments.evidence.commands import PRETRAINED_MODELS, pretraining
from experiments.evidence.finding import (
    better,
    counted,
    every,
    faster,
    keeps,
    measured,
    reaches,
    reproduced,
    stays_below,
    steady,
)
from experiments.training.ledger import replace_table

ROOT = Path(__file__).parents[3]
BY_NAME = {claim.name: claim for claim in CLAIMS}


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def write_runs(folder, name, *values, task="shift", metric="r2", **changes):
    for seed, value in enumerate(values):
        results = {
            **{"task": task, "model": "s5", "preset": "paper", "seed": seed, "metric": metric},
            **{"validation": {}, "test": {metric: value}, "wall_s": 1.0, "device": "1 x cpu"},
            **{"commit": None, **changes},
        }
        write(folder / name / f"seed{seed}" / "results.json", results)


@pytest.mark.parametrize(
    ("evidence", "status"),
    [
        (reaches("a", 0.9), "shown"),
        (reaches("b", 0.9), "not reached"),
        (reaches("c", 0.9), "not run"),
        (stays_below("b", 0.9), "shown"),
        (stays_below("a", 0.9), "not reached"),
        (stays_below("c", 0.9), "not run"),
        (better("a", "b"), "shown"),
        (better("b", "a"), "not reached"),
        (better("b", "a", by=-0.9), "shown"),
        (better("low", "high"), "shown"),  # an error: less is better
        (better("a", "c"), "not run"),
        (every(reaches("a", 0.9), reaches("b", 0.9)), "partly shown"),
        (every(reaches("a", 0.9), reaches("c", 0.9)), "partly shown"),
        (every(reaches("b", 0.9), reaches("c", 0.9)), "not reached"),
        (every(reaches("c", 0.9), reaches("d", 0.9)), "not run"),
        (steady(["a", "a2"], ["a", "b"]), "shown"),
        (steady(["a", "b"], ["a", "a2"]), "not reached"),
        (steady(["a", "c"], ["a", "b"]), "not run"),
    ],
)
def test_the_status_follows_from_the_runs(tmp_path, evidence, status):
    write_runs(tmp_path / "claims", "a", 0.93, 0.95)
    write_runs(tmp_path / "claims", "a2", 0.95)
    write_runs(tmp_path / "claims", "b", 0.2)
    write_runs(tmp_path / "claims", "low", 0.003, task="pendulum", metric="mse")
    write_runs(tmp_path / "claims", "high", 0.006, task="pendulum", metric="mse")
    assert evidence(tmp_path).status == status


@pytest.mark.parametrize(("half", "status"), [(0.91, "shown"), (0.8, "not reached")])
def test_another_evaluation_of_the_same_runs(tmp_path, half, status):
    evidence = keeps("a", "half", by=0.05)
    write_runs(tmp_path / "claims", "a", 0.93, 0.95, metric="accuracy")
    assert evidence(tmp_path).status == "not run"
    for seed in range(2):
        path = tmp_path / "claims" / "a" / f"seed{seed}" / "results.json"
        results = {**json.loads(path.read_text()), "test": {"accuracy": half}}
        write(path.with_name("half.json"), results)
    found = evidence(tmp_path)
    assert found.status == status
    assert found.figure.endswith(f", half: {half:.4f} ± 0.0000 accuracy (2 seeds)")


def test_the_figure_of_a_claim(tmp_path):
    write_runs(tmp_path / "claims", "a", 0.93, 0.95)
    write_runs(tmp_path / "claims", "b", 0.2)
    assert reaches("a", 0.9)(tmp_path).figure == "a: 0.9400 ± 0.0141 r2 (2 seeds)"
    assert better("a", "b")(tmp_path).figure.endswith("(2 seeds), b: 0.2000 r2 (1 seed)")
    ranges = steady(["a", "b"], ["a"])(tmp_path).figure
    assert ranges == "a to b: 0.2000 to 0.9400, a to a: 0.9400 to 0.9400"


def test_the_status_follows_from_runs_of_the_paper_s_recipe(tmp_path):
    evidence = reproduced("s5", "pathx", "listops")
    assert evidence(tmp_path).status == "not run"
    for seed, value in enumerate((0.985, 0.986, 0.984)):
        write_runs(tmp_path, f"x{seed}", value, task="pathx", metric="accuracy", seed=seed)
        (tmp_path / f"x{seed}" / "seed0" / "results.json").rename(
            tmp_path / f"x{seed}" / "results.json"
        )
    found = evidence(tmp_path)
    assert found.status == "partly shown"  # listops is not run
    assert "pathx: 0.9850 ± 0.0010 accuracy (3 seeds) (-0.4, reproduced)" in found.figure
    assert reproduced("s5", "pathx")(tmp_path).status == "shown"


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ([0.98], "undecided"),  # one seed shows nothing, in either direction
        ([0.99, 0.98], "undecided"),
        ([0.98, 0.98, 0.98], "not reached"),
        ([0.985, 0.986, 0.984], "shown"),
    ],
)
def test_few_seeds_decide_nothing(tmp_path, values, status):
    write_runs(tmp_path / "runs", "pathx", *values, task="pathx", metric="accuracy")
    assert reproduced("s5", "pathx")(tmp_path / "runs" / "pathx").status == status


def test_the_status_follows_from_benchmarks(tmp_path):
    assert measured("a")(tmp_path).status == "not run"
    assert faster("s5", "s4")(tmp_path).status == "not run"
    rows = [{"name": "a", "ratio": 2.0, "target": 1.0}, {"name": "b", "ratio": 2.0, "target": 3}]
    write(tmp_path / "bench" / "cpu-2-cores-ci.json", {"rows": rows})
    speeds = [{"model": "s5", "tokens_per_s": 3.0}, {"model": "s4", "tokens_per_s": 2.0}]
    write(tmp_path / "bench" / "cpu-2-cores-models.json", {"rows": speeds})
    assert measured("a")(tmp_path) == ("shown", "a: 2.0 (target 1)")
    assert measured("b")(tmp_path).status == "not reached"
    assert measured("a", "c")(tmp_path).status == "partly shown"
    assert faster("s5", "s4")(tmp_path) == ("shown", "1.5 times s4")
    assert faster("s4", "s5")(tmp_path).status == "not reached"


def test_parameters_are_counted_now(tmp_path):
    found = counted("sgconv", "sgconv", lengths=(1_024, 16_384), at_most=16)(tmp_path)
    assert found.status == "shown"
    few = counted("hope", "hope", lengths=(8, 8), at_most=1)(tmp_path)
    assert few.status == "not reached"


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_the_commands_of_a_claim_are_possible(claim):
    for command in claim.commands:
        module, *args = shlex.split(command)[2:]
        if module == "experiments.train":
            flags = parse_train(args)
            assert len(flags.configs()) >= 3
        else:
            assert module in ("experiments.bench", "experiments.claims", "experiments.evaluate")


def test_every_paper_has_its_claims_with_names_of_their_own():
    assert len(BY_NAME) == len(CLAIMS)
    assert {claim.paper for claim in CLAIMS} == {"S4", "S5", "DLR", "SGConv", "HOPE"}
    assert all(claim.name.startswith(claim.paper.lower()) for claim in CLAIMS)


def test_the_page_has_the_tables_of_the_records(command, tmp_path):
    page = ROOT / "docs" / "claims.md"
    text = page.read_text(encoding="utf-8")
    tables = make_tables(ROOT / "results")
    marks = {
        name: (f"<!-- {name}: python -m experiments.claims -->", f"<!-- end of {name} -->")
        for name in tables
    }
    copy = tmp_path / "claims.md"
    copy.write_text("".join(f"{begin}\nold\n{end}\n" for begin, end in marks.values()))
    for name, table in tables.items():
        assert replace_table(text, table, page, marks=marks[name]) == text
    code, out, _ = command(claims, f"--folder={ROOT / 'results'}", f"--write={copy}")
    assert (code, out) == (0, f"Wrote the tables to {copy}.\n")
    assert all(table in copy.read_text() for table in tables.values())


def test_the_atomic_tasks_by_model(tmp_path):
    write_runs(tmp_path / "claims", "shift-512-dlr", 0.99, 0.98, 0.97)
    write_runs(tmp_path / "claims", "sort-512-hope", -0.1)
    lines = make_tables(tmp_path)["atomic tasks"].splitlines()
    assert lines[0] == "| task | dlr | s4d | s5 | sgconv | hope | attention |"
    assert "| `shift` | 0.9800 ± 0.0100 |  |  |  |  |  |" in lines
    assert "| `sort` |  |  |  |  | -0.1000 |  |" in lines
    assert len(lines) == 13


def test_pretraining_at_equal_compute(tmp_path):
    write_runs(tmp_path / "claims", "scratch-s5", 0.5, 0.52, 0.54)
    write_runs(tmp_path / "claims", "tuned-s5", 0.6)
    lines = make_tables(tmp_path)["pretraining"].splitlines()
    assert lines[0] == "| model | from scratch, 3,000 steps | pretrained 1,500 steps, then 1,500 |"
    assert lines[2:] == ["| `s5` | 0.5200 ± 0.0200 | 0.6000 |", "| `attention` |  |  |"]


@pytest.mark.parametrize("model", PRETRAINED_MODELS)
def test_the_commands_of_pretraining_are_possible_and_on_the_page(model):
    commands = pretraining(model)
    steps = [parse_train(shlex.split(c)[3:]).configs()[0].train.steps for c in commands]
    assert steps == [3_000, 1_500, 1_500]
    page = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    assert all(command.replace(model, "s5") in page for command in commands)
