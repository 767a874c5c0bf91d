"""The configuration of a run for each task, model and preset."""

import dataclasses

from experiments.config import Config, differences
from experiments.config.models import MODELS
from experiments.errors import choose
from experiments.recipes import (
    archives,
    arrays,
    atomic,
    forecast,
    image,
    informer,
    language,
    listops,
    paths,
    pendulum,
    pixels,
    recall,
    segmentation,
    speech,
    text,
)
from experiments.recipes._recipe import Recipe as Recipe
from experiments.recipes._recipe import small
from experiments.tasks import TASKS

PRESETS = {
    "paper": "the published recipe",
    "cpu": "smaller and easier: ten minutes on two cores",
    "smoke": "20 steps of a tiny model: does everything work?",
}
FAMILIES = (
    *(paths, listops, text, image, pixels, speech, atomic, segmentation, pendulum, language),
    *(recall, archives, arrays, forecast, informer),
)
RECIPES: dict[tuple[str, str, str], Recipe] = {
    recipe.key: recipe
    for family in FAMILIES
    for recipe in family.ROWS
    if not recipe.config.data.data_set
}
OF_DATA_SETS: dict[tuple[str, str, str, str], Recipe] = {
    (*recipe.key, recipe.config.data.data_set): recipe
    for family in FAMILIES
    for recipe in family.ROWS
    if recipe.config.data.data_set
}
"""Recipes for one of the data sets of a task, which take the place of the task's."""
FILES = {
    recipe.config.task: f"{family.__name__.replace('.', '/')}.py"
    for family in FAMILIES
    for recipe in family.ROWS
}
"""The file that defines the recipes of a task."""
for known in [recipe for recipe in RECIPES.values() if recipe.config.preset == "cpu"]:
    for derived in small(known):
        RECIPES.setdefault(derived.key, derived)


def get_recipe(task: str, model: str, preset: str) -> Config:
    """Returns the configuration of a task, model and preset.

    Args:
        task: a name in ``experiments.tasks.TASKS``.
        model: a name in ``experiments.config.models.MODELS``.
        preset: a name in ``PRESETS``.

    Returns:
        The configuration.

    Raises:
        UsageError: if a name is unknown, or there is no such recipe; the message lists the valid
            names.

    Example:
        >>> get_recipe("pathx", "s5", "paper").model.d_state
        256
    """
    choose("task", task, TASKS)
    choose("model", model, MODELS)
    choose("preset", preset, PRESETS)
    presets = {key[2]: row.config for key, row in RECIPES.items() if key[:2] == (task, model)}
    return choose(f"preset of {model} for {task}:", preset, presets)


def find_recipe(task: str, model: str, preset: str, data_set: str = "") -> Recipe | None:
    """Returns the recipe for a data set if there is one, and otherwise the task's.

    Args:
        task: a name in ``experiments.tasks.TASKS``.
        model: a name in ``experiments.config.models.MODELS``.
        preset: a name in ``PRESETS``.
        data_set: the name of a data set, for tasks that have several.
    """
    key = (task, model, preset)
    return OF_DATA_SETS.get((*key, data_set), RECIPES.get(key))


def recipe_of(config: Config, preset: str | None = None) -> Recipe | None:
    """Returns the recipe from which a configuration was made, or its recipe of another preset."""
    key = (config.task, config.model.name, preset or config.preset)
    return find_recipe(*key, config.data.data_set)


def describe_changes(config: Config) -> str:
    """Describes the source of a recipe, and what a configuration changes in it."""
    row = recipe_of(config, "paper")
    assert row is not None, "every model has a recipe for every task"
    same = dataclasses.replace(config, preset="paper", seed=row.config.seed)
    changed = differences(row.config, same)
    changes = ", ".join(f"{name} {old} -> {new}" for name, (old, new) in changed.items())
    figure = "" if row.published is None else f"; published: {row.published:g}"
    return (
        f"Recipe of the paper: {row.source}{figure}.\n"
        f"Changed against the paper: {changes or 'nothing'}."
    )
