"""Your own data: this library's settings to start from, which are not published.

The preset ``paper`` is S5's recipe for Speech Commands with a smaller model. The preset ``cpu`` is
for two CPU cores. They train on 10,000 and 1,000 batches, whatever the number of examples: adjust
``--train.steps``, ``--train.eval_every`` and ``--optim.warmup_steps`` to your file.
"""

import dataclasses

from experiments.config import OptimOptions, TrainOptions
from experiments.config.models import S5Options
from experiments.recipes._recipe import Recipe, complete, cpu, paper, smoke
from experiments.tasks.arrays.options import ArraysOptions

SOURCE = "this library's, to begin with"


def _all_models(recipe: Recipe) -> tuple[Recipe, ...]:
    return tuple(dataclasses.replace(row, source=SOURCE) for row in complete([recipe]))


PAPER = _all_models(
    paper(
        "arrays",
        ArraysOptions(),
        S5Options(n_layers=4, d_model=128, d_state=128, n_blocks=8, dropout=0.1),
        OptimOptions(lr=0.004, ssm_lr=0.001, weight_decay=0.05, warmup_steps=1_000),
        TrainOptions(steps=10_000, eval_every=500, checkpoint_every=500),
        source=SOURCE,
    )
)
CPU = _all_models(
    cpu(
        "arrays",
        ArraysOptions(),
        S5Options(n_layers=2, d_model=32, d_state=64, n_blocks=1, dropout=0.1),
        OptimOptions(lr=0.004, ssm_lr=0.001, weight_decay=0.05, warmup_steps=100),
        TrainOptions(steps=1_000, log_every=50, eval_every=100, checkpoint_every=100),
    )
)
ROWS = (*PAPER, *CPU, *smoke(PAPER, ArraysOptions()))
