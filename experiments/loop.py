"""The training loop: from a configuration to a finished run folder.

Used by ``python -m experiments.train`` and from a notebook alike:

    from experiments.loop import fit
    from experiments.recipes import get_recipe

    results = fit(get_recipe("pathx", "s5", "smoke"), "runs/try")
"""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast

import numpy as np
from jax.sharding import Mesh

import s5jax
from experiments.build import Setup, evaluate, prepare
from experiments.checkpoint import Checkpoints
from experiments.config import Config, differences, read_config
from experiments.display import Display
from experiments.errors import InterruptedRun, RunError, UsageError, blaming_options
from experiments.interrupts import Interrupts
from experiments.mesh import make_mesh
from experiments.metrics import BadSteps, MetricsLog, summarize
from experiments.optim import make_schedule
from experiments.plan import plan
from experiments.plot import plot_learning_curves
from experiments.recipes import RECIPES
from experiments.results import Results, device_name, environment, read_results, write_json
from experiments.steps import Leaves, Meter
from experiments.tasks import HERE, Batch, Files

OnNan = Literal["stop", "skip"]
TrainStep = Callable[[Leaves, Batch], tuple[Leaves, Meter]]


def fit(
    config: Config,
    workdir: str | Path,
    *,
    mesh: Mesh | None = None,
    on_nan: OnNan = "stop",
    files: Files = HERE,
) -> Results:
    """Trains a model, or goes on where the folder's run was interrupted.

    Args:
        config: what to train; decides every number of the run.
        workdir: the run's folder.
        mesh: devices, by default all of them.
        on_nan: whether a non-finite loss or gradient ends the run, or only its step is left out.
        files: where data sets lie.

    Returns:
        The contents of ``results.json``; those of a finished run at once.

    Raises:
        UsageError: if the folder holds another configuration, or the configuration is impossible.
        RunError: if a loss is not finite, or a checkpoint cannot be written or read.
        InterruptedRun: after Ctrl-C or SIGTERM; a checkpoint has been written.
    """
    workdir = Path(workdir)
    refuse_another_run(workdir, config)
    results = read_results(workdir)
    if results is not None:
        print(f"This run is finished.\n{describe(results)}")
        return results
    batch_size, parts = config.train.batch_size, config.train.accumulate
    mesh = mesh or make_mesh(None, batch_size=batch_size, parts=parts)
    with contextlib.ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        setup = prepare(config, mesh, files=files)
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / "config.json", config.to_dict())
        checkpoints = stack.enter_context(
            Checkpoints(workdir / "checkpoints", setup.steps.names, setup.steps.initial)
        )
        step, leaves = checkpoints.restore_newest(print) or (0, setup.steps.initial)
        log = stack.enter_context(MetricsLog(workdir, step=step))
        display = stack.enter_context(Display(config.train, step=step))
        run = _Run(setup, workdir, on_nan, interrupts, checkpoints, log, display, step, leaves)
        run.train()
        return run.finish()


def refuse_another_run(workdir: Path, config: Config) -> None:
    """Checks that the folder is free, or holds a run of this configuration.

    Raises:
        UsageError: if it holds another one; names the fields that differ.
    """
    if not (workdir / "config.json").exists():
        return
    differing = differences(read_config(workdir), config)
    if differing:
        fields = "; ".join(
            f"{name} is {old} there, {new} here" for name, (old, new) in differing.items()
        )
        raise UsageError(
            f"{workdir} holds a run with another configuration ({fields}): choose another "
            "--workdir, or give the same options."
        )


def describe(results: Results) -> str:
    """The figures of a run, in one line."""
    figures = "; ".join(
        f"{split} " + ", ".join(f"{name} {value:.4f}" for name, value in results[split].items())
        for split in ("validation", "test")
    )
    return f"{results['task']}, {results['model']}, seed {results['seed']}: {figures}."


