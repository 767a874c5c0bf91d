"""What a claim needs to be shown, and what records say of it."""

import dataclasses
import itertools
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import jax
from flax import nnx

from experiments.bench.contestants import CONTESTANTS, Size
from experiments.recipes import RECIPES
from experiments.records import Results, read_json, read_results
from experiments.tasks import get_task
from experiments.training.ledger import compare
from experiments.training.seeds import mean_and_deviation

Status = Literal["shown", "partly shown", "not reached", "undecided", "not run"]
BENCH, SPEEDS = "bench/cpu-2-cores-ci.json", "bench/cpu-2-cores-models.json"
VERDICTS: dict[str, Status] = {"reproduced": "shown", "not reproduced": "not reached"}
LAYERS = {"sgconv": "SGConv", "s4d": "S4D", "hope": "HOPE"}


class Finding(NamedTuple):
    """What the records of a folder say of a claim."""

    status: Status
    figure: str = ""


DIGITS = {"mse": 5}
"""Decimals of the figures of a metric that are not four."""
Evidence = Callable[[Path], Finding]
"""From the folder of the records to a finding."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim of a paper, and how to see it with one's own eyes."""

    name: str
    paper: Literal["S4", "S5", "DLR", "SGConv", "HOPE"]
    text: str
    """The claim in our words."""
    commands: Sequence[str]
    """Command lines of this project, whose records are the evidence."""
    where: str
    """The machine and the time that the commands take, and the data that they need."""
    evidence: Evidence


def runs_of(folder: Path, name: str) -> list[Results]:
    """Returns the finished runs of a claim: ``claims/NAME/seed0``, ``claims/NAME/seed1``, ..."""
    found = map(read_results, sorted((folder / "claims" / name).glob("seed*")))
    return [results for results in found if results is not None]


def values_of(runs: Iterable[Results]) -> list[float]:
    """Returns the test values of the metric."""
    return [run["test"][run["metric"]] for run in runs]


def reaches(name: str, at_least: float) -> Evidence:
    """The mean of a claim's runs reaches a value."""

    def evidence(folder: Path) -> Finding:
        runs = runs_of(folder, name)
        if not runs:
            return Finding("not run")
        values = values_of(runs)
        shown = statistics.mean(values) >= at_least
        return Finding("shown" if shown else "not reached", f"{name}: {_figure(runs)}")

    return evidence


def stays_below(name: str, at_most: float) -> Evidence:
    """The mean of a claim's runs stays below a value: what the paper calls a failure."""

    def evidence(folder: Path) -> Finding:
        found = reaches(name, at_most)(folder)
        status: dict[Status, Status] = {"shown": "not reached", "not reached": "shown"}
        return found._replace(status=status.get(found.status, found.status))

    return evidence


def better(first: str, second: str, *, by: float = 0.0) -> Evidence:
    """The runs of one name are better than those of another, by a margin of the metric."""

    def evidence(folder: Path) -> Finding:
        both = runs_of(folder, first), runs_of(folder, second)
        if not all(both):
            return Finding("not run")
        a, b = (statistics.mean(values_of(runs)) for runs in both)
        larger = get_task(both[0][0]["task"]).larger_is_better
        shown = (a - b if larger else b - a) >= by
        figure = ", ".join(f"{n}: {_figure(r)}" for n, r in zip((first, second), both, strict=True))
        return Finding("shown" if shown else "not reached", figure)

    return evidence


def keeps(name: str, other: str, *, by: float) -> Evidence:
    """The runs of one name lose little in another evaluation, ``claims/NAME/seed0/OTHER.json``."""

    def evidence(folder: Path) -> Finding:
        runs = runs_of(folder, name)
        paths = [folder / "claims" / name / f"seed{run['seed']}" / f"{other}.json" for run in runs]
        if not runs or not all(path.is_file() for path in paths):
            return Finding("not run")
        others = list(map(read_json, paths))
        lost = statistics.mean(values_of(runs)) - statistics.mean(values_of(others))
        figure = f"{name}: {_figure(runs)}, {other}: {_figure(others)}"
        return Finding("shown" if lost <= by else "not reached", figure)

    return evidence


