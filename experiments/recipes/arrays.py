"""Your own data: settings to begin with, which are this library's and not published.

Those of ``paper`` are S5's of Speech Commands, a little smaller; ``cpu`` is for minutes on two
cores. Both see 10,000 and 1,000 batches however many examples the file has: ``--train.steps``,
``--train.eval_every`` and ``--optim.warmup_steps`` fit them to it.
"""

import dataclasses

from experiments.config import Config, OptimOptions, TrainOptions
from experiments.models import S5Options
from experiments.recipes._recipe import Recipe, complete, smoke
from experiments.tasks.arrays import ArraysOptions

SOURCE = "this library's, to begin with"

PAPER_S5 = Config(
    task="arrays",
    preset="paper",
    data=ArraysOptions(),
    model=S5Options(n_layers=4, d_model=128, d_state=128, n_blocks=8, dropout=0.1),
    optim=OptimOptions(lr=0.004, ssm_lr=0.001, weight_decay=0.05, warmup_steps=1_000),
    train=TrainOptions(steps=10_000, eval_every=500, checkpoint_every=500),
)
CPU_S5 = dataclasses.replace(
    PAPER_S5,
    preset="cpu",
    model=S5Options(n_layers=2, d_model=32, d_state=64, n_blocks=1, dropout=0.1),
    optim=OptimOptions(lr=0.004, ssm_lr=0.001, weight_decay=0.05, warmup_steps=100),
    train=TrainOptions(steps=1_000, log_every=50, eval_every=100, checkpoint_every=100),
)


def _all_models(config: Config) -> tuple[Recipe, ...]:
    rows = complete([Recipe(config=config, source=SOURCE)])
    return tuple(dataclasses.replace(row, source=SOURCE) for row in rows)


PAPER = _all_models(PAPER_S5)
ROWS = (*PAPER, *_all_models(CPU_S5), *smoke(PAPER, ArraysOptions()))
