"""What a run shows: a progress bar on a terminal, sparse lines elsewhere."""

import contextlib
import statistics
import time
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from experiments.config import TrainOptions
from experiments.distributed import is_main

SECONDS_BETWEEN_LINES = 10.0


class PipeConsole(Console):
    """Lets whoever prints decide what happens when the reader has gone; Rich ends the program."""

    def on_broken_pipe(self) -> None:
        """Called where a BrokenPipeError is handled."""
        raise


class Display:
    """Shows the progress of a run, in process 0; a context manager.

    What cannot be shown, for instance because the terminal was closed, ends nothing: the record of
    the run is in its folder.

    Args:
        options: length of the run and size of its batches.
        step: the step from which it goes on.
        on_broken_pipe: called when the program that reads the output has ended.
    """

    def __init__(
        self, options: TrainOptions, *, step: int, on_broken_pipe: Callable[[], None]
    ) -> None:
        self.steps, self.batch_size = options.steps, options.batch_size
        self.on_broken_pipe = on_broken_pipe
        self.console = PipeConsole(
            soft_wrap=True, highlight=False, markup=False, quiet=not is_main()
        )
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
        self._bar = Progress(*columns, console=self.console)
        self._bar_task = self._bar.add_task("", total=self.steps, completed=step, text="")
        is_live = self.console.is_terminal or self.console.is_jupyter
        self._has_bar = is_live and not self.console.quiet
        self._line_at = -SECONDS_BETWEEN_LINES
        self._speeds: list[float] = []
        self.restart_clock(step)

    def __enter__(self) -> "Display":
        if self._has_bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._has_bar:
            with contextlib.suppress(OSError):
                self._bar.stop()

    def report(self, text: str) -> None:
        """Shows a line above the bar."""
        try:
            self.console.print(text)
        except BrokenPipeError:
            self.console.quiet = True
            self.on_broken_pipe()
        except OSError:
            self.console.quiet = True

    def advance(self) -> None:
        """Counts a step."""
        self._bar.advance(self._bar_task)

    def go_back(self, step: int) -> None:
        """Counts from an earlier step on."""
        self._bar.update(self._bar_task, completed=step)
        self.restart_clock(step)

    def restart_clock(self, step: int) -> None:
        """Leaves out of the speed what was not training."""
        self._clock = (time.monotonic(), step)

    def training(self, step: int, row: Mapping[str, float | None]) -> dict[str, float]:
        """Shows the measures since the last call.

        Returns:
            ``samples_per_s``.
        """
        now, (before, last_step) = time.monotonic(), self._clock
        seconds = max(now - before, 1e-9) / max(step - last_step, 1)
        self._clock = (now, step)
        speed = self.batch_size / seconds
        self._speeds.append(speed)
        left = duration(seconds * (self.steps - step))
        text = f"{_measures(row)}  {speed:,.1f} samples/s  {left} left"
        self._bar.update(self._bar_task, text=text)
        if not self._has_bar and now - self._line_at >= SECONDS_BETWEEN_LINES:
            self._line_at = now
            self.report(f"step {step:,}/{self.steps:,}  {text}")
        return {"samples_per_s": speed}

    @property
    def speed(self) -> float | None:
        """The median of all ``samples_per_s``; None before the first."""
        return statistics.median(self._speeds) if self._speeds else None


def duration(seconds: float) -> str:
    """For example ``"2 h 05 min"``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _measures(row: Mapping[str, float | None]) -> str:
    shown = {name: value for name, value in row.items() if name not in ("step", "grad_norm", "lr")}
    return "  ".join(
        f"{name.replace('_', ' ')} {'non-finite' if value is None else f'{value:.4f}'}"
        for name, value in shown.items()
    )
