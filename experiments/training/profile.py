"""A profile of some steps of a run, by JAX's profiler."""

from collections.abc import Callable
from pathlib import Path

import jax

from experiments.devices.distributed import is_main
from experiments.errors import UsageError
from experiments.training.steps import Leaves

WARM_UP_STEPS = 3
"""Steps before the first one in a profile: they fill the buffers of the input pipeline."""


class Profile:
    """Traces the first steps of a run after a warm-up, in process 0; a context manager.

    The trace includes what the run does between these steps.

    Args:
        n: number of steps to trace; None for no profile.
        steps: number of steps of the run.
        folder: where to write the trace.
        report: called with a sentence that says how to open it.

    Raises:
        UsageError: if the run has fewer steps.
    """

    def __init__(
        self, n: int | None, *, steps: int, folder: Path, report: Callable[[str], None]
    ) -> None:
        if n is not None and not 1 <= n <= steps - WARM_UP_STEPS:
            raise UsageError(
                f"--profile must be between 1 and {max(steps - WARM_UP_STEPS, 0)}: it traces that "
                f"many steps of the run's {steps}, after {WARM_UP_STEPS} others; got {n}."
            )
        self._n, self._folder, self._report = n if is_main() else None, folder, report
        self._taken = 0
        self._is_tracing = False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_tracing:
            self._stop()

    def advance(self, leaves: Leaves) -> bool:
        """Counts a step, whose result is ``leaves``, and returns whether it ended the trace."""
        if self._n is None:
            return False
        self._taken += 1
        if self._taken == WARM_UP_STEPS:
            jax.block_until_ready(leaves)
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._is_tracing = True
        ends = self._taken == WARM_UP_STEPS + self._n
        if ends:
            jax.block_until_ready(leaves)
            self._stop()
        return ends

    def _stop(self) -> None:
        self._is_tracing = False
        jax.profiler.stop_trace()
        trace = max(self._folder.rglob("perfetto_trace.json.gz"), key=lambda p: p.stat().st_mtime)
        self._report(
            f"Profile of {self._taken - WARM_UP_STEPS} steps: open {trace} at "
            f"https://ui.perfetto.dev, or run xprof --logdir={self._folder}."
        )
