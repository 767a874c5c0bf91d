"""Archives of time series: classification (``uea``), and regression (``tser``).

The preset ``paper`` depends on the set: ``--task=uea --data.name=EigenWorms`` takes the row below.

==========================  ======  ==================  ======  =====  ======  ======  =====
set                         model   published accuracy  blocks  width  states  lr      time
==========================  ======  ==================  ======  =====  ======  ======  =====
EigenWorms                  S5      81.1 +- 3.7 %       2       128    256/8   1e-3    yes
EigenWorms                  LRU     87.8 +- 2.8 %       6       128    16      1e-3    yes
EigenWorms (batches of 4)   LinOSS  95.0 +- 4.4 %       2       128    64      1e-3    yes
SelfRegulationSCP1          S5      89.9 +- 4.6 %       4       16     64/8    1e-4    no
SelfRegulationSCP1          LRU     82.6 +- 3.4 %       6       64     256     1e-4    yes
SelfRegulationSCP1          LinOSS  87.8 +- 2.6 %       6       128    256     1e-4    yes
SelfRegulationSCP2          S5      50.5 +- 2.6 %       2       64     256/8   1e-4    yes
SelfRegulationSCP2          LRU     51.2 +- 3.6 %       6       128    64      1e-3    no
SelfRegulationSCP2 (IMEX)   LinOSS  58.9 +- 8.1 %       6       64     256     1e-5    yes
EthanolConcentration        S5      24.1 +- 4.3 %       6       16     16/2    1e-3    yes
EthanolConcentration        LRU     21.5 +- 2.1 %       2       128    16      1e-4    no
EthanolConcentration        LinOSS  29.9 +- 0.6 %       4       16     16      1e-5    no
Heartbeat                   S5      77.7 +- 5.5 %       2       64     16/4    1e-4    no
Heartbeat                   LRU     78.4 +- 6.7 %       6       128    256     1e-4    no
Heartbeat                   LinOSS  75.8 +- 3.7 %       6       16     16      1e-3    yes
MotorImagery                S5      47.7 +- 5.5 %       4       128    256/4   1e-4    yes
MotorImagery                LRU     48.4 +- 5.0 %       6       64     256     1e-3    no
MotorImagery                LinOSS  60.0 +- 7.5 %       2       128    16      1e-5    no
==========================  ======  ==================  ======  =====  ======  ======  =====

These are means over the seeds 2345, 3456, 4567, 5678 and 6789, which also determine the split and
have no meaning here; deviations divide by five, not by four. The figures of LinOSS are those in
the outputs that its repository stores; the figures of the others are quoted from its paper. All
trained by Adam at a constant rate for up to 100,000 steps of 32 series, with an evaluation every
1,000. Any other set takes the middle of the grid that was searched.

Not kept: a published run ends after more than ten evaluations without progress; equinox's batch
norm has no scale and shift; a dropout mask is common to all series of a batch.

=====  ==============================  =======================================
model  published RMSE, HR/RR/SpO2      source
=====  ==============================  =======================================
S4     0.332, 0.247, 0.090             Gu et al. 2022, settings of S4 v4
S4D    0.367, 0.248, 0.102             Gu et al. 2022 (S4D-LegS), those of S4
=====  ==============================  =======================================

BIDMC32HR, BIDMC32RR and BIDMC32SpO2, and any other set of ``tser``. Not kept: the published rate
halves every 100 of 500 epochs; here it follows a cosine over the same 500 epochs of 7,949 series.

References:
    Rusch and Rus, "LinOSS", 2025, https://arxiv.org/abs/2410.03943.
    Walker et al., "Log-NCDE", 2024, https://arxiv.org/abs/2402.18512.
    Gu et al., "S4D", 2022, https://arxiv.org/abs/2206.11893.
"""

from typing import Any, NamedTuple

from experiments.config import OptimOptions, TrainOptions
from experiments.config.models import (
    AttentionOptions,
    LinOSSOptions,
    LRUOptions,
    ModelOptions,
    S4DOptions,
    S4Options,
    S5Options,
)
from experiments.recipes._recipe import (
    LOCAL_ATTENTION,
    Recipe,
    adapt,
    complete,
    cpu,
    paper,
    smoke,
    train_by_epoch,
    vary,
)
from experiments.tasks.archives.options import ArchiveOptions

STACK: dict[str, Any] = {
    "activation": "full_glu",
    "tie_dropout": "none",
    "bidirectional": False,
    "norm_momentum": 0.99,
}
"""The blocks of the published runs."""
GRID = "this library's, from the middle of the grid that LinOSS's repository searches"


class Published(NamedTuple):
    """The settings of one model on one set, and its accuracy."""

    accuracy: float | None
    n_layers: int
    d_model: int
    d_state: int
    lr: float
    time: bool
    others: dict[str, Any] = {}  # noqa: RUF012 - never changed
    """Other options of the model."""


