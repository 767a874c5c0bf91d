"""Measurement of a run's speed, from some steps on a copy of its state."""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from experiments.data.sources import Batch
from experiments.devices.distributed import from_main
from experiments.training.setup import Setup
from experiments.training.steps import Leaves

WARM_UP_S, MEASURING_S = 1.0, 4.0
"""Time of the steps before and in a measurement, after the first step [s]."""
EVALUATING_S = 2.0
"""Time of the measurement of an evaluation, after its first batch [s]."""
MAX_SHARE = 0.05
"""Largest share of a run's steps in the warm-up or the measurement, unless that is no step."""


class Speed(NamedTuple):
    """The speed of a run."""

    step_s: float
    """Seconds per training step, including the reading of batches."""
    first_batch_s: float
    """Seconds until an evaluation has its first batch and has computed it."""
    batch_s: float
    """Seconds per further batch of an evaluation."""
    busy_cores: float
    """Cores that other programs used in the meantime."""

    def evaluation_s(self, n_batches: int) -> float:
        """Returns the seconds of an evaluation."""
        return self.first_batch_s + (n_batches - 1) * self.batch_s


def measure_speed(
    setup: Setup, train_step: Callable, leaves: Leaves, batches: Iterator[Batch]
) -> Speed:
    """Times training steps and part of an evaluation, each with its input pipeline.

    The first step does not count: it touches its memory for the first time. Nor do the steps after
    it, in which threads fill the buffers of the input pipeline. The steps that count run as in
    training, none waiting for the one before.

    A copy of the state is trained, as the compiled step donates it.
    """
    state = [jnp.copy(leaf) for leaf in leaves]
    train = setup.config.train

    def take(n: int) -> float:
        nonlocal state
        start = time.monotonic()
        for i, batch in enumerate(itertools.islice(batches, n), start=1):
            state, _ = train_step(state, batch)
            if i % train.log_every == 0 or i == n:
                jax.block_until_ready(state)
        return (time.monotonic() - start) / n

    step_s = take(1)
    start = _processor_times()
    for seconds in (WARM_UP_S, MEASURING_S):
        n = min(int(seconds / step_s), int(MAX_SHARE * train.steps))
        step_s = take(from_main(max(n, 1)))
    first_batch_s, batch_s = _time_evaluation(setup, state)
    seconds, busy, own = _processor_times() - start
    return Speed(step_s, first_batch_s, batch_s, max(busy - own, 0.0) / max(seconds, 1e-9))


def _time_evaluation(setup: Setup, leaves: Leaves) -> tuple[float, float]:
    """Returns the seconds of the first batch of an evaluation, and of each further one."""

    def evaluate(batches: Iterator[Batch]) -> int:
        n, measures = 0, None
        for batch in batches:
            n, measures = n + 1, setup.steps.evaluate(leaves, batch)
        jax.block_until_ready(measures)
        return n

    evaluate(itertools.islice(setup.on_device("validation"), 1))  # compiles
    start = time.monotonic()
    batches = setup.on_device("validation")
    evaluate(itertools.islice(batches, 1))
    first_s = time.monotonic() - start
    start = time.monotonic()
    n = evaluate(itertools.islice(batches, from_main(max(int(EVALUATING_S / first_s), 1))))
    return first_s, (time.monotonic() - start) / n if n else first_s


def _processor_times() -> np.ndarray:
    """Returns the time, and the processor time of all programs and of this one [s]."""
    times, own = psutil.cpu_times(), os.times()
    busy = times.user + times.system + getattr(times, "nice", 0.0)
    return np.array([time.monotonic(), busy, own.user + own.system])
