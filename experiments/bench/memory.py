"""How much memory a layer takes at its most, in a process of its own."""

import concurrent.futures
import multiprocessing
import os
import resource
import sys
from collections.abc import Iterable
from pathlib import Path

import jax

from experiments.bench.contestants import CONTESTANTS, Size
from experiments.bench.timing import forward_and_backward, functional


def peak_bytes(names: Iterable[str], size: Size) -> dict[str, int]:
    """Runs layers forward and backward once, each in a new process, whose peak this is.

    On a CPU it is that of the whole process, Python and JAX included; else that of the device.
    All run at the same time: most of it is starting JAX and compiling.
    """
    names = list(names)
    pool = concurrent.futures.ProcessPoolExecutor(
        len(names),
        multiprocessing.get_context("spawn"),
        _share_the_device,
        max_tasks_per_child=1,
    )
    with pool:
        return dict(zip(names, pool.map(run_once, names, [size] * len(names)), strict=True))


def run_once(name: str, size: Size) -> int:
    """Runs a layer once, forward and backward, and returns the peak so far."""
    layer = CONTESTANTS[name].make(size)
    u = jax.random.normal(jax.random.key(0), (1, size.L, size.H))
    run, parameters = functional(layer, type(layer).__call__)
    forward_and_backward(run, parameters, u)()
    stats = jax.devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] if stats else _peak_of_process()


def _share_the_device() -> None:
    """The parent may have reserved most of a GPU's memory."""
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"


def _peak_of_process() -> int:
    """The largest resident set; Linux's ``ru_maxrss`` may be that of the parent."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
