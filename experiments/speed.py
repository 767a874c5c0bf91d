"""How long the steps of a run take, found by taking some of them on a copy of its state."""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from experiments.build import Setup
from experiments.distributed import from_main
from experiments.mesh import by_example, own_rows
from experiments.steps import Leaves
from experiments.tasks import Batch

BUDGET_S = 4.0
"""What timing may take, beyond the first step."""
MAX_SHARE = 0.05
"""Of a run's steps, how many may be taken to time them."""
MAX_STEPS = 32
"""Steps timed together, whose batches the devices keep for training."""


class Speed(NamedTuple):
    """The pace of a run."""

    step_s: float
    """Seconds between training steps, with the reading of their batches."""
    evaluation_s: float
    """Seconds of an evaluation, for each batch."""
    busy_cores: float
    """Cores that other programs kept busy meanwhile."""


def measure_speed(
    setup: Setup, train_step: Callable, leaves: Leaves, batches: Iterator[Batch]
) -> tuple[Speed, Iterator[Batch]]:
    """Times training and evaluation steps.

    The first step is left out: it touches its memory for the first time, while threads fill the
    buffers of the input pipeline. Those after it run as in training, none waiting for the last.

    Args:
        setup: the parts of the run.
        train_step: compiled; reuses the memory of the state that it gets.
        leaves: the state, of which a copy is trained.
        batches: those of the steps to come.

    Returns:
        The speed, and the batches, with those that were taken in front.
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
    with _Others() as others:
        if n := _affordable(step_s, setup.config.train.steps):
            step_s = take(n)
            if more := _affordable(step_s, setup.config.train.steps):  # buffers are in balance now
                step_s = take(more)
        evaluation_s = _time_evaluation(setup, state, taken[0])
    return Speed(step_s, evaluation_s, others.cores), itertools.chain(taken, batches)


def _affordable(step_s: float, steps: int) -> int:
    n = min(int(BUDGET_S / 2 / step_s), int(MAX_SHARE * steps), MAX_STEPS)
    return from_main(max(n, 1 if step_s < BUDGET_S else 0))


def _time_evaluation(setup: Setup, leaves: Leaves, batch: Batch) -> float:
    """Seconds for a batch, which the training batch stands for."""
    rows = own_rows(setup.mesh, setup.config.train.batch_size)
    mask = jax.make_array_from_process_local_data(by_example(setup.mesh), np.ones(len(rows), bool))
    batch = {**batch, "mask": mask}
    jax.block_until_ready(setup.steps.evaluate(leaves, batch))
    start = time.monotonic()
    jax.block_until_ready(setup.steps.evaluate(leaves, batch))
    return time.monotonic() - start


class _Others:
    """Counts the processor time of all other programs; a context manager."""

    cores = 0.0

    def __enter__(self) -> "_Others":
        self._start = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        seconds, busy, own = (b - a for a, b in zip(self._start, self._read(), strict=True))
        self.cores = max(busy - own, 0.0) / max(seconds, 1e-9)

    def _read(self) -> tuple[float, float, float]:
        times = psutil.cpu_times()
        own = os.times()
        busy = times.user + times.system + getattr(times, "nice", 0.0)
        return time.monotonic(), busy, own.user + own.system
