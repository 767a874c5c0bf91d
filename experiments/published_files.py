"""Reads the files in which data sets were published, packed or unpacked.

Each reader takes ``(name, open)`` pairs, one a file, and gives the examples of each split as
``(key, example)``, with the keys by which tensorflow-datasets orders them.
"""

import gzip
import hashlib
import io
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from PIL import Image

from experiments.errors import UsageError

Entry = tuple[str, Callable[[], IO[bytes]]]
Splits = dict[str, list[tuple[Any, dict[str, Any]]]]
ARCHIVES = (".tar.gz", ".tgz", ".tar", "lra_release.gz")
MD5 = {
    "data_batch_1": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch": "803d5f7f4d78ea53de84dbe85f74fb6d",
    "train-images": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels": "a25bea736e30d166cdddb491f175f624",
    "t10k-images": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels": "27ae3e4e09519cfbb04c329615203637",
}
"""Of the published files: the six of CIFAR-10's binary version, and MNIST's four, unpacked."""


def walk(path: Path, name: str) -> Iterator[Entry]:
    """The files of a folder and of the archives in it; or a single file or archive.

    Args:
        path: folder or file.
        name: to call it by.

    Yields:
        Names, and what opens the file; to be called before the next one is taken.

    Raises:
        UsageError: if an archive cannot be read.
    """
    if path.is_dir():
        for child in sorted(path.iterdir()):
            yield from walk(child, f"{name}/{child.name}")
    elif name.endswith(ARCHIVES):
        try:
            with tarfile.open(path) as archive:
                for member in archive:
                    if (file := archive.extractfile(member)) is not None:
                        yield member.name, lambda file=file: file
        except (tarfile.TarError, EOFError) as error:
            raise UsageError(f"{path} is not a whole archive: {error}.") from error
    elif name.endswith(".zip"):
        try:
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    if not member.is_dir():
                        yield member.filename, lambda member=member: archive.open(member)
        except zipfile.BadZipFile as error:
            raise UsageError(f"{path} is not a whole archive: {error}.") from error
    else:
        yield name, lambda: path.open("rb")


def read_cifar10(entries: Iterable[Entry]) -> Splits:
    """CIFAR-10, from the binary or the Python version."""
    batches = {}
    for name, open_file in entries:
        batch, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
        if batch in MD5 and suffix in ("", ".bin"):
            with open_file() as file:
                batches[batch] = _unpickle_rows(file) if suffix == "" else file.read()
    train = [f"data_batch_{i}" for i in range(1, 6)]
    _check_complete("CIFAR-10", [*train, "test_batch"], batches)

    def split(name: str, files: list[str]) -> list[tuple[Any, dict[str, Any]]]:
        rows = np.frombuffer(b"".join(batches[file] for file in files), np.uint8).reshape(-1, 3073)
        images = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return [
            (i, {"id": f"{name}_{i:05d}", "image": encode_png(image), "label": int(row[0])})
            for i, (row, image) in enumerate(zip(rows, images, strict=True))
        ]

    return {"train": split("train", train), "test": split("test", ["test_batch"])}


def read_mnist(entries: Iterable[Entry]) -> Splits:
    """MNIST, from the four IDX files, compressed or not."""
    pattern = re.compile(r"(t10k|train)-(images|labels)[-.]idx\d-ubyte(\.gz)?$")
    arrays = {}
    for name, open_file in entries:
        if match := pattern.search(name):
            with open_file() as file:
                data = gzip.decompress(file.read()) if match[3] else file.read()
            arrays[f"{match[1]}-{match[2]}"] = data
    names = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images", "labels")]
    _check_complete("MNIST", names, arrays)

    def split(part: str) -> list[tuple[Any, dict[str, Any]]]:
        images, labels = (_read_idx(arrays[f"{part}-{kind}"]) for kind in ("images", "labels"))
        return [
            (i, {"image": encode_png(image), "label": int(label)})
            for i, (image, label) in enumerate(zip(images, labels, strict=True))
        ]

    return {"train": split("train"), "test": split("t10k")}


def read_imdb(entries: Iterable[Entry]) -> Splits:
    """The labelled reviews of IMDB, from its folder of text files."""
    pattern = re.compile(r"(train|test)/(neg|pos)/\d+_\d+\.txt$")
    splits: dict[str, dict[str, dict[str, Any]]] = {"train": {}, "test": {}}
    for name, open_file in entries:
        if match := pattern.search(name):
            with open_file() as file:
                example = {"text": file.read().decode().strip(), "label": match[2]}
            splits[match[1]][f"aclImdb/{match[0]}"] = example
    _check_complete("IMDB", list(splits), [name for name, part in splits.items() if part])
    return {name: list(part.items()) for name, part in splits.items()}


def encode_png(image: np.ndarray) -> bytes:
    """The bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return file.getvalue()


def _check_complete(what: str, names: list[str], found: Iterable[str]) -> None:
    """All files must be there; those that differ from the published ones are named."""
    if absent := [name for name in names if name not in found]:
        raise UsageError(f"Of {what}'s files these are not there: {', '.join(absent)}.")
    if isinstance(found, dict):
        differ = [name for name in names if hashlib.md5(found[name]).hexdigest() != MD5[name]]
        same = f"{what}: every file has the published content."
        print(f"{what}: not the published content: {', '.join(differ)}." if differ else same)


def _read_idx(data: bytes) -> np.ndarray:
    """An array of bytes: two zeros, its type, its number of axes, their lengths, its values."""
    n_axes = data[3]
    shape = np.frombuffer(data, ">u4", count=n_axes, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * n_axes).reshape(shape)


class _ArraysOnly(pickle.Unpickler):
    """Reads dictionaries of arrays; a file that asks for anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = ("_reconstruct", "ndarray", "dtype")
        if module.split(".")[0] != "numpy" or name not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} in a file of arrays")
        return super().find_class(module, name)


def _unpickle_rows(file: IO[bytes]) -> bytes:
    """A batch of CIFAR-10's Python version, in the layout of the binary one."""
    try:
        batch = _ArraysOnly(file, encoding="bytes").load()
    except pickle.UnpicklingError as error:
        raise UsageError(f"A batch of CIFAR-10's Python version is unreadable: {error}.") from error
    labels = np.array(batch[b"labels"], np.uint8)
    return np.concatenate([labels[:, None], batch[b"data"]], axis=1).tobytes()
