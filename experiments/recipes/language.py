"""WikiText-103, the bytes of any text, and the pixels of handwritten digits.

=========  ==============  ====================  =========  ============  =====================
model      task            published             steps      batch         source
=========  ==============  ====================  =========  ============  =====================
S4         wikitext103     perplexity 20.95      800,000    8 x 8,192     Gu et al. 2022, code
attention  wikitext103     not published         40,000     32 x 512      the code of S4
hybrid     wikitext103     not published         40,000     32 x 512      that, and Li et al. 2022
all        chars           not published         50,000     32 x 1,024    this library's
all        digits_density  not published         10,000     32 x 64       this library's
=========  ==============  ====================  =========  ============  =====================

S4's validation perplexity is 19.69. Its first version had 21.28 (test) and 20.88 with batches of
8 x 1,024. The model has 249 million parameters and ran on 8 GPUs in half precision; here it runs in
single precision. Blocks are S4, S4 and a feed-forward block of four times the width. Dropout is
0.25 everywhere and drops single entries. All parameters of a layer learn at one rate. The adaptive
embedding and softmax are tied, except for the projection of the first cluster.

The settings of attention come from the baseline in S4's code: 16 layers of width 512, and the mean
gradient of two batches of 16, clipped to a norm of 0.25. Its number of heads is not known; it is 8
here. The paper compares with a perplexity of 20.51, which belongs to another model of 247 million
parameters (Baevski and Auli 2019).

The hybrid is this Transformer with SGConv in the place of every other attention layer, as in the
language model of SGConv's paper, whose settings and perplexity are not known to this project.

S5's published language model mixes S5 with the gates of Hyena, on byte pairs instead of words. That
is another architecture, so S5 here has the stack of S4. A figure of 35.09 for a plain S5 on
WikiText-103 exists without its settings.

References:
    Gu et al., "S4", 2022, https://arxiv.org/abs/2111.00396.
    Baevski and Auli, "Adaptive Input Representations", 2019, https://arxiv.org/abs/1809.10853.
    Li et al., "SGConv", 2022, https://arxiv.org/abs/2210.09298.
    De et al., "Griffin", 2024, https://arxiv.org/abs/2402.19427, for the hybrid of chars.
"""

import dataclasses
from typing import Any

from experiments.config import OptimOptions, TrainOptions
from experiments.config.models import AttentionOptions, HybridOptions, S4Options, S5Options
from experiments.recipes._recipe import UNTUNED, complete, paper, smoke, vary
from experiments.tasks.language.chars import CharsOptions
from experiments.tasks.language.density import DigitsDensityOptions
from experiments.tasks.language.wikitext import WikiTextOptions

CAUSAL: dict[str, Any] = {"norm": "layer", "bidirectional": False, "final_norm": True}
WORDS: dict[str, Any] = {
    **CAUSAL,
    "tie_dropout": "none",
    "embedding_std": 0.25,
    "cutoffs": (19_997, 39_997, 199_997),
}
UNPUBLISHED = "not published; this library's"

