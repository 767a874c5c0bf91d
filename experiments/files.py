"""Paths as users give them, files that are written whole, and folders that one run holds."""

import contextlib
import os
import socket
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import IO, Annotated, Any

from tyro.constructors import PrimitiveConstructorSpec

from experiments.distributed import from_main, is_main, say
from experiments.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".lock"


def user_path(path: str | Path) -> Path:
    """A path as a user gives it; a leading ``~`` stands for the home folder.

    Raises:
        UsageError: if it is empty, as an unset variable of a shell is, or there is no home folder.
    """
    if not str(path):
        raise UsageError("A path must not be empty: name a file or a folder, or leave it out.")
    expanded = Path(os.path.expanduser(path))
    if expanded.parts[:1] == ("~",):
        raise UsageError(f"{path} is unknown, as this user has no home folder: give a full path.")
    return expanded


UserPath = Annotated[
    Path,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda args: user_path(args[0]),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda path: [str(path)],
    ),
]
"""A path on a command line."""


def check_output(path: Path, option: str) -> None:
    """Checks that a file can be written, before the work whose result it will hold.

    Its folder is made if it is missing; a file that exists stays as it is.

    Args:
        path: the file.
        option: the flag that names it.

    Raises:
        UsageError: if the path is a folder, or nothing can be written there.
    """
    if path.is_dir():
        raise UsageError(f"{option} must name a file; {path} is a folder.")
    if _is_special(path):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UsageError(
            f"{option}={path} cannot be written ({error.strerror}): choose another folder."
        ) from error


@contextlib.contextmanager
def replacing(path: Path, mode: str = "w") -> Generator[IO[Any]]:
    """Opens a file that replaces another in one piece: readers find all of it or the old one.

    Args:
        path: the file; a device or a pipe is written directly.
        mode: ``"w"`` for text in UTF-8 with the line ends that are written, or ``"wb"``.

    Yields:
        The file to write to.
    """
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    with _naming(path):
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
def holding(folder: Path) -> Generator[None]:
    """Makes a folder if it is missing, and holds it against other runs.

    The operating system releases the lock when the process ends in any way. Of many processes,
    process 0 holds it for all.

    Raises:
        UsageError: if another run holds it; on every process.
    """
    with contextlib.ExitStack() as stack:
        refusal = None
        if is_main():
            try:
                stack.enter_context(_locked(folder))
            except UsageError as error:
                refusal = error
        if from_main(refusal is not None):
            raise refusal or UsageError(f"Another run is using {folder}.")
        yield


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None]:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: a run needs a folder, so choose another --workdir.")
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    with _lock(path) as file:
        try:
            with _naming(path):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}")
                file.flush()
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()
                if is_new and not any(folder.iterdir()):
                    folder.rmdir()


def _lock(path: Path) -> IO[str]:
    """Opens a file and locks it, unless whoever held it has removed it in between."""
    while True:
        file = path.open("a+", encoding="utf-8", errors="replace")
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read() or "another process"
            file.close()
            raise UsageError(
                f"{path.parent} is in use by the run of {holder}: wait until that one has ended, "
                "or choose another --workdir."
            ) from None
        except OSError as error:
            say(
                f"No locks in {path.parent} ({error.strerror}): nothing keeps a second run out of "
                "this folder."
            )
            return file
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        file.close()


@contextlib.contextmanager
def _naming(path: Path) -> Generator[None]:
    """Adds the file to what the operating system says of it, for instance that a disk is full."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file()
