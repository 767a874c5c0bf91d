"""``python -m experiments.recipes``: lists the recipes."""

import dataclasses
import json

from experiments.cli.ending import run_command
from experiments.cli.flags import Switch, read_flags
from experiments.recipes._listing import list_recipes
from experiments.training.display import print_table


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListFlags:
    """Lists the recipes with the task, the model and the source of the settings."""

    task: str | None = None
    """List only the recipes of this task."""
    model: str | None = None
    """List only the recipes of this model."""
    json: Switch = False
    """Print JSON, one object per line."""


def main() -> None:
    """Prints a table with a row for each recipe."""
    flags = read_flags(ListFlags, prog="python -m experiments.recipes")
    rows = list_recipes(flags.task, flags.model)
    if flags.json:
        for row in rows:
            print(json.dumps(row))
    else:
        print_table(rows, width=200)


if __name__ == "__main__":
    run_command(main)
