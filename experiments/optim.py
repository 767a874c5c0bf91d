"""Learning rates and optimiser groups."""

from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import s5jax
from experiments.config import Config, OptimOptions
from experiments.errors import pick

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

The first four are those of the published S5. ``slow_C`` is the current S4's, where it gives one
learning rate for all of a layer; ``slow_h_decay`` is HOPE's with a weight decay, ``frozen_h`` that
of its released code for texts, and ``fast_A`` that of the S4D in its scripts.
"""
STEP_SIZES = ("log_step", "raw_step")
UNDECAYED = ("bias", "scale", "embedding")


def cosine(peak: float, *, warmup_steps: int, steps: int) -> optax.Schedule:
    r"""Linear warm-up from zero, then half a cosine down to zero at the last step.

    A longer run sees the rate rise again, with the period of the cosine.

    .. math:: \eta_k = \eta \tfrac{k}{W} \ (k < W), \qquad
        \eta_k = \tfrac{\eta}{2} \left(1 + \cos \pi \tfrac{k - W}{T - W}\right)

    Args:
        peak: learning rate :math:`\eta` at the end of the warm-up.
        warmup_steps: length of the warm-up :math:`W` [steps].
        steps: length of the run :math:`T` [steps].

    Returns:
        The learning rate as a function of the step :math:`k`, counted from zero.
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

    So it starts to fall slightly below its peak, and the last :math:`W` steps have rate zero.

    Args:
        peak: learning rate :math:`\eta` at the end of the warm-up.
        warmup_steps: length of the warm-up :math:`W` [steps].
        steps: length of the run :math:`T` [steps].

    Returns:
        The learning rate as a function of the step :math:`k`, counted from zero.
    """
    end = steps - warmup_steps

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        warmup = peak * (jnp.asarray(step) + 1) / max(warmup_steps, 1)
        decay = peak * 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(step, end) / end))
        return jnp.where(jnp.asarray(step) < warmup_steps, warmup, decay)

    return schedule


def constant(peak: float, *, warmup_steps: int, steps: int) -> optax.Schedule:
    """Linear warm-up from zero, then the same rate to the end."""
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
    """The run's learning rate as a function of the step, for one peak rate."""
    options, epoch = config.optim, config.steps_per_epoch
    build = pick("schedule", options.schedule, SCHEDULES)
    steps = options.period_steps or config.train.steps
    schedule = build(peak, warmup_steps=options.warmup_steps, steps=steps)
    if not options.by_epoch:
        return schedule
    return lambda step: schedule(jnp.asarray(step) // epoch * epoch)


def group_labels(model: nnx.Module, options: OptimOptions) -> Any:
    """The optimiser group of every parameter.

    Args:
        model: a model that declares its groups.
        options: ``opt_config``, ``dt_group`` and ``decay_all`` change the declaration.

    Returns:
        Nested dictionaries like the model's parameters, with the name of a group at each leaf.

    Raises:
        ValueError: if ``opt_config`` names a parameter that the model does not have.
    """
    overrides = dict(OVERRIDES[options.opt_config])
    names = {path[-1] for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    overrides |= {name: options.dt_group for name in STEP_SIZES if name in names}
    if not options.decay_all:
        overrides |= {name: "no_decay" for name in UNDECAYED if name in names}
    return s5jax.param_labels(model, overrides)


def make_optimizer(config: Config, labels: Any) -> optax.GradientTransformation:
    r"""Adam or AdamW for each group, of gradients whose length is limited if asked for.

    ==========  =======  ====================
    group       rate     weight decay
    ==========  =======  ====================
    regular     lr       weight_decay
    no_decay    lr       none
    ssm         ssm_lr   none
    ssm_decay   ssm_lr   weight_decay
    frozen      0
    ==========  =======  ====================

    With ``clip_norm`` c the gradients g of all parameters but the frozen ones are

    .. math:: g \min(1, c / \lVert g \rVert)

    Args:
        config: the run's configuration.
        labels: the group of every parameter, as :func:`group_labels` gives it.

    Returns:
        The gradient transformation.
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
