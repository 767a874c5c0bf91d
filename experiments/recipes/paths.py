"""Pathfinder (32 x 32), Path-X (128 x 128) and Path-256.

========  ==========  ==================  ========  =====  ======================================
model     task        published accuracy  epochs    batch  source
========  ==========  ==================  ========  =====  ======================================
S5        pathfinder  95.33 +- 0.26 %     200       64     Smith et al. 2023 and its code
S5        pathx       98.58 +- 0.17 %     75        32     Smith et al. 2023 and its code
S5        path256     not published       75        32     the settings of pathx
========  ==========  ==================  ========  =====  ======================================

The published S5 runs used one GPU; their hours are not stated (S4's Path-X runs took 56 minutes
an epoch on an A100). Quirks that they have and the preset ``paper`` keeps: the cosine is not
shifted by the warm-up, so that the last epoch trains at rate zero (``s5_cosine``); norms and biases
decay, too; running statistics have momentum 0.9. Images are drawn afresh, so neither the official
order of the data nor the official seeds (8180844, 6429262) have a meaning here.

References:
    Smith, Warrington and Linderman, "Simplified State Space Layers for Sequence Modeling", 2023,
    https://arxiv.org/abs/2208.04933.
    Tay et al., "Long Range Arena: A Benchmark for Efficient Transformers", 2021,
    https://arxiv.org/abs/2011.04006.
"""

import dataclasses
from typing import Any

from experiments.config import Config, OptimOptions, TrainOptions
from experiments.models import S5Options
from experiments.recipes._recipe import Recipe, complete, smoke
from experiments.tasks.pathfinder import PATHFINDER as SETTINGS
from experiments.tasks.paths import PathsOptions


def _data(setting: str, **changes: Any) -> PathsOptions:
    return PathsOptions(**{**dataclasses.asdict(SETTINGS[setting]), **changes})


PATHFINDER_S5 = Config(
    task="pathfinder",
    preset="paper",
    data=_data("path32"),
    model=S5Options(
        d_model=192, d_state=256, n_blocks=8, dropout=0.05, C_init="trunc_standard_normal"
    ),
    optim=OptimOptions(
        lr=0.0045, ssm_lr=0.0009, weight_decay=0.03, schedule="s5_cosine", warmup_steps=2_500
    ),
    train=TrainOptions(
        steps=200 * 2_500, batch_size=64, log_every=100, eval_every=2_500, checkpoint_every=2_500
    ),
)

PATHX_S5 = Config(
    task="pathx",
    preset="paper",
    data=_data("path128"),
    model=S5Options(d_model=128, d_state=256, n_blocks=16, C_init="complex_normal", dt_min=1e-4),
    optim=OptimOptions(
        lr=0.0018,
        ssm_lr=0.0006,
        weight_decay=0.06,
        schedule="s5_cosine",
        warmup_steps=5_000,
        opt_config="BandCdecay",
    ),
    train=TrainOptions(
        steps=75 * 5_000, batch_size=32, log_every=100, eval_every=5_000, checkpoint_every=1_000
    ),
)

PATH256_S5 = dataclasses.replace(PATHX_S5, task="path256", data=_data("path256"))


def _cpu(paper: Config) -> Config:
    """What two cores learn in ten minutes: short contours on small images, no distractors.

    Tried on two cores, four layers of width 32, batches of 32: validation accuracy after so many
    steps.

    ==========================================================  ========  ========
    setting                                                     steps     accuracy
    ==========================================================  ========  ========
    contours of 3 dashes, 1 HiPPO block, ssm_lr 1e-3            500       89 %
    contours of 4 dashes, 1 HiPPO block, ssm_lr 1e-3            700       86 %
    contours of 4 dashes, 1 HiPPO block, ssm_lr 3e-3            500       81 %
    contours of 4 dashes, 4 HiPPO blocks of 8, d_state 32       100       55 %
    ==========================================================  ========  ========

    One HiPPO block of 64 states, rather than several small ones, matters most: it holds the high
    frequencies that see single pixels and rows.
    """
    return dataclasses.replace(
        paper,
        preset="cpu",
        data=_data("path32", n_paddles=4, n_distractors=0, n_validation=1_000, n_test=2_000),
        model=S5Options(
            n_layers=4, d_model=32, d_state=64, n_blocks=1, C_init="trunc_standard_normal"
        ),
        optim=OptimOptions(lr=4e-3, ssm_lr=1e-3, weight_decay=0.03, warmup_steps=80),
        train=TrainOptions(
            steps=850, batch_size=32, log_every=10, eval_every=170, checkpoint_every=85
        ),
    )


S5_SOURCE = "Smith et al. 2023 and its code"
PATHFINDER = complete(
    [Recipe(config=PATHFINDER_S5, source=S5_SOURCE, published=0.9533)],
)
PATHX = complete([Recipe(config=PATHX_S5, source=S5_SOURCE, published=0.9858)])
PATH256 = complete([Recipe(config=PATH256_S5, source="not published; s5 on pathx is the nearest")])
PAPER = (*PATHFINDER, *PATHX, *PATH256)
ROWS = (
    *PAPER,
    *(
        Recipe(config=_cpu(paper), source="this library's, tried on two cores")
        for paper in (PATHFINDER_S5, PATHX_S5, PATH256_S5)
    ),
    *smoke(PAPER, _data("path32", n_train=1_024, n_validation=60, n_test=60)),
)
