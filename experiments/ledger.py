"""The table of reproductions: what the papers published, and what runs of this library found."""

import dataclasses
import itertools
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import tyro

from experiments.display import duration
from experiments.errors import UsageError, blaming_file
from experiments.files import UserPath, replacing
from experiments.recipes import RECIPES
from experiments.results import Results, read_results
from experiments.tasks import get_task

BEGIN, END = "<!-- results: python -m experiments.results -->", "<!-- end of results -->"
HEADER = (
    *("task", "model", "preset", "metric", "published", "ours", "seeds", "epochs", "hardware"),
    *("wall time", "commit"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LedgerFlags:
    """Builds the table of reproductions from the results.json files of finished runs.

    Example: python -m experiments.results --write=README.md
    """

    folder: UserPath = Path("results")
    """Folder whose subfolders hold a results.json each."""
    write: UserPath | None = None
    """File whose table, between its two marks, is replaced."""


def read_ledger(folder: Path) -> list[Results]:
    """The results of all runs in a folder.

    Raises:
        UsageError: if there are none.
    """
    found = [read_results(path.parent) for path in sorted(folder.glob("*/results.json"))]
    if not found:
        raise UsageError(f"No results: {folder} holds no folder with a results.json.")
    return [results for results in found if results is not None]


def make_table(runs: Iterable[Results]) -> str:
    """A table in Markdown, with a row for each task, model, preset and hardware.

    Test values are means over seeds, with their standard deviation if there are several. The
    published value stands beside runs of the preset ``paper`` only, since others solve another
    problem.
    """
    keys = ("task", "model", "preset", "device")

    def key(run: Results) -> tuple[str, ...]:
        return tuple(run[name] for name in keys)

    groups = itertools.groupby(sorted(runs, key=key), key)
    rows = [HEADER, ["---"] * len(HEADER), *(_row(list(group)) for _, group in groups)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def replace_table(text: str, table: str, where: object) -> str:
    """A text with another table between its marks.

    Raises:
        UsageError: if it lacks the marks.
    """
    if BEGIN not in text or END not in text:
        raise UsageError(f"{where} must hold the lines {BEGIN!r} and {END!r}, in this order.")
    head, rest = text.split(BEGIN, 1)
    _, tail = rest.split(END, 1)
    return f"{head}{BEGIN}\n\n{table}\n\n{END}{tail}"


def _row(runs: Sequence[Results]) -> Sequence[str]:
    first = runs[0]
    metric = first.get("metric", get_task(first["task"]).metric)  # early runs do not name it
    values = [run["test"][metric] for run in runs]
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    recipe = RECIPES.get((first["task"], first["model"], first["preset"]))
    compares = recipe is not None and first["preset"] == "paper" and recipe.published is not None
    return (
        first["task"],
        first["model"],
        first["preset"],
        metric,
        f"{recipe.published:g}" if recipe is not None and compares else "",
        f"{statistics.mean(values):.4f}{spread}",
        ", ".join(str(run["seed"]) for run in runs),
        " / ".join(sorted({f"{run['epochs']:g}" for run in runs if "epochs" in run})),
        first["device"],
        duration(statistics.mean(run["wall_s"] for run in runs)),
        " ".join(sorted({(run["commit"] or "unknown")[:7] for run in runs})),
    )


def main() -> None:
    """Reads the command line, and prints or writes the table."""
    flags = tyro.cli(LedgerFlags, prog="python -m experiments.results")
    table = make_table(read_ledger(flags.folder))
    if flags.write is None:
        print(table)
        return
    with blaming_file(flags.write, "text in UTF-8"):
        text = flags.write.read_text(encoding="utf-8")
    text = replace_table(text, table, flags.write)
    with replacing(flags.write) as file:
        file.write(text)
    print(f"Wrote the table to {flags.write}.")
