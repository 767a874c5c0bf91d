"""Sequential MNIST, permuted MNIST, CIFAR-10 in colour, with noise after it, and small digits.

=========  ============  ==================  ======  =====  =======================================
model      task          published accuracy  epochs  batch  source
=========  ============  ==================  ======  =====  =======================================
S4         scifar        91.80 +- 0.43 %     200     50     S4-LegS of the code, version 4
S4D        scifar        89.92 +- 1.69 %     200     50     S4D-LegS, in the settings of S4
S5         scifar        90.10 %             250     50     Smith et al. 2023
LRU        scifar        89.0 %              180     64     minimal-LRU; Orvieto et al. 2023
S4         smnist        99.55 %             20      128    annotated-s4
S5         smnist        99.65 %             150     50     Smith et al. 2023
S4         psmnist       98.70 %             20      128    Gu et al. 2022; settings of smnist
S5         psmnist       98.67 %             150     50     Smith et al. 2023
HOPE       noisy_scifar  a figure only       100     64     its scripts
S4D        noisy_scifar  a figure only       100     64     S4D-Lin in HOPE's scripts
=========  ============  ==================  ======  =====  =======================================

The other pairs are not published; they take the settings of the nearest, as do all models on the
digits, which no paper has.

Quirks that the preset ``paper`` keeps. S4 on scifar: a dropout more than in other code
(``layer_dropout``). S5: the cosine is not shifted by the warm-up, so that the last epoch trains at
rate zero (``s5_cosine``); norms and biases decay, too. HOPE: fixed step sizes of 0.1, and weight
decay on its Markov parameters; in the S4D beside it two arguments are swapped, so that the
eigenvalues learn at the global rate, with weight decay (``fast_A``).

What could not be kept. annotated-s4 has a one-cycle rate, here a warm-up of a tenth and a cosine to
zero, which differ where both are small. HOPE's published form wraps around the end of the sequence
and is not causal; here it is its causal form. The weight decay of the S4D's eigenvalues is 0.001
there, here 0.01 like all others.

Unknown: the published S5's warm-up (one epoch, as elsewhere), and on scifar whether its other
settings are those of the grey task (they are taken). On MNIST the official S4 has 99.63 %, with
settings that were not found.

References:
    Gu, Goel and Ré, "Efficiently Modeling Long Sequences with Structured State Spaces", 2022,
    https://arxiv.org/abs/2111.00396; Gu, Gupta, Goel and Ré, "On the Parameterization and
    Initialization of Diagonal State Space Models", 2022, https://arxiv.org/abs/2206.11893; Rush
    and Karamcheti, "The Annotated S4", 2022, https://github.com/srush/annotated-s4.
    Smith, Warrington and Linderman, "Simplified State Space Layers for Sequence Modeling", 2023,
    https://arxiv.org/abs/2208.04933.
    Yu, Mahoney and Erichson, "HOPE for a Robust Parameterization of Long-memory State Space
    Models", 2024, https://arxiv.org/abs/2405.13975.
    Orvieto et al., "Resurrecting Recurrent Neural Networks for Long Sequences", 2023,
    https://arxiv.org/abs/2303.06349; Zucchet et al., "minimal-LRU", 2023,
    https://github.com/NicolasZucchet/minimal-LRU.
"""

import dataclasses
from typing import Any

from experiments.config import Config, OptimOptions, TrainOptions
from experiments.models import (
    HOPEOptions,
    LRUOptions,
    ModelOptions,
    S4DOptions,
    S4Options,
    S5Options,
)
from experiments.recipes import image
from experiments.recipes._recipe import UNTUNED, Recipe, complete, small, smoke
from experiments.tasks import DataOptions, get_task
from experiments.tasks.pixels import ColourOptions, DigitsOptions, MnistOptions

S5_SOURCE = "Smith et al. 2023"
TRIED = "this library's, tried on two cores"


