"""Runs on many processes: connection, agreement and end.

Every process runs the same program on its own devices; arrays span the devices of all. Process 0
alone prints, and writes the records of a run. JAX's distributed runtime connects the processes, and
ends the remaining ones when one is lost.
"""

import contextlib
import socket
import time
import zlib
from collections.abc import Generator

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from experiments.errors import RunError, UsageError

CONNECT_S = 60
"""Longest time that a process waits for the others when it starts [s]."""
LEAVE_S = 20
"""Longest time that a process waits for the others when it ends [s]."""


def connect(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Joins the processes of a run; call it before the first use of a device.

    ``coordinator`` is the address of process 0. All arguments are None where SLURM, Open MPI,
    Kubernetes or Cloud TPU provide them.

    Raises:
        UsageError: if the arguments are incomplete, impossible or unavailable.
        RunError: if the others cannot be reached.
    """
    explicit = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    missing = [name for name, value in explicit.items() if value is None]
    if missing and len(missing) < len(explicit):
        raise UsageError(
            f"--coordinator, --processes and --process go together; {missing[0]} is missing."
        )
    if coordinator is not None and not coordinator.rpartition(":")[2].isdecimal():
        raise UsageError(f"--coordinator must read HOST:PORT; got {coordinator!r}.")
    if coordinator is not None and process:
        _wait_for(coordinator)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            cluster_detection_method=None if missing else "deactivate",
            initialization_timeout=CONNECT_S,
            shutdown_timeout_seconds=LEAVE_S,
        )
    except ValueError as error:
        raise UsageError(
            "--distributed found no job of SLURM, Open MPI, Kubernetes or Cloud TPU to join "
            f"({_first_line(error)}): give --coordinator=HOST:PORT --processes=N --process=I."
            if missing
            else f"--process must be between 0 and --processes - 1; got {process} of {processes}."
        ) from error
    except RuntimeError as error:
        raise RunError(f"Could not join the other processes: {_first_line(error)}.") from error


def is_main() -> bool:
    """Returns whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def log_primary(text: str) -> None:
    """Prints in process 0 only."""
    if is_main():
        print(text, flush=True)


def from_main(value: int) -> int:
    """Returns the value of process 0 on all processes."""
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def wait_for_all() -> None:
    """Returns when every process has called it."""
    multihost_utils.sync_global_devices("wait_for_all")


def check_processes(mesh: Mesh, options: str) -> None:
    """Checks that the mesh has devices of all processes, and that their options are equal.

    Raises:
        UsageError: on every process, if not.
    """
    if jax.process_count() == 1:
        return
    if mesh.size != jax.device_count():
        raise UsageError(
            f"--mesh uses {mesh.size} of the {jax.device_count()} devices that "
            f"{jax.process_count()} processes have: with --distributed it must use all."
        )
    digest = np.uint32(zlib.crc32(options.encode()))
    if len(set(multihost_utils.process_allgather(digest).tolist())) > 1:
        raise UsageError("The processes have different options: start all with the same options.")


@contextlib.contextmanager
def noticing_lost_processes() -> Generator[None]:
    """Raises a RunError for failures that the loss of another process causes."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        raise RunError(
            f"Process {jax.process_index()} failed in a collective operation "
            f"({_first_line(error)}): if another process was lost, its output has the reason, "
            "unless it was killed. The last checkpoint is intact; start all processes again to "
            "resume."
        ) from error


def _wait_for(coordinator: str) -> None:
    """Waits until process 0 listens; JAX would abort the program if it does not."""
    host, _, port = coordinator.rpartition(":")
    deadline = time.monotonic() + CONNECT_S
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise RunError(
                    f"Nothing listened at {coordinator} for {CONNECT_S} s ({error}): start process "
                    "0 there, or correct --coordinator."
                ) from error
            time.sleep(0.2)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")
