"""The input pipeline, and ``python -m experiments.data sample|prepare``.

``sample`` writes what training sees to a file; ``prepare`` puts data sets where tasks find them.

Batches are addressable: the data position is the number of the step, plus the batches that
rollbacks left out, so neither prefetching nor an interruption changes which examples a step gets.
"""

import collections
import functools
import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence

import grain
import jax
import numpy as np
from jax.sharding import Mesh

from experiments.cli import parse_prepare, parse_sample
from experiments.errors import UsageError, blaming_options, nearest, run_command
from experiments.files import check_output, replacing
from experiments.mesh import by_example, replicated
from experiments.prepare import prepare
from experiments.tasks import Batch, Split, Task, get_task


class _Batches:
    """Batch ``k`` of a split; training goes on for ever, each epoch in another order.

    Orders are drawn, and batches put together, by NumPy. Grain's own shuffle and batch work example
    by example: they took eight times as long as drawing a small Pathfinder image.
    """

    def __init__(
        self,
        task: Task,
        split: Split,
        *,
        seed: int,
        size: int,
        rows: np.ndarray | None = None,
        indices_only: bool = False,
    ) -> None:
        with blaming_options():
            self.source = task.source(split, seed=seed)
        self._seed, self._size, self._shuffled = seed, size, split == "train"
        self._rows = np.arange(size) if rows is None else rows
        self._indices_only = indices_only
        self._epoch_order = functools.lru_cache(maxsize=2)(self._draw_order)

    def __len__(self) -> int:
        return 2**31 if self._shuffled else -(-len(self.source) // self._size)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        epoch, position = 0, index
        if self._shuffled:
            epoch, position = divmod(index, len(self.source) // self._size)
        start = position * self._size
        indices = self._epoch_order(epoch)[start : start + self._size]
        if self._shuffled:
            return self._read(indices[self._rows], epoch)
        wanted = np.resize(indices, self._size)[self._rows]
        examples, places = np.unique(wanted, return_inverse=True)
        batch = {name: column[places] for name, column in self._read(examples, epoch).items()}
        return {**batch, "mask": self._rows < len(indices)}

    def _read(self, indices: np.ndarray, epoch: int) -> dict[str, np.ndarray]:
        with blaming_options():
            columns = {} if self._indices_only else self.source.batch(indices, epoch=epoch)
        epochs = np.full(len(indices), epoch, np.int32)
        return {**columns, "index": indices.astype(np.int32), "epoch": epochs}

    def _draw_order(self, epoch: int) -> np.ndarray:
        n = len(self.source)
        if not self._shuffled or self.source.ordered:
            return np.arange(n)
        return np.random.default_rng((self._seed, epoch)).permutation(n)


def train_batches(
    task: Task,
    *,
    seed: int,
    batch_size: int,
    rows: np.ndarray | None = None,
    indices_only: bool = False,
) -> grain.MapDataset:
    """An endless dataset whose element ``k`` is the batch of step ``k``.

    Every epoch has another order, unless the task's is its own; the ragged rest of an epoch is
    dropped. Of each batch only ``rows`` are read, by default all. ``indices_only`` leaves out all
    columns but ``index`` and ``epoch``.
    """
    batches = _Batches(
        task, "train", seed=seed, size=batch_size, rows=rows, indices_only=indices_only
    )
    return grain.MapDataset.source(batches)


def eval_batches(
    task: Task,
    split: Split,
    *,
    seed: int,
    batch_size: int,
    rows: np.ndarray | None = None,
    indices_only: bool = False,
) -> grain.MapDataset:
    """Every example of a split once; ``mask`` is False where the last batch repeats some."""
    batches = _Batches(
        task, split, seed=seed, size=batch_size, rows=rows, indices_only=indices_only
    )
    return grain.MapDataset.source(batches)


def on_device(
    dataset: grain.MapDataset, mesh: Mesh, *, start: int = 0, rows: Batch | None = None
) -> Iterator[Batch]:
    """Reads batches in threads and sends them ahead, while the devices compute.

    Args:
        dataset: batches, of which a process reads the rows that its devices hold.
        mesh: devices; examples are split over its axis ``data``.
        start: the first batch to read.
        rows: what :func:`hold` gave; it then comes with each batch, from which the steps take it.

    Yields:
        Batches on the devices.
    """
    threads = min(16, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    batches = iter(dataset[start:].to_iter_dataset(options))
    held = {} if rows is None else {"rows": rows}
    send = functools.partial(jax.make_array_from_process_local_data, by_example(mesh))
    return _ahead({**send(batch), **held} for batch in batches)


def hold(task: Task, split: Split, mesh: Mesh, *, seed: int) -> Batch:
    """Sends all examples of a split to every device."""
    source = task.source(split, seed=seed)
    columns = source.batch(np.arange(len(source)), epoch=0)
    return jax.make_array_from_process_local_data(replicated(mesh), columns)


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
    batches = _Batches(task, split, seed=seed, size=n)
    if not 1 <= n <= len(batches.source):
        raise UsageError(
            f"--n must lie between 1 and {len(batches.source):,}, the size of {split}; got {n}."
        )
    batch = jax.device_get(jax.jit(task.expand)(batches[0]))
    batch["indice"] = batch.pop("index")
    return {f"{name}s": value for name, value in batch.items() if name not in ("epoch", "mask")}


def main() -> None:
    """Reads the command line, and writes a sample or prepares a data set."""
    command, *args = sys.argv[1:] or ["--help"]
    commands = {"sample": _sample_command, "prepare": _prepare_command}
    usage = "python -m experiments.data sample|prepare --task=NAME ...   (--help lists the options)"
    if command in ("-h", "--help"):
        print(f"usage: {usage}")
    elif command in commands:
        commands[command](args)
    else:
        hint = nearest(command, commands)
        raise UsageError(f"Unknown command {command!r}: the usage is {usage}.{hint}")


def _sample_command(args: Sequence[str]) -> None:
    flags = parse_sample(args)
    out = flags.out if flags.out.suffix == ".npz" else flags.out.with_name(f"{flags.out.name}.npz")
    check_output(flags.out, "--out")
    task = get_task(str(flags.task))(flags.data, flags.files())
    arrays = sample(task, flags.split, seed=flags.seed, n=flags.n)
    with replacing(out, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    shapes = ", ".join(f"{name} {value.shape}" for name, value in arrays.items())
    print(f"Wrote {out}: {shapes}")


def _prepare_command(args: Sequence[str]) -> None:
    flags = parse_prepare(args)
    prepare(flags.task, flags.data_dir, flags.source)


if __name__ == "__main__":
    run_command(main)
