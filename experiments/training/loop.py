"""The training loop: from a configuration to a finished run folder."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jax.sharding import Mesh

import s5jax
from experiments.config import Config, differences, read_config, read_fingerprint
from experiments.data.sources import DEFAULT_PATHS, Batch, Files
from experiments.devices.distributed import (
    check_processes,
    is_main,
    log_primary,
    noticing_lost_processes,
    wait_for_all,
)
from experiments.devices.mesh import make_mesh
from experiments.errors import InterruptedRun, RunError, UsageError, blaming_options
from experiments.files import user_path
from experiments.recipes import recipe_of
from experiments.records import (
    Results,
    describe_changed_environment,
    describe_results,
    environment,
    read_results,
    write_json,
)
from experiments.training.checkpoint import Checkpoints
from experiments.training.display import Display
from experiments.training.evaluation import evaluate
from experiments.training.fingerprint import OnChangedData, check_data
from experiments.training.initial import with_checksum
from experiments.training.interrupts import Interrupts
from experiments.training.lock import lock_folder
from experiments.training.metrics import BadSteps, MetricsLog, MetricsRow, summarize
from experiments.training.nonfinite import Report, investigate
from experiments.training.optim import make_schedule
from experiments.training.plan import make_plan
from experiments.training.plot import plot_run
from experiments.training.profile import Profile
from experiments.training.setup import Setup, make_setup
from experiments.training.steps import Leaves, Meter

OnNan = Literal["stop", "skip", "rollback"]
TrainStep = Callable[[Leaves, Batch], tuple[Leaves, Meter]]
MAX_ROLLBACKS = 3
"""Largest number of returns to the same checkpoint."""


def fit(
    config: Config,
    workdir: str | Path,
    *,
    mesh: Mesh | None = None,
    on_nan: OnNan = "stop",
    on_changed_data: OnChangedData = "stop",
    files: Files = DEFAULT_PATHS,
    profile: int | None = None,
) -> Results:
    """Trains a model, or resumes the folder's run where it was interrupted.

    Args:
        config: the configuration, which determines every number of the run.
        workdir: the run's folder.
        mesh: devices, by default all of them.
        on_nan: what a non-finite loss or gradient does: it ends the run, skips the step, or returns
            the run to the last checkpoint, to continue with the batches after the bad one.
        on_changed_data: whether to refuse data that have changed since the run started, or to use
            them.
        files: location of the data sets.
        profile: number of steps to trace into the folder ``profile``; by default none.

    Returns:
        The contents of ``results.json``; immediately, if the run is finished.

    Raises:
        UsageError: if the folder holds another configuration or is in use by another run, its data
            have changed, the configuration is impossible, its writer of metrics cannot be found or
            made, or there are fewer steps than ``profile``.
        RunError: if a loss or gradient is not finite (with ``"rollback"`` after three returns to
            the same checkpoint), or a checkpoint cannot be written or read.
        InterruptedRun: after Ctrl-C, SIGTERM or SIGHUP; a checkpoint has been written.
    """
    config, workdir = with_checksum(config.checked()), user_path(workdir)
    refuse_another_run(workdir, config)
    results = read_results(workdir)
    if results is not None:
        _check_data_of_finished(workdir, config, files, on_changed_data)
        log_primary(f"This run is finished.\n{describe_results(results)}")
        return results
    batch_size, parts = config.train.batch_size, config.train.accumulate
    mesh = mesh or make_mesh(None, batch_size=batch_size, parts=parts)
    with contextlib.ExitStack() as stack:
        stack.enter_context(noticing_lost_processes())
        check_processes(mesh, f"{config.to_json()} {workdir} {on_nan}")
        stack.enter_context(lock_folder(workdir))
        interrupts = stack.enter_context(Interrupts())
        setup = make_setup(config, mesh, files=files, freeze=on_nan != "skip")
        fingerprint = setup.task.fingerprint(seed=config.seed)
        check_data(workdir, config.task, fingerprint, on_changed_data)
        if is_main():
            records = {
                "environment": environment(mesh),
                "fingerprint": fingerprint,
                "resolved_data": dataclasses.asdict(setup.config.data),
            }
            if changed := describe_changed_environment(workdir, records["environment"]):
                log_primary(changed)
            write_json(workdir / "config.json", {**config.to_dict(), **records})
        checkpoints = stack.enter_context(
            Checkpoints(workdir / "checkpoints", setup.steps.names, setup.steps.initial)
        )
        step, leaves = checkpoints.restore_newest(log_primary) or (0, setup.steps.initial)
        if on_nan != "skip":
            leaves = setup.steps.forget_bad(leaves)
        display = Display(config.train, step=step, on_broken_pipe=interrupts.note_broken_pipe)
        tracing = Profile(
            profile,
            steps=config.train.steps,
            folder=workdir / "profile",
            report=display.report,
        )
        log = MetricsLog(config, workdir, step=step, report=display.report)
        stack.enter_context(log)
        stack.enter_context(display)
        run = _Run(setup, workdir, on_nan, interrupts, checkpoints, log, display, step, leaves)
        with tracing:
            run.train(tracing)
        return run.finish()


def refuse_another_run(workdir: Path, config: Config) -> None:
    """Checks that the folder is empty, or holds a run of this configuration.

    Raises:
        UsageError: if it holds another run; lists the fields that differ.
    """
    if not (workdir / "config.json").exists():
        if (workdir / "results.json").exists():
            raise UsageError(
                f"{workdir} has the results of a run but not its config.json: choose another "
                "--workdir."
            )
        return
    differing = differences(read_config(workdir), config)
    if read_fingerprint(workdir):
        differing.pop("data.file", None)  # may have moved; the fingerprint compares its content
    differing.pop("train.logger", None)  # no number depends on it
    if differing:
        fields = "; ".join(
            f"{name} is {old} there, {new} here" for name, (old, new) in differing.items()
        )
        raise UsageError(
            f"{workdir} holds a run with another configuration ({fields}): choose another "
            "--workdir, or give the same options."
        )


def _check_data_of_finished(
    workdir: Path, config: Config, files: Files, on_changed_data: OnChangedData
) -> None:
    """Checks the data of a finished run as `check_data` does, unless they are missing."""
    if not read_fingerprint(workdir):
        return
    try:
        fingerprint = config.make_task(files).fingerprint(seed=config.seed)
    except UsageError:
        return
    check_data(workdir, config.task, fingerprint, on_changed_data)


@dataclasses.dataclass
class _Run:
    """A run in progress: its parts and its state."""

    setup: Setup
    workdir: Path
    on_nan: OnNan
    interrupts: Interrupts
    checkpoints: Checkpoints
    log: MetricsLog
    display: Display
    step: int
    leaves: Leaves
    batches: Iterator[Batch] = dataclasses.field(init=False)
    meter: Meter | None = None

    def __post_init__(self) -> None:
        self.started = time.monotonic() - self.checkpoints.progress.wall_s
        self.rate = make_schedule(self.setup.config, self.setup.config.optim.lr)

    def train(self, profile: Profile) -> None:
        """Trains to the last step; writes records and checkpoints, and evaluates."""
        setup, options = self.setup, self.setup.config.train
        if self.step < options.steps:
            train_step = self.compile_step()
            self.batches = setup.on_device("train", start=self.position)
        if self.on_nan == "rollback" and self.checkpoints.progress.due is None:
            self.checkpoints.progress.due = self.step
            self.save()
        while True:
            if self.step and self.due(options.eval_every):
                self.validate()
            if self.step == options.steps:
                return
            self.check_interrupt()
            with jax.profiler.StepTraceAnnotation("train", step_num=self.step):
                self.leaves, self.meter = train_step(self.leaves, next(self.batches))
            self.step += 1
            if profile.advance(self.leaves):
                self.display.restart_clock(self.step)
            self.display.advance()
            self.checkpoints.check()
            logs = self.due(options.log_every)
            saves = self.due(options.checkpoint_every) or self.due(options.eval_every)
            if logs or (saves and self.on_nan != "skip"):
                row, bad = summarize(self.meter, setup.task)
                if bad and self.react(bad):
                    continue
                if logs:
                    self.record(row)
            if saves:
                self.checkpoints.progress.due = self.step
                self.save()

    def due(self, every: int) -> bool:
        """Returns whether this step is a multiple of ``every``, or the last one."""
        return self.step % every == 0 or self.step == self.setup.config.train.steps

    @property
    def position(self) -> int:
        """Index of the next batch: steps taken plus batches that rollbacks have skipped."""
        return self.step + self.checkpoints.progress.skipped

    def compile_step(self) -> TrainStep:
        """Compiles the step, and prints the plan of the run."""
        with blaming_options():
            plan = make_plan(self.setup, self.leaves, step=self.step, position=self.position)
        self.display.report(plan.text)
        self.display.restart_clock(self.step)
        return plan.train_step

    def record(self, means: MetricsRow) -> None:
        """Writes the training row of this step."""
        rate = np.asarray(self.rate(self.step - 1)).item()
        row = {"step": self.step, **means, "lr": rate}
        shown = {name: means[name] for name in self.setup.task.shown}
        self.log.write(row, **self.display.training(self.step, shown))

    def react(self, bad: BadSteps) -> bool:
        """Diagnoses non-finite steps, and handles them according to ``on_nan``.

        Returns:
            Whether the run has returned to a checkpoint.

        Raises:
            RunError: if the run cannot continue.
        """
        position = bad.step + self.checkpoints.progress.skipped
        report = investigate(self.setup, self.leaves, bad, position=position)
        if self.on_nan == "rollback":
            self.go_back(bad, report)
            return True
        if self.on_nan == "stop":
            raise RunError(
                f"{report.text} The last checkpoint is intact. --on-nan=skip skips such steps, "
                "--on-nan=rollback all batches since that checkpoint; a lower --optim.lr or "
                "--optim.clip_norm may prevent them."
            )
        if report.lasting:
            raise RunError(f"{report.text} No later step can be finite: try --on-nan=rollback.")
        self.display.report(f"{report.text} Skipped: {bad.count} of the last steps.")
        return False

    def go_back(self, bad: BadSteps, report: Report) -> None:
        """Restores the last checkpoint, and skips the batches up to the bad one."""
        rollbacks, due = self.checkpoints.progress.rollbacks, self.checkpoints.progress.due
        if sum(rollback["back_to"] == due for rollback in rollbacks) == MAX_ROLLBACKS:
            raise RunError(
                f"{report.text} The run has returned to step {due} {MAX_ROLLBACKS} times, with "
                "other batches each time. That checkpoint is intact: try a lower --optim.lr, or "
                "--optim.clip_norm."
            )
        restored = self.checkpoints.restore_newest(self.display.report, until=due)
        if restored is None:
            raise RunError(f"{report.text} There is no intact checkpoint to return to.")
        self.step, self.leaves = restored
        rollback = {"step": bad.step + 1, "back_to": self.step}
        self.checkpoints.progress.rollbacks = [*rollbacks, rollback]
        self.batches = self.setup.on_device("train", start=self.position)
        self.log.go_back(self.step)
        self.display.go_back(self.step)
        self.display.report(
            f"{report.text} Returned to step {self.step}; batches skipped: "
            f"{bad.step + 1 - self.step}."
        )

    def validate(self) -> None:
        """Evaluates the validation split, and records the step if it is the best so far.

        The loss decides between steps with the same metric, which are frequent for small splits.
        """
        values = evaluate(self.setup, self.leaves, "validation", between=self.check_interrupt)
        self.log.write({"step": self.step, **{f"validation_{k}": v for k, v in values.items()}})
        metric, progress = self.setup.task.metric, self.checkpoints.progress
        sign = 1 if self.setup.task.larger_is_better else -1

        def rank(measures: Mapping[str, float]) -> tuple[float, float]:
            return sign * measures[metric], -measures.get("loss", 0.0)

        if progress.best is None or rank(values) > rank(progress.best):
            progress.best = {"step": self.step, **values}
        text = ", ".join(f"{name} {values[name]:.4f}" for name in self.setup.task.shown)
        best = f"best {metric} {progress.best[metric]:.4f} at step {progress.best['step']:,}"
        self.display.report(f"step {self.step:,}: validation {text} ({best})")
        self.compare_with_published(values[metric])
        self.display.restart_clock(self.step)

    def compare_with_published(self, value: float) -> None:
        """Compares the run with the published figure of this epoch, if there is one."""
        config, task = self.setup.config, self.setup.task
        row = recipe_of(config)
        if config.pretrain is not None:
            return
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

    @property
    def is_frozen(self) -> bool:
        """Whether a non-finite step has frozen the state; the last checkpoint leads to it."""
        frozen = self.on_nan != "skip" and self.meter is not None
        return frozen and bool(jax.device_get(self.meter.bad))

    def check_interrupt(self) -> None:
        """Ends the run with a checkpoint if there was a signal."""
        if (signal_number := self.interrupts.check()) is not None:
            if not self.is_frozen:
                self.save()
            self.checkpoints.wait()
            raise InterruptedRun(signal_number, self.workdir)

    def finish(self) -> Results:
        """Tests the best parameters, and writes the model and the results."""
        config, best = self.setup.config, self.checkpoints.progress.best
        assert best is not None, "the last step is always evaluated"
        leaves, _ = self.checkpoints.restore(best["step"])
        test = evaluate(self.setup, leaves, "test", between=self.check_interrupt)
        results = {
            "task": config.task,
            **({"data_set": config.data.data_set} if config.data.data_set else {}),
            "model": config.model.name,
            "preset": config.preset,
            "seed": config.seed,
            **({} if config.pretrain is None else {"pretrain": config.pretrain}),
            "steps": self.step,
            "epochs": round(self.step / config.steps_per_epoch, 2),
            "rollbacks": self.checkpoints.progress.rollbacks,
            "metric": self.setup.task.metric,
            "best_step": best["step"],
            "validation": {name: best[name] for name in test},
            "test": test,
        }
        if is_main():
            model, preprocessing = self.setup.steps.model(leaves), self.setup.task.preprocessing
            if preprocessing != s5jax.Preprocessing():
                model = s5jax.Pipeline(model, preprocessing)
            s5jax.save(model, self.workdir / "model")
            plot_run(self.workdir, self.setup.task, batch_size=config.train.batch_size)
        results |= {
            "wall_s": round(time.monotonic() - self.started, 1),
            "samples_per_s": self.display.speed,
            **environment(self.setup.mesh),
        }
        if is_main():
            write_json(self.workdir / "results.json", results)
        wait_for_all()
        self.display.report(describe_results(results))
        return results
