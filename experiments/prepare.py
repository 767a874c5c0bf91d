"""Puts data sets where tasks look for them: ``python -m experiments.data prepare``.

Through tensorflow-datasets and its checksums, without TensorFlow: the files are read here, and
images handed over as PNG bytes.
"""

import re
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from experiments.errors import RunError, UsageError, blaming_file, pick
from experiments.published_files import Entry, Splits, read_cifar10, read_imdb, read_mnist, walk

MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
LRA_URL = "https://storage.googleapis.com/long-range-arena/lra_release.gz"
SPEECH_URL = "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz"


class Published(NamedTuple):
    """A data set of tensorflow-datasets: the files it was published in, and their reader."""

    name: str
    urls: tuple[str, ...]
    read: Callable[[Iterator[Entry]], Splits]
    classes: tuple[str, ...]


CIFAR10 = Published(
    "cifar10",
    ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
    read_cifar10,
    (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
)
MNIST = Published(
    "mnist",
    tuple(
        f"{MNIST_URL}{part}-{kind}-ubyte.gz"
        for part in ("train", "t10k")
        for kind in ("images-idx3", "labels-idx1")
    ),
    read_mnist,
    tuple("0123456789"),
)
IMDB = Published(
    "imdb_reviews",
    ("http://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",),
    read_imdb,
    ("neg", "pos"),
)


def prepare(task: str, data_dir: Path, source: Path | None = None) -> None:
    """Prepares the data set of a task.

    Args:
        task: its name.
        data_dir: folder of the data sets.
        source: the publisher's files, packed or unpacked, or a folder that holds them; without
            it they are downloaded.

    Raises:
        UsageError: if the task needs no files, or ``source`` lacks some of them.
        RunError: if the publisher cannot be reached.
    """
    if source is not None and not source.exists():
        raise UsageError(f"--source={source} does not exist.")
    pick("task with files to prepare:", task, PREPARE)(data_dir, source)


def prepare_tfds(dataset: Published, data_dir: Path, source: Path | None) -> None:
    """Writes a data set in the form of tensorflow-datasets, as ArrayRecord files."""
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder(dataset.name, data_dir=data_dir, file_format="array_record")
    if builder.is_prepared():
        print(f"{builder.data_path} is there already.")
        return
    if source is None:
        _check_reachable(dataset.urls[0])

    def split_generators(downloads: Any) -> Splits:
        if source is not None:
            return dataset.read(walk(source, source.name))
        paths = downloads.download({url: url for url in dataset.urls})
        files = (entry for url, path in paths.items() for entry in walk(Path(path), url))
        return dataset.read(files)

    builder.info.features["label"].names = list(dataset.classes)
    builder._split_generators = split_generators
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    with tempfile.TemporaryDirectory(dir=_folder(data_dir)) as folder:
        builder.download_and_prepare(download_config=config, download_dir=folder)
    sizes = ", ".join(f"{name} {s.num_examples:,}" for name, s in builder.info.splits.items())
    print(f"Wrote {builder.data_path}: {sizes}.")


class Copied(NamedTuple):
    """Files that are read as they were published: where to get them, and where they go."""

    folder: str
    names: tuple[str, ...]
    hint: str


AAN = Copied(
    "aan",
    tuple(f"new_aan_pairs.{part}.tsv" for part in ("train", "eval", "test")),
    f"The pairs of papers come with Long Range Arena: download {LRA_URL} (8 GB)",
)
WIKITEXT = Copied(
    "wikitext-103",
    tuple(f"wiki.{part}.tokens" for part in ("train", "valid", "test")),
    "WikiText-103 is one archive: download wikitext-103-v1.zip",
)


def prepare_copies(files: Copied, data_dir: Path, source: Path | None) -> None:
    """Copies files, from an archive or a folder."""
    names = ", ".join(files.names)
    if source is None:
        raise UsageError(
            f"{files.hint} yourself, and give the file, or the folder with {names}, as --source."
        )
    folder = _folder(data_dir / files.folder)
    copied = []
    for name, open_file in walk(source, source.name):
        base = PurePosixPath(name).name
        if base in files.names:
            _copy(source, open_file, folder / base)
            copied.append(base)
    if absent := [name for name in files.names if name not in copied]:
        raise UsageError(f"{source} does not hold {', '.join(absent)}.")
    print(f"Wrote {folder}: {names}.")


def prepare_speech(data_dir: Path, source: Path | None) -> None:
    """Unpacks the words of Speech Commands, and the lists of its splits."""
    if source is None:
        raise UsageError(
            f"Speech Commands is one archive: download {SPEECH_URL} (2.3 GB) yourself, and give "
            "the file, or the unpacked folder, as --source."
        )
    folder = _folder(data_dir / "speech_commands_v0.02")
    n = 0
    for name, open_file in walk(source, source.name):
        path = PurePosixPath(name)
        is_clip = path.suffix == ".wav" and re.fullmatch("[a-z]+", path.parent.name) is not None
        if is_clip or path.name in ("validation_list.txt", "testing_list.txt"):
            to = folder / path.parent.name / path.name if is_clip else folder / path.name
            _folder(to.parent)
            _copy(source, open_file, to)
            n += is_clip
    if n == 0:
        raise UsageError(f"{source} does not hold WORD/*.wav files.")
    print(f"Wrote {folder}: {n:,} clips.")


def _copy(source: Path, open_file: Callable[[], IO[bytes]], to: Path) -> None:
    """Writes a file in one piece."""
    part = to.with_name(f"{to.name}.part")
    with blaming_file(source, "whole archive"), open_file() as file, part.open("wb") as copy:
        shutil.copyfileobj(file, copy)
    part.replace(to)


def _copies(files: Copied) -> Callable[[Path, Path | None], None]:
    return lambda data_dir, source: prepare_copies(files, data_dir, source)


def _tfds(dataset: Published) -> Callable[[Path, Path | None], None]:
    return lambda data_dir, source: prepare_tfds(dataset, data_dir, source)


PREPARE: dict[str, Callable[[Path, Path | None], None]] = {
    "image": _tfds(CIFAR10),
    "scifar": _tfds(CIFAR10),
    "noisy_scifar": _tfds(CIFAR10),
    "smnist": _tfds(MNIST),
    "psmnist": _tfds(MNIST),
    "text": _tfds(IMDB),
    "retrieval": _copies(AAN),
    "sc35": prepare_speech,
    "sc10": prepare_speech,
    "wikitext103": _copies(WIKITEXT),
}


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _check_reachable(url: str) -> None:
    """Asks once, for tensorflow-datasets tries for minutes."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=10):
            return
    except urllib.error.HTTPError:
        return  # there is a server, which may answer other questions
    except OSError as error:
        raise RunError(
            f"{url} cannot be reached ({error}). Get the file elsewhere, and say with "
            "--source=DIR where it lies."
        ) from error
