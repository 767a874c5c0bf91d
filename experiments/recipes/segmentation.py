"""Pathfinder segmentation at 128 x 128, 256 x 256 and 512 x 512 pixels.

=========  ===========================  =========  ======  =====  =============
model      task                         published  epochs  batch  learning rate
=========  ===========================  =========  ======  =====  =============
DLR        pathfinder_segmentation_128  not known  30      16     1e-4
attention  pathfinder_segmentation_128  not known  30      8 x 2  1e-3
DLR        pathfinder_segmentation_256  not known  40      6 x 3  5e-5
DLR        pathfinder_segmentation_512  not known  40      2 x 7  1e-5
=========  ===========================  =========  ======  =====  =============

All settings are from Gupta et al. 2022 and its code. A batch is the batch of one GPU times the
number of GPUs. The paper's DSS is another version of the same model: ``--model=dlr
--model.version=dss_exp``, with ``--optim.lr`` and ``--optim.ssm_lr`` at 1e-3 on 128 and 5e-4 on 256
and 512.

Quirks that the preset ``paper`` keeps. Kernels end after 8,192 lags at 128 and 32,768 at 256 and
512, so that no layer sees a whole image. The layer norm has one scale and one shift for all
features (``scalar_layer``). At 256 and 512 the run ends before its cosine does (``period_steps``).

What is not kept: the published local attention sees its own chunk of 1,024 steps and the adjacent
chunks; here it sees 1,023 steps on either side.

Unknown: whether norms come before the layer is stated for 128 only, and taken for the others. A
weight decay is not stated; the code's default is none.

References:
    Gupta et al., "DLR", 2022, https://arxiv.org/abs/2212.00768.
"""

import dataclasses
from typing import Any

from experiments.config import OptimOptions
from experiments.config.models import AttentionOptions, DLROptions
from experiments.recipes._recipe import (
    LOCAL_ATTENTION,
    Recipe,
    adapt,
    complete,
    paper,
    smoke,
    train_by_epoch,
    vary,
)
from experiments.tasks.pathfinder.options import PATHFINDER, PathfinderOptions
from experiments.tasks.pathfinder.segmentation import SEGMENTATION, SegmentationOptions

SOURCE = "Gupta et al. 2022 and its code"
NORM_UNKNOWN = f"{SOURCE}; the norm's place is not stated, 128 is the nearest"
STACK: dict[str, Any] = {"norm": "scalar_layer", "activation": "glu", "final_norm": True}


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


def _dlr(size: int, model: DLROptions, optim: OptimOptions, epochs: int, batch_size: int) -> Recipe:
    epoch = 80_000 // batch_size
    train = train_by_epoch(epoch, epochs * epoch, batch_size)
    return paper(
        f"pathfinder_segmentation_{size}",
        _data(SEGMENTATION[f"seg{size}"]),
        model,
        optim,
        dataclasses.replace(train, checkpoint_every=1_000),
        source=SOURCE if size == 128 else NORM_UNKNOWN,
    )


DLR_128 = _dlr(
    128,
    DLROptions(n_layers=5, d_model=128, d_state=1_024, l_kernel=8_192, **STACK),
    _optim(1e-4, warmup_steps=3_000),
    epochs=30,
    batch_size=16,
)
ATTENTION_128 = vary(
    DLR_128,
    model=AttentionOptions(n_layers=5, d_model=128, n_heads=4, window=LOCAL_ATTENTION, **STACK),
    optim=_optim(1e-3, warmup_steps=3_000),
    source=SOURCE,
)
DLR_256 = _dlr(
    256,
    DLROptions(n_layers=6, d_model=128, d_state=1_024, l_kernel=32_768, **STACK),
    _optim(5e-5, warmup_steps=1_000, period_steps=200_000),
    epochs=40,
    batch_size=18,
)
DLR_512 = _dlr(
    512,
    DLROptions(n_layers=12, d_model=64, d_state=2_048, l_kernel=32_768, **STACK),
    _optim(1e-5, warmup_steps=200, period_steps=600_000),
    epochs=40,
    batch_size=14,
)
PAPER = (
    complete([DLR_128, ATTENTION_128]),
    *(
        complete([dlr, adapt(dlr, AttentionOptions, window=LOCAL_ATTENTION)])
        for dlr in (DLR_256, DLR_512)
    ),
)
SMALL = _data(PATHFINDER["path32"], n_train=1_024, n_validation=60, n_test=60)
ROWS = (
    *(recipe for task in PAPER for recipe in task),
    *(recipe for task in PAPER for recipe in smoke(task, SMALL)),
)
