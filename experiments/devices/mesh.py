"""The mesh of devices of a run, and the distribution of batches over it."""

import math
import re
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.errors import UsageError


def make_mesh(spec: str | None, *, batch_size: int, parts: int = 1) -> Mesh:
    """Builds the mesh of a run, with the axis ``data``, and ``seq`` if the specification names it.

    Args:
        spec: ``"data=N"`` divides the examples of a batch among N devices. ``"seq=M"`` divides the
            time steps of each sequence among M devices (see `s5jax.SequenceLayer`).
            ``"data=N,seq=M"`` does both on N times M devices. None divides the examples among all
            devices.
        batch_size: examples per step.
        parts: parts of a batch; every device gets the same number of examples of each part.

    Raises:
        UsageError: if the specification is not valid, there are fewer devices, or the batch cannot
            be divided among them.
    """
    devices = jax.devices()
    shape = _read(spec) if spec is not None else {"data": len(devices)}
    size, n = math.prod(shape.values()), shape["data"]
    if not 1 <= size <= len(devices):
        raise UsageError(
            f"--mesh needs {size} devices, but there are {len(devices)} "
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
    """Returns the number of devices on each axis."""
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
    """Returns the sharding of parameters, optimiser and measures: whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of batches: a share of the examples on each device."""
    return NamedSharding(mesh, PartitionSpec("data"))


def own_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """Returns the examples of a batch on this process's devices, in ascending order."""
    rows = np.arange(batch_size)
    places = by_example(mesh).addressable_devices_indices_map(rows.shape).values()
    return np.unique(np.concatenate([rows[place] for place in places if place is not None]))


def replicate(arrays: Any, mesh: Mesh) -> Any:
    """Sends the arrays of process 0 to every device of all processes.

    For devices that are not here (`jax.experimental.topologies`) it describes the arrays.
    """
    if mesh.devices.flat[0].platform not in ("cpu", jax.default_backend()):
        sharding = replicated(mesh)
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), arrays
        )
    if jax.process_count() > 1:
        arrays = multihost_utils.broadcast_one_to_all(arrays)
    return jax.make_array_from_process_local_data(replicated(mesh), arrays)
