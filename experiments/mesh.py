"""Devices: which ones, and how a batch lies on them."""

import math
import re
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.errors import UsageError


def make_mesh(spec: str | None, *, batch_size: int, parts: int = 1) -> Mesh:
    """The devices of a run as a mesh with the axis ``data``, and ``seq`` if it is asked for.

    Args:
        spec: ``"data=N"`` divides the examples of a batch among N devices, ``"seq=M"`` the time
            steps of each sequence among M (see `s5jax.SequenceLayer`), ``"data=N,seq=M"`` both
            among N times M; None the examples among all devices.
        batch_size: examples a step.
        parts: in which a step takes them; of each part every device gets the same number.

    Returns:
        The mesh.

    Raises:
        UsageError: if the text cannot be read, there are fewer devices, or the batch cannot be
            divided among them.
    """
    devices = jax.devices()
    shape = _read(spec) if spec is not None else {"data": len(devices)}
    size, n = math.prod(shape.values()), shape["data"]
    if not 1 <= size <= len(devices):
        raise UsageError(
            f"--mesh asks for {size} devices, but there are {len(devices)} "
            f"({devices[0].platform}). Example: --mesh=data={len(devices)}"
        )
    if batch_size % (n * parts):
        taken = f" in {parts} parts" if parts > 1 else ""
        raise UsageError(
            f"A batch of {batch_size} examples{taken} cannot be divided among {n} devices: change "
            f"--train.batch_size{' or --train.accumulate' if parts > 1 else ''}, or choose fewer "
            "devices with --mesh=data=N."
        )
    return Mesh(np.array(devices[:size]).reshape(*shape.values()), tuple(shape))


def _read(spec: str) -> dict[str, int]:
    """The number of devices on each axis."""
    match = re.fullmatch(r"data=(\d+)(?:,seq=(\d+))?|seq=(\d+)", spec)
    if match is None:
        raise UsageError(
            f"--mesh must read data=N, seq=M or data=N,seq=M; got {spec!r}. Example: "
            "--mesh=data=2,seq=4"
        )
    data, seq, alone = match.groups()
    axes = {"data": data or 1, "seq": seq or alone}
    return {name: int(n) for name, n in axes.items() if n is not None}


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
