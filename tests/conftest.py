import atexit
import fcntl
import gc
import itertools
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import annotations
import pytest

collect_ignore = ["models/earlier/write.py"]  # a script for an earlier commit

gc.set_threshold(200_000, 50, 100)  # tracing makes many objects that live long: a fifth of its time

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

# What one worker compiles the others read, and the programs that tests start, too.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="s5jax-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

annotations.install()  # before anything imports s5jax

from s5jax import _promotion  # noqa: E402, after the environment has been set

_promotion.OWN_RANK_RULE = "raise"  # tests fail where the library adds axes implicitly


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """A test that is marked as alone waits until the other workers' tests have ended."""
    workers = getattr(item.config, "workerinput", None)
    if workers is None:
        return (yield)
    alone = item.get_closest_marker("alone") is not None
    path = Path(tempfile.gettempdir()) / f"s5jax-tests-{workers['testrunuid']}"
    with path.with_suffix(".gate").open("w") as gate, path.with_suffix(".room").open("w") as room:
        fcntl.flock(gate, fcntl.LOCK_EX)  # who waits for the room keeps later ones out
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        if not alone:
            fcntl.flock(gate, fcntl.LOCK_UN)
        return (yield)


finished = itertools.count(1)
MAPPINGS, PAGES = Path("/proc/self/maps"), Path("/proc/self/statm")


@pytest.fixture(autouse=True)
def few_programs():
    """Forgets compiled programs when there are many.

    Each takes a few memory mappings, and Linux ends a process that has more than 65,530: so did a
    worker after 600 tests of the slow tier. After 2,000 tests, a worker held 10 GB. To forget them
    takes seconds, and to read them again.
    """
    yield
    if next(finished) % 50 == 0 and MAPPINGS.exists():
        n_bytes = int(PAGES.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        if len(MAPPINGS.read_bytes().splitlines()) > 30_000 or n_bytes > 5e9:
            import jax  # after the environment has been set

            jax.clear_caches()