def _config(
    task: str, model: ModelOptions, optim: OptimOptions, *, epochs: int, batch_size: int
) -> Config:
    data = get_task(task).options_type()  # ty: ignore[missing-argument]
    n = data.n_train // batch_size
    train = TrainOptions(
        steps=epochs * n, batch_size=batch_size, log_every=100, eval_every=n, checkpoint_every=n
    )
    return Config(task=task, preset="paper", data=data, model=model, optim=optim, train=train)


def _s4_scifar(model: ModelOptions) -> Config:
    optim = OptimOptions(lr=0.01, ssm_lr=1e-3, weight_decay=0.05, warmup_steps=900, decay_all=False)
    return _config("scifar", model, optim, epochs=200, batch_size=50)


def _annotated_s4(task: str) -> Config:
    model = S4Options(
        n_layers=4,
        norm="layer",
        norm_epsilon=1e-6,
        dropout=0.25,
        activation="full_glu",
        bidirectional=False,
        dt_transform="exp",
    )
    optim = OptimOptions(lr=5e-3, ssm_lr=1e-3, weight_decay=0.01, warmup_steps=842)
    return _config(task, model, optim, epochs=20, batch_size=128)


def _s5_mnist(task: str, model: S5Options, lr: float, ssm_lr: float) -> Config:
    optim = OptimOptions(
        lr=lr, ssm_lr=ssm_lr, weight_decay=0.01, schedule="s5_cosine", warmup_steps=1_080
    )
    return _config(task, model, optim, epochs=150, batch_size=50)


def _noisy(model: ModelOptions, **optim: Any) -> Config:
    options = OptimOptions(
        lr=0.01, ssm_lr=1e-3, weight_decay=0.01, by_epoch=True, dt_group="frozen", **optim
    )
    return _config("noisy_scifar", model, options, epochs=100, batch_size=64)


SCIFAR_STACK: dict[str, Any] = {
    **image.POSTNORM,
    "norm": "layer",
    "dropout": 0.1,
    "layer_dropout": True,
    "dt_transform": "softplus",
    "n_ssm": 2,
}
NOISY_STACK: dict[str, Any] = {
    "n_layers": 4,
    "norm": "layer",
    "prenorm": False,
    "dropout": 0.1,
    "activation": "glu",
    "bidirectional": False,
    "dt_min": 0.1,
    "dt_max": 0.1,
}
S5_STACK: dict[str, Any] = {"n_layers": 4, "d_state": 128, "norm_momentum": 0.95}
LRU = LRUOptions(
    n_layers=4,
    d_model=256,
    d_state=128,
    norm_momentum=0.99,
    activation="full_glu",
    dropout=0.1,
    bidirectional=False,
    r_min=0.0,
    r_max=1.0,
)
"""The defaults of minimal-LRU."""
LRU_OPTIM = OptimOptions(lr=1e-3, ssm_lr=5e-4, weight_decay=0.05)

