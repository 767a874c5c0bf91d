"""Devices: which ones, and how a batch lies on them."""

import re
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.errors import UsageError


def make_mesh(spec: str | None, *, batch_size: int, parts: int = 1) -> Mesh:
    """The devices of a run as a mesh with the axis ``data``.

    Args:
        spec: ``"data=N"``, or None for all devices.
        batch_size: examples a step.
        parts: in which a step takes them; of each part every device gets the same number.

    Returns:
        The mesh.

    Raises:
        UsageError: if the text cannot be read, there are fewer devices, or the batch cannot be
            divided among them.
    """
    devices = jax.devices()
    match = re.fullmatch(r"data=(\d+)", spec) if spec is not None else None
    if spec is not None and match is None:
        raise UsageError(f"--mesh must read data=N; got {spec!r}. Example: --mesh=data=8")
    n = int(match[1]) if match else len(devices)
    if not 1 <= n <= len(devices):
        raise UsageError(
            f"--mesh asks for {n} devices, but there are {len(devices)} "
            f"({devices[0].platform}). Example: --mesh=data={len(devices)}"
        )
    if batch_size % (n * parts):
        taken = f" in {parts} parts" if parts > 1 else ""
        raise UsageError(
            f"A batch of {batch_size} examples{taken} cannot be divided among {n} devices: change "
            f"--train.batch_size{' or --train.accumulate' if parts > 1 else ''}, or choose fewer "
            "devices with --mesh=data=N."
        )
    return Mesh(np.array(devices[:n]), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array: parameters, optimiser, measures."""
    return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh) -> NamedSharding:
    """Each device holds its share of the examples: batches."""
    return NamedSharding(mesh, PartitionSpec("data"))


def own_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """Which examples of a batch the devices of this process hold, in ascending order."""
    rows = np.arange(batch_size)
    places = by_example(mesh).addressable_devices_indices_map(rows.shape).values()
    return np.unique(np.concatenate([rows[place] for place in places if place is not None]))


def replicate(arrays: Any, mesh: Mesh) -> Any:
    """Sends the arrays of process 0 to every device of all processes."""
    if jax.process_count() > 1:
        arrays = multihost_utils.broadcast_one_to_all(arrays)
    return jax.make_array_from_process_local_data(replicated(mesh), arrays)