def steady(these: Sequence[str], those: Sequence[str]) -> Evidence:
    """The means of some runs differ less from each other than those of other runs."""

    def evidence(folder: Path) -> Finding:
        both = [[runs_of(folder, name) for name in names] for names in (these, those)]
        if not all(itertools.chain(*both)):
            return Finding("not run")
        ranges, figures = [], []
        for names, found in zip((these, those), both, strict=True):
            means = [statistics.mean(values_of(runs)) for runs in found]
            ranges.append(max(means) - min(means))
            figures.append(f"{names[0]} to {names[-1]}: {min(means):.4f} to {max(means):.4f}")
        shown = ranges[0] < ranges[1]
        return Finding("shown" if shown else "not reached", ", ".join(figures))

    return evidence


def reproduced(model: str, *tasks: str) -> Evidence:
    """Runs of the paper's recipes reproduce its figures, by the rule of the table of results."""

    def evidence(folder: Path) -> Finding:
        statuses, figures = [], []
        runs = [r for path in sorted(folder.glob("*/")) if (r := read_results(path)) is not None]
        for task in tasks:
            recipe = RECIPES[task, model, "paper"]
            found = [r for r in runs if (r["task"], r["model"], r["preset"]) == recipe.key]
            if not found:
                statuses.append("not run")
                continue
            verdict = compare(values_of(found), recipe, get_task(task).larger_is_better)
            statuses.append(VERDICTS.get(verdict.partition(", ")[2], "undecided"))
            figures.append(f"{task}: {_figure(found)} ({verdict or 'no deviation'})")
        return Finding(_join(statuses), ", ".join(figures))

    return evidence


def measured(*rows: str) -> Evidence:
    """Rows of the benchmark reach their targets."""

    def evidence(folder: Path) -> Finding:
        path = folder / BENCH
        found = {row["name"]: row for row in read_json(path)["rows"]} if path.is_file() else {}
        known = [found[row] for row in rows if row in found]
        statuses = ["shown" if row["ratio"] >= row["target"] else "not reached" for row in known]
        statuses += ["not run"] * (len(rows) - len(known))
        figures = [f"{r['name']}: {r['ratio']:.1f} (target {r['target']:g})" for r in known]
        return Finding(_join(statuses), ", ".join(figures))

    return evidence


def faster(model: str, other: str) -> Evidence:
    """A model trains on more tokens a second than another of the same width and depth."""

    def evidence(folder: Path) -> Finding:
        path = folder / SPEEDS
        if not path.is_file():
            return Finding("not run")
        speeds = {row["model"]: row["tokens_per_s"] for row in read_json(path)["rows"]}
        ratio = speeds[model] / speeds[other]
        return Finding("shown" if ratio >= 1 else "not reached", f"{ratio:.1f} times {other}")

    return evidence


def counted(few: str, many: str, *, lengths: tuple[int, int], at_most: float) -> Evidence:
    """Parameters of a layer of 128 features: the second one's over the first one's."""

    def evidence(folder: Path) -> Finding:
        a, b = (_count(name, L) for name, L in zip((few, many), lengths, strict=True))
        figure = f"{a:,} ({few}, {lengths[0]:,} steps), {b:,} ({many}, {lengths[1]:,} steps)"
        return Finding("shown" if b < at_most * a else "not reached", figure)

    return evidence


def _count(name: str, L: int) -> int:
    layer = CONTESTANTS[LAYERS[name]].make(Size(L=L))
    return sum(x.size for x in jax.tree.leaves(nnx.state(layer, nnx.Param)))


def every(*parts: Evidence) -> Evidence:
    """All parts are shown."""

    def evidence(folder: Path) -> Finding:
        found = [part(folder) for part in parts]
        figures = ", ".join(part.figure for part in found if part.figure)
        return Finding(_join([part.status for part in found]), figures)

    return evidence


def _join(statuses: Sequence[str]) -> Status:
    kinds = set(statuses)
    if kinds == {"shown"}:
        return "shown"
    if "shown" in kinds:
        return "partly shown"
    return next((kind for kind in ("not reached", "undecided") if kind in kinds), "not run")


def _figure(runs: Sequence[Results]) -> str:
    n = len(runs)
    metric = runs[0]["metric"]
    text = f"{mean_and_deviation(values_of(runs), digits=DIGITS.get(metric, 4))} {metric}"
    return f"{text} ({n} seed{'s' * (n > 1)})"
