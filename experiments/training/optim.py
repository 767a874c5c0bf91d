"""Learning rates and optimiser groups."""

from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import s5jax
from experiments.config import Config, OptimOptions
from experiments.errors import choose

OVERRIDES: dict[str, dict[str, str]] = {
    "standard": {},
    "BandCdecay": {"B": "ssm_decay"},
    "BfastandCdecay": {"B": "regular"},
    "noBCdecay": {"C": "ssm", "D": "ssm"},
    "slow_C": {"C": "ssm_decay"},
    "slow_h_decay": {"h": "ssm_decay"},
    "frozen_h": {"h": "frozen"},
    "fast_A": {"raw_decay": "regular", "Lambda_im": "regular"},
}
"""What each ``opt_config`` changes in the groups that a model declares.

The first four are from the published S5. ``slow_C`` is the current S4's choice of one learning rate
for a whole layer. ``slow_h_decay`` is HOPE with weight decay, ``frozen_h`` is HOPE's released code
for texts, and ``fast_A`` is the S4D in HOPE's scripts.
"""
STEP_SIZES = ("log_step", "raw_step")
UNDECAYED = ("bias", "scale", "embedding")


def cosine(peak: float, *, warmup_steps: int, steps: int) -> optax.Schedule:
    r"""Linear warm-up from zero, then half a cosine down to zero at the last step.

    The learning rate at step k, counted from zero, is

    .. math:: \eta_k = \eta \tfrac{k}{W} \ (k < W), \qquad
        \eta_k = \tfrac{\eta}{2} \left(1 + \cos \pi \tfrac{k - W}{T - W}\right)

    for the peak :math:`\eta`, a warm-up of W steps and a run of T steps. After step T the rate
    rises again, with the period of the cosine.
    """

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step)
        warmup = peak * step / max(warmup_steps, 1)
        phase = jnp.pi * (step - warmup_steps) / (steps - warmup_steps)
        return jnp.where(step < warmup_steps, warmup, peak * 0.5 * (1 + jnp.cos(phase)))

    return schedule


def s5_cosine(peak: float, *, warmup_steps: int, steps: int) -> optax.Schedule:
    r"""The schedule of the published S5 code, in which the cosine is not shifted by the warm-up.

    .. math:: \eta_k = \eta \tfrac{k + 1}{W} \ (k < W), \qquad
        \eta_k = \tfrac{\eta}{2} \left(1 + \cos \pi \tfrac{\min(k, T - W)}{T - W}\right)

    The decay therefore starts slightly below the peak, and the last :math:`W` steps have rate zero.
    The symbols are those of `cosine`.
    """
    end = steps - warmup_steps

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        warmup = peak * (jnp.asarray(step) + 1) / max(warmup_steps, 1)
        decay = peak * 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(step, end) / end))
        return jnp.where(jnp.asarray(step) < warmup_steps, warmup, decay)

    return schedule


def constant(peak: float, *, warmup_steps: int, steps: int) -> optax.Schedule:
    """Linear warm-up from zero, then a constant rate."""
    del steps
    if warmup_steps:
        return optax.linear_schedule(0.0, peak, warmup_steps)
    return optax.constant_schedule(peak)


SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {
    "cosine": cosine,
    "s5_cosine": s5_cosine,
    "constant": constant,
}


def make_schedule(config: Config, peak: float) -> optax.Schedule:
    """Builds the run's learning rate, as a function of the step, for a peak rate."""
    options, epoch = config.optim, config.steps_per_epoch
    build = choose("schedule", options.schedule, SCHEDULES)
    steps = options.period_steps or config.train.steps
    schedule = build(peak, warmup_steps=options.warmup_steps, steps=steps)
    if not options.by_epoch:
        return schedule
    return lambda step: schedule(jnp.asarray(step) // epoch * epoch)


def group_labels(model: nnx.Module, options: OptimOptions) -> Any:
    """Returns the optimiser group of every parameter.

    The model declares the groups; ``opt_config``, ``dt_group``, ``decay_all`` and ``freeze`` change
    them.

    Returns:
        Nested dictionaries like the model's parameters, with the name of a group at each leaf.

    Raises:
        ValueError: if ``opt_config`` or ``freeze`` names what the model does not have.
    """
    overrides = dict(OVERRIDES[options.opt_config])
    names = {path[-1] for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    overrides |= {name: options.dt_group for name in STEP_SIZES if name in names}
    if not options.decay_all:
        overrides |= {name: "no_decay" for name in UNDECAYED if name in names}
    labels = s5jax.param_labels(model, overrides)
    return _freeze(labels, options.freeze) if options.freeze else labels


def _freeze(labels: Any, parts: tuple[str, ...]) -> Any:
    """Moves parts of a model to the group "frozen".

    Raises:
        ValueError: if a part has no parameters, or none are left to train.
    """
    frozen = set()

    def label(path: tuple[Any, ...], group: str) -> str:
        found = _parts([str(key.key) for key in path], group) & set(parts)
        frozen.update(found)
        return "frozen" if found else group

    labels = jax.tree_util.tree_map_with_path(label, labels)
    if missing := set(parts) - frozen:
        raise ValueError(
            f"OptimOptions: `freeze` must name parts with parameters; this model has none in "
            f"{', '.join(sorted(missing))}."
        )
    if set(jax.tree.leaves(labels)) == {"frozen"}:
        raise ValueError(
            f"OptimOptions: `freeze` must leave parameters to train; got {', '.join(parts)}."
        )
    return labels


def _parts(path: list[str], group: str) -> set[str]:
    """The parts of a model that a parameter belongs to."""
    parts = {"ssm"} if group in ("ssm", "ssm_decay") else set()
    if path[0] != "backbone":
        return parts | {"head"}
    if path[1] == "encode":
        return parts | {"encoder"}
    return parts | ({"blocks", "layers"} if "layer" in path else {"blocks"})


def make_optimizer(config: Config, labels: Any) -> optax.GradientTransformation:
    r"""Builds Adam or AdamW for each group.

    ==========  =======  ====================
    group       rate     weight decay
    ==========  =======  ====================
    regular     lr       weight_decay
    no_decay    lr       none
    ssm         ssm_lr   none
    ssm_decay   ssm_lr   weight_decay
    frozen      0
    ==========  =======  ====================

    ``clip_norm`` c first scales the gradients g of all parameters that are not frozen to

    .. math:: g \min(1, c / \lVert g \rVert)

    ``labels`` is the result of :func:`group_labels`.
    """
    rate = make_schedule(config, config.optim.lr)
    ssm_rate = make_schedule(config, config.optim.ssm_lr)
    decay = config.optim.weight_decay
    groups: dict[Hashable, optax.GradientTransformation] = {
        "regular": optax.adamw(rate, weight_decay=decay),
        "no_decay": optax.adam(rate),
        "ssm": optax.adam(ssm_rate),
        "ssm_decay": optax.adamw(ssm_rate, weight_decay=decay),
        "frozen": optax.set_to_zero(),
    }
    optimizer = optax.multi_transform(groups, labels)
    if config.optim.clip_norm is None:
        return optimizer
    frozen = jax.tree.map(lambda label: label == "frozen", labels)
    return optax.chain(
        optax.masked(optax.set_to_zero(), frozen),
        optax.clip_by_global_norm(config.optim.clip_norm),
        optimizer,
    )
