"""The claims in the abstracts and headline tables of the five papers.

Commands write into ``runs/claims/NAME``; copied to ``results/claims/NAME``, their records are the
evidence of the published table.

References:
    Gu et al., "S4", 2022, https://arxiv.org/abs/2111.00396.
    Smith et al., "S5", 2023, https://arxiv.org/abs/2208.04933.
    Gupta et al., "DLR", 2022, https://arxiv.org/abs/2212.00768.
    Li et al., "SGConv", 2022, https://arxiv.org/abs/2210.09298.
    Yu et al., "HOPE", 2024, https://arxiv.org/abs/2405.13975.
"""

from experiments.evidence.commands import (
    ATOMIC_LENGTH,
    ATOMIC_MODELS,
    ATOMIC_TASKS,
    BENCH_COMMAND,
    LRA,
    MODELS_COMMAND,
    RATES,
    STARTS,
    TAILS,
    atomic,
    atomic_name,
    half_rate,
    long_range,
    long_shift,
    noisy,
    shift_name,
    short_shift,
    start,
    train,
)
from experiments.evidence.finding import (
    Claim,
    better,
    counted,
    every,
    faster,
    keeps,
    measured,
    reaches,
    reproduced,
    stays_below,
    steady,
)

LRA_WHERE = "one GPU; `text`, `retrieval` and `image` need their data sets"
TONIGHT, GPU = "two cores, tonight", "one GPU"


SHORT, LONG = (512, 4_096), (65_536, 524_288)
FEW_KERNELS, MANY_KERNELS = ("shift", "cumsum"), ("reverse", "sort")

