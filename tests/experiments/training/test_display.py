"""What a terminal shows, read from a pseudo terminal."""

import contextlib
import os
import pty
import re
import sys
import threading

import pytest

from experiments.config import TrainOptions
from experiments.records import describe_results
from experiments.training import display
from experiments.training.display import Display

STEPS = 400
TOKEN = re.compile(r"\x1b\[(?P<argument>[\d;?]*)(?P<command>[A-Za-z])|(?P<character>.)", re.DOTALL)
VALIDATION = "validation loss 0.5138, accuracy 0.8249 (best accuracy 0.8249)"


class Terminal:
    """A pseudo terminal for what this process prints; ``output`` is what came, at the end."""

    def __init__(self, columns: int) -> None:
        self.columns = columns

    @contextlib.contextmanager
    def printing(self, monkeypatch, *, term: str = "tmux-256color"):
        try:
            ours, theirs = pty.openpty()
        except OSError as error:
            pytest.skip(f"needs a pseudo terminal: {error}")
        chunks: list[bytes] = []
        reader = threading.Thread(target=_read, args=(ours, chunks))
        reader.start()
        with os.fdopen(theirs, "w") as file, monkeypatch.context() as patch:
            patch.setenv("TERM", term)
            patch.setenv("COLUMNS", str(self.columns))
            patch.setattr(sys, "stdout", file)
            patch.setattr(sys, "stderr", file)
            yield
        reader.join()
        os.close(ours)
        self.output = b"".join(chunks).decode()

    def screens(self):
        """The lines after each character and command."""
        lines: list[list[str]] = [[]]
        row = column = 0
        for token in TOKEN.finditer(self.output):
            match token.groupdict():
                case {"command": "K", "argument": "" | "0"}:
                    del lines[row][column:]
                case {"command": "K"}:
                    lines[row].clear()
                case {"command": "m"}:
                    pass
                case {"character": "\r"}:
                    column = 0
                case {"character": "\n"}:
                    row += 1
                    lines.append([])
                case {"character": str(character)}:
                    lines[row][column : column + 1] = character
                    column += 1
                case other:
                    pytest.fail(f"unexpected {other}")
            yield ["".join(line) for line in lines]


def _read(file: int, chunks: list[bytes]) -> None:
    with contextlib.suppress(OSError):  # the end of a pseudo terminal
        while chunk := os.read(file, 65536):
            chunks.append(chunk)


@pytest.fixture
def train(monkeypatch):
    """Shows a run of four seconds; ``at`` has what happens after some steps."""
    now = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])

    def show(at=None):
        options = TrainOptions(steps=STEPS, batch_size=32)
        with Display(options, step=0, on_broken_pipe=pytest.fail) as shown:
            for step in range(1, STEPS + 1):
                now[0] += 0.01
                shown.advance()
                if step % 20 == 0:
                    shown.training(step, {"loss": 1 / step, "accuracy": 0.5})
                (at or {}).get(step, lambda shown: None)(shown)

    return show


def test_the_bar_is_drawn_twice_a_second_and_never_blank(train, monkeypatch):
    terminal = Terminal(100)
    with terminal.printing(monkeypatch):
        train()
    assert 8 <= terminal.output.count(f"/{STEPS}") <= 11
    first, *others = [lines[0] for lines in terminal.screens()]
    assert first == ""
    started = next(i for i, line in enumerate(others) if f"/{STEPS}" in line)
    shortest = min(len(line) for line in others[started:])
    assert shortest > 40
    assert (
        f"{STEPS}/{STEPS}  loss 0.0025  accuracy 0.5000  0 s left  3,200.0 samples/s" in others[-1]
    )


@pytest.mark.parametrize("columns", [10, 40, 60, 80, 200])
def test_lines_go_above_the_bar_at_every_width(train, monkeypatch, columns):
    terminal = Terminal(columns)
    at = {
        100: lambda shown: shown.report(VALIDATION),
        150: lambda shown: print("a print"),
        160: lambda shown: print("a warning", file=sys.stderr),
        300: lambda shown: shown.report(VALIDATION),
    }
    with terminal.printing(monkeypatch):
        train(at)
    *screens, last = terminal.screens()
    *above, bar, end = last
    assert (above, end) == ([VALIDATION, "a print", "a warning", VALIDATION], "")
    assert bar.lstrip("━╸╺ ").startswith(f"{STEPS}/{STEPS}")
    long = {
        line for lines in screens for line in lines if f"/{STEPS}" in line if len(line) >= columns
    }
    assert long == set()


def test_the_cursor_stays_visible_and_streams_return(train, monkeypatch):
    terminal = Terminal(80)
    with terminal.printing(monkeypatch):
        streams = sys.stdout, sys.stderr
        train()
        assert (sys.stdout, sys.stderr) == streams
    assert "\x1b[?25" not in terminal.output


def test_a_terminal_without_commands_gets_lines(train, monkeypatch):
    terminal = Terminal(80)
    with terminal.printing(monkeypatch, term="dumb"):
        train()
    assert terminal.output == f"{FIRST_LINE}\r\n"


FIRST_LINE = "step 20/400  loss 0.0500  accuracy 0.5000  4 s left  3,200.0 samples/s"


@pytest.mark.parametrize("colour", ["", "1"])
def test_a_file_gets_lines(train, monkeypatch, tmp_path, colour):
    monkeypatch.setenv("FORCE_COLOR", colour)
    monkeypatch.setenv("TERM", "xterm")
    with (tmp_path / "out").open("w") as file, contextlib.redirect_stdout(file):
        train({100: lambda shown: shown.report(VALIDATION)})
    assert (tmp_path / "out").read_text() == f"{FIRST_LINE}\n{VALIDATION}\n"


def test_few_figures_are_a_line_and_many_are_a_table():
    few = {"loss": 0.5, "accuracy": 0.25}
    run = {"task": "forecast", "model": "s5", "seed": 1}
    line = describe_results({**run, "validation": few, "test": few})
    assert line == (
        "forecast, s5, seed 1: validation loss 0.5000, accuracy 0.2500; "
        "test loss 0.5000, accuracy 0.2500."
    )
    many = {f"mse_{i}": float(i) for i in range(7)}
    first, header, *rows = describe_results({**run, "validation": many, "test": many}).split("\n")
    assert first == "forecast, s5, seed 1:"
    assert header.split() == ["validation", "test"]
    assert [row.split() for row in rows] == [
        [f"mse_{i}", f"{i}.0000", f"{i}.0000"] for i in range(7)
    ]
    assert len({len(row) for row in (header, *rows)}) == 1