S5 = {
    "": Published(None, 4, 64, 64, 1e-3, True, {"n_blocks": 4}),
    "EigenWorms": Published(0.811, 2, 128, 256, 1e-3, True, {"n_blocks": 8}),
    "SelfRegulationSCP1": Published(0.899, 4, 16, 64, 1e-4, False, {"n_blocks": 8}),
    "SelfRegulationSCP2": Published(0.505, 2, 64, 256, 1e-4, True, {"n_blocks": 8}),
    "EthanolConcentration": Published(0.241, 6, 16, 16, 1e-3, True, {"n_blocks": 2}),
    "Heartbeat": Published(0.777, 2, 64, 16, 1e-4, False, {"n_blocks": 4}),
    "MotorImagery": Published(0.477, 4, 128, 256, 1e-4, True, {"n_blocks": 4}),
}
LRU = {
    "": Published(None, 4, 64, 64, 1e-3, True),
    "EigenWorms": Published(0.878, 6, 128, 16, 1e-3, True),
    "SelfRegulationSCP1": Published(0.826, 6, 64, 256, 1e-4, True),
    "SelfRegulationSCP2": Published(0.512, 6, 128, 64, 1e-3, False),
    "EthanolConcentration": Published(0.215, 2, 128, 16, 1e-4, False),
    "Heartbeat": Published(0.784, 6, 128, 256, 1e-4, False),
    "MotorImagery": Published(0.484, 6, 64, 256, 1e-3, False),
}
LINOSS = {
    "": Published(None, 4, 64, 64, 1e-3, True),
    "EigenWorms": Published(0.950, 2, 128, 64, 1e-3, True),
    "SelfRegulationSCP1": Published(0.878, 6, 128, 256, 1e-4, True),
    "SelfRegulationSCP2": Published(0.589, 6, 64, 256, 1e-5, True, {"discretization": "imex"}),
    "EthanolConcentration": Published(0.299, 4, 16, 16, 1e-5, False),
    "Heartbeat": Published(0.758, 6, 16, 16, 1e-3, True),
    "MotorImagery": Published(0.600, 2, 128, 16, 1e-5, False),
}
"""By set; without a name, the middle of the grid, for any other set."""
MODELS: tuple[tuple[type[ModelOptions], dict[str, Published], dict[str, Any]], ...] = (
    (S5Options, S5, {"C_init": "lecun_normal", "clip_eigs": True, "dropout": 0.05}),
    (LRUOptions, LRU, {"r_min": 0.0, "r_max": 1.0, "dropout": 0.1}),
    (LinOSSOptions, LINOSS, {"dropout": 0.05}),
)
BIDMC: dict[str, dict[str, float]] = {
    "": {},
    "BIDMC32HR": {"s4": 0.332, "s4d": 0.367},
    "BIDMC32RR": {"s4": 0.247, "s4d": 0.248},
    "BIDMC32SpO2": {"s4": 0.090, "s4d": 0.102},
}
BIDMC_EPOCH = 5_564 // 32


def _uea(name: str, model: ModelOptions, lr: float, *, time: bool, **known: Any) -> Recipe:
    return paper(
        "uea",
        ArchiveOptions(name=name, time=time),
        model,
        OptimOptions(
            lr=lr, ssm_lr=lr, weight_decay=0.0, schedule="constant", opt_config="standard"
        ),
        train_by_epoch(1_000, 100_000, 4 if (name, model.name) == ("EigenWorms", "linoss") else 32),
        **known,
    )


def _uea_set(name: str) -> tuple[Recipe, ...]:
    """Builds the recipes of one set, or of any other set if it has no name."""
    rows = []
    for options, table, more in MODELS:
        known = table[name]
        sizes: dict[str, Any] = {
            "n_layers": known.n_layers,
            "d_model": known.d_model,
            "d_state": known.d_state,
        }
        model = options(**sizes, **STACK, **more, **known.others)
        source = f"{name}, settings of LinOSS's repository" if name else GRID
        rows.append(
            _uea(name, model, known.lr, time=known.time, source=source, published=known.accuracy)
        )
    return complete([*rows, adapt(rows[0], AttentionOptions, window=LOCAL_ATTENTION)])


def _tser_set(name: str) -> tuple[Recipe, ...]:
    """Builds the recipes of one set, or of any other set if it has no name."""
    figures = BIDMC[name]
    row = paper(
        "tser",
        ArchiveOptions(name=name),
        S4Options(d_state=256, n_ssm=1, activation="glu", final_norm=True),
        OptimOptions(lr=0.01, ssm_lr=1e-3, weight_decay=0.05, decay_all=False),
        train_by_epoch(BIDMC_EPOCH, 500 * BIDMC_EPOCH, batch_size=32),
        source="Gu et al. 2022, BIDMC, settings of S4 v4",
        published=figures.get("s4"),
    )
    s4d = adapt(row, S4DOptions, d_state=256, n_ssm=1)
    source = "Gu et al. 2022 (S4D-LegS), BIDMC, settings of s4"
    s4d = vary(s4d, source=source, published=figures.get("s4d"))
    return complete([row, s4d, adapt(row, AttentionOptions, window=LOCAL_ATTENTION)])


def _cpu(task: str) -> Recipe:
    return cpu(
        task,
        ArchiveOptions(standardise=True),
        S5Options(n_layers=2, d_model=32, d_state=64, n_blocks=1, dropout=0.1),
        OptimOptions(lr=0.004, ssm_lr=0.001, weight_decay=0.05, warmup_steps=50),
        TrainOptions(steps=1_000, batch_size=16, log_every=50, eval_every=50, checkpoint_every=100),
    )


UEA = {name: _uea_set(name) for name in S5}
TSER = {name: _tser_set(name) for name in BIDMC}
ROWS = (
    *(recipe for rows in (*UEA.values(), *TSER.values()) for recipe in rows),
    *(_cpu("uea"), _cpu("tser")),
    *(recipe for rows in (UEA[""], TSER[""]) for recipe in smoke(rows, ArchiveOptions())),
)
