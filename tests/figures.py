"""Rows of tables on the pages, as the files in ``results/bench`` have them."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.training.seeds import mean_and_deviation

FOLDER = Path(__file__).parents[1] / "results/bench"
GENERATORS = {
    "pathfinder": "pathfinder_32",
    "pathx": "pathfinder_128",
    "path256": "pathfinder_256",
    "pathfinder_segmentation_128": "segmentation_128",
    "pathfinder_segmentation_256": "segmentation_256",
    "pathfinder_segmentation_512": "segmentation_512",
}
"""The generator of a task, where it has another name."""


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{float(f'{value:.3g}'):,g}"


def read(suite: str) -> dict[str, Any]:
    """A file of the benchmark."""
    return json.loads((FOLDER / f"cpu-2-cores-{suite}.json").read_text())


def ci_rows() -> Iterator[tuple[str, str]]:
    """The name and the last cells of each row with a claim about speed."""
    for row in read("ci")["rows"]:
        measured = "; ".join(
            f"{unit}: " + ", ".join(f"{name} {number(value)}" for name, value in values.items())
            for unit, values in row["detail"].items()
        )
        yield row["name"], f"| {measured} | {number(row['ratio'])} | {row['target']:g} |"


def ci_sentence() -> str:
    """What the page says of the machine, and of the rows below their targets."""
    found = read("ci")
    speed, flops = (found["roofline"][name] / 1e9 for name in ("bytes_per_s", "flops_per_s"))
    short = [f"`{row['name']}`" for row in found["rows"] if row["ratio"] < row["target"]]
    return (
        f"The machine copied {speed:.1f} GB/s and multiplied at {flops:.0f} GFLOP/s. "
        f"Rows that fall short of their targets: {', '.join(short)}."
    )


def model_rows() -> Iterator[str]:
    """The train step of every model."""
    for row in read("models")["rows"]:
        yield (
            f"| `{row['model']}` | {row['parameters']:,} | {row['tokens_per_s']:,.0f} "
            f"| {row['temporary_mb']:,.0f} MB | {row['compile_s']:.1f} s |"
        )


def series_rows() -> Iterator[str]:
    """Training and streaming of forecasts."""
    for row in read("series")["rows"]:
        yield (
            f"| `{row['model']}` | {row['parameters']:,} | {number(row['samples_per_s'])} "
            f"| {number(row['row_ms'])} |"
        )


def pipeline_rows() -> Iterator[str]:
    """The input pipeline of every task, and its generator alone."""
    pipelines = {row["name"].removesuffix("_pipeline"): row for row in read("tasks")["rows"]}
    generators = {row["name"]: row for row in read("generators")["rows"]}
    for task in sorted({*pipelines, *GENERATORS}):
        pipeline, alone = pipelines.get(task), generators.get(GENERATORS.get(task, task))
        rate = f"{pipeline['detail']['examples a second']['one core']:,.0f}" if pipeline else ""
        ratios = [number(row["ratio"]) if row else "" for row in (pipeline, alone)]
        yield "|".join(
            ["", *(f" {cell} " if cell else " " for cell in (f"`{task}`", rate, *ratios)), ""]
        )


def readme_rows() -> Iterator[tuple[str, str, str]]:
    """What the README shows of the claims: two times, and their ratio."""
    rows = {row["name"]: row for row in read("ci")["rows"]}
    for name in ("s4d_layer", "s5_train_step", "generate"):
        (times,) = rows[name]["detail"].values()
        ours, other = map(number, times.values())
        yield ours, other, number(rows[name]["ratio"])


def archive_rows() -> Iterator[str]:
    """A row for each set: mean and deviation of the measure of a naive guess, and of each model."""
    folder = FOLDER.parent / "archives"
    runs = [json.loads(path.read_text()) for path in folder.glob("*/*.json")]
    naive = json.loads((folder / "naive.json").read_text())
    for task, data_set in sorted({(run["task"], run["data_set"]) for run in runs}):
        cells = [mean_and_deviation(naive[f"{task} {data_set}"])]
        for model in ("s5", "lru", "linoss", "s4d"):
            key = (task, data_set, model)
            values = [
                run["test"][run["metric"]]
                for run in runs
                if (run["task"], run["data_set"], run["model"]) == key
            ]
            cells.append(mean_and_deviation(values))
        yield f"| `{task}` {data_set} | {' | '.join(cells)} |"


def stack_rows() -> Iterator[str]:
    """The last cells of each model of `chars`: bits per byte of the test text, steps, time."""
    for path in (FOLDER.parent / "stacks").glob("chars-*/seed0/results.json"):
        run = json.loads(path.read_text())
        bits = run["test"]["loss"] / math.log(2)
        yield f"| {bits:.3f} | {run['steps']:,} | {run['wall_s']:.0f} s |"
