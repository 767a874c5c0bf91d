"""What the commands set for their process: compiled programs and memory are kept."""

import ctypes
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # malloc.h


def set_up_process() -> None:
    """Keeps compiled programs on disk, and memory with the process."""
    keep_compiled()
    _keep_memory()
    sys.unraisablehook = report_unless_late


def report_unless_late(event: Any) -> None:
    """Prints an exception that nobody can handle, but not TensorStore's about writes that end late.

    When a file of a checkpoint cannot be written, Orbax raises an error and closes its event loop.
    TensorStore's threads then have nobody to tell of the other files, and print a traceback each.
    """
    late = event.object is None and str(event.exc_value) == "Event loop is closed"
    if not (late and event.exc_type is RuntimeError):
        sys.__unraisablehook__(event)


def keep_compiled() -> None:
    """Turns on JAX's persistent compilation cache, in ``~/.cache/s5jax``.

    ``XDG_CACHE_HOME`` replaces ``~/.cache``. A folder that is already set, for example by
    ``JAX_COMPILATION_CACHE_DIR``, stays, and if that is empty nothing is kept. Entries are named
    after program, versions, flags and the features of processor or accelerator, so machines that
    differ can share the folder. JAX executes what lies there: nobody else should write to it.

    Programs that compile in less than a second are kept, too. A run has sixty: the second start of
    a small one takes 0.7 of the time with them. Whoever has set
    ``JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS`` decides otherwise.
    """
    folder = jax.config.values["jax_compilation_cache_dir"]
    if folder is None:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        folder = os.path.join(home, "s5jax")
        jax.config.update("jax_compilation_cache_dir", folder)
    if folder and "://" not in folder and (why := _why_not_writable(Path(folder))):
        print(
            f"Compiled programs are not kept, as nothing can be written to {folder} ({why}): name "
            "another folder in JAX_COMPILATION_CACHE_DIR, or leave it empty.",
            file=sys.stderr,
        )
        jax.config.update("jax_compilation_cache_dir", "")
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def _why_not_writable(folder: Path) -> str:
    """Asked before JAX does, which warns once for each program."""
    if folder.parts[:1] == ("~",):
        return "this user has no home folder"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or "unknown"


def _keep_memory() -> None:
    """Lets the GNU C library keep what it frees for the next array.

    It returns everything of 32 MB and more to the system, which hands it out again page by page,
    filled with zeros. So it does, whatever the other settings, with what a thread asks for that
    does not fit into its own arena of 64 MB, and programs run in threads: hence one arena for all.
    On two CPU cores the one arena took S5's train step for Path-X from 0.90 s to 0.75, and left no
    page faults of hundreds of thousands. Whoever has set ``GLIBC_TUNABLES`` for malloc has decided
    otherwise.
    """
    if sys.platform == "linux" and "glibc.malloc" not in os.environ.get("GLIBC_TUNABLES", ""):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(_M_MMAP_MAX, 0)
            mallopt(_M_TRIM_THRESHOLD, -1)
            mallopt(_M_ARENA_MAX, 1)
