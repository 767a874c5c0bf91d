"""WikiText-103, the bytes of any text, and the pixels of handwritten digits.

=========  ==============  ====================  =========  ============  =====================
model      task            published             steps      batch         source
=========  ==============  ====================  =========  ============  =====================
S4         wikitext103     perplexity 20.95      800,000    8 x 8,192     Gu et al. 2022, code
attention  wikitext103     not published         40,000     32 x 512      the code of S4
all        chars           not published         50,000     32 x 1,024    this library's
all        digits_density  not published         10,000     32 x 64       this library's
=========  ==============  ====================  =========  ============  =====================

S4's validation perplexity is 19.69, its first version's were 21.28 (test) and 20.88 with batches of
8 x 1,024; the model has 249 million parameters and ran on 8 GPUs in half precision, here in single.
Blocks are S4, S4 and a feed-forward block of four times the width, with dropout 0.25 of single
entries everywhere, and all parameters of a layer learn at one rate. Its adaptive embedding and
softmax are tied, but for the projection of the first cluster.

The settings of attention are those of the baseline in S4's code: 16 layers of width 512; it takes
the mean gradient of two batches of 16, clipped to a norm of 0.25. Its number of heads is not known,
8 here. The perplexity 20.51 that the paper compares with is another model's: 247 million
parameters, Baevski and Auli 2019.

S5's published language model mixes S5 with the gates of Hyena, on byte pairs instead of words: it
is another architecture, so S5 here has the stack of S4. A figure of 35.09 for a plain S5 on
WikiText-103 exists without its settings.

References:
    Gu, Goel and Ré, "Efficiently Modeling Long Sequences with Structured State Spaces", 2022,
    https://arxiv.org/abs/2111.00396.
    Baevski and Auli, "Adaptive Input Representations for Neural Language Modeling", 2019,
    https://arxiv.org/abs/1809.10853.
"""

import dataclasses
from typing import Any

from experiments.config import Config, OptimOptions, TrainOptions
from experiments.models import AttentionOptions, S4Options, S5Options
from experiments.recipes._recipe import Recipe, complete, smoke
from experiments.tasks.density import DigitsDensityOptions
from experiments.tasks.language import CharsOptions
from experiments.tasks.wikitext import WikiTextOptions

CUTOFFS = (19_997, 39_997, 199_997)


def _stack(**options: Any) -> dict[str, Any]:
    """Options of a causal stack."""
    return {"norm": "layer", "bidirectional": False, "final_norm": True, **options}


WIKITEXT_S4 = Config(
    task="wikitext103",
    preset="paper",
    data=WikiTextOptions(),
    model=S4Options(
        **_stack(activation="glu", tie_dropout="none"),
        n_layers=32,
        d_model=1_024,
        n_ssm=1,
        dt_transform="exp",
        dropout=0.25,
        ffn_every=2,
        embedding_dropout=0.25,
        embedding_std=0.25,
        cutoffs=CUTOFFS,
    ),
    optim=OptimOptions(lr=5e-4, ssm_lr=5e-4, weight_decay=0.1, warmup_steps=1_000, decay_all=False),
    train=TrainOptions(
        steps=800_000, batch_size=8, log_every=100, eval_every=7_875, checkpoint_every=1_575
    ),
)

WIKITEXT_ATTENTION = dataclasses.replace(
    WIKITEXT_S4,
    data=WikiTextOptions(length=512, n_streams=32, n_train=201_600, n_validation=426, n_test=480),
    model=AttentionOptions(
        **_stack(activation="gelu_linear", tie_dropout="none"),
        n_layers=16,
        d_model=512,
        n_heads=8,
        dropout=0.1,
        ffn_every=1,
        embedding_std=0.25,
        cutoffs=CUTOFFS,
    ),
    optim=dataclasses.replace(WIKITEXT_S4.optim, clip_norm=0.25),
    train=TrainOptions(
        steps=40_000,
        batch_size=32,
        log_every=100,
        eval_every=2_000,
        checkpoint_every=1_000,
        accumulate=2,
    ),
)

CHARS_S5 = Config(
    task="chars",
    preset="paper",
    data=CharsOptions(),
    model=S5Options(
        **_stack(),
        n_layers=6,
        d_model=512,
        d_state=512,
        n_blocks=8,
        dropout=0.1,
        embedding_std=0.05,
    ),
    optim=OptimOptions(lr=2e-3, ssm_lr=1e-3, weight_decay=0.05, warmup_steps=1_000),
    train=TrainOptions(
        steps=50_000, batch_size=32, log_every=100, eval_every=1_000, checkpoint_every=1_000
    ),
)
CHARS_CPU = dataclasses.replace(
    CHARS_S5,
    preset="cpu",
    data=CharsOptions(length=256, n_train=16_000, n_validation=80, n_test=80),
    model=dataclasses.replace(
        CHARS_S5.model,
        n_layers=3,
        d_model=96,
        d_state=96,
        n_blocks=4,
        dropout=0.0,
        embedding_std=0.1,
    ),
    optim=OptimOptions(lr=4e-3, ssm_lr=2e-3, weight_decay=0.05, warmup_steps=100),
    train=TrainOptions(
        steps=1_500, batch_size=32, log_every=10, eval_every=250, checkpoint_every=250
    ),
)

DIGITS_S5 = Config(
    task="digits_density",
    preset="paper",
    data=DigitsDensityOptions(),
    model=S5Options(
        **_stack(),
        n_layers=4,
        d_model=64,
        d_state=64,
        n_blocks=4,
        dropout=0.1,
        embedding_std=0.1,
    ),
    optim=OptimOptions(lr=4e-3, ssm_lr=2e-3, weight_decay=0.05, warmup_steps=200),
    train=TrainOptions(
        steps=10_000, batch_size=32, log_every=100, eval_every=500, checkpoint_every=500
    ),
)
DIGITS_CPU = dataclasses.replace(
    DIGITS_S5,
    preset="cpu",
    train=dataclasses.replace(DIGITS_S5.train, steps=1_500, log_every=10, eval_every=250),
)

WIKITEXT = complete(
    [
        Recipe(config=WIKITEXT_S4, source="Gu et al. 2022 and its code", published=20.95),
        Recipe(config=WIKITEXT_ATTENTION, source="the baseline in the code of S4"),
    ]
)
UNPUBLISHED = "not published; this library's"
CHARS = complete([Recipe(config=CHARS_S5, source=UNPUBLISHED)])
DIGITS = complete([Recipe(config=DIGITS_S5, source=UNPUBLISHED)])
FIRST_TRY = "this library's, not tuned"
TINY: dict[str, Any] = {"norm": "layer", "embedding_std": 0.3}
ROWS = (
    *WIKITEXT,
    *CHARS,
    *DIGITS,
    *(Recipe(config=config, source=FIRST_TRY) for config in (CHARS_CPU, DIGITS_CPU)),
    *smoke(
        WIKITEXT,
        WikiTextOptions(length=32, n_train=64, n_validation=12, n_test=12),
        **TINY,
        ffn_every=2,
    ),
    *smoke(CHARS, CharsOptions(length=32, n_train=1_024, n_validation=12, n_test=12), norm="layer"),
    *smoke(DIGITS, DigitsDensityOptions(n_validation=12, n_test=12), norm="layer"),
)
