"""Settings of a command's process: the compilation cache and the memory allocator."""

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

import jax

from experiments.files import why_not_writable

DETERMINISTIC = "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # malloc.h


def set_up_process() -> None:
    """Caches compiled programs on disk, and retains memory in the process."""
    cache_programs()
    _retain_memory()
    sys.unraisablehook = report_unless_late


def report_unless_late(event: Any) -> None:
    """Reports an exception that nothing can catch, except TensorStore's about late writes.

    When Orbax cannot write a file of a checkpoint, it raises an error and closes its event loop.
    TensorStore's threads cannot report the other files to a closed loop, and each prints a
    traceback.
    """
    late = event.object is None and str(event.exc_value) == "Event loop is closed"
    if not (late and event.exc_type is RuntimeError):
        sys.__unraisablehook__(event)


def cache_programs() -> None:
    """Turns on JAX's persistent compilation cache, in ``~/.cache/s5jax``.

    ``XDG_CACHE_HOME`` replaces ``~/.cache``. A folder that is already set, for example by
    ``JAX_COMPILATION_CACHE_DIR``, stays; an empty name turns the cache off. JAX names entries after
    the program, the versions, the flags and the features of the processor or accelerator, so
    different machines can share the folder. JAX executes what is stored there, so only the user
    should be able to write to it.

    Programs that compile quickly are cached too, because a run has many of them.
    ``JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS`` takes precedence.
    """
    folder = jax.config.values["jax_compilation_cache_dir"]
    if folder is None:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        folder = os.path.join(home, "s5jax")
        jax.config.update("jax_compilation_cache_dir", folder)
    if folder and "://" not in folder and (reason := _why_not_writable(Path(folder))):
        print(
            f"Compiled programs are not cached, because {folder} cannot be written to ({reason}): "
            "set JAX_COMPILATION_CACHE_DIR to another folder, or to nothing.",
            file=sys.stderr,
        )
        jax.config.update("jax_compilation_cache_dir", "")
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def use_deterministic_operations() -> None:
    """Requests reproducible results on GPUs; call it before the first use of a device.

    The first flag excludes sums in arbitrary order (atomic scatters, some matrix products), and
    selects the first kernel that fits. The second disables timing kernels to select the fastest.

    References:
        https://openxla.org/xla/determinism and https://github.com/openxla/xla/pull/12520.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} {DETERMINISTIC}".strip()


def _why_not_writable(folder: Path) -> str:
    """Checks the folder before JAX does, which warns once for each program."""
    if folder.parts[:1] == ("~",):
        return "this user has no home folder"
    return why_not_writable(folder)


def _retain_memory() -> None:
    """Lets the GNU C library reuse freed memory for the next array.

    By default it returns blocks of 32 MB and more to the system, which provides them again page by
    page, filled with zeros. The same happens to blocks that do not fit into a thread's own arena of
    64 MB, and programs run in threads; hence one arena for all threads. Malloc settings in
    ``GLIBC_TUNABLES`` take precedence.
    """
    if sys.platform == "linux" and "glibc.malloc" not in os.environ.get("GLIBC_TUNABLES", ""):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # missing in musl
        if mallopt is not None:
            mallopt(_M_MMAP_MAX, 0)
            mallopt(_M_TRIM_THRESHOLD, -1)
            mallopt(_M_ARENA_MAX, 1)
