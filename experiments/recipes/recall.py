"""Associative recall.

=====  ==================  =============  ======  =====  =========================
model  task                published      steps   batch  source
=====  ==================  =============  ======  =====  =========================
hyena  associative_recall  97.2 %         50,000  16     Smith et al. 2023, its code
=====  ==================  =============  ======  =====  =========================

The published figures on 131,072 tokens with a vocabulary of 30 are 97.2 % for Hyena and for Hyena
with the recurrence of S5, and 0.6 % for H3. The settings here are those of the latter Hyena. Its
block has an S5 layer with a gate of its own, where this library's has none. Other models have the
same stack.

References:
    Smith et al., "S5", 2023, https://arxiv.org/abs/2208.04933; the branch "development" of its
    code.
    Poli et al., "Hyena", 2023, https://arxiv.org/abs/2302.10866.
"""

from typing import Any

from experiments.config import OptimOptions, TrainOptions
from experiments.config.models import (
    AttentionOptions,
    HybridOptions,
    HyenaOptions,
    S4DOptions,
    S5Options,
)
from experiments.recipes._recipe import complete, cpu, paper, smoke
from experiments.tasks.recall import RecallOptions

TASK = "associative_recall"
STACK: dict[str, Any] = {
    "n_layers": 2,
    "d_model": 64,
    "norm": "layer",
    "activation": "half_glu2",
    "pooling": "last",
    "bidirectional": False,
    "final_norm": True,
}
PAPER = complete(
    [
        paper(
            TASK,
            RecallOptions(),
            HyenaOptions(d_state=32, n_blocks=16, dt_min=1e-4, **STACK),
            OptimOptions(lr=1e-3, ssm_lr=1e-3, weight_decay=0.1, warmup_steps=5_000),
            TrainOptions(
                steps=50_000, batch_size=16, log_every=100, eval_every=1_000, checkpoint_every=1_000
            ),
            source="Smith et al. 2023 and its code, branch development",
            published=0.972,
        )
    ]
)
CPU = tuple(
    cpu(
        TASK,
        RecallOptions(length=64, vocabulary=20, n_train=64_000),
        model,
        OptimOptions(lr=2e-3, ssm_lr=2e-3, weight_decay=0.0, warmup_steps=100),
        TrainOptions(
            steps=2_000, batch_size=32, log_every=50, eval_every=500, checkpoint_every=500
        ),
    )
    for model in (
        S5Options(d_state=64, n_blocks=1, **STACK),
        S4DOptions(**STACK),
        HyenaOptions(**STACK),
        AttentionOptions(n_heads=2, **STACK),
        HybridOptions(layers=("s5:d_state=64,n_blocks=1", "attention:n_heads=2"), **STACK),
    )
)
TINY = RecallOptions(length=32, vocabulary=8, n_train=1_024, n_validation=16, n_test=16)
ROWS = (*PAPER, *CPU, *smoke(PAPER, TINY, pooling="last", norm="layer"))
