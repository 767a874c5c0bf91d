"""Exceptions that end a command, and checks of options that raise them."""

import contextlib
import difflib
import numbers
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
EXPANSION = 100
LARGEST = 2**31
"""Limit of every option: steps and examples are counted in 32 bits."""


class UsageError(ValueError):
    """The user requested something impossible: exit code 2."""


class RunError(RuntimeError):
    """The run could not continue: exit code 1."""


class InterruptedRun(Exception):
    """A signal ended the run after a checkpoint: exit code 128 + signal, as in shells."""

    def __init__(self, signal_number: int, workdir: object | None) -> None:
        where = "" if workdir is None else f" with --workdir={workdir}"
        super().__init__(f"Interrupted; the same command{where} resumes from here.")
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number


def suggest(name: str, valid: Iterable[str]) -> str:
    """Returns a hint such as ``" Did you mean 'pathx'?"``, or "" if nothing is similar."""
    by_lower = {each.lower(): each for each in valid}
    close = difflib.get_close_matches(str(name).lower().strip(), list(by_lower), n=1)
    return f" Did you mean {by_lower[close[0]]!r}?" if close else ""


def choose(kind: str, name: str, table: Mapping[str, T]) -> T:
    """Returns ``table[name]``; ``kind`` describes the entries in the error message.

    Raises:
        UsageError: if there is no such name; lists the valid names and the nearest one.
    """
    if name in table:
        return table[name]
    valid = ", ".join(table)
    raise UsageError(f"Unknown {kind} {name!r}: choose from {valid}.{suggest(name, table)}")


def check_positive(options: object, **values: float) -> None:
    """Raises a ValueError unless every value is above zero."""
    _check(options, values, "be positive", lambda value: value > 0)


def check_not_negative(options: object, **values: float) -> None:
    """Raises a ValueError unless every value is zero or above."""
    _check(options, values, "not be negative", lambda value: value >= 0)


def check_share(options: object, **values: float) -> None:
    """Raises a ValueError unless every value is in [0, 1)."""
    _check(options, values, "be in [0, 1)", lambda value: 0 <= value < 1)


@contextlib.contextmanager
def blaming_options() -> Generator[None]:
    """Raises a UsageError for every ValueError: the user's options contradict each other."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


@contextlib.contextmanager
def blaming_file(path: object, kind: str) -> Generator[None]:
    """Raises a UsageError that names the file for whatever a library raises about it.

    Errors of the operating system, for instance a missing permission, pass through. ``kind`` is the
    expected content, as in "FILE is not a valid table of numbers".
    """
    try:
        yield
    except (UsageError, RunError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        reason = shorten(error) or type(error).__name__
        raise UsageError(
            f"{path} is not a valid {kind}, or is corrupted: {reason.removesuffix('.')}."
        ) from error


def check_expansion(path: Path, size: int, expanded: int) -> None:
    """Refuses a file that would fill the memory, by intention or by mistake.

    Raises:
        UsageError: if the bytes in memory, unpacked or padded, are more than a hundred times the
            bytes on disk, plus 16 MiB.
    """
    if expanded > EXPANSION * size + 2**24:
        raise UsageError(
            f"{path} has {size:,} bytes and would take {expanded:,} in memory, more than "
            f"{EXPANSION} times as many, so it is not read. If the file is yours, write it without "
            "compression, and with sequences of similar length."
        )


def shorten(value: object, size: int = 300) -> str:
    """Returns a value as one line of limited length."""
    text = " ".join(str(value).split())
    return text if len(text) <= size else f"{text[:size]} ..."


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