@dataclasses.dataclass
class _Run:
    """A run in progress: what it consists of, and how far it is."""

    setup: Setup
    workdir: Path
    on_nan: OnNan
    interrupts: Interrupts
    checkpoints: Checkpoints
    log: MetricsLog
    display: Display
    step: int
    leaves: Leaves

    def __post_init__(self) -> None:
        self.started = time.monotonic() - self.checkpoints.progress.wall_s
        self.rate = make_schedule(self.setup.config, self.setup.config.optim.lr)

    def train(self) -> None:
        """Trains to the last step, with records, checkpoints and evaluations on the way."""
        setup, options = self.setup, self.setup.config.train
        if self.step < options.steps:
            batches = setup.on_device("train", start=self.step)
            first = next(batches)
            train_step = self.plan(first)
            batches = itertools.chain([first], batches)
        while True:
            if self.step and self.due(options.eval_every):
                self.validate()
            if self.step == options.steps:
                return
            self.heed_interrupts()
            self.leaves, meter = train_step(self.leaves, next(batches))
            self.step += 1
            self.display.advance()
            if self.due(options.log_every):
                self.record(meter)
            if self.due(options.checkpoint_every) or self.due(options.eval_every):
                self.save()

    def due(self, every: int) -> bool:
        """Whether something that happens every so many steps, and at the end, happens now."""
        return self.step % every == 0 or self.step == self.setup.config.train.steps

    def plan(self, batch: Batch) -> TrainStep:
        """Compiles the step, and says what is about to happen."""
        with blaming_options():
            compiled, text = plan(self.setup, self.leaves, batch, step=self.step)
        self.display.report(text)
        self.display.restart_clock(self.step)
        return compiled

    def record(self, meter: Meter) -> None:
        """Writes the training row of this step."""
        means, bad = summarize(meter, self.setup.task)
        if bad:
            self.report_bad(bad)
        rate = np.asarray(self.rate(self.step - 1)).item()
        row = {"step": self.step, **means, "lr": rate}
        self.log.write(row, **self.display.training(self.step, row))

    def report_bad(self, bad: BadSteps) -> None:
        """Says where a loss or gradient was not finite; ends the run unless told to go on."""
        batch = cast(Batch, self.setup.batches("train")[bad.step])
        indices = batch["index"].tolist()
        text = (
            f"Step {bad.step + 1}: the loss is {bad.loss}, the gradient norm {bad.grad_norm}, "
            f"for the training examples {indices}."
        )
        if self.on_nan == "stop":
            raise RunError(
                f"{text} The last checkpoint is intact; --on-nan=skip leaves such steps out, "
                "a lower --optim.lr may avoid them."
            )
        self.display.report(f"{text} Left out: {bad.count} of the last steps.")

    def validate(self) -> None:
        """Evaluates the validation split, and remembers the step if it is the best so far."""
        values = evaluate(self.setup, self.leaves, "validation", between=self.heed_interrupts)
        self.log.write({"step": self.step, **{f"validation_{k}": v for k, v in values.items()}})
        metric, progress = self.setup.task.metric, self.checkpoints.progress
        sign = 1 if self.setup.task.larger_is_better else -1
        if progress.best is None or sign * values[metric] > sign * progress.best[metric]:
            progress.best = {"step": self.step, **values}
        text = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
        best = f"best {metric} {progress.best[metric]:.4f} at step {progress.best['step']:,}"
        self.display.report(f"step {self.step:,}: validation {text} ({best})")
        self.compare_with_published(values[metric])
        self.display.restart_clock(self.step)

    def compare_with_published(self, value: float) -> None:
        """Says whether the run is on track, where a published figure of this epoch is known."""
        config, task = self.setup.config, self.setup.task
        row = RECIPES.get((config.task, config.model.name, config.preset))
        since = self.step - config.train.eval_every
        for epoch, published in () if row is None else row.milestones:
            if since < epoch * config.steps_per_epoch <= self.step:
                reached = value >= published if task.larger_is_better else value <= published
                self.display.report(
                    f"Published {task.metric} after {epoch} epochs: about {published:g}; here "
                    f"{value:.4g}: {'on track' if reached else 'behind'}."
                )

    def save(self) -> None:
        """Writes a checkpoint."""
        self.checkpoints.progress.wall_s = time.monotonic() - self.started
        self.checkpoints.save(self.step, self.leaves)

    def heed_interrupts(self) -> None:
        """Ends the run with a checkpoint if a signal has come."""
        if self.interrupts.received is not None:
            self.save()
            raise InterruptedRun(self.interrupts.received, self.workdir)

    def finish(self) -> Results:
        """Tests the best parameters, once, and writes what remains of the run."""
        config, best = self.setup.config, self.checkpoints.progress.best
        assert best is not None, "the last step is always evaluated"
        leaves, _ = self.checkpoints.restore(best["step"])
        test = evaluate(self.setup, leaves, "test", between=self.heed_interrupts)
        s5jax.save(self.setup.steps.model(leaves), self.workdir / "model")
        plot_learning_curves(self.workdir, metric=self.setup.task.metric)
        results = {
            "task": config.task,
            "model": config.model.name,
            "preset": config.preset,
            "seed": config.seed,
            "steps": self.step,
            "epochs": round(self.step / config.steps_per_epoch, 2),
            "metric": self.setup.task.metric,
            "best_step": best["step"],
            "validation": {name: best[name] for name in test},
            "test": test,
            "wall_s": round(time.monotonic() - self.started, 1),
            "device": device_name(self.setup.mesh),
            **environment(),
        }
        write_json(self.workdir / "results.json", results)
        self.display.report(describe(results))
        return results
