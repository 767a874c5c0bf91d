"""The atomic tasks of the DLR paper.

=========  ============  =========  ======  =====  ========================
model      task          published  epochs  batch  source
=========  ============  =========  ======  =====  ========================
DLR        all but mips  unknown    12      16     the commands of its code
DLR        mips          unknown    12      4      the commands of its code
attention  all but mips  unknown    12      16     the commands of its code
attention  mips          unknown    12      4      the commands of its code
SGConv     shift         unknown    12      4      the commands of its code
=========  ============  =========  ======  =====  ========================

The published values of R^2 and the hours are not known to this project. The other models have the
settings of DLR's runs. What else was published is a few flags away:

- DSS: ``--model=dlr --model.version=dss_exp --model.dt_min=1e-4 --model.dt_max=0.01`` with both
  learning rates at 1e-3;
- six layers: ``--model.n_layers=6``, at ``--data.length=512`` with batches of 64 and rates of 5e-5;
- attention at ``--data.length=512``: two layers, batches of 64;
- shift of 16,384 to 1,048,576 steps: ``--data.length=...`` with ``--model.d_model=32``, batches of
  4, rates of 1e-5 and 7,200 examples an epoch, which is the row of SGConv.

Quirks. Four processes of the published loader each gave the whole epoch (not so for mips, whose
examples were made on the GPU), so that 12 epochs of 14,400 examples were really 48: the steps here
are those. Examples were new each time. The learning rate is constant, nothing decays. The layer
norm has one scale and one shift for all features and no epsilon (``scalar_layer``).

References:
    Gupta, Mehta and Berant, "Simplifying and Understanding State Space Models with Diagonal Linear
    RNNs", 2022, https://arxiv.org/abs/2212.00768.
"""

import dataclasses
from typing import Any

from experiments.config import Config, OptimOptions, TrainOptions
from experiments.models import AttentionOptions, DLROptions, S5Options, SGConvOptions
from experiments.recipes._recipe import UNTUNED, Recipe, complete, smoke
from experiments.tasks.atomic import ATOMIC, AtomicOptions

SOURCE = "Gupta et al. 2022, the commands of its code"
STACK: dict[str, Any] = {
    "n_layers": 1,
    "norm": "scalar_layer",
    "prenorm": False,
    "activation": "gelu_linear",
    "bidirectional": False,
}
DLR = DLROptions(d_state=4_096, dt_min=1e-5, dt_max=1e-5, **STACK)
ATTENTION = AttentionOptions(n_heads=4, **STACK)


def _paper(
    task: str, model: Any, lr: float, *, batch_size: int, copies: int, **data: int
) -> Recipe:
    """A published run: 12 epochs at a constant rate, each repeated by ``copies`` processes."""
    options = AtomicOptions(**data)
    epoch = copies * options.n_train // batch_size
    return Recipe(
        config=Config(
            task=task,
            preset="paper",
            data=options,
            model=model,
            optim=OptimOptions(
                lr=lr, ssm_lr=lr, weight_decay=0.0, schedule="constant", decay_all=False
            ),
            train=TrainOptions(
                steps=12 * epoch,
                batch_size=batch_size,
                log_every=100,
                eval_every=epoch,
                checkpoint_every=epoch,
            ),
        ),
        source=SOURCE,
    )


def _published(task: str) -> list[Recipe]:
    if task == "mips":
        runs = {"batch_size": 4, "copies": 1, "n_train": 57_600, "n_validation": 6_400}
        return [_paper(task, DLR, 1e-4, **runs), _paper(task, ATTENTION, 1e-4, **runs)]
    runs = {"batch_size": 16, "copies": 4}
    recipes = [_paper(task, DLR, 1e-4, **runs), _paper(task, ATTENTION, 1e-3, **runs)]
    if task == "shift":
        sgconv = SGConvOptions(d_model=32, decay_min=1.0, decay_max=1.0, **STACK)
        long = {"length": 16_384, "n_train": 7_200, "n_validation": 800, "n_test": 800}
        recipes.append(_paper(task, sgconv, 1e-5, batch_size=4, copies=4, **long))
    return recipes


def _cpu(task: str, model: S5Options, *, length: int, ssm_lr: float, steps: int) -> Recipe:
    """What two cores learn in ten minutes: shorter signals.

    Tried on two cores, batches of 16: R^2 of validation data, or in brackets of the last training
    steps, after so many steps.

    ======  ======  ======  ======  ===================================  =====  =======
    task    length  layers  states  setting                              steps  R^2
    ======  ======  ======  ======  ===================================  =====  =======
    shift   256     1       512     step sizes of 1 / 64, ssm_lr 1e-3    500    0.973
    shift   256     1       512     step sizes of 1 / 64, ssm_lr 1e-3    2,000  0.992
    cumsum  512     2       64      ssm_lr 1e-3                          300    (0.363)
    cumsum  256     2       32      ssm_lr 2e-3                          1,000  (0.985)
    cumsum  512     2       32      ssm_lr 2e-3                          1,000  0.976
    cumsum  512     2       32      ssm_lr 2e-3                          3,000  0.994
    ======  ======  ======  ======  ===================================  =====  =======

    A delay by most of the signal takes as many states as the signal has values, and HiPPO's
    frequencies resolve them if the step size is a few times 1 / length.
    """
    return Recipe(
        config=Config(
            task=task,
            preset="cpu",
            data=AtomicOptions(length=length),
            model=model,
            optim=OptimOptions(lr=4e-3, ssm_lr=ssm_lr, weight_decay=0.0, warmup_steps=100),
            train=TrainOptions(
                steps=steps, batch_size=16, log_every=50, eval_every=500, checkpoint_every=250
            ),
        ),
        source="this library's, tried on two cores",
    )


SMALL: dict[str, Any] = {
    "d_model": 32,
    "n_blocks": 1,
    "norm": "layer",
    "activation": "half_glu2",
    "bidirectional": False,
    "C_init": "trunc_standard_normal",
}
CPU = (
    _cpu(
        "shift",
        S5Options(n_layers=1, d_state=512, dt_min=1 / 64, dt_max=1 / 64, **SMALL),
        length=256,
        ssm_lr=1e-3,
        steps=2_000,
    ),
    _cpu(
        "cumsum", S5Options(n_layers=2, d_state=32, **SMALL), length=512, ssm_lr=2e-3, steps=3_000
    ),
    *(
        dataclasses.replace(
            _cpu(
                task,
                S5Options(n_layers=2, d_state=64, **SMALL),
                length=256,
                ssm_lr=2e-3,
                steps=2_000,
            ),
            source=UNTUNED,
        )
        for task in ATOMIC.keys() - {"shift", "cumsum"}
    ),
)
PAPER = tuple(recipe for task in ATOMIC for recipe in complete(_published(task)))
ROWS = (
    *PAPER,
    *CPU,
    *smoke(PAPER, AtomicOptions(length=64, n_train=1_024, n_validation=60, n_test=60)),
)
