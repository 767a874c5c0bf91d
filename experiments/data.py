"""The input pipeline, and ``python -m experiments.data sample``: what training sees, as a file.

Batches are addressable: the data position is the number of the step, so neither prefetching nor an
interruption can change which examples a step gets.
"""

import collections
import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import grain
import jax
import numpy as np
from jax.sharding import Mesh

from experiments.cli import parse_sample
from experiments.errors import UsageError, blaming_options, run_command
from experiments.mesh import by_example
from experiments.tasks import Batch, Split, Task, get_task


class _Indexed:
    """Adds to each example its ``index`` in the split."""

    def __init__(self, task: Task, split: Split, seed: int) -> None:
        with blaming_options():
            self.source = task.source(split, seed=seed)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        with blaming_options():
            return {**self.source[index], "index": np.int32(index)}


def examples(task: Task, split: Split, *, seed: int) -> grain.MapDataset:
    """The examples of a split in the order of a run's first epoch; training data are shuffled."""
    dataset = grain.MapDataset.source(_Indexed(task, split, seed)).seed(seed)
    return dataset.shuffle() if split == "train" else dataset


def train_batches(task: Task, *, seed: int, batch_size: int) -> grain.MapDataset:
    """An endless dataset whose element ``k`` is the batch of step ``k``.

    Every epoch has another order; the ragged rest of an epoch is dropped.
    """
    dataset = examples(task, "train", seed=seed)
    return dataset.batch(batch_size, drop_remainder=True).repeat()


def eval_batches(task: Task, split: Split, *, seed: int, batch_size: int) -> grain.MapDataset:
    """Every example of a split once; ``mask`` is False in the padding of the last batch."""

    def pad(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        n = len(batch["index"])
        padded = {
            name: np.concatenate([value, np.repeat(value[:1], batch_size - n, axis=0)])
            for name, value in batch.items()
        }
        return {**padded, "mask": np.arange(batch_size) < n}

    source = grain.MapDataset.source(_Indexed(task, split, seed))
    return source.batch(batch_size).map(pad)


def on_device(dataset: grain.MapDataset, mesh: Mesh, *, start: int = 0) -> Iterator[Batch]:
    """Reads batches in threads and sends them ahead, while the devices compute.

    Args:
        dataset: batches.
        mesh: devices; examples are split over its axis ``data``.
        start: the first batch to read.

    Yields:
        Batches on the devices.
    """
    threads = min(16, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    batches = iter(dataset[start:].to_iter_dataset(options))
    return _ahead(jax.device_put(batch, by_example(mesh)) for batch in batches)


def _ahead(batches: Iterable[Batch], n: int = 2) -> Iterator[Batch]:
    """Keeps ``n`` batches in flight."""
    batches = iter(batches)
    queue = collections.deque(itertools.islice(batches, n))
    while queue:
        yield queue.popleft()
        queue.extend(itertools.islice(batches, 1))


def sample(task: Task, split: Split, *, seed: int, n: int) -> dict[str, np.ndarray]:
    """The first examples of a split, as and in the order in which training sees them.

    Args:
        task: the task.
        split: which examples.
        seed: the seed of the run.
        n: how many.

    Returns:
        Arrays with ``n`` rows, under plural names: ``images``, ``labels``, ...

    Raises:
        UsageError: if the split has fewer examples.
    """
    dataset = examples(task, split, seed=seed)
    if not 1 <= n <= len(dataset):
        raise UsageError(
            f"--n must lie between 1 and {len(dataset):,}, the size of {split}; got {n}."
        )
    batch = next(iter(dataset.batch(n)))
    return {f"{name}s" if name != "index" else "indices": value for name, value in batch.items()}


def main() -> None:
    """Reads the command line and writes the file."""
    command, *args = sys.argv[1:] or ["--help"]
    if command != "sample":
        print(
            "usage: python -m experiments.data sample --task=NAME ...   (--help lists the options)"
        )
        raise SystemExit(0 if command in ("-h", "--help") else 2)
    flags = parse_sample(args)
    task = get_task(str(flags.task))(flags.data)
    arrays = sample(task, flags.split, seed=flags.seed, n=flags.n)
    np.savez(flags.out, allow_pickle=False, **arrays)
    shapes = ", ".join(f"{name} {value.shape}" for name, value in arrays.items())
    print(f"Wrote {flags.out}: {shapes}")


if __name__ == "__main__":
    run_command(main)
