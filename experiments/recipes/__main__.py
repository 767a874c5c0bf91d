"""``python -m experiments.recipes``: lists the recipes."""

from rich.console import Console
from rich.table import Table

from experiments.recipes import RECIPES
from experiments.tasks import TASKS


def main() -> None:
    """Prints a table with a row for each recipe."""
    columns = ("task", "model", "preset", "length", "layers", "width", "batch", "steps", "lr")
    table = Table(*columns)
    for (task, model, preset), config in RECIPES.items():
        length = TASKS[task](config.data).length
        figures = (
            f"{length:,}",
            config.model.n_layers,
            config.model.d_model,
            config.train.batch_size,
            f"{config.train.steps:,}",
            config.optim.lr,
        )
        table.add_row(task, model, preset, *map(str, figures))
    Console().print(table)


if __name__ == "__main__":
    main()