S4 = (
    Claim(
        name="s4-lra",
        paper="S4",
        text="the accuracies of the paper on the six tasks of Long Range Arena",
        commands=long_range("s4"),
        where=LRA_WHERE,
        evidence=reproduced("s4", *LRA),
    ),
    Claim(
        name="s4-scifar",
        paper="S4",
        text="91.8 % on CIFAR-10, pixel by pixel, without augmentation",
        commands=(train("scifar", "s4", preset="paper"),),
        where=f"{GPU}; CIFAR-10",
        evidence=reproduced("s4", "scifar"),
    ),
    Claim(
        name="s4-linear",
        paper="S4",
        text="the cost is linear in the length: twice the steps take at most 2.2 times as long",
        commands=(BENCH_COMMAND,),
        where=TONIGHT,
        evidence=measured("linear_in_L"),
    ),
    Claim(
        name="s4-generation",
        paper="S4",
        text="generation is 60 times as fast as by attention with a cache, in full batches",
        commands=(BENCH_COMMAND,),
        where=TONIGHT,
        evidence=measured("generate_batch"),
    ),
    Claim(
        name="s4-rate",
        paper="S4",
        text=(
            "a model works at half of its sampling rate without being trained again: at most five "
            "percent worse, on motions of 150 steps"
        ),
        commands=half_rate("GunPoint"),
        where=f"{TONIGHT}; GunPoint of the UCR archive",
        evidence=keeps("rate-s4", "half", by=0.05),
    ),
    Claim(
        name="s4-efficient",
        paper="S4",
        text="training is faster than with attention to every step",
        commands=(MODELS_COMMAND,),
        where=TONIGHT,
        evidence=faster("s4", "attention"),
    ),
)
S5 = (
    Claim(
        name="s5-lra",
        paper="S5",
        text="the accuracies of the paper on Long Range Arena, 87.4 % on average",
        commands=long_range("s5"),
        where=LRA_WHERE,
        evidence=reproduced("s5", *LRA),
    ),
    Claim(
        name="s5-pathx",
        paper="S5",
        text="98.58 % on Path-X, of 16,384 steps",
        commands=(train("pathx", "s5", preset="paper"),),
        where=GPU,
        evidence=reproduced("s5", "pathx"),
    ),
    Claim(
        name="s5-cost",
        paper="S5",
        text="one multi-input system costs no more than the single-input systems of S4",
        commands=(MODELS_COMMAND,),
        where=TONIGHT,
        evidence=faster("s5", "s4"),
    ),
    Claim(
        name="s5-pendulum",
        paper="S5",
        text=(
            "irregular samples: a mean squared error of 0.00341 with `dt`, 0.00413 with gaps as "
            "inputs, 0.00668 without gaps, each plus its deviation at most"
        ),
        commands=tuple(
            train("pendulum", "s5", f"pendulum-{gaps}", f"--data.gaps={gaps}", preset="paper")
            for gaps in ("dt", "append", "ignore")
        ),
        where=f"{TONIGHT}, 20 minutes a seed",
        evidence=every(
            stays_below("pendulum-dt", 0.00341 + 0.00027),
            stays_below("pendulum-append", 0.00413 + 0.00043),
            stays_below("pendulum-ignore", 0.00668 + 0.00038),
            better("pendulum-dt", "pendulum-ignore"),
        ),
    ),
    Claim(
        name="s5-hippo",
        paper="S5",
        text="a start from HiPPO-N learns better than one from random matrices, on digits",
        commands=tuple(
            train("digits", "s5", f"blocks-{init}", f"--model.init={init}", preset="cpu")
            for init in ("hippo", "random")
        ),
        where=TONIGHT,
        evidence=better("blocks-hippo", "blocks-random"),
    ),
)
DLR = (
    Claim(
        name="dlr-parity",
        paper="DLR",
        text="without discretisation, as good as S4D: at most one percent less on MNIST's pixels",
        commands=tuple(
            train("smnist", model, f"smnist-{model}", preset="cpu") for model in ("dlr", "s4d")
        ),
        where=f"{TONIGHT}; MNIST",
        evidence=better("smnist-dlr", "smnist-s4d", by=-0.01),
    ),
    Claim(
        name="dlr-shift",
        paper="DLR",
        text="shifts are learnt, at 512 and at 4,096 steps: R² of 0.99",
        commands=tuple(map(short_shift, SHORT)),
        where=TONIGHT,
        evidence=every(*(reaches(shift_name(L), 0.99) for L in SHORT)),
    ),
    Claim(
        name="dlr-long-shift",
        paper="DLR",
        text="shifts of up to half a million steps are learnt: R² of 0.99",
        commands=tuple(map(long_shift, LONG)),
        where=GPU,
        evidence=every(*(reaches(shift_name(L), 0.99) for L in LONG)),
    ),
    Claim(
        name="dlr-context",
        paper="DLR",
        text="a shift that depends on the context is not learnt: R² below 0.5",
        commands=tuple(atomic("context_shift", length) for length in SHORT),
        where=TONIGHT,
        evidence=every(*(stays_below(atomic_name("context_shift", L, "dlr"), 0.5) for L in SHORT)),
    ),
    Claim(
        name="dlr-kernels",
        paper="DLR",
        text=(
            "tasks of few kernels are learnt at 512 steps (R² of 0.9), and tasks of many kernels "
            "are not (below 0.5)"
        ),
        commands=tuple(
            atomic(task, model=model) for task in ATOMIC_TASKS for model in ATOMIC_MODELS
        ),
        where=TONIGHT,
        evidence=every(
            *(reaches(atomic_name(task, ATOMIC_LENGTH, "dlr"), 0.9) for task in FEW_KERNELS),
            *(stays_below(atomic_name(task, ATOMIC_LENGTH, "dlr"), 0.5) for task in MANY_KERNELS),
        ),
    ),
    Claim(
        name="dlr-reasoning",
        paper="DLR",
        text="sub-trees of ListOps (8,192 steps) and segmentation of paths (65,536) are learnt",
        commands=(
            train("listops_subtrees", "dlr", "listops_subtrees", preset="paper"),
            train("pathfinder_segmentation_256", "dlr", "segmentation", preset="paper"),
        ),
        where=GPU,
        evidence=every(reaches("listops_subtrees", 0.9), reaches("segmentation", 0.9)),
    ),
)
SGCONV = (
    Claim(
        name="sgconv-speed",
        paper="SGConv",
        text="faster than S4 at equal length and width",
        commands=(MODELS_COMMAND,),
        where=TONIGHT,
        evidence=faster("sgconv", "s4"),
    ),
    Claim(
        name="sgconv-parameters",
        paper="SGConv",
        text="the number of parameters grows slower than the length",
        commands=("python -m experiments.claims sgconv-parameters",),
        where="two cores, at once",
        evidence=counted("sgconv", "sgconv", lengths=(1_024, 16_384), at_most=16),
    ),
    Claim(
        name="sgconv-decay",
        paper="SGConv",
        text="the decay of the kernel matters: it gains at least half a percent on digits",
        commands=(
            train("digits", "sgconv", "decay-with", preset="cpu"),
            train(
                *("digits", "sgconv", "decay-without"),
                *("--model.decay_min=1", "--model.decay_max=1"),
                preset="cpu",
            ),
        ),
        where=TONIGHT,
        evidence=better("decay-with", "decay-without", by=0.005),
    ),
    Claim(
        name="sgconv-lra",
        paper="SGConv",
        text="the accuracies of the paper on Long Range Arena",
        commands=long_range("sgconv"),
        where=LRA_WHERE,
        evidence=reproduced("sgconv", *LRA),
    ),
)
HOPE = (
    Claim(
        name="hope-random",
        paper="HOPE",
        text=(
            "trains from random parameters: on digits at most one percent worse than S4D from "
            "HiPPO, while S4D with random eigenvalues is at least two percent worse"
        ),
        commands=tuple(map(start, STARTS)),
        where=TONIGHT,
        evidence=every(
            better("start-hope-1e-3", "start-s4d-legs-1e-3", by=-0.01),
            better("start-s4d-legs-1e-3", "start-s4d-random-1e-3", by=0.02),
        ),
    ),
    Claim(
        name="hope-rates",
        paper="HOPE",
        text=(
            "the rate at which its parameters learn hardly matters: from 1e-4 to 1e-1, its "
            "accuracies on digits differ less than those of S4D"
        ),
        commands=tuple(start(name, rate) for name in STARTS for rate in RATES),
        where=TONIGHT,
        evidence=steady(
            *([f"start-{name}-{rate}" for rate in RATES] for name in ("hope", "s4d-legs"))
        ),
    ),
    Claim(
        name="hope-memory",
        paper="HOPE",
        text=(
            "memory that does not decay: five percent more than S4D on digits followed by 64, 256 "
            "and 512 steps of noise, with the published step sizes of 0.1"
        ),
        commands=tuple(noisy(model, tail) for tail in TAILS for model in ("hope", "s4d", "s5")),
        where=TONIGHT,
        evidence=every(
            *(better(f"noisy-hope-{tail}", f"noisy-s4d-{tail}", by=0.05) for tail in TAILS)
        ),
    ),
    Claim(
        name="hope-memory-cifar",
        paper="HOPE",
        text="the same on CIFAR-10, followed by 1,024 steps of noise",
        commands=tuple(
            train("noisy_scifar", model, f"noisy_scifar-{model}", preset="paper")
            for model in ("hope", "s4d")
        ),
        where=f"{GPU}; CIFAR-10",
        evidence=better("noisy_scifar-hope", "noisy_scifar-s4d", by=0.05),
    ),
    Claim(
        name="hope-parameters",
        paper="HOPE",
        text="fewer parameters than S4D of the same width and number of states",
        commands=("python -m experiments.claims hope-parameters",),
        where="two cores, at once",
        evidence=counted("s4d", "hope", lengths=(1_024, 1_024), at_most=1),
    ),
)
CLAIMS = (*S4, *S5, *DLR, *SGCONV, *HOPE)
