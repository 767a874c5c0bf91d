"""What can end a command: each kind has its exit code and one clear sentence."""

import contextlib
import difflib
import io
import numbers
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import NoReturn, TypeVar

import jax

T = TypeVar("T")
EXPANSION = 100
LARGEST = 2**31
"""What no option reaches: steps and examples are counted in 32 bits."""
BROKEN_PIPE = 128 + getattr(signal, "SIGPIPE", 13)
"""The exit code where the reader of the output has gone, as shells have it."""


class UsageError(ValueError):
    """The user asked for something impossible: exit code 2."""


class RunError(RuntimeError):
    """The run could not go on: exit code 1."""


class InterruptedRun(Exception):
    """A signal ended the run after a checkpoint: exit code 128 + signal, as shells have it."""

    def __init__(self, signal_number: int, workdir: object) -> None:
        super().__init__(
            f"Interrupted; the same command with --workdir={workdir} goes on from here."
        )
        self.exit_code = 128 + signal_number


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint such as ``" Did you mean 'pathx'?"``, empty when nothing is near."""
    by_lower = {each.lower(): each for each in valid}
    close = difflib.get_close_matches(str(name).lower().strip(), list(by_lower), n=1)
    return f" Did you mean {by_lower[close[0]]!r}?" if close else ""


def pick(kind: str, name: str, table: Mapping[str, T]) -> T:
    """Looks a name up.

    Args:
        kind: what the table holds, for the message.
        name: the name asked for.
        table: every valid name and what it stands for.

    Returns:
        ``table[name]``.

    Raises:
        UsageError: if there is no such name; lists the valid ones and the nearest.
    """
    if name in table:
        return table[name]
    valid = ", ".join(table)
    raise UsageError(f"Unknown {kind} {name!r}: choose from {valid}.{nearest(name, table)}")


def check_positive(options: object, **values: float) -> None:
    """Raises a ValueError unless every value is above zero."""
    _check(options, values, "be positive", lambda value: value > 0)


def check_not_negative(options: object, **values: float) -> None:
    """Raises a ValueError unless every value is zero or above."""
    _check(options, values, "not be negative", lambda value: value >= 0)


def check_share(options: object, **values: float) -> None:
    """Raises a ValueError unless every value lies in [0, 1)."""
    _check(options, values, "lie in [0, 1)", lambda value: 0 <= value < 1)


@contextlib.contextmanager
def blaming_options() -> Generator[None]:
    """What does not fit together was asked for: a ValueError becomes a UsageError."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


@contextlib.contextmanager
def blaming_file(path: object, kind: str) -> Generator[None]:
    """Whatever a library raises about a file becomes one sentence that names it, a UsageError.

    What the operating system says of a file, for instance that it may not be read, stays.

    Args:
        path: the file.
        kind: what it should be, as in "FILE is no table of numbers".
    """
    try:
        yield
    except (UsageError, RunError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        said = shorten(error) or type(error).__name__
        raise UsageError(
            f"{path} is no {kind}, or is damaged: {said.removesuffix('.')}."
        ) from error


def check_expansion(path: Path, size: int, expanded: int) -> None:
    """Refuses what takes the memory of a machine, made so on purpose or by a mistake.

    Args:
        path: the file or folder.
        size: its bytes on disk.
        expanded: its bytes in memory, unpacked or padded.

    Raises:
        UsageError: if these are more than a hundred times as many, beyond the first 16 MiB.
    """
    if expanded > EXPANSION * size + 2**24:
        raise UsageError(
            f"{path} has {size:,} bytes and would take {expanded:,} in memory, more than "
            f"{EXPANSION} times as many: no such file is read. Write it without compression if it "
            "is yours, and sequences of like length."
        )


def shorten(value: object, size: int = 300) -> str:
    """A value as one line that is not too long."""
    text = " ".join(str(value).split())
    return text if len(text) <= size else f"{text[:size]} ..."


def run_command(command: Callable[[], None]) -> None:
    """Runs a command line; turns what can end it into one sentence and an exit code."""
    _open_standard_streams()
    try:
        try:
            command()
        except SystemExit:  # after a help text
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except UsageError as error:
        _leave(error, 2)
    except BrokenPipeError:
        _leave("", BROKEN_PIPE)
    except OSError as error:
        _leave(_describe(error), 1)
    except RunError as error:
        _leave(error, 1)
    except InterruptedRun as error:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # for whoever presses Ctrl-C again
        _say_last(error)
        raise SystemExit(error.exit_code) from error
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _leave("Interrupted.", 130)
    except Exception as error:
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            _leave(
                f"Out of memory: {shorten(error) or 'no more is left'}. Take a smaller batch or "
                "model, or a machine with more.",
                1,
            )
        if missing := _missing_device():
            _leave(missing, 2)
        raise


def _missing_device() -> str:
    """Asked after a failure, as what JAX raises without a device depends on the operation."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        return (
            f"JAX finds no device for JAX_PLATFORMS={jax.config.values['jax_platforms']} "
            f"({shorten(error) or 'there is none'}): leave JAX_PLATFORMS empty to take what there "
            "is."
        )
    return ""


def _describe(error: OSError) -> str:
    """Without the number of the error, which is for programs."""
    if error.strerror is None:
        return str(error)
    files = [str(name) for name in (error.filename, error.filename2) if name is not None]
    if not files:
        return f"Could not read or write: {error.strerror}."
    return f"Could not read or write {' and '.join(files)}: {error.strerror}."


def _open_standard_streams() -> None:
    r"""Lets a command print whatever it has to, wherever it was started.

    A stream that was closed leads nowhere, lest a file of the run gets its number; and what the
    encoding of the output lacks is written as ``\xe4``.
    """
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _check(
    options: object, values: Mapping[str, float], rule: str, holds: Callable[[float], bool]
) -> None:
    for name, value in values.items():
        where = f"{type(options).__name__}: `{name}`"
        if not isinstance(value, numbers.Real):
            raise ValueError(f"{where} must be a number; got {value!r}.")
        if not holds(value):
            raise ValueError(f"{where} must {rule}; got {value!r}.")
        if not value < LARGEST:
            raise ValueError(f"{where} must be below 2**31; got {value!r}.")


def _leave(message: object, code: int) -> NoReturn:
    """Ends a failed command.

    One of many processes goes without JAX's good-bye, for which all the others would have to come:
    they notice. Process 0, without which they cannot be, lets them speak first.
    """
    _say_last(message)
    if jax.distributed.is_initialized():
        time.sleep(1 if jax.process_index() == 0 else 0)
        os._exit(code)
    raise SystemExit(code)


def _say_last(message: object) -> None:
    """Prints to the standard error, and leaves nothing for Python to write at its end.

    Whoever read either stream may have gone, as after a terminal was closed.
    """
    for stream in (sys.stderr, sys.stdout):
        try:
            if stream is sys.stderr and str(message):
                print(message, file=stream)
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
