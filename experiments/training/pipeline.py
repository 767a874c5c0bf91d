"""The input pipeline: from the examples of a task to batches on the devices.

The index of a training batch is the number of the step plus the batches that rollbacks have
skipped. Neither prefetching nor an interruption changes which examples a step gets.
"""

import collections
import functools
import itertools
import os
from collections.abc import Iterable, Iterator

import grain
import jax
import numpy as np
from jax.sharding import Mesh

from experiments.data.sources import Batch, Split
from experiments.devices.mesh import by_example, replicated
from experiments.errors import UsageError, blaming_options
from experiments.tasks import Task


class _Batches:
    """Batches of a split by index; see `make_batches`.

    NumPy draws the orders and assembles the batches. Grain's own shuffle and batch operations work
    example by example, which takes longer than drawing a small Pathfinder image.
    """

    def __init__(
        self,
        task: Task,
        split: Split,
        *,
        seed: int,
        batch_size: int,
        rows: np.ndarray | None = None,
        indices_only: bool = False,
    ) -> None:
        with blaming_options():
            self.source = task.source(split, seed=seed)
        self._seed, self._size, self._is_training = seed, batch_size, split == "train"
        self._rows = np.arange(batch_size) if rows is None else rows
        self._indices_only = indices_only
        self._epoch_order = functools.lru_cache(maxsize=2)(self._draw_order)

    def __len__(self) -> int:
        return 2**31 if self._is_training else -(-len(self.source) // self._size)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        epoch, position = 0, index
        if self._is_training:
            epoch, position = divmod(index, len(self.source) // self._size)
        start = position * self._size
        indices = self._epoch_order(epoch)[start : start + self._size]
        if self._is_training:
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
        if not self._is_training or self.source.ordered:
            return np.arange(n)
        return np.random.default_rng((self._seed, epoch)).permutation(n)


def make_batches(
    task: Task,
    split: Split,
    *,
    seed: int,
    batch_size: int,
    rows: np.ndarray | None = None,
    indices_only: bool = False,
) -> grain.MapDataset:
    """Builds the dataset of a split's batches.

    For training the dataset is endless, and element ``k`` is the batch of step ``k``. Every epoch
    has another order, unless the source is ordered, and drops the examples that do not fill a
    batch. For the other splits the dataset has every example once; ``mask`` is False where the last
    batch repeats some. ``rows`` selects rows of each batch, and ``indices_only`` the columns
    ``index`` and ``epoch``.
    """
    options = {"batch_size": batch_size, "rows": rows, "indices_only": indices_only}
    return grain.MapDataset.source(_Batches(task, split, seed=seed, **options))


def on_device(
    dataset: grain.MapDataset, mesh: Mesh, *, start: int = 0, rows: Batch | None = None
) -> Iterator[Batch]:
    """Reads batches in threads and sends them ahead, while the devices compute.

    The dataset has the rows that belong to this process's devices. Batches begin at the index
    ``start``, and are split over the axis ``data`` of the mesh. ``rows``, the result of
    `load_split`, is added to each batch.
    """
    threads = min(16, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    batches = iter(dataset[start:].to_iter_dataset(options))
    stored = {} if rows is None else {"rows": rows}
    send = functools.partial(jax.make_array_from_process_local_data, by_example(mesh))
    return _ahead({**send(batch), **stored} for batch in batches)


def load_split(task: Task, split: Split, mesh: Mesh, *, seed: int) -> Batch:
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
    """Returns the first n examples of a split, in the form and order in which training sees them.

    Returns:
        Arrays with ``n`` rows, under plural names: ``images``, ``labels``, ...

    Raises:
        UsageError: if the split has fewer examples.
    """
    batches = _Batches(task, split, seed=seed, batch_size=n)
    if not 1 <= n <= len(batches.source):
        raise UsageError(
            f"--n must be between 1 and {len(batches.source):,}, the size of {split}; got {n}."
        )
    batch = jax.device_get(jax.jit(task.expand)(batches[0]))
    batch["indice"] = batch.pop("index")
    return {f"{name}s": value for name, value in batch.items() if name not in ("epoch", "mask")}