SCIFAR = complete(
    [
        Recipe(
            config=dataclasses.replace(image.S5, task="scifar", data=ColourOptions()),
            source=f"{S5_SOURCE}; its settings of the grey task",
            published=0.9010,
        ),
        Recipe(
            config=_s4_scifar(S4Options(**SCIFAR_STACK)),
            source="S4's code, version 4",
            published=0.9180,
        ),
        Recipe(
            config=_s4_scifar(S4DOptions(**SCIFAR_STACK)),
            source="S4's code, version 4, with S4D-LegS",
            published=0.8992,
        ),
        Recipe(
            config=_config("scifar", LRU, LRU_OPTIM, epochs=180, batch_size=64),
            source="defaults of minimal-LRU; the figure is that of Orvieto et al. 2023",
            published=0.890,
        ),
    ]
)
SMNIST = complete(
    [
        Recipe(
            config=_s5_mnist(
                "smnist", S5Options(d_model=96, n_blocks=1, dropout=0.1, **S5_STACK), 8e-3, 2e-3
            ),
            source=S5_SOURCE,
            published=0.9965,
        ),
        Recipe(config=_annotated_s4("smnist"), source="annotated-s4", published=0.9955),
    ]
)
PSMNIST = complete(
    [
        Recipe(
            config=_s5_mnist(
                "psmnist", S5Options(n_blocks=2, dropout=0.15, **S5_STACK), 4e-3, 1e-3
            ),
            source=S5_SOURCE,
            published=0.9867,
        ),
        Recipe(
            config=_annotated_s4("psmnist"),
            source="settings of annotated-s4 on smnist; the figure is that of Gu et al. 2022",
            published=0.9870,
        ),
    ]
)
NOISY = complete(
    [
        Recipe(
            config=_noisy(HOPEOptions(**NOISY_STACK), opt_config="slow_h_decay"),
            source="HOPE's scripts, in causal form",
        ),
        Recipe(
            config=_noisy(S4DOptions(init="lin", **NOISY_STACK), opt_config="fast_A"),
            source="HOPE's scripts",
        ),
    ]
)


def _digits(smnist: Recipe) -> Recipe:
    """The settings of smnist, for as many epochs of the smaller data set."""
    config, data = smnist.config, DigitsOptions()
    n = data.n_train // config.train.batch_size
    epochs = config.train.steps // config.train.eval_every
    optim = dataclasses.replace(config.optim, warmup_steps=n)
    train = dataclasses.replace(
        config.train, steps=epochs * n, log_every=n, eval_every=n, checkpoint_every=n
    )
    config = dataclasses.replace(config, task="digits", data=data, optim=optim, train=train)
    return Recipe(config=config, source=f"not published; as on smnist: {smnist.source}")


DIGITS = tuple(map(_digits, SMNIST))

DIGITS_CPU = Config(
    task="digits",
    preset="cpu",
    data=DigitsOptions(),
    model=S5Options(n_layers=2, d_model=64, d_state=64, n_blocks=1, C_init="lecun_normal"),
    optim=OptimOptions(lr=4e-3, ssm_lr=1e-3, weight_decay=0.03, warmup_steps=50),
    train=TrainOptions(
        steps=1_110, batch_size=32, log_every=37, eval_every=111, checkpoint_every=111
    ),
)
SMNIST_CPU = Config(
    task="smnist",
    preset="cpu",
    data=MnistOptions(n_validation=1_000, n_test=2_000),
    model=S5Options(n_layers=2, d_model=32, d_state=64, n_blocks=1, C_init="lecun_normal"),
    optim=OptimOptions(lr=4e-3, ssm_lr=1e-3, weight_decay=0.03, warmup_steps=100),
    train=TrainOptions(
        steps=1_200, batch_size=50, log_every=20, eval_every=300, checkpoint_every=150
    ),
)
PAPER = (*SCIFAR, *SMNIST, *PSMNIST, *NOISY, *DIGITS)
FEW: dict[str, DataOptions] = {
    task: get_task(task).options_type(n_train=64, n_validation=16, n_test=16)
    for task in ("scifar", "smnist", "psmnist", "noisy_scifar", "digits")
}
SIBLINGS = {
    "psmnist": dataclasses.replace(SMNIST_CPU, task="psmnist"),
    "scifar": dataclasses.replace(
        image.CPU,
        task="scifar",
        data=ColourOptions(n_train=20_000, n_validation=1_000, n_test=2_000),
    ),
}
CPU = (
    Recipe(config=DIGITS_CPU, source=TRIED),
    *(
        dataclasses.replace(recipe, source=TRIED)
        for recipe in small(Recipe(config=SMNIST_CPU, source=TRIED))
    ),
    *(Recipe(config=config, source=UNTUNED) for config in SIBLINGS.values()),
)
ROWS = (
    *PAPER,
    *CPU,
    *(row for recipe in PAPER for row in smoke([recipe], FEW[recipe.config.task])),
)
