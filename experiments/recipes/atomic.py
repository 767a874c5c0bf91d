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

The published values of R^2 are not known to this project. The other models have the settings of
DLR's runs. Flags reproduce the other published runs:

- DSS: ``--model=dlr --model.version=dss_exp --model.dt_min=1e-4 --model.dt_max=0.01`` with both
  learning rates at 1e-3;
- six layers: ``--model.n_layers=6``, at ``--data.length=512`` with batches of 64 and rates of 5e-5;
- attention at ``--data.length=512``: two layers, batches of 64;
- shift of 16,384 to 1,048,576 steps: ``--data.length=...`` with ``--model.d_model=32``, batches of
  4, rates of 1e-5 and 7,200 examples an epoch, as in the row of SGConv.

Quirks that the preset ``paper`` keeps. Each of the four processes of the published loader read the
whole epoch, so 12 epochs of 14,400 examples were 48 epochs; the steps here follow the real run. The
examples of mips were made on the GPU, and had no such repetition. Examples were new in each epoch.
The learning rate is constant, and there is no weight decay. The layer norm has one scale and one
shift for all features, and no epsilon (``scalar_layer``).

References:
    Gupta et al., "DLR", 2022, https://arxiv.org/abs/2212.00768.
"""

from typing import Any

from experiments.config import OptimOptions, TrainOptions
from experiments.config.models import AttentionOptions, DLROptions, S5Options, SGConvOptions
from experiments.recipes._recipe import UNTUNED, Recipe, complete, cpu, paper, smoke, train_by_epoch
from experiments.tasks.atomic.task import ATOMIC, AtomicOptions

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
    """Builds a published run: 12 epochs at a constant rate, each repeated ``copies`` times."""
    options = AtomicOptions(**data)
    epoch = copies * options.n_train // batch_size
    optim = OptimOptions(lr=lr, ssm_lr=lr, weight_decay=0.0, schedule="constant", decay_all=False)
    train = train_by_epoch(epoch, 12 * epoch, batch_size)
    source = "Gupta et al. 2022, the commands of its code"
    return paper(task, options, model, optim, train, source=source)


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


def _cpu(
    task: str, length: int, steps: int, *, ssm_lr: float = 2e-3, tuned: bool = False, **model: Any
) -> Recipe:
    """Builds a recipe with shorter signals, for two cores.

    These runs decided the settings. Batches have 16 examples; R^2 is of the validation data, or, in
    brackets, of the last training steps.

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

    A delay by most of the signal takes as many states as the signal has values. HiPPO's frequencies
    resolve them if the step size is a few times 1 / length.
    """
    stack: dict[str, Any] = {"norm": "layer", "activation": "half_glu2", "bidirectional": False}
    stack |= {"d_model": 32, "n_blocks": 1, "C_init": "trunc_standard_normal", **model}
    optim = OptimOptions(lr=4e-3, ssm_lr=ssm_lr, weight_decay=0.0, warmup_steps=100)
    train = TrainOptions(
        steps=steps, batch_size=16, log_every=50, eval_every=500, checkpoint_every=250
    )
    source = {} if tuned else {"source": UNTUNED}
    return cpu(task, AtomicOptions(length=length), S5Options(**stack), optim, train, **source)


SLOW = {"n_layers": 1, "d_state": 512, "dt_min": 1 / 64, "dt_max": 1 / 64}
CPU = (
    _cpu("shift", 256, 2_000, ssm_lr=1e-3, tuned=True, **SLOW),
    _cpu("cumsum", 512, 3_000, tuned=True, n_layers=2, d_state=32),
    *(
        _cpu(task, 256, 2_000, n_layers=2, d_state=64)
        for task in ATOMIC
        if task not in ("shift", "cumsum")
    ),
)
PAPER = tuple(recipe for task in ATOMIC for recipe in complete(_published(task)))
TINY = AtomicOptions(length=64, n_train=1_024, n_validation=60, n_test=60)
ROWS = (*PAPER, *CPU, *smoke(PAPER, TINY))
