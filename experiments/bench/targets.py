"""Accelerators for which programs are compiled on a machine that has none of them."""

import importlib.util
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "JAX_TRACEBACK_FILTERING": "off",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
}
"""Variables of a process that compiles.

Nothing looks for accelerators, errors come last, and no program is read from a cache.
"""

_H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  memory_bandwidth: 4800000000000 device_memory_size: 151397597184 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 pcie_bandwidth: 34359738368 device_address_bits: 64 ecc_enabled: true
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  device_vendor: "NVIDIA Corporation" name: "NVIDIA H200 141GB HBM3e"
  platform_version: "Compute Capability 9.0a" driver_version: "13.0.0"
  runtime_version: "13.0.0" compile_time_toolkit_version: "13.0.0" dnn_version: "9.10.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H200 141GB HBM3e"
"""


class Target(NamedTuple):
    """An accelerator."""

    module: str
    """What compiles for it."""
    extra: str
    """The extra of this project that installs the module."""
    memory: int
    """Bytes of a device."""


TARGETS = {
    "h200": Target("jax_cuda13_plugin", "aot-cuda", 151_397_597_184),
    "v5e": Target("libtpu", "tpu", 16 * 2**30),
}


def missing(name: str) -> str | None:
    """Returns what to install before programs for a target can be compiled; None if all is here."""
    target = TARGETS[name]
    if importlib.util.find_spec(target.module) is not None:
        return None
    return f"{target.module} is not installed: pip install --editable '.[{target.extra}]'"


def make_target_mesh(name: str, axes: Mapping[str, int]) -> Mesh:
    """Builds a mesh of devices of a target, none of which has to exist."""
    n = math.prod(axes.values())
    if name == "h200":
        topology = topologies.get_topology_desc(
            "", "cuda", target_config=_H200, topology=f"1x1x{n}"
        )
    elif n == 1:
        topology = topologies.get_topology_desc("v5e:1x1", "tpu", chips_per_host_bounds=[1, 1, 1])
    else:
        topology = topologies.get_topology_desc(f"v5e:{_rectangle(n)}", "tpu")
    devices: list[jax.Device] = topology.devices
    shape = tuple(axes.values())
    return Mesh(np.array(devices[:n]).reshape(shape), tuple(axes), (AxisType.Auto,) * len(axes))


def _rectangle(n: int) -> str:
    """The smallest slice with at least n chips: both sides are powers of two, from 2 to 16."""
    rows = columns = 2
    while rows * columns < n:
        rows, columns = columns, 2 * rows
    return f"{min(rows, columns)}x{max(rows, columns)}"
