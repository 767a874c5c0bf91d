"""Commands of this project in processes of their own.

They are forked from a process that has imported everything, which takes longer than a short run.
"""

import atexit
import importlib
import json
import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

from experiments.cli.ending import run_command

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["experiments.train", "experiments.evaluate"])
OPTIMISE_LITTLE = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"


def flags(devices: int = 1) -> str:
    """What XLA is told in these processes; numbers depend on it in their last digits."""
    return f"{OPTIMISE_LITTLE} --xla_force_host_platform_device_count={devices}"


class Command:
    """``python -m experiments.MODULE ARGS``, on so many virtual devices."""

    def __init__(
        self, folder: Path, module: str, *args: str, devices: int = 1, **environment: str
    ) -> None:
        self.files = [folder / f"{module}-{time.monotonic_ns()}.{name}" for name in ("out", "err")]
        environment = {"XLA_FLAGS": flags(devices), **environment}
        self.process = CONTEXT.Process(target=_run, args=(self.files, environment, module, args))
        self.process.start()

    def send(self, number: int) -> None:
        """A signal."""
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """SIGKILL: nothing of what it does comes to an end."""
        self.send(signal.SIGKILL)
        self.process.join()

    @property
    def runs(self) -> bool:
        return self.process.is_alive()

    def end(self, timeout: float = 120) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        self.process.join(timeout)
        if self.process.is_alive():
            self.kill()
        out, err = (path.read_text() for path in self.files)
        return self.process.exitcode, out, err


class Rows:
    """The rows of ``metrics.jsonl``, which every start of a run writes anew."""

    def __init__(self, workdir):
        self.path = workdir / "metrics.jsonl"
        self.before = self.path.stat().st_ino if self.path.exists() else None
        self.at_first = None

    def read(self):
        """The steps of the rows since the start."""
        if not self.path.exists() or self.path.stat().st_ino == self.before:
            return []
        lines = self.path.read_text().splitlines(keepends=True)
        self.at_first = len(lines) if self.at_first is None else self.at_first
        return [json.loads(line)["step"] for line in lines[self.at_first :] if line.endswith("\n")]


def wait_until(command, happens):
    """Waits for it in a run that goes on; False if the run comes to its end first."""
    while command.runs:
        if happens():
            return True
        time.sleep(0.0005)
    return False


def wait_for_rows(command, workdir, n):
    rows = Rows(workdir)
    assert wait_until(command, lambda: len(rows.read()) >= n), command.end()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _run(
    files: list[Path], environment: dict[str, str], module: str, args: tuple[str, ...]
) -> None:
    for number, path in zip((1, 2), files, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644), number)
    os.environ.update(environment)
    sys.argv = [module, *args]
    try:
        run_command(importlib.import_module(f"experiments.{module}").main)
    except Exception:
        traceback.print_exc()
        raise
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out
