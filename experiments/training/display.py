"""Display of a run: a progress bar on a terminal, occasional lines elsewhere."""

import contextlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from experiments.config import TrainOptions
from experiments.devices.distributed import is_main

SECONDS_BETWEEN_LINES = 10.0


class PipeConsole(Console):
    """Console that raises BrokenPipeError to its caller; Rich would end the program."""

    def on_broken_pipe(self) -> None:
        """Raises the BrokenPipeError that Rich is handling."""
        raise


class Display:
    """Shows the progress of a run, in process 0; a context manager.

    A failure to print, for instance because the terminal was closed, does not end the run: its
    record is in its folder. ``on_broken_pipe`` is called when the program that reads the output has
    ended.
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
        """Restarts the count at an earlier step."""
        self._bar.update(self._bar_task, completed=step)
        self.restart_clock(step)

    def restart_clock(self, step: int) -> None:
        """Excludes the time since the last call from the speed of training."""
        self._clock = (time.monotonic(), step)

    def training(self, step: int, row: Mapping[str, float | None]) -> dict[str, float]:
        """Shows the measures since the last call, and returns ``samples_per_s``."""
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
        """Median of all values of ``samples_per_s``; None before the first one."""
        return statistics.median(self._speeds) if self._speeds else None


def print_table(rows: Sequence[Mapping[str, Any]], *, width: int) -> None:
    """Prints rows under the names of their columns, in a table of ``width`` characters."""
    table = Table(*(rows[0] if rows else ()), box=None, pad_edge=False)
    for row in rows:
        cells = ("" if value is None else value for value in row.values())
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells))
    PipeConsole(width=width).print(table)


def duration(seconds: float) -> str:
    """Returns a duration such as ``"2 h 05 min"``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _measures(row: Mapping[str, float | None]) -> str:
    return "  ".join(
        f"{name.replace('_', ' ')} {'non-finite' if value is None else f'{value:.4f}'}"
        for name, value in row.items()
        if name not in ("step", "grad_norm", "lr")
    )
