"""Pendulum: sine and cosine of an angle, from noisy images at uneven times.

=====  ========  ====================  ======  =====  =======================================
model  task      published MSE         epochs  batch  source
=====  ========  ====================  ======  =====  =======================================
S5     pendulum  0.00341 +- 0.00027    100     32     Smith et al. 2023 and its code
=====  ========  ====================  ======  =====  =======================================

The published figure is quoted from memory and belongs to another file of images, from the
simulator that this library's follows (see :mod:`experiments.tasks._pendulum_simulator`). Hours are
not stated. The same paper has ``--data.gaps=append``, about as good, and ``--data.gaps=ignore``,
clearly worse.

Step lengths need layers in continuous time: S5, S4 and S4D. The recipes of the other models append
the gaps to what the convolutions find, and a run says so.

Quirks kept: the norms' epsilon is Flax's, 1e-6; the cosine is not shifted by the warm-up
(``s5_cosine``).

References:
    Smith, Warrington and Linderman, "Simplified State Space Layers for Sequence Modeling", 2023,
    https://arxiv.org/abs/2208.04933, section 6.3.
"""

import dataclasses

from experiments.config import Config, OptimOptions, TrainOptions
from experiments.models import AttentionOptions, S5Options, SGConvOptions
from experiments.recipes._recipe import Recipe, complete, nearest, smoke
from experiments.tasks.pendulum import PendulumOptions

EPOCH = 2_000 // 32

S5 = Config(
    task="pendulum",
    preset="paper",
    data=PendulumOptions(),
    model=S5Options(
        n_layers=4,
        d_model=30,
        d_state=16,
        n_blocks=8,
        norm="layer",
        prenorm=False,
        norm_epsilon=1e-6,
        activation="half_glu2",
        bidirectional=False,
        C_init="trunc_standard_normal",
        dt_min=0.01,
    ),
    optim=OptimOptions(
        lr=0.012, ssm_lr=0.003, weight_decay=0.0, schedule="s5_cosine", warmup_steps=EPOCH
    ),
    train=TrainOptions(
        steps=100 * EPOCH,
        batch_size=32,
        log_every=EPOCH,
        eval_every=EPOCH,
        checkpoint_every=EPOCH,
    ),
)


def _within_reach(recipe: Recipe) -> Recipe:
    """The recipe, with gaps appended if its layers take no step lengths."""
    config = recipe.config
    if config.model.layer.continuous_time:
        return recipe
    data = dataclasses.replace(config.data, gaps="append")
    return dataclasses.replace(
        recipe,
        config=dataclasses.replace(config, data=data),
        source=f"{recipe.source}; time gaps appended to the inputs, as its layers take none",
    )


PUBLISHED = Recipe(config=S5, source="Smith et al. 2023 and its code", published=0.00341)
OTHERS = (
    nearest(PUBLISHED, AttentionOptions, n_heads=3),  # 30 features do not make four heads
    nearest(PUBLISHED, SGConvOptions, kernel_dim=8),  # 50 steps do not hold a kernel of 64
)
PAPER = tuple(map(_within_reach, complete([PUBLISHED, *OTHERS])))
SMALL = PendulumOptions(n_train=64, n_validation=20, n_test=20, n_frames=32, n_kept=16)
ROWS = (*PAPER, *map(_within_reach, smoke(PAPER, SMALL)))
