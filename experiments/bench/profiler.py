"""Bytes that pass through a GPU's memory, counted by its hardware."""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import jax
from jax.profiler import ProfileData

METRICS = ("dram__bytes_read.sum", "dram__bytes_write.sum")
INTERVAL_US = 100
TRACE_S = 0.1


def profiled_bytes(run: Callable[[], None], seconds: float) -> float:
    """Returns the bytes that one run reads from and writes to the memory of an NVIDIA GPU.

    JAX's profiler samples two counters of CUPTI while the program runs repeatedly.

    Args:
        run: a compiled program.
        seconds: time of one run.

    Raises:
        RuntimeError: if the profiler records no such counters.

    References:
        https://docs.jax.dev/en/latest/profiling.html: ``gpu_pm_sample_counters``.
    """
    options = jax.profiler.ProfileOptions()
    options.host_tracer_level = options.python_tracer_level = 0
    options.advanced_configuration = {
        "gpu_pm_sample_counters": ",".join(METRICS),
        "gpu_pm_sample_interval_us": INTERVAL_US,
    }
    run()
    n = max(1, round(TRACE_S / seconds))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in range(n):
                run()
        found = [sum_of_counters(path.read_bytes()) for path in Path(folder).rglob("*.xplane.pb")]
    if not sum(found):
        raise RuntimeError(
            "JAX's profiler recorded no counters of memory traffic; the driver may reserve them "
            "for administrators"
        )
    return sum(found) / n


def sum_of_counters(profile: bytes) -> float:
    """Sums all samples of all counters in a profile, an ``.xplane.pb``."""
    with warnings.catch_warnings():
        # Python 3.13 warns of jaxlib's types; where warnings are errors, the process would abort.
        warnings.simplefilter("ignore", DeprecationWarning)
        return sum(
            float(value)
            for plane in ProfileData.from_serialized_xspace(profile).planes
            if plane.name.startswith("/device:GPU:")
            for line in plane.lines
            if line.name == "_counters_"
            for event in line.events
            for _, value in event.stats
        )
