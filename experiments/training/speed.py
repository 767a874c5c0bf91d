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
from experiments.devices.mesh import by_example, own_rows
from experiments.training.setup import Setup
from experiments.training.steps import Leaves

BUDGET_S = 4.0
"""Time for all measurements after the first step [s]."""
MAX_SHARE = 0.05
"""Largest share of a run's steps to measure."""
MAX_STEPS = 32
"""Largest number of steps in a measurement; devices hold their batches until training."""


class Speed(NamedTuple):
    """The speed of a run."""

    step_s: float
    """Seconds per training step, including the reading of batches."""
    evaluation_s: float
    """Seconds per batch of an evaluation."""
    busy_cores: float
    """Cores that other programs used in the meantime."""


def measure_speed(
    setup: Setup, train_step: Callable, leaves: Leaves, batches: Iterator[Batch]
) -> tuple[Speed, Iterator[Batch]]:
    """Times training and evaluation steps.

    The first step does not count: it touches its memory for the first time, while threads fill the
    buffers of the input pipeline. The next steps run as in training, none waiting for the last.

    A copy of the state is trained, as the compiled step donates it. The batches that are returned
    include those that were used here.
    """
    state = [jnp.copy(leaf) for leaf in leaves]
    taken: list[Batch] = []

    def take(n: int) -> float:
        nonlocal state
        start = time.monotonic()
        for batch in itertools.islice(batches, n):
            taken.append(batch)
            state, _ = train_step(state, batch)
        jax.block_until_ready(state)
        return (time.monotonic() - start) / n

    step_s = take(1)
    start = _processor_times()
    if n := _affordable(step_s, setup.config.train.steps):
        step_s = take(n)
        if more := _affordable(step_s, setup.config.train.steps):  # with buffers in balance
            step_s = take(more)
    evaluation_s = _time_evaluation(setup, state, taken[0])
    seconds, busy, own = _processor_times() - start
    busy_cores = max(busy - own, 0.0) / max(seconds, 1e-9)
    return Speed(step_s, evaluation_s, busy_cores), itertools.chain(taken, batches)


def _affordable(step_s: float, steps: int) -> int:
    n = min(int(BUDGET_S / 2 / step_s), int(MAX_SHARE * steps), MAX_STEPS)
    return from_main(max(n, 1 if step_s < BUDGET_S else 0))


def _time_evaluation(setup: Setup, leaves: Leaves, batch: Batch) -> float:
    """Returns the seconds of an evaluation step, on a training batch."""
    rows = own_rows(setup.mesh, setup.config.train.batch_size)
    mask = jax.make_array_from_process_local_data(by_example(setup.mesh), np.ones(len(rows), bool))
    batch = {**batch, "mask": mask}
    jax.block_until_ready(setup.steps.evaluate(leaves, batch))
    start = time.monotonic()
    jax.block_until_ready(setup.steps.evaluate(leaves, batch))
    return time.monotonic() - start


def _processor_times() -> np.ndarray:
    """Returns the time, and the processor time of all programs and of this one [s]."""
    times, own = psutil.cpu_times(), os.times()
    busy = times.user + times.system + getattr(times, "nice", 0.0)
    return np.array([time.monotonic(), busy, own.user + own.system])
