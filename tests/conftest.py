import os
from importlib.metadata import version

flags = [
    os.environ.get("XLA_FLAGS", ""),
    # Eight devices, for the tests of sharding.
    "--xla_force_host_platform_device_count=8",
    # Small programs compile several times faster without optimisations; what is timed sets its own.
    "--xla_backend_optimization_level=0",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if version("jaxlib").startswith("0.10."):
    flags.append("--xla_cpu_use_fusion_emitters=false")  # an unknown flag later on, and fatal
os.environ["XLA_FLAGS"] = " ".join(flags)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
