"""How fast one core makes or reads examples, against what a fast GPU consumes."""

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench.row import Row
from experiments.errors import UsageError
from experiments.recipes import get_recipe
from experiments.tasks import Files, Source, Task, get_task
from experiments.tasks._speech_clips import LENGTH, Clips
from experiments.tasks.speech import SpeechSource

GPU_STEPS_PER_S = 1e7
SECONDS = 2.0
TASKS: dict[str, dict[str, Any]] = {
    "pathfinder": {},
    "pathx": {},
    "listops": {},
    "listops_subtrees": {},
    "pathfinder_segmentation_128": {},
    "pendulum": {},
    "digits": {},
    "digits_density": {},
    "chars": {},
    "smnist": {},
    "image": {},
    "text": {
        "n_train": 20_000,
        "n_validation": 2_500,
        "n_test": 2_500,
        "held_out": "train_only",
    },
}
"""The tasks whose pipelines are timed, and changes of their data for what is easily at hand."""

GENERATORS = {
    "pathfinder_32": "pathfinder",
    "pathfinder_128": "pathx",
    "pathfinder_256": "path256",
    "segmentation_128": "pathfinder_segmentation_128",
    "segmentation_256": "pathfinder_segmentation_256",
    "segmentation_512": "pathfinder_segmentation_512",
    "listops": "listops",
    "listops_subtrees": "listops_subtrees",
    "pendulum": "pendulum",
}
"""The tasks that have them."""


def task_rows(files: Files) -> Iterator[Row]:
    """The pipeline of each task whose data can be had; says which are left out."""
    for name, changes in TASKS.items():
        config = get_recipe(name, "s5", "paper")
        task = get_task(name)(dataclasses.replace(config.data, **changes), files)
        try:
            source = task.source("train", seed=0)
        except UsageError as error:
            print(f"The pipeline of {name} is left out: {error}")
            continue
        yield measure(f"{name}_pipeline", source, config.train.batch_size, task.length)
    for name, made_up in {"sc35": _clips, "wikitext103": _words}.items():
        size = get_recipe(name, "s5", "paper").train.batch_size
        with tempfile.TemporaryDirectory() as folder, made_up(Path(folder)) as (source, length):
            yield measure(f"{name}_pipeline", source, size, length)


def generator_rows(names: Iterable[str] = GENERATORS) -> Iterator[Row]:
    """What draws examples by itself."""
    for name in names:
        config = get_recipe(GENERATORS[name], "s5", "paper")
        task = get_task(config.task)(config.data)
        yield measure(name, task.source("train", seed=0), config.train.batch_size, task.length)


def measure(name: str, source: Source, batch_size: int, length: int) -> Row:
    """Reads batches for some seconds of this thread's time.

    The ratio is to twice what a GPU takes at ten million time steps a second.
    """
    draw = np.random.default_rng(0)

    def read() -> None:
        source.batch(draw.integers(len(source), size=batch_size), epoch=0)

    read()
    n, start = 0, time.thread_time()
    while time.thread_time() < start + SECONDS:
        read()
        n += batch_size
    rate = n / (time.thread_time() - start)
    ratio = rate * length / (2 * GPU_STEPS_PER_S)
    return Row(name, ratio, 1, {"examples a second": {"one core": rate}})


@contextlib.contextmanager
def _clips(folder: Path) -> Generator[tuple[Source, int]]:
    """Noise in the files that the speech tasks keep."""
    n, path = 1_600, folder / "audio.npy"
    np.save(path, np.random.default_rng(0).integers(-999, 999, (n, LENGTH), np.int16))
    rows, moments = np.arange(n), np.ones((2, LENGTH), np.float32)
    clips = Clips(np.load(path, mmap_mode="r"), np.zeros(n, np.int32), {"train": rows}, moments)
    yield SpeechSource(clips, rows, *moments), LENGTH


@contextlib.contextmanager
def _words(folder: Path) -> Generator[tuple[Source, int]]:
    """A text of two million words in the layout of WikiText-103."""
    config = get_recipe("wikitext103", "s5", "paper")
    size = config.train.batch_size
    n_train = size * (2_000_000 // size // get_task("wikitext103")(config.data).length)
    changes = {"vocabulary": 100, "n_train": n_train, "n_validation": 1, "n_test": 1}
    path = folder / "wikitext-103" / "wiki.train.tokens"
    path.parent.mkdir()
    line = " ".join(f"word{i}" for i in range(99)) + "\n"
    path.write_text(20_000 * line, encoding="utf-8")
    data = dataclasses.replace(config.data, **changes)
    task: Task = get_task("wikitext103")(data, Files(folder))
    yield task.source("train", seed=0), task.length
