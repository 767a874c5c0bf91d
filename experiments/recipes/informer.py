"""The sets of the Informer paper, forecast by S4: one target, its own past.

==============  =============================================================================
task            published MSE of S4, standardised, by horizon [steps]
==============  =============================================================================
etth1           24: 0.061, 48: 0.079, 168: 0.104, 336: 0.080, 720: 0.116
etth2           24: 0.095, 48: 0.191, 168: 0.167, 336: 0.189, 720: 0.187
ettm1           24: 0.024, 48: 0.051, 96: 0.086, 288: 0.160, 672: 0.292
ettm2           none
weather         24: 0.125, 48: 0.151, 168: 0.198, 336: 0.300, 720: 0.245
ecl             48: 0.222, 168: 0.331, 336: 0.328, 720: 0.428, 960: 0.432
==============  =============================================================================

The recipes have the shortest published horizon; ``--data.horizon`` sets another. Two blocks of 128
features, layer norms before, dropout 0.25, learning rate 0.01 and 10 epochs of batches of 50 are
S4's. The length of the context for each horizon, the weight decay and the direction of the layers
are not known: here 384 steps, none, and causal.

Differences: S4 halves the learning rate on plateaus of the validation loss, and this is a cosine.
S4 adds learnt embeddings of the calendar, which are zero in the future; here sine and cosine of the
calendar are inputs, in the future, too.

References:
    Gu, Goel and Ré, "Efficiently Modeling Long Sequences with Structured State Spaces", 2022,
    https://arxiv.org/abs/2111.00396, section 4.3 and appendix D.
    Zhou et al., "Informer", 2021, https://arxiv.org/abs/2012.07436.
"""

from experiments.config import OptimOptions
from experiments.config.models import S4Options
from experiments.recipes._recipe import Recipe, complete, paper, smoke, train_by_epoch
from experiments.tasks import get_task
from experiments.tasks.series.informer import INFORMER, InformerOptions

PUBLISHED = {"etth1": 0.061, "etth2": 0.095, "ettm1": 0.024, "weather": 0.125, "ecl": 0.222}
"""The mean squared error of S4 at the shortest horizon."""
BATCH = 50


def _s4(task: str) -> Recipe:
    data = InformerOptions(horizon=48 if task == "ecl" else 24)
    epoch = get_task(task)(data).options.n_train // BATCH
    return paper(
        task,
        data,
        S4Options(
            n_layers=2,
            d_model=128,
            dropout=0.25,
            norm="layer",
            prenorm=True,
            bidirectional=False,
        ),
        OptimOptions(lr=0.01, ssm_lr=0.001, weight_decay=0.0, decay_all=False),
        train_by_epoch(epoch, 10 * epoch, batch_size=BATCH),
        source="Gu et al. 2022 and S4's code, with an unknown context",
        published=PUBLISHED.get(task),
    )


PAPER = {task: complete([_s4(task)]) for task in INFORMER}
SMALL = InformerOptions(context=24, horizon=8, stride=4, n_train=64, n_validation=20, n_test=20)
ROWS = tuple(
    recipe for rows in PAPER.values() for recipe in (*rows, *smoke(rows, SMALL, norm="layer"))
)
