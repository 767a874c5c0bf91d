"""Rows of ``--suite=gpu``: what everything in ``docs/accelerators.md`` takes on a GPU."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax

from experiments.bench.compiled import all_cases
from experiments.bench.contestants import CONTESTANTS
from experiments.bench.measure import Job, Measured
from experiments.bench.programs import Case
from experiments.bench.roofline import Roofline
from experiments.errors import UsageError, shorten

LIMIT_S = 560
"""Time of the whole report."""
TESTS_LIMIT_S = 120
JOB_LIMIT_S = 150
LEAST_S = 15
"""No job starts with less time left."""
SLOW = {
    *((name, "sequential") for name in ("S5", "LRU", "LinOSS")),
    *(("DLR", "scan"), ("GRU", "auto")),
}
"""Layers and algorithms of tens of thousands of kernels."""
TESTS = Path(__file__).parents[2] / "tests"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of the tests that are marked as ``gpu``."""

    summary: str
    """The last line of pytest, or why there is none."""
    passed: bool

    def __str__(self) -> str:
        return f"tests   {self.summary}"


Run = Callable[[Job, float], Measured]
"""Measures a job within some seconds."""


def check_gpu() -> None:
    """Raises a UsageError where JAX finds no GPU, or outside a checkout."""
    if not TESTS.is_dir():
        raise UsageError(
            "--suite=gpu runs the tests of the repository, which a wheel does not carry: run "
            "`make gpu-report` in a checkout."
        )
    if jax.default_backend() != "gpu":
        raise UsageError(
            "--suite=gpu needs a GPU, and JAX finds none: run `make gpu-report ACCELERATOR=cuda` "
            "on a machine with an NVIDIA GPU, which installs JAX for it."
        )


def gpu_report(roofline: Roofline) -> Iterator[Outcome | Measured]:
    """Runs the tests of the GPU and measures as much as fits into ten minutes."""
    end = time.monotonic() + LIMIT_S
    yield run_tests("gpu", platform="cuda", limit_s=TESTS_LIMIT_S)
    with Workers() as run:
        yield from measure_jobs(report_jobs(), run, roofline, end=end)


def report_jobs() -> list[Job]:
    """Returns what to measure, the most important first."""
    documented = [
        dataclasses.replace(case, target="gpu") for case in all_cases() if case.target == "h200"
    ]
    steps = [case for case in documented if case.mode == "step"]
    jobs = [
        *_jobs("time", _layers("S5", ("auto", "associative", "pallas"))),
        *_jobs("time", _steps(steps[0], ("auto", "associative", "pallas"))),
        *_jobs("time", [case for case in steps if case.n_layers > 1][:1]),
        *_jobs("values", _layers("S5", ("auto", "associative", "pallas"))),
        *_jobs("time", _layers("S5", ("auto", "associative", "pallas"), "bfloat16")),
        *_jobs("values", _layers("S5", ("auto", "associative", "pallas"), "bfloat16")),
        *_jobs("time", _layers("S4D", ("fft", "chunked"))),
        *_jobs("profile", _layers("S5", ("auto", "associative", "pallas"))),
        *_jobs("profile", _layers("S4D", ("fft", "chunked"))),
        *_jobs("time", documented),
        *_jobs("values", (case for case in documented if case.mode != "step")),
    ]
    for name, contestant in CONTESTANTS.items():
        named = list(_layers(name, contestant.algorithms))
        jobs += [*_jobs("time", named), *_jobs("values", named)]
    jobs += _jobs("time", _steps(steps[0], ("chunked", "sequential")))
    unique = list({str(job): job for job in jobs}.values())
    return sorted(unique, key=lambda job: (job.case.name, job.case.algorithm) in SLOW)


def _layers(name: str, algorithms: Iterable[str], dtype: Any = "float32") -> Iterator[Case]:
    for algorithm in algorithms:
        for mode in ("forward+backward", "forward"):
            yield Case(target="gpu", name=name, mode=mode, algorithm=algorithm, dtype=dtype)


def _steps(step: Case, algorithms: Iterable[str]) -> Iterator[Case]:
    for algorithm in algorithms:
        yield dataclasses.replace(step, algorithm=algorithm)


def _jobs(kind: Any, cases: Iterable[Case]) -> Iterator[Job]:
    """Values and the profiler need the backward pass; the reference of values is slow."""
    for case in cases:
        if kind == "time":
            yield Job(kind=kind, case=case)
        elif case.mode == "forward+backward":
            batch = 1 if kind == "values" else case.batch
            yield Job(kind=kind, case=dataclasses.replace(case, batch=batch))


def measure_jobs(
    jobs: Iterable[Job], run: Run, roofline: Roofline, *, end: float
) -> Iterator[Measured]:
    """Measures jobs until ``end`` [s of ``time.monotonic``]; the rest is skipped, and says so.

    After the profiler has failed once, it is not tried again.
    """
    profiles = True
    for job in jobs:
        left_s = end - time.monotonic()
        if left_s < LEAST_S:
            yield Measured(job=job, failure="skipped, because the time was over")
        elif job.kind == "profile" and not profiles:
            yield Measured(job=job, failure="skipped, because the profiler had failed before")
        else:
            measured = run(job, min(left_s, JOB_LIMIT_S))
            profiles = profiles and not (job.kind == "profile" and measured.failure)
            if measured.moved is not None:
                bound_s = measured.moved / roofline.bytes_per_s
                measured = dataclasses.replace(measured, bound_s=bound_s)
            yield measured


class Workers:
    """Processes that measure one job each; the next one gets ready while one measures."""

    def __enter__(self) -> Self:
        self._next = _start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        _end(self._next)

    def __call__(self, job: Job, limit_s: float) -> Measured:
        """Measures a job in a new process."""
        process, self._next = self._next, _start()
        try:
            text = json.dumps(dataclasses.asdict(job))
            out, err = process.communicate(text, timeout=limit_s)
        except subprocess.TimeoutExpired:
            return Measured(job=job, failure=f"did not end within {limit_s:.0f} s")
        finally:
            _end(process)
        if process.returncode:
            last = err.strip().splitlines()[-1:] or ["no message"]
            return Measured(job=job, failure=shorten(f"crashed: {last[0]}"))
        return Measured(**json.loads(out.splitlines()[-1]) | {"job": job})


def _start() -> "subprocess.Popen[str]":
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms and "cpu" not in platforms:
        platforms += ",cpu"  # for the reference in float64
    environment = {
        **os.environ,
        "JAX_PLATFORMS": platforms,
        "JAX_COMPILATION_CACHE_DIR": jax.config.values["jax_compilation_cache_dir"] or "",
    }
    command = [sys.executable, "-m", "experiments.bench.measure"]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, env=environment, text=True, **pipes)


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def run_tests(mark: str, *, platform: str, limit_s: float) -> Outcome:
    """Runs the tests with a mark on a platform of JAX."""
    files = [path for path in TESTS.rglob("test_*.py") if f"mark.{mark}\n" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "4", "-m", mark, *map(str, files)]
    environment = {**os.environ, "JAX_PLATFORMS": platform}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        return Outcome(summary=f"did not end within {limit_s:.0f} s", passed=False)
    last = done.stdout.strip().splitlines()[-1:] or done.stderr.strip().splitlines()[-1:]
    return Outcome(summary=shorten(last[0] if last else "no message"), passed=not done.returncode)
