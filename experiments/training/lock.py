"""The lock on a run's folder: one run at a time."""

import contextlib
import os
import socket
from collections.abc import Generator
from pathlib import Path
from typing import IO

from experiments.devices.distributed import from_main, is_main, log_primary
from experiments.errors import UsageError
from experiments.files import naming

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


LOCK = ".lock"


class FolderInUseError(UsageError):
    """Another run has locked the folder."""


@contextlib.contextmanager
def lock_folder(folder: Path) -> Generator[None]:
    """Creates a folder if it is missing, and locks it against other runs.

    The operating system releases the lock when the process ends in any way. Process 0 locks the
    folder for all processes.

    Raises:
        FolderInUseError: on every process, if another run has locked the folder.
        UsageError: if it is a file.
    """
    with contextlib.ExitStack() as stack:
        refusal = None
        if is_main():
            try:
                stack.enter_context(_locked(folder))
            except UsageError as error:
                refusal = error
        kinds = (type(None), FolderInUseError, UsageError)
        kind = kinds[from_main(kinds.index(type(refusal)))]
        if kind is FolderInUseError:
            raise refusal or FolderInUseError(f"Another run is using {folder}.")
        if kind is UsageError:
            raise refusal or UsageError(f"{folder} is a file.")
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
            with naming(path):
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
    """Opens a file and locks it; repeats this if its last owner has removed it in between."""
    while True:
        file = path.open("a+", encoding="utf-8", errors="replace")
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read() or "another process"
            file.close()
            raise FolderInUseError(
                f"{path.parent} is in use by the run of {owner}: wait until that run has ended, or "
                "choose another --workdir."
            ) from None
        except OSError as error:
            log_primary(
                f"{path.parent} cannot be locked ({error.strerror}): nothing prevents a second run "
                "in this folder."
            )
            return file
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        file.close()
