"""Paths as users write them, and files that are written atomically."""

import contextlib
import os
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any

from experiments.errors import UsageError


def user_path(path: str | Path) -> Path:
    """Returns a user's path; a leading ``~`` stands for the home folder.

    Raises:
        UsageError: if it is empty, as an unset variable of a shell is, or there is no home folder.
    """
    if not str(path):
        raise UsageError("A path must not be empty: name a file or a folder, or leave it out.")
    expanded = Path(os.path.expanduser(path))
    if expanded.parts[:1] == ("~",):
        raise UsageError(f"{path} is unknown, as this user has no home folder: give a full path.")
    return expanded


def check_output(path: Path | None, option: str) -> None:
    """Checks that a file can be written, before the work whose result it will hold.

    The function creates a missing folder, and leaves an existing file as it is. The path is None if
    the flag ``option`` is not given.

    Raises:
        UsageError: if the path is a folder, or nothing can be written there.
    """
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"{option} must name a file; {path} is a folder.")
    if not _is_special(path) and (reason := why_not_writable(path.parent)):
        raise UsageError(f"{option}={path} cannot be written ({reason}): choose another folder.")


def why_not_writable(folder: Path) -> str:
    """Creates a missing folder and a file in it; returns the reason of a failure, else ""."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or "unknown"


@contextlib.contextmanager
def replacing(path: Path, mode: str = "w") -> Generator[IO[Any]]:
    """Opens a file that replaces another in one piece: readers find the new file or the old one.

    Text is UTF-8 with unchanged line ends. A device or a pipe is written directly.
    """
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    with naming(path):
        if _is_special(path):
            with path.open(mode, **text) as file:
                yield file
            return
        partial = path.with_name(path.name + ".tmp")
        try:
            with partial.open(mode, **text) as file:
                yield file
            partial.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise


@contextlib.contextmanager
def naming(path: Path) -> Generator[None]:
    """Adds the file's name to errors of the operating system, for instance that a disk is full."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file()
