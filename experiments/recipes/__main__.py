"""``python -m experiments.recipes``: lists the recipes."""

import dataclasses
import json

import tyro
from rich.table import Table

from experiments.display import PipeConsole
from experiments.errors import pick, run_command
from experiments.models import MODELS
from experiments.recipes import RECIPES, Recipe
from experiments.recipes._recipe import known_length
from experiments.tasks import TASKS

FIGURES = (
    *("task", "model", "preset", "length", "layers", "width", "batch", "steps", "lr"),
    *("published", "source"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListFlags:
    """Lists the recipes: a task, a model, and where the settings come from."""

    task: str | None = None
    """Only those of this task."""
    model: str | None = None
    """Only those of this model."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """As JSON, one object a line."""


def figures(recipe: Recipe) -> dict[str, object]:
    """The row of a recipe."""
    config = recipe.config
    values = (
        *recipe.key,
        known_length(config),
        config.model.n_layers,
        config.model.d_model,
        config.train.batch_size,
        config.train.steps,
        config.optim.lr,
        recipe.published,
        recipe.source,
    )
    return dict(zip(FIGURES, values, strict=True))


def main() -> None:
    """Prints a table with a row for each recipe."""
    flags = tyro.cli(ListFlags, prog="python -m experiments.recipes")
    for kind, name, table in (("task", flags.task, TASKS), ("model", flags.model, MODELS)):
        if name is not None:
            pick(kind, name, table)
    rows = [
        figures(recipe)
        for (task, model, _), recipe in RECIPES.items()
        if flags.task in (None, task) and flags.model in (None, model)
    ]
    if flags.json:
        for row in rows:
            print(json.dumps(row))
        return
    table = Table(*FIGURES, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(_cell(row[name]) for name in FIGURES))
    PipeConsole(width=200).print(table)


def _cell(value: object) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    run_command(main)