WIKITEXT_S4 = paper(
    "wikitext103",
    WikiTextOptions(),
    S4Options(
        n_layers=32,
        d_model=1_024,
        n_ssm=1,
        dt_transform="exp",
        activation="glu",
        dropout=0.25,
        ffn_every=2,
        embedding_dropout=0.25,
        **WORDS,
    ),
    OptimOptions(lr=5e-4, ssm_lr=5e-4, weight_decay=0.1, warmup_steps=1_000, decay_all=False),
    TrainOptions(
        steps=800_000, batch_size=8, log_every=100, eval_every=7_875, checkpoint_every=1_575
    ),
    source="Gu et al. 2022 and its code",
    published=20.95,
)
WIKITEXT_ATTENTION = vary(
    WIKITEXT_S4,
    data=WikiTextOptions(length=512, n_streams=32, n_train=201_600, n_validation=426, n_test=480),
    model=AttentionOptions(
        n_layers=16,
        d_model=512,
        n_heads=8,
        activation="gelu_linear",
        dropout=0.1,
        ffn_every=1,
        **WORDS,
    ),
    optim=dataclasses.replace(WIKITEXT_S4.config.optim, clip_norm=0.25),
    train=TrainOptions(
        steps=40_000,
        batch_size=32,
        log_every=100,
        eval_every=2_000,
        checkpoint_every=1_000,
        accumulate=2,
    ),
    source="the baseline in the code of S4",
)
WIKITEXT_HYBRID = vary(
    WIKITEXT_ATTENTION,
    model=HybridOptions(
        layers=("sgconv", "attention:n_heads=8"),
        n_layers=16,
        d_model=512,
        activation="gelu_linear",
        dropout=0.1,
        ffn_every=1,
        **WORDS,
    ),
    source="the baseline in the code of S4, with every other layer as in Li et al. 2022",
)
CHARS_S5 = paper(
    "chars",
    CharsOptions(),
    S5Options(
        n_layers=6, d_model=512, d_state=512, n_blocks=8, dropout=0.1, embedding_std=0.05, **CAUSAL
    ),
    OptimOptions(lr=2e-3, ssm_lr=1e-3, weight_decay=0.05, warmup_steps=1_000),
    TrainOptions(
        steps=50_000, batch_size=32, log_every=100, eval_every=1_000, checkpoint_every=1_000
    ),
    source=UNPUBLISHED,
)
CHARS_STACK: dict[str, Any] = {"d_model": 96, "embedding_std": 0.1, **CAUSAL}
CHARS_CPU = vary(
    CHARS_S5,
    preset="cpu",
    data=CharsOptions(length=256, n_train=16_000, n_validation=80, n_test=80),
    model=S5Options(n_layers=3, d_state=96, n_blocks=4, **CHARS_STACK),
    optim=OptimOptions(lr=4e-3, ssm_lr=2e-3, weight_decay=0.05, warmup_steps=100),
    train=TrainOptions(
        steps=1_500, batch_size=32, log_every=10, eval_every=250, checkpoint_every=250
    ),
    source=UNTUNED,
)
CHARS_ATTENTION_CPU = vary(
    CHARS_CPU, model=AttentionOptions(n_layers=3, n_heads=4, **CHARS_STACK), source=UNTUNED
)
CHARS_HYBRID_CPU = vary(
    CHARS_CPU,
    model=HybridOptions(
        n_layers=3,
        layers=(*["s5:d_state=96,n_blocks=4"] * 2, "attention:window=32"),
        **CHARS_STACK,
    ),
    source=UNTUNED,
)
DIGITS_S5 = paper(
    "digits_density",
    DigitsDensityOptions(),
    S5Options(
        n_layers=4, d_model=64, d_state=64, n_blocks=4, dropout=0.1, embedding_std=0.1, **CAUSAL
    ),
    OptimOptions(lr=4e-3, ssm_lr=2e-3, weight_decay=0.05, warmup_steps=200),
    TrainOptions(steps=10_000, batch_size=32, log_every=100, eval_every=500, checkpoint_every=500),
    source=UNPUBLISHED,
)
DIGITS_CPU = vary(
    DIGITS_S5,
    preset="cpu",
    train=dataclasses.replace(DIGITS_S5.config.train, steps=1_500, log_every=10, eval_every=250),
    source=UNTUNED,
)

WIKITEXT = complete([WIKITEXT_S4, WIKITEXT_ATTENTION, WIKITEXT_HYBRID])
CHARS = complete([CHARS_S5])
DIGITS = complete([DIGITS_S5])
FEW_WORDS = WikiTextOptions(length=32, n_train=64, n_validation=12, n_test=12)
ROWS = (
    *(*WIKITEXT, *CHARS, *DIGITS, DIGITS_CPU),
    *(CHARS_CPU, CHARS_ATTENTION_CPU, CHARS_HYBRID_CPU),
    *smoke(WIKITEXT, FEW_WORDS, norm="layer", embedding_std=0.3, ffn_every=2),
    *smoke(CHARS, CharsOptions(length=32, n_train=1_024, n_validation=12, n_test=12), norm="layer"),
    *smoke(DIGITS, DigitsDensityOptions(n_validation=12, n_test=12), norm="layer"),
)
