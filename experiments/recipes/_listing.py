"""A table of the recipes."""

from typing import Any

from experiments.config.models import MODELS
from experiments.errors import choose
from experiments.recipes import FILES, OF_DATA_SETS, RECIPES
from experiments.recipes._recipe import Recipe, known_length
from experiments.tasks import TASKS


def list_recipes(task: str | None = None, model: str | None = None) -> list[dict[str, Any]]:
    """Returns a row for each recipe, as a mapping from columns to values.

    Args:
        task: if given, list only its recipes.
        model: if given, list only its recipes.

    Raises:
        UsageError: if there is no such task or model.
    """
    for kind, name, table in (("task", task, TASKS), ("model", model, MODELS)):
        if name is not None:
            choose(kind, name, table)
    return [
        _row(recipe)
        for key, recipe in (RECIPES | OF_DATA_SETS).items()
        if task in (None, key[0]) and model in (None, key[1])
    ]


def _row(recipe: Recipe) -> dict[str, Any]:
    task, model, preset = recipe.key
    config = recipe.config
    return {
        "task": task,
        "set": config.data.data_set,
        "model": model,
        "preset": preset,
        "length": known_length(config),
        "layers": config.model.n_layers,
        "width": config.model.d_model,
        "batch": config.train.batch_size,
        "steps": config.train.steps,
        "lr": config.optim.lr,
        "published": recipe.published,
        "source": recipe.source,
        "file": FILES[task],
    }
