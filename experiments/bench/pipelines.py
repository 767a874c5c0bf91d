"""Speed at which one core generates or reads examples, relative to the needs of a fast GPU."""

import dataclasses
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench.row import Row
from experiments.data.sources import Files, Source
from experiments.errors import UsageError
from experiments.recipes import get_recipe
from experiments.tasks import Task, get_task
from experiments.tasks.speech.clips import LENGTH, Clips
from experiments.tasks.speech.task import SpeechSource

GPU_STEPS_PER_S = 1e7
SECONDS = 2.0
TASKS: dict[str, dict[str, Any]] = {
    **{name: {} for name in ("pathfinder", "pathx", "listops", "listops_subtrees")},
    **{name: {} for name in ("pathfinder_segmentation_128", "pendulum", "digits")},
    "associative_recall": {},
    **{name: {} for name in ("digits_density", "chars", "smnist", "image", "forecast")},
    "text": {"n_train": 20_000, "n_validation": 2_500, "n_test": 2_500, "held_out": "train_only"},
}
"""The tasks whose pipelines are timed, with changes of their data to what is easily available."""

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
"""The tasks with synthetic data, by the name of the row."""


def task_rows(files: Files) -> Iterator[Row]:
    """Measures the pipeline of each task whose data are available, and prints the others."""
    for name, changes in TASKS.items():
        config = get_recipe(name, "s5", "paper")
        task = get_task(name)(dataclasses.replace(config.data, **changes), files)
        try:
            source = task.source("train", seed=0)
        except UsageError as error:
            print(f"The pipeline of {name} is skipped: {error}")
            continue
        yield measure(f"{name}_pipeline", source, config.train.batch_size, task.length)
    for name, imitate in {"sc35": _clips, "wikitext103": _words}.items():
        size = get_recipe(name, "s5", "paper").train.batch_size
        with tempfile.TemporaryDirectory() as folder:
            yield measure(f"{name}_pipeline", *imitate(Path(folder), size))


def generator_rows(names: Iterable[str] = GENERATORS) -> Iterator[Row]:
    """Measures the synthetic data generators."""
    for name in names:
        config = get_recipe(GENERATORS[name], "s5", "paper")
        task = get_task(config.task)(config.data)
        yield measure(name, task.source("train", seed=0), config.train.batch_size, task.length)


def measure(name: str, source: Source, batch_size: int, length: int) -> Row:
    """Reads batches for some seconds of this thread's time.

    The ratio compares with twice the needs of a GPU that processes ten million time steps a second.
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


def _clips(folder: Path, batch_size: int) -> tuple[Source, int, int]:
    """Writes noise to a file in the format of the speech tasks."""
    n, path = 1_600, folder / "audio.npy"
    np.save(path, np.random.default_rng(0).integers(-999, 999, (n, LENGTH), np.int16))
    rows, moments = np.arange(n), np.ones((2, LENGTH), np.float32)
    clips = Clips(np.load(path, mmap_mode="r"), np.zeros(n, np.int32), {"train": rows}, moments)
    return SpeechSource(clips, rows, *moments), batch_size, LENGTH


def _words(folder: Path, batch_size: int) -> tuple[Source, int, int]:
    """Writes a text of two million words in the layout of WikiText-103."""
    data = get_recipe("wikitext103", "s5", "paper").data
    n_train = batch_size * (2_000_000 // batch_size // get_task("wikitext103")(data).length)
    changes = {"vocabulary": 100, "n_train": n_train, "n_validation": 1, "n_test": 1}
    path = folder / "wikitext-103" / "wiki.train.tokens"
    path.parent.mkdir()
    line = " ".join(f"word{i}" for i in range(99)) + "\n"
    path.write_text(20_000 * line, encoding="utf-8")
    task: Task = get_task("wikitext103")(dataclasses.replace(data, **changes), Files(folder))
    return task.source("train", seed=0), batch_size, task.length
