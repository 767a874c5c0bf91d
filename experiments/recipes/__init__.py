"""Recipes: for each task, model and preset the configuration of a run."""

import dataclasses

from experiments.config import Config, differences
from experiments.errors import pick
from experiments.models import MODELS
from experiments.recipes import paths
from experiments.tasks import TASKS

PRESETS = {
    "paper": "the published recipe",
    "cpu": "smaller and easier: ten minutes on two cores",
    "smoke": "20 steps of a tiny model: does everything work?",
}
RECIPES: dict[tuple[str, str, str], Config] = {
    (config.task, config.model.name, config.preset): config for config in paths.ROWS
}


def get_recipe(task: str, model: str, preset: str) -> Config:
    """The configuration of a task, model and preset.

    Args:
        task: a name in ``experiments.tasks.TASKS``.
        model: a name in ``experiments.models.MODELS``.
        preset: a name in ``PRESETS``.

    Returns:
        The configuration.

    Raises:
        UsageError: if a name is unknown, or the three have no recipe; lists what there is.

    Example:
        >>> get_recipe("pathx", "s5", "paper").model.d_state
        256
    """
    pick("task", task, TASKS)
    pick("model", model, MODELS)
    pick("preset", preset, PRESETS)
    presets = {key[2]: config for key, config in RECIPES.items() if key[:2] == (task, model)}
    return pick(f"preset of {model} for {task}:", preset, presets)


def describe_changes(config: Config) -> str:
    """One line: what a configuration changed against the paper's recipe."""
    paper = RECIPES.get((config.task, config.model.name, "paper"))
    if paper is None:
        return f"No published recipe of {config.model.name} for {config.task} is in the library."
    changed = differences(paper, dataclasses.replace(config, preset="paper", seed=paper.seed))
    changes = ", ".join(f"{name} {old} -> {new}" for name, (old, new) in changed.items())
    return f"Changed against the paper: {changes or 'nothing'}."
