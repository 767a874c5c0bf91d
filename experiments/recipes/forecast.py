"""Forecasts of time series: this library's settings to start from, which are not published.

The preset ``paper`` has the stack of S4's forecasting experiments with S5, as far as it is known:
two blocks of 128 features, layer norms before, dropout 0.25. The preset ``cpu`` learns the default
series in half a minute on two cores. Both train on a fixed number of batches, whatever the number
of windows: adjust ``--train.steps`` and ``--train.eval_every`` to your table.

References:
    Gu, Goel and Ré, "Efficiently Modeling Long Sequences with Structured State Spaces", 2022,
    https://arxiv.org/abs/2111.00396, section 4.3.
"""

import dataclasses
from typing import Any

from experiments.config import OptimOptions, TrainOptions
from experiments.config.models import S5Options
from experiments.recipes._recipe import Recipe, complete, cpu, paper, smoke
from experiments.tasks.series.options import ForecastOptions

SOURCE = "this library's, to begin with"
STACK: dict[str, Any] = {
    "n_layers": 2,
    "n_blocks": 1,
    "norm": "layer",
    "prenorm": True,
    "bidirectional": False,
}


def _all_models(recipe: Recipe) -> tuple[Recipe, ...]:
    return tuple(dataclasses.replace(row, source=SOURCE) for row in complete([recipe]))


PAPER = _all_models(
    paper(
        "forecast",
        ForecastOptions(),
        S5Options(d_model=128, d_state=64, dropout=0.25, **STACK),
        OptimOptions(lr=0.004, ssm_lr=0.001, weight_decay=0.05, warmup_steps=200),
        TrainOptions(steps=5_000, log_every=100, eval_every=250, checkpoint_every=250),
        source=SOURCE,
    )
)
CPU = cpu(
    "forecast",
    ForecastOptions(),
    S5Options(d_model=32, d_state=32, dropout=0.1, **STACK),
    OptimOptions(lr=0.004, ssm_lr=0.001, weight_decay=0.05, warmup_steps=50),
    TrainOptions(steps=600, log_every=50, eval_every=100, checkpoint_every=100),
)
SMALL = ForecastOptions(context=24, horizon=8, stride=4, n_train=64, n_validation=16, n_test=16)
ROWS = (*PAPER, CPU, *smoke(PAPER, SMALL, norm="layer"))
