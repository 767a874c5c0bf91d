"""Command lines whose records are the evidence of claims."""

from experiments.tasks.atomic.task import ATOMIC

LRA = ("listops", "text", "retrieval", "image", "pathfinder", "pathx")
BENCH_COMMAND = "python -m experiments.bench --suite=ci --json=runs/bench/cpu-2-cores-ci.json"
MODELS_COMMAND = (
    "python -m experiments.bench --suite=models --json=runs/bench/cpu-2-cores-models.json"
)
ATOMIC_TASKS = tuple(ATOMIC)
ATOMIC_MODELS = ("dlr", "s4d", "s5", "sgconv", "hope", "attention")
ATOMIC_LENGTH = 512
SMALL = (
    *("--model.d_model=32", "--optim.lr=1e-3", "--optim.ssm_lr=1e-3", "--train.batch_size=16"),
    *("--train.eval_every=200", "--train.checkpoint_every=200", "--train.log_every=50"),
    *("--data.n_train=14400", "--data.n_validation=320", "--data.n_test=320"),
)
"""The paper's recipe of one layer, on 32 features, for two cores."""
STATES = {"dlr": 1_024, "s5": 512}
RATES = ("1e-4", "1e-3", "1e-2", "1e-1")
"""Learning rates of the state-space parameters."""
STARTS = {
    "hope": ("hope",),
    "s4d-legs": ("s4d",),
    "s4d-random": ("s4d", "--model.init=random"),
}
"""Model and options of the starts in the comparison of HOPE with S4D."""
TAILS = (64, 256, 512)
"""Steps of noise after a digit."""
PRETRAINED_MODELS = ("s5", "attention")
PRETRAINING_STEPS = 1_500
"""Steps of pretraining, and as many of fine-tuning; a start from scratch has both together."""


def train(
    task: str, model: str, name: str | None = None, *options: str, preset: str, seeds: int = 5
) -> str:
    """Returns the command that trains some seeds, for a claim if it is named."""
    folder = () if name is None else (f"--workdir=runs/claims/{name}",)
    words = (f"--task={task}", f"--model={model}", f"--preset={preset}", *options, *folder)
    return f"python -m experiments.train {' '.join(words)} --seeds={seeds}"


def long_range(model: str) -> tuple[str, ...]:
    """Returns the commands of Long Range Arena."""
    return tuple(train(task, model, preset="paper") for task in LRA)


def atomic_name(task: str, length: int, model: str) -> str:
    """Returns the name of the runs of one of DLR's atomic tasks."""
    return f"{task}-{length}-{model}"


def atomic(task: str, length: int = ATOMIC_LENGTH, model: str = "dlr", *, seeds: int = 3) -> str:
    """Returns the command of one of DLR's atomic tasks, in a size for two cores.

    DLR has the states that a shift by the whole length needs, up to 4,096.
    """
    states = {**STATES, "dlr": min(max(STATES["dlr"], length), 4_096)}.get(model)
    size = () if states is None else (f"--model.d_state={states}",)
    options = (f"--data.length={length}", *SMALL, *size, "--train.steps=600")
    return train(
        task, model, atomic_name(task, length, model), *options, preset="paper", seeds=seeds
    )


def shift_name(length: int) -> str:
    """Returns the name of the runs of a shift that are long enough to learn it."""
    return f"long-shift-{length}"


def short_shift(length: int) -> str:
    """Returns the command of a shift of up to 4,096 steps, in a size for two cores."""
    states = f"--model.d_state={max(STATES['dlr'], length)}"
    steps = 3_000 if length <= ATOMIC_LENGTH else 5_000
    options = (f"--data.length={length}", *SMALL, states, f"--train.steps={steps}")
    return train("shift", "dlr", shift_name(length), *options, preset="paper", seeds=3)


def long_shift(length: int) -> str:
    """Returns the command of a long shift, with the published settings of 16,384 steps and more."""
    options = (
        *(
            f"--data.length={length}",
            "--model.d_model=32",
            "--optim.lr=1e-5",
            "--optim.ssm_lr=1e-5",
        ),
        *("--train.batch_size=4", "--data.n_train=7200", "--data.n_validation=800"),
    )
    return train("shift", "dlr", shift_name(length), *options, preset="paper", seeds=3)


def noisy(model: str, tail: int) -> str:
    """Returns the command of digits that noise follows."""
    return train(
        "noisy_digits", model, f"noisy-{model}-{tail}", f"--data.tail={tail}", preset="cpu", seeds=3
    )


def start(name: str, rate: str = "1e-3") -> str:
    """Returns the command of digits, from one of the `STARTS`, at a rate of the state space."""
    model, *options = STARTS[name]
    folder = f"start-{name}-{rate}"
    return train("digits", model, folder, *options, f"--optim.ssm_lr={rate}", preset="cpu", seeds=3)


def half_rate(data: str) -> tuple[str, ...]:
    """Returns the commands of S4 on a set of an archive, tested on every second step."""
    runs = [f"runs/claims/rate-s4/seed{seed}" for seed in range(5)]
    return (
        train("uea", "s4", "rate-s4", f"--data.name={data}", preset="cpu"),
        *(
            f"python -m experiments.evaluate --workdir={r} --dt=2 --json={r}/half.json"
            for r in runs
        ),
    )


def scratch_name(model: str) -> str:
    """Returns the name of the runs that start from scratch."""
    return f"scratch-{model}"


def tuned_name(model: str) -> str:
    """Returns the name of the runs that start from a pretrained model."""
    return f"tuned-{model}"


def pretraining(model: str) -> tuple[str, str, str]:
    """Returns the commands of ListOps: from scratch, pretrained, and fine-tuned."""
    half, whole = (f"--train.steps={steps * PRETRAINING_STEPS}" for steps in (1, 2))
    pretrained = f"masked-{model}"
    start = f"--init-from=runs/claims/{pretrained}"
    return (
        train("listops", model, scratch_name(model), whole, preset="cpu", seeds=3),
        train("listops", model, pretrained, half, "--pretrain=masked", preset="cpu", seeds=1),
        train("listops", model, tuned_name(model), half, start, preset="cpu", seeds=3),
    )
