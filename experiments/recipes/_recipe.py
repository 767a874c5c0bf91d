"""What a recipe is, and how unpublished ones are derived from the nearest published."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from experiments.config import Config, TrainOptions
from experiments.errors import UsageError
from experiments.models import (
    MODELS,
    AttentionOptions,
    DLROptions,
    GRUOptions,
    HOPEOptions,
    LRUOptions,
    ModelOptions,
    S4DOptions,
    S4Options,
    S5Options,
    SGConvOptions,
)
from experiments.tasks import DataOptions, get_task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A configuration, and what is known about it.

    Attributes:
        config: all that decides the numbers of a run.
        source: where its values come from, in a few words.
        published: the published test value of the task's metric, a mean over seeds.
        milestones: published validation values on the way, as (epoch, value).
    """

    config: Config
    source: str
    published: float | None = None
    milestones: tuple[tuple[int, float], ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        """Task, model and preset."""
        return self.config.task, self.config.model.name, self.config.preset


SHARED = {field.name for field in dataclasses.fields(ModelOptions)}
DONORS = {
    "s5": ("s4", "s4d", "dlr", "hope"),
    "s4": ("s4d", "s5", "dlr"),
    "s4d": ("s4", "s5", "dlr"),
    "dlr": ("s4d", "s4", "s5"),
    "sgconv": ("s4", "s4d", "s5", "dlr"),
    "hope": ("s4", "s4d", "s5", "dlr"),
    "lru": ("s5", "s4", "dlr"),
    "attention": ("s4", "s4d", "s5", "dlr"),
    "gru": ("s4", "s4d", "s5", "dlr"),
}
"""Whose published settings a model takes on a task for which it has none, the nearest first."""
LOCAL_ATTENTION = 1024
"""The window of the local attention in the DLR paper [steps]."""
UNTUNED = "this library's, not tuned"
SMALL: dict[str, dict[str, Any]] = {
    "s5": {"d_state": 64, "n_blocks": 1},
    "s4": {"d_state": 32},
    "s4d": {"d_state": 32},
    "dlr": {"d_state": 64},
    "sgconv": {"kernel_dim": 16},
    "hope": {"d_state": 32, "dt_min": 1e-2, "dt_max": 1.0},
    "lru": {"d_state": 64},
    "attention": {"n_heads": 2, "window": 32},
    "gru": {"d_state": 32},
}
"""Options of models that train in minutes on two cores."""
TINY: tuple[ModelOptions, ...] = (
    S5Options(n_layers=2, d_model=8, d_state=16, n_blocks=2, dropout=0.05),
    S4Options(n_layers=2, d_model=8, d_state=8),
    S4DOptions(n_layers=2, d_model=8, d_state=8),
    DLROptions(n_layers=2, d_model=8, d_state=8, dt_min=5e-2),
    SGConvOptions(n_layers=2, d_model=8, kernel_dim=8),
    HOPEOptions(n_layers=2, d_model=8, d_state=8),
    LRUOptions(n_layers=2, d_model=8, d_state=8),
    AttentionOptions(n_layers=2, d_model=8, n_heads=4),
    GRUOptions(n_layers=2, d_model=8, d_state=8),
)
"""Models that train in seconds.

DLR forgets in time: with the paper's ``dt_min`` one step of Adam turns the phases of its kernel at
1,024 steps by a radian, and its losses are chaotic.
"""


def complete(published: Sequence[Recipe]) -> tuple[Recipe, ...]:
    """The published ``paper`` recipes of one task, and for each other model the nearest of them.

    A derived recipe has the donor's data, stack and training, and the model's own defaults;
    attention to long sequences is local.
    """
    known = {recipe.config.model.name: recipe for recipe in published}
    derived = []
    for name in MODELS.keys() - known.keys():
        donor = next((known[other] for other in DONORS[name] if other in known), published[0])
        local = name == "attention" and (known_length(donor.config) or 0) > LOCAL_ATTENTION
        changes = {"window": LOCAL_ATTENTION} if local else {}
        derived.append(nearest(donor, MODELS[name], **changes))
    return (*published, *sorted(derived, key=lambda recipe: recipe.key))


def known_length(config: Config) -> int | None:
    """The longest sequence [steps]; None where only a file of the user's knows it."""
    try:
        return get_task(config.task)(config.data).length
    except UsageError:
        return None


def nearest(donor: Recipe, model: type[ModelOptions], **changes: Any) -> Recipe:
    """Another model under the settings of a published recipe; ``changes`` are its own options."""
    config = donor.config
    stack = {name: getattr(config.model, name) for name in SHARED}
    return Recipe(
        config=dataclasses.replace(
            config,
            model=model(**{**stack, **changes}),
            optim=dataclasses.replace(config.optim, opt_config="standard", dt_group="ssm"),
        ),
        source=f"not published; {config.model.name} on {config.task} is the nearest",
    )


def small(recipe: Recipe) -> tuple[Recipe, ...]:
    """A recipe for two cores, and the same of each other model, in the same stack."""
    others = SMALL.keys() - {recipe.config.model.name}
    derived = (nearest(recipe, MODELS[name], **SMALL[name]) for name in sorted(others))
    return (recipe, *(dataclasses.replace(row, source=UNTUNED) for row in derived))


def smoke(paper: Iterable[Recipe], data: DataOptions, **stack: Any) -> tuple[Recipe, ...]:
    """For each model a tiny run that passes through every part of the system in seconds.

    Args:
        paper: the ``paper`` recipes of one task.
        data: few and short examples; the length must be a multiple of 4.
        **stack: options of every model, such as ``prenorm=False``.
    """
    tiny = {model.name: model for model in TINY}
    recipes = []
    for config in (recipe.config for recipe in paper):
        causal = get_task(config.task).causal
        model = dataclasses.replace(
            tiny[config.model.name], bidirectional=not causal, final_norm=causal, **stack
        )
        train = TrainOptions(steps=20, batch_size=8, log_every=1, eval_every=10, checkpoint_every=5)
        optim = dataclasses.replace(config.optim, warmup_steps=2, opt_config="standard")
        config = dataclasses.replace(
            config, preset="smoke", data=data, model=model, optim=optim, train=train
        )
        if isinstance(model, AttentionOptions) and (known_length(config) or 0) >= LOCAL_ATTENTION:
            config = dataclasses.replace(config, model=dataclasses.replace(model, window=128))
        recipes.append(Recipe(config=config, source="this library's, to try things"))
    return tuple(recipes)
