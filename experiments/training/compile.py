"""Compilation of the train step, and a check of the memory that it needs."""

from typing import Any

import jax
import psutil

from experiments.data.sources import Batch
from experiments.errors import RunError
from experiments.training.setup import Setup
from experiments.training.steps import Leaves


def compile_step(setup: Setup, leaves: Leaves, batch: Batch) -> jax.stages.Compiled:
    """Compiles the train step of a run for the shapes and shardings of a state and a batch.

    Raises:
        RunError: if the step needs more memory than there is.
    """
    compiled = setup.steps.train.lower(leaves, batch).compile()
    memory: Any = compiled.memory_analysis()
    needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    available = memory_of(setup.mesh.local_devices[0])
    if needed > available:
        raise RunError(
            f"A step of {setup.config.train.batch_size} examples needs {format_bytes(needed)} per "
            f"device, which has {format_bytes(available)}: reduce --train.batch_size, try "
            "--train.remat=True or --train.accumulate=N, or --preset=cpu."
        )
    return compiled


def memory_of(device: jax.Device) -> int:
    """Returns the bytes of a device's memory; for a CPU, of the machine's memory."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return psutil.virtual_memory().total


def format_bytes(n_bytes: float) -> str:
    """Returns a size such as ``"1.5 GB"``."""
    for unit in ("B", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} GB"
