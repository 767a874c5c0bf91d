"""How much memory a layer takes at its most: ``python -m experiments.bench.memory NAME L H N``."""

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
    """Runs a layer forward and backward once, in a new process, whose peak this is.

    On a CPU it is that of the whole process, Python and JAX included; else that of the device.
    """
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # shares a GPU
    command = [sys.executable, "-m", "experiments.bench.memory", name, *map(str, size)]
    return int(subprocess.check_output(command, env=environment))


def run_once(name: str, size: Size) -> int:
    """Runs a layer once, forward and backward, and returns the peak so far."""
    layer = CONTESTANTS[name].make(size)
    u = jnp.ones((1, size.L, size.H))
    run, parameters = functional(layer, type(layer).__call__)
    forward_and_backward(run, parameters, u)()
    stats = jax.devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] if stats else _peak_of_process()


def _peak_of_process() -> int:
    """The largest resident set; Linux's ``ru_maxrss`` may be that of the parent."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


if __name__ == "__main__":
    print(run_once(sys.argv[1], Size(*map(int, sys.argv[2:]))))
