"""Pathfinder segmentation at 128 x 128, 256 x 256 and 512 x 512 pixels.

=========  ===========================  =========  ======  =====  =============
model      task                         published  epochs  batch  learning rate
=========  ===========================  =========  ======  =====  =============
DLR        pathfinder_segmentation_128  not known  30      16     1e-4
attention  pathfinder_segmentation_128  not known  30      8 x 2  1e-3
DLR        pathfinder_segmentation_256  not known  40      6 x 3  5e-5
DLR        pathfinder_segmentation_512  not known  40      2 x 7  1e-5
=========  ===========================  =========  ======  =====  =============

All from Gupta, Mehta and Berant 2022 and its code; a batch is that of a GPU times their number. The
paper's DSS is another version of the same model, ``--model=dlr --model.version=dss_exp``, with
``--optim.lr`` and ``--optim.ssm_lr`` at 1e-3 on 128 and 5e-4 on 256 and 512.

Quirks that are kept: kernels end after 8,192 lags at 128 and 32,768 at 256 and 512, so that no
layer sees a whole image; the layer norm has one scale and shift for all features
(``scalar_layer``); at 256 and 512 the run ends before its cosine does (``period_steps``).
Not kept: local attention saw its own chunk of 1,024 steps and those beside it, where ours sees
1,023 steps to either side of each. That norms come
before the layer is stated for 128 only, and taken for the others; a weight decay is not stated,
and the code's default is none.

References:
    Gupta, Mehta and Berant, "Simplifying and Understanding State Space Models with Diagonal Linear
    RNNs", 2022, https://arxiv.org/abs/2212.00768.
"""

import dataclasses
from typing import Any

from experiments.config import Config, OptimOptions, TrainOptions
from experiments.models import AttentionOptions, DLROptions
from experiments.recipes._recipe import Recipe, complete, nearest, smoke
from experiments.tasks.pathfinder import PATHFINDER, PathfinderOptions
from experiments.tasks.segmentation import SEGMENTATION, SegmentationOptions

SOURCE = "Gupta et al. 2022 and its code"
NORM_UNKNOWN = f"{SOURCE}; the norm's place is not stated, 128 is the nearest"
WINDOW = 1_024


def _data(setting: PathfinderOptions, **changes: Any) -> SegmentationOptions:
    return SegmentationOptions(**{**dataclasses.asdict(setting), **changes})


def _optim(lr: float, warmup_steps: int, period_steps: int | None = None) -> OptimOptions:
    return OptimOptions(
        lr=lr,
        ssm_lr=lr,
        weight_decay=0.0,
        warmup_steps=warmup_steps,
        period_steps=period_steps,
        decay_all=False,
    )


def _train(epochs: int, batch_size: int) -> TrainOptions:
    epoch = 80_000 // batch_size
    return TrainOptions(
        steps=epochs * epoch,
        batch_size=batch_size,
        log_every=100,
        eval_every=epoch,
        checkpoint_every=1_000,
    )


STACK: dict[str, Any] = {"norm": "scalar_layer", "activation": "glu", "final_norm": True}

SEGMENTATION_128 = Config(
    task="pathfinder_segmentation_128",
    preset="paper",
    data=_data(SEGMENTATION["seg128"]),
    model=DLROptions(n_layers=5, d_model=128, d_state=1_024, l_kernel=8_192, **STACK),
    optim=_optim(1e-4, warmup_steps=3_000),
    train=_train(30, batch_size=16),
)
SEGMENTATION_256 = Config(
    task="pathfinder_segmentation_256",
    preset="paper",
    data=_data(SEGMENTATION["seg256"]),
    model=DLROptions(n_layers=6, d_model=128, d_state=1_024, l_kernel=32_768, **STACK),
    optim=_optim(5e-5, warmup_steps=1_000, period_steps=200_000),
    train=_train(40, batch_size=18),
)
SEGMENTATION_512 = Config(
    task="pathfinder_segmentation_512",
    preset="paper",
    data=_data(SEGMENTATION["seg512"]),
    model=DLROptions(n_layers=12, d_model=64, d_state=2_048, l_kernel=32_768, **STACK),
    optim=_optim(1e-5, warmup_steps=200, period_steps=600_000),
    train=_train(40, batch_size=14),
)
LOCAL_ATTENTION = dataclasses.replace(
    SEGMENTATION_128,
    model=AttentionOptions(n_layers=5, d_model=128, n_heads=4, window=WINDOW, **STACK),
    optim=_optim(1e-3, warmup_steps=3_000),
)


def _with_local_attention(dlr: Config) -> tuple[Recipe, ...]:
    """All models of a task for which only DLR is published."""
    published = Recipe(config=dlr, source=NORM_UNKNOWN)
    return complete([published, nearest(published, AttentionOptions, window=WINDOW)])


PAPER = (
    complete([Recipe(config=c, source=SOURCE) for c in (SEGMENTATION_128, LOCAL_ATTENTION)]),
    _with_local_attention(SEGMENTATION_256),
    _with_local_attention(SEGMENTATION_512),
)
SMALL = _data(PATHFINDER["path32"], n_train=1_024, n_validation=60, n_test=60)
ROWS = (
    *(recipe for task in PAPER for recipe in task),
    *(recipe for task in PAPER for recipe in smoke(task, SMALL)),
)
