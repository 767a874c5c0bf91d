"""The table of reproductions: published values beside the results of this library's runs."""

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.errors import UsageError
from experiments.recipes import Recipe, find_recipe
from experiments.records import Results, read_results
from experiments.tasks import get_task
from experiments.training.display import duration
from experiments.training.seeds import mean_and_deviation

BEGIN, END = "<!-- results: python -m experiments.results -->", "<!-- end of results -->"
HEADER = (
    *("task", "model", "preset", "metric", "published", "ours", "difference", "seeds", "epochs"),
    *("hardware", "wall time", "commit"),
)
FEWEST_SEEDS = 3
LARGEST_DIFFERENCE = 2.0


def read_ledger(folder: Path) -> list[Results]:
    """Reads the results of all runs in a folder, except of pretraining.

    Raises:
        UsageError: if the folder holds no results.
    """
    found = [read_results(path.parent) for path in sorted(folder.glob("*/results.json"))]
    if not found:
        raise UsageError(f"No results: {folder} holds no folder with a results.json.")
    return [run for run in found if run is not None and "pretrain" not in run]


def make_table(runs: Iterable[Results]) -> str:
    """Formats a Markdown table with a row for each task, data set, model, preset and hardware.

    Test values are means over seeds, with their standard deviation if there are several. Only rows
    of the preset ``paper`` have a published value, because other presets are other problems. The
    difference is ours minus published, in units of the combined standard deviation. A figure of at
    least three seeds is reproduced if it is at most two units worse.
    """
    keys = ("task", "data_set", "model", "preset", "device")

    def key(run: Results) -> tuple[str, ...]:
        return tuple(run.get(name, "") for name in keys)

    groups = itertools.groupby(sorted(runs, key=key), key)
    rows = [HEADER, ["---"] * len(HEADER), *(_row(list(group)) for _, group in groups)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def replace_table(
    text: str, table: str, where: object, marks: tuple[str, str] = (BEGIN, END)
) -> str:
    """Replaces the table between the marks of a text.

    Raises:
        UsageError: if the text lacks the marks.
    """
    begin, end = marks
    if begin not in text or end not in text:
        raise UsageError(f"{where} must contain the lines {begin!r} and {end!r}, in this order.")
    head, rest = text.split(begin, 1)
    return f"{head}{begin}\n\n{table}\n\n{end}{rest.split(end, 1)[1]}"


def _row(runs: Sequence[Results]) -> Sequence[str]:
    first = runs[0]
    task = get_task(first["task"])
    metric = first.get("metric", task.metric)  # missing in early runs
    values = [run["test"][metric] for run in runs]
    data_set = first.get("data_set", "")
    recipe = find_recipe(first["task"], first["model"], first["preset"], data_set)
    published = recipe if recipe is not None and first["preset"] == "paper" else None
    return (
        " ".join(filter(None, (first["task"], data_set))),
        first["model"],
        first["preset"],
        metric,
        "" if published is None else _published(published),
        mean_and_deviation(values),
        "" if published is None else compare(values, published, task.larger_is_better),
        ", ".join(str(run["seed"]) for run in runs),
        " / ".join(sorted({f"{run['epochs']:g}" for run in runs if "epochs" in run})),
        first["device"],
        duration(statistics.mean(run["wall_s"] for run in runs)),
        " ".join(sorted({(run["commit"] or "unknown")[:7] for run in runs})),
    )


def _published(recipe: Recipe) -> str:
    if recipe.published is None:
        return ""
    deviation = "" if recipe.deviation is None else f" ± {recipe.deviation:g}"
    return f"{recipe.published:g}{deviation}"


def compare(values: Sequence[float], recipe: Recipe, larger_is_better: bool) -> str:
    """Compares test values with the published one, by the rule of `make_table`.

    Returns:
        The difference in combined deviations and whether it reproduces the figure, such as
        ``"-1.1, reproduced"``. Empty without a published value, or if no deviation is known.
    """
    ours = statistics.stdev(values) if len(values) > 1 else 0.0
    combined = math.hypot(ours, recipe.deviation or 0.0)
    if recipe.published is None or combined == 0:
        return ""
    difference = (statistics.mean(values) - recipe.published) / combined
    better = difference if larger_is_better else -difference
    if len(values) < FEWEST_SEEDS:
        return f"{difference:+.1f}"
    return f"{difference:+.1f}, {'' if better >= -LARGEST_DIFFERENCE else 'not '}reproduced"
