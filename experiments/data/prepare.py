"""Preparation of data sets, for ``python -m experiments.data prepare``.

tensorflow-datasets downloads, checks and writes the files, without TensorFlow: the files are read
here, and images are passed on as PNG bytes.
"""

import functools
import re
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from experiments.data.published_files import (
    Entry,
    Splits,
    read_cifar10,
    read_imdb,
    read_mnist,
    walk,
)
from experiments.data.readers import write_atomically
from experiments.errors import RunError, UsageError, blaming_file, choose

MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
LRA_URL = "https://storage.googleapis.com/long-range-arena/lra_release.gz"
SPEECH_URL = "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz"


class Published(NamedTuple):
    """A data set of tensorflow-datasets, with its published files and their reader."""

    name: str
    urls: tuple[str, ...]
    read: Callable[[Iterator[Entry]], Splits]
    classes: tuple[str, ...]


CIFAR10 = Published(
    "cifar10",
    ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
    read_cifar10,
    tuple("airplane automobile bird cat deer dog frog horse ship truck".split()),
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


def prepare_dataset(task: str, data_dir: Path, source: Path | None = None) -> None:
    """Prepares the data set of a task.

    Args:
        task: the name of the task.
        data_dir: folder of the data sets.
        source: the publisher's files, packed or unpacked, or their folder; if None, they are
            downloaded.

    Raises:
        UsageError: if the task needs no files, or files are missing in ``source``.
        RunError: if the publisher cannot be reached.
    """
    if source is not None and not source.exists():
        raise UsageError(f"--source={source} does not exist.")
    choose("task with files to prepare:", task, PREPARE)(data_dir, source)


def prepare_tfds(dataset: Published, data_dir: Path, source: Path | None) -> None:
    """Writes a data set in the layout of tensorflow-datasets, as ArrayRecord files."""
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder(dataset.name, data_dir=data_dir, file_format="array_record")
    if builder.is_prepared():
        print(f"{builder.data_path} already exists.")
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
    """Files that are read as they were published, with their folder and a hint how to get them."""

    folder: str
    names: tuple[str, ...]
    hint: str


AAN = Copied(
    "aan",
    tuple(f"new_aan_pairs.{part}.tsv" for part in ("train", "eval", "test")),
    f"The pairs of papers are a part of Long Range Arena: download {LRA_URL} (8 GB)",
)
WIKITEXT = Copied(
    "wikitext-103",
    tuple(f"wiki.{part}.tokens" for part in ("train", "valid", "test")),
    "WikiText-103 is one archive: download wikitext-103-v1.zip",
)


INFORMER = {
    **{f"ett{name.lower()}": f"ETT{name}.csv" for name in ("h1", "h2", "m1", "m2")},
    "weather": "WTH.csv",
    "ecl": "ECL.csv",
}
"""The files of the Informer paper by task."""
ETT_HINT = "The ETT sets are files of zhouhaoyi/ETDataset on GitHub: download ETT-small"
INFORMER_HINT = "The set is in the data of zhouhaoyi/Informer2020 on GitHub: download it"


def informer(name: str) -> Copied:
    """Describes one file of the Informer paper."""
    return Copied("informer", (name,), ETT_HINT if name.startswith("ETT") else INFORMER_HINT)


def prepare_copies(files: Copied, data_dir: Path, source: Path | None) -> None:
    """Copies files from an archive or a folder."""
    names = ", ".join(files.names)
    if source is None:
        raise UsageError(
            f"{files.hint} yourself, and set --source to the file, or to the folder with {names}."
        )
    folder = data_dir / files.folder
    copied = _copy(source, folder, lambda path: path.name if path.name in files.names else None)
    if absent := [name for name in files.names if name not in copied]:
        raise UsageError(f"{source} does not hold {', '.join(absent)}.")
    print(f"Wrote {folder}: {names}.")


def prepare_speech(data_dir: Path, source: Path | None) -> None:
    """Unpacks the words of Speech Commands and the lists of its splits."""
    if source is None:
        raise UsageError(
            f"Speech Commands is one archive: download {SPEECH_URL} (2.3 GB) yourself, and set "
            "--source to the file or to the unpacked folder."
        )

    def place(path: PurePosixPath) -> str | None:
        if path.suffix == ".wav" and re.fullmatch("[a-z]+", path.parent.name):
            return f"{path.parent.name}/{path.name}"
        return path.name if path.name in ("validation_list.txt", "testing_list.txt") else None

    folder = data_dir / "speech_commands_v0.02"
    n = sum(name.endswith(".wav") for name in _copy(source, folder, place))
    if n == 0:
        raise UsageError(f"{source} does not hold WORD/*.wav files.")
    print(f"Wrote {folder}: {n:,} clips.")


ARCHIVES = {
    "uea": "a set of the UEA or UCR archive: download https://timeseriesclassification.com/"
    "aeon-toolkit/NAME.zip",
    "tser": "a set of the TSER archive: download it from http://tseregression.org",
}
"""Where the sets of an archive come from, by task."""


def prepare_archive(task: str, data_dir: Path, source: Path | None) -> None:
    """Copies all sets that have both files, ``NAME_TRAIN.ts`` and ``NAME_TEST.ts``."""
    if source is None:
        raise UsageError(
            f"NAME_TRAIN.ts and NAME_TEST.ts are {ARCHIVES[task]} yourself, and set --source to "
            "the file, or to a folder with such files."
        )

    def place(path: PurePosixPath) -> str | None:
        match = re.fullmatch(r"(\w[\w.-]*)_(TRAIN|TEST)\.ts", path.name)
        return f"{match[1]}/{path.name}" if match else None

    copied = set(_copy(source, data_dir / task, place))
    names = sorted({str(PurePosixPath(to).parent) for to in copied})
    for name in names:
        for part in ("TRAIN", "TEST"):
            if f"{name}/{name}_{part}.ts" not in copied:
                raise UsageError(f"{source} does not hold {name}_{part}.ts: get the whole set.")
    if not names:
        raise UsageError(f"{source} does not hold NAME_TRAIN.ts and NAME_TEST.ts files.")
    print(f"Wrote {data_dir / task}: {', '.join(names)}.")


def _copy(source: Path, folder: Path, place: Callable[[PurePosixPath], str | None]) -> list[str]:
    """Copies the files that have a place below a folder; returns these places."""
    copied = []
    for name, open_file in walk(source, source.name):
        if (to := place(PurePosixPath(name))) is not None:
            _folder((folder / to).parent)
            with blaming_file(source, "archive"), open_file() as file:
                write_atomically(folder / to, functools.partial(shutil.copyfileobj, file))
            copied.append(to)
    return copied


PREPARE: dict[str, Callable[[Path, Path | None], None]] = {
    **dict.fromkeys(("image", "scifar", "noisy_scifar"), functools.partial(prepare_tfds, CIFAR10)),
    **dict.fromkeys(("smnist", "psmnist"), functools.partial(prepare_tfds, MNIST)),
    "text": functools.partial(prepare_tfds, IMDB),
    "retrieval": functools.partial(prepare_copies, AAN),
    **dict.fromkeys(("sc35", "sc10"), prepare_speech),
    "wikitext103": functools.partial(prepare_copies, WIKITEXT),
    **{task: functools.partial(prepare_copies, informer(name)) for task, name in INFORMER.items()},
    **{task: functools.partial(prepare_archive, task) for task in ARCHIVES},
}


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _check_reachable(url: str) -> None:
    """Raises a RunError if there is no server; tensorflow-datasets would retry for minutes."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=10):
            return
    except urllib.error.HTTPError:
        return  # the server exists, and may answer other requests
    except OSError as error:
        raise RunError(
            f"{url} cannot be reached ({error}). Get the file elsewhere, and set --source=DIR "
            "to its folder."
        ) from error
