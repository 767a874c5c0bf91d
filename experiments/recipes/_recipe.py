"""Recipes, and the derivation of unpublished recipes from the nearest published one."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

from experiments.config import Config, OptimOptions, TrainOptions
from experiments.config.models import (
    MODELS,
    AttentionOptions,
    DLROptions,
    GRUOptions,
    HOPEOptions,
    HybridOptions,
    HyenaOptions,
    LinOSSOptions,
    LRUOptions,
    ModelOptions,
    S4DOptions,
    S4Options,
    S5Options,
    SGConvOptions,
)
from experiments.data.sources import DataOptions
from experiments.errors import UsageError
from experiments.recipes._deviations import DEVIATIONS
from experiments.tasks import get_task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A configuration, its source and its published results.

    Attributes:
        config: all options that affect the results of a run.
        source: the origin of the values, in a few words.
        published: the published test value of the task's metric, a mean over seeds.
        milestones: published validation values during training, as (epoch, value).
    """

    config: Config
    source: str
    published: float | None = None
    milestones: tuple[tuple[int, float], ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        """The task, model and preset."""
        return self.config.task, self.config.model.name, self.config.preset

    @property
    def deviation(self) -> float | None:
        """The standard deviation over seeds of the published value, if it is known."""
        subject = self.config.data.data_set or self.config.task
        known = DEVIATIONS.get((subject, self.config.model.name))
        return None if self.published is None else known


def paper(
    task: str,
    data: DataOptions,
    model: ModelOptions,
    optim: OptimOptions,
    train: TrainOptions,
    preset: str = "paper",
    **known: Any,
) -> Recipe:
    """Builds a recipe, by default of the preset ``paper``; ``known`` are its other attributes."""
    config = Config(task=task, preset=preset, data=data, model=model, optim=optim, train=train)
    return Recipe(config=config, **known)


cpu = functools.partial(paper, preset="cpu", source="this library's, tried on two cores")
"""Builds a recipe of the preset ``cpu``."""


def vary(recipe: Recipe, *, source: str, published: float | None = None, **changes: Any) -> Recipe:
    """Returns a recipe that differs in some sections of its configuration."""
    config = dataclasses.replace(recipe.config, **changes)
    return Recipe(config=config, source=source, published=published)


def train_by_epoch(epoch: int, steps: int, batch_size: int) -> TrainOptions:
    """Builds training options with an evaluation and a checkpoint every ``epoch`` steps."""
    return TrainOptions(
        steps=steps, batch_size=batch_size, log_every=100, eval_every=epoch, checkpoint_every=epoch
    )


SHARED = {field.name for field in dataclasses.fields(ModelOptions)}
DONORS = {
    "s5": ("s4", "s4d", "dlr", "hope"),
    "s4": ("s4d", "s5", "dlr"),
    "s4d": ("s4", "s5", "dlr"),
    "dlr": ("s4d", "s4", "s5"),
    "sgconv": ("s4", "s4d", "s5", "dlr"),
    "hope": ("s4", "s4d", "s5", "dlr"),
    "lru": ("s5", "s4", "dlr"),
    "linoss": ("s5", "lru", "s4", "dlr"),
    "hyena": ("s5", "lru", "s4", "dlr"),
    "attention": ("s4", "s4d", "s5", "dlr"),
    "gru": ("s4", "s4d", "s5", "dlr"),
    "hybrid": ("s5", "s4", "s4d", "dlr"),
}
"""The models whose published settings a model adopts on a task, the nearest first."""
LOCAL_ATTENTION = 1024
"""Window of the local attention in the DLR paper [steps]."""
UNTUNED = "this library's, not tuned"
MINIMAL_LRU = "defaults of minimal-LRU; the figure is from Orvieto et al. 2023"
SMALL: dict[str, dict[str, Any]] = {
    "s5": {"d_state": 64, "n_blocks": 1},
    "s4": {"d_state": 32},
    "s4d": {"d_state": 32},
    "dlr": {"d_state": 64},
    "sgconv": {"kernel_dim": 16},
    "hope": {"d_state": 32, "dt_min": 1e-2, "dt_max": 1.0},
    "lru": {"d_state": 64},
    "linoss": {"d_state": 32},
    "hyena": {"d_state": 64},
    "attention": {"n_heads": 2, "window": 32},
    "gru": {"d_state": 32},
    "hybrid": {"layers": ("s5:d_state=64,n_blocks=1", "attention:n_heads=2,window=32")},
}
"""Options of small models for two CPU cores."""
LRU: dict[str, Any] = {
    "n_layers": 4,
    "d_model": 256,
    "d_state": 128,
    "dropout": 0.1,
    "activation": "full_glu",
    "bidirectional": False,
}
"""The defaults of minimal-LRU, whose norms have a momentum of 0.99 in images and texts."""
TINY: tuple[ModelOptions, ...] = (
    S5Options(n_layers=2, d_model=8, d_state=16, n_blocks=2, dropout=0.05),
    S4Options(n_layers=2, d_model=8, d_state=8),
    S4DOptions(n_layers=2, d_model=8, d_state=8),
    DLROptions(n_layers=2, d_model=8, d_state=8, dt_min=5e-2),
    SGConvOptions(n_layers=2, d_model=8, kernel_dim=8),
    HOPEOptions(n_layers=2, d_model=8, d_state=8),
    LRUOptions(n_layers=2, d_model=8, d_state=8),
    LinOSSOptions(n_layers=2, d_model=8, d_state=8),
    HyenaOptions(n_layers=2, d_model=8, d_state=8),
    AttentionOptions(n_layers=2, d_model=8, n_heads=4),
    GRUOptions(n_layers=2, d_model=8, d_state=8),
    HybridOptions(
        n_layers=2, d_model=8, layers=("s5:d_state=16,n_blocks=2", "attention:n_heads=4,window=32")
    ),
)
"""Tiny models for the preset ``smoke``.

DLR has a larger ``dt_min`` than in the paper. With the paper's value, one step of Adam rotates the
phases of its kernel at 1,024 steps by a radian, and its losses are chaotic.
"""


def complete(published: Sequence[Recipe]) -> tuple[Recipe, ...]:
    """Returns the published ``paper`` recipes of a task, and a derived one for each other model.

    A derived recipe has the data, stack and training of the nearest published recipe, and the
    model's own defaults. Attention to long sequences is local.
    """
    known = {recipe.config.model.name: recipe for recipe in published}
    derived = []
    for name in MODELS.keys() - known.keys():
        donor = next((known[other] for other in DONORS[name] if other in known), published[0])
        local = name == "attention" and (known_length(donor.config) or 0) > LOCAL_ATTENTION
        changes = {"window": LOCAL_ATTENTION} if local else {}
        derived.append(adapt(donor, MODELS[name], **changes))
    return (*published, *sorted(derived, key=lambda recipe: recipe.key))


def known_length(config: Config) -> int | None:
    """Returns the longest sequence [steps], or None if it depends on a file of the user."""
    try:
        return get_task(config.task)(config.data).length
    except UsageError:
        return None


def adapt(donor: Recipe, model: type[ModelOptions], **changes: Any) -> Recipe:
    """Builds a recipe for another model; ``changes`` are options of that model.

    A hybrid has as many blocks as the other model, or as it takes to repeat its layers.
    """
    config = donor.config
    options = {name: getattr(config.model, name) for name in SHARED} | changes
    if issubclass(model, HybridOptions):
        n = len(options.get("layers", model.layers))
        options["n_layers"] = -(-options["n_layers"] // n) * n
    return vary(
        donor,
        model=model(**options),
        optim=dataclasses.replace(config.optim, opt_config="standard", dt_group="ssm"),
        source=f"not published; {config.model.name} on {config.task} is the nearest",
    )


def small(recipe: Recipe) -> tuple[Recipe, ...]:
    """Returns a recipe for two cores, and a recipe in the same stack for each other model."""
    others = SMALL.keys() - {recipe.config.model.name}
    derived = (adapt(recipe, MODELS[name], **SMALL[name]) for name in sorted(others))
    return (recipe, *(dataclasses.replace(row, source=UNTUNED) for row in derived))


def smoke(recipes: Iterable[Recipe], data: DataOptions, **stack: Any) -> tuple[Recipe, ...]:
    """Builds for each model a tiny run that exercises every part of the system.

    Args:
        recipes: the ``paper`` recipes of one task.
        data: few and short examples; the length must be a multiple of 4.
        **stack: options of every model, such as ``prenorm=False``.
    """
    tiny = {model.name: model for model in TINY}
    found = []
    for config in (recipe.config for recipe in recipes):
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
        found.append(Recipe(config=config, source="this library's, to try things"))
    return tuple(found)
