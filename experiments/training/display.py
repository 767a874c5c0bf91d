"""Display of a run: a progress bar on a terminal, occasional lines elsewhere."""

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.control import Control
from rich.file_proxy import FileProxy
from rich.progress_bar import ProgressBar
from rich.segment import ControlType
from rich.table import Table
from rich.text import Text

from experiments.config import TrainOptions
from experiments.devices.distributed import is_main

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_DRAWINGS = 0.5
BAR_WIDTHS = range(8, 41)
"""Widths of the drawn bar; in a narrower terminal there is only its text."""


class PipeConsole(Console):
    """Console that raises BrokenPipeError to its caller; Rich would end the program."""

    def on_broken_pipe(self) -> None:
        """Raises the BrokenPipeError that Rich is handling."""
        raise


class Bar(RenderHook):
    """The last line of a terminal, which is drawn over itself and so never blank.

    Lines that the console prints go above it, and so do those of other code while it is shown. The
    cursor remains visible: a killed program could not restore it.
    """

    def __init__(self, console: Console, *, steps: int, completed: int) -> None:
        self.console, self.steps, self.completed = console, steps, completed
        self.text = ""
        self._streams = contextlib.ExitStack()

    def start(self) -> None:
        """Shows the bar."""
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and stream.isatty():
                setattr(sys, name, FileProxy(self.console, stream))
                self._streams.callback(setattr, sys, name, stream)
        self.console.push_render_hook(self)
        self.draw()

    def stop(self) -> None:
        """Draws the bar once more, and leaves it there."""
        self._streams.close()
        self.draw()
        self.console.pop_render_hook()
        self.console.print()

    def draw(self) -> None:
        """Draws the bar over itself."""
        self.console.print(Control())

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Adds the bar below what is printed."""
        line_start, rest = Control(ControlType.CARRIAGE_RETURN), (ControlType.ERASE_IN_LINE, 0)
        if all(isinstance(each, Control) for each in renderables):
            return [line_start, self, Control(rest)]
        return [line_start, Control(rest), *renderables, self]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        steps = f"{self.steps:,}"
        text = Text(f"{self.completed:>{len(steps)},}/{steps}  {self.text}".rstrip())
        room = console.width - 1  # a cursor in the last column would be on the next line
        width = min(room - len(text) - 1, BAR_WIDTHS[-1])
        if width in BAR_WIDTHS:
            bar = ProgressBar(self.steps, self.completed, width=width)
            yield from console.render(bar, options)
            yield Text(" ", end="")
        text.truncate(room, overflow="ellipsis")
        text.end = ""
        yield text


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
        is_live = self.console.is_interactive and self.console.file.isatty()
        self._bar = Bar(self.console, steps=self.steps, completed=step)
        self._has_bar = is_live and not self.console.quiet
        self._drawn_at = self._line_at = -SECONDS_BETWEEN_LINES
        self._speeds: list[float] = []
        self.restart_clock(step)

    def __enter__(self) -> "Display":
        if self._has_bar:
            self._print(self._bar.start)
        return self

    def __exit__(self, *_: object) -> None:
        if self._has_bar:
            with contextlib.suppress(OSError):
                self._bar.stop()

    def report(self, text: str) -> None:
        """Shows a line above the bar."""
        self._print(lambda: self.console.print(text))

    def advance(self) -> None:
        """Counts a step."""
        self._bar.completed += 1
        now = time.monotonic()
        if self._has_bar and now - self._drawn_at >= SECONDS_BETWEEN_DRAWINGS:
            self._drawn_at = now
            self._print(self._bar.draw)

    def go_back(self, step: int) -> None:
        """Restarts the count at an earlier step."""
        self._bar.completed = step
        self.restart_clock(step)

    def _print(self, action: Callable[[], None]) -> None:
        try:
            action()
        except BrokenPipeError:
            self.console.quiet = True
            self.on_broken_pipe()
        except OSError:
            self.console.quiet = True

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
        text = f"{_measures(row)}  {left} left  {speed:,.1f} samples/s"
        self._bar.text = text
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
    )
