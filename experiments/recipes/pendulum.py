"""Pendulum: sine and cosine of an angle, from noisy images at uneven times.

=====  ========  ====================  ======  =====  =======================================
model  task      published MSE         epochs  batch  source
=====  ========  ====================  ======  =====  =======================================
S5     pendulum  0.00341 +- 0.00027    100     32     Smith et al. 2023 and its code
=====  ========  ====================  ======  =====  =======================================

The published figure is quoted from memory. It belongs to another file of images, from the simulator
that this library's follows (see :mod:`experiments.tasks.pendulum.simulator`). The same paper tests
``--data.gaps=append``, about as good, and ``--data.gaps=ignore``, clearly worse.

Step lengths need layers in continuous time: S5, S4 and S4D. The recipes of the other models append
the gaps to the features of the convolutions, and their source says so.

Quirks kept: the norms' epsilon is Flax's, 1e-6; the cosine is not shifted by the warm-up
(``s5_cosine``).

References:
    Smith et al., "S5", 2023, https://arxiv.org/abs/2208.04933, section 6.3.
"""

import dataclasses

from experiments.config import OptimOptions
from experiments.config.models import AttentionOptions, HybridOptions, S5Options, SGConvOptions
from experiments.recipes._recipe import Recipe, adapt, complete, paper, smoke, train_by_epoch
from experiments.tasks.pendulum.task import PendulumOptions

EPOCH = 2_000 // 32
S5 = paper(
    "pendulum",
    PendulumOptions(),
    S5Options(
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
    OptimOptions(
        lr=0.012, ssm_lr=0.003, weight_decay=0.0, schedule="s5_cosine", warmup_steps=EPOCH
    ),
    dataclasses.replace(train_by_epoch(EPOCH, 100 * EPOCH, batch_size=32), log_every=EPOCH),
    source="Smith et al. 2023 and its code",
    published=0.00341,
)


def _append_gaps(recipe: Recipe) -> Recipe:
    """Returns the recipe, with the gaps as inputs if its layers do not take step lengths."""
    config = recipe.config
    if config.model.continuous_time:
        return recipe
    data = dataclasses.replace(config.data, gaps="append")
    return dataclasses.replace(
        recipe,
        config=dataclasses.replace(config, data=data),
        source=f"{recipe.source}; time gaps appended to the inputs, as its layers take none",
    )


OTHERS = (
    adapt(S5, AttentionOptions, n_heads=3),  # 30 features are not divisible by four heads
    adapt(S5, HybridOptions, layers=("s5", "s5", "attention:n_heads=3")),
    adapt(S5, SGConvOptions, kernel_dim=8),  # 50 steps are too few for a kernel of 64
)
PAPER = tuple(map(_append_gaps, complete([S5, *OTHERS])))
SMALL = PendulumOptions(n_train=64, n_validation=20, n_test=20, n_frames=32, n_kept=16)
ROWS = (*PAPER, *map(_append_gaps, smoke(PAPER, SMALL)))
