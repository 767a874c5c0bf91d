"""Peak memory of this process, and of a layer in a process of its own."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp

from experiments.bench.contestants import CONTESTANTS, Size
from experiments.bench.timing import forward_and_backward, functional


def peak_bytes(name: str, size: Size) -> int:
    """Returns the peak memory of a layer, forward and backward once, in a new process.

    On a CPU the figure includes Python and JAX; otherwise it is the peak of the device.
    """
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # to share a GPU
    code = (
        "from experiments.bench.memory import Size, run_once\n"
        f"print(run_once({name!r}, Size(*{tuple(size)})))"
    )
    return int(subprocess.check_output([sys.executable, "-c", code], env=environment))


def run_once(name: str, size: Size) -> int:
    """Runs a layer forward and backward once, and returns the peak so far."""
    layer = CONTESTANTS[name].make(size)
    u = jnp.ones((1, size.L, size.H))
    run, parameters = functional(layer, type(layer).__call__)
    forward_and_backward(run, parameters, u)()
    return peak_so_far()


def peak_so_far() -> int:
    """Returns the peak of this process on its device; on a CPU it includes Python and JAX."""
    stats = jax.devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] if stats else _peak_of_process()


def _peak_of_process() -> int:
    """Returns the largest resident set; on Linux ``ru_maxrss`` may include the parent process."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
