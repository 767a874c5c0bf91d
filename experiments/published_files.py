"""Reads the files in which data sets were published, packed or unpacked.

Each reader takes ``(name, open)`` pairs, one a file, and gives the examples of each split as
``(key, example)``, with the keys by which tensorflow-datasets orders them.
"""

import gzip
import hashlib
import io
import math
import pickletools
import re
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

import numpy as np
from PIL import Image

from experiments.errors import UsageError, blaming_file, check_expansion


class Readable(Protocol):
    """A file, or what stands for one."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most so many."""
        ...


Entry = tuple[str, Callable[[], IO[bytes]]]
Splits = dict[str, list[tuple[Any, dict[str, Any]]]]
ARCHIVES = (".tar.gz", ".tgz", ".tar", "lra_release.gz")
GZIP = b"\x1f\x8b"
CIFAR_BYTES, MNIST_BYTES, REVIEW_BYTES = 2**25, 2**26, 2**20
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
        UsageError: if an archive cannot be read, or unpacks to far more than its size. Of its
            members only regular files are given: links and devices are passed over.
    """
    if path.is_dir():
        for child in sorted(path.iterdir()):
            if not (child.is_symlink() and child.is_dir()):  # which may lead in a circle
                yield from walk(child, f"{name}/{child.name}")
    elif not path.is_file():
        return
    elif name.endswith(ARCHIVES):
        with blaming_file(path, "whole archive"), path.open("rb") as packed:
            is_gzip = packed.peek(2)[:2] == GZIP
            content = gzip.GzipFile(fileobj=packed) if is_gzip else packed
            with tarfile.open(fileobj=_Bounded(content, path), mode="r|") as archive:
                for member in archive:
                    is_plain = member.isreg() and not member.issparse()
                    if is_plain and (file := archive.extractfile(member)) is not None:
                        yield f"{name}/{member.name}", lambda file=file: file
                _check_end(archive)
    elif name.endswith(".zip"):
        with blaming_file(path, "whole archive"), zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            check_expansion(path, path.stat().st_size, sum(m.file_size for m in members))
            for member in members:
                if not member.is_dir():
                    yield f"{name}/{member.filename}", lambda member=member: archive.open(member)
    else:
        yield name, lambda: path.open("rb")


def _check_end(archive: tarfile.TarFile) -> None:
    """A damaged header ends an archive as its true end does, but something comes after it."""
    while rest := archive.fileobj.read(2**16):
        if rest.strip(b"\0"):
            raise ValueError("the header of a member is damaged")


class _Bounded(io.RawIOBase):
    """The content of an archive as a stream that ends in an error if it is far too long."""

    def __init__(self, content: Readable, path: Path) -> None:
        self._content, self._path, self._size = content, path, path.stat().st_size
        self._read = 0

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes."""
        data = self._content.read(size)
        self._read += len(data)
        check_expansion(self._path, self._size, self._read)
        return data


def read_cifar10(entries: Iterable[Entry]) -> Splits:
    """CIFAR-10, from the binary or the Python version."""
    batches = {}
    for name, open_file in entries:
        batch, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
        if batch in MD5 and suffix in ("", ".bin"):
            with open_file() as file, blaming_file(name, "batch of CIFAR-10"):
                data = _read_at_most(file, CIFAR_BYTES)
                batches[batch] = _read_rows(data, is_binary=suffix == ".bin")
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
            with open_file() as file, blaming_file(name, "IDX file of MNIST"):
                data = gzip.GzipFile(fileobj=file) if match[3] else file
                arrays[f"{match[1]}-{match[2]}"] = _read_at_most(data, MNIST_BYTES)
    names = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images", "labels")]
    _check_complete("MNIST", names, arrays)

    def split(part: str) -> list[tuple[Any, dict[str, Any]]]:
        images = _read_idx(f"{part}-images", arrays, (None, 28, 28))
        labels = _read_idx(f"{part}-labels", arrays, (len(images),))
        with blaming_file(f"{part}-labels", "IDX file of MNIST"):
            _check_labels(labels)
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
            with open_file() as file, blaming_file(name, "review in UTF-8"):
                text = _read_at_most(file, REVIEW_BYTES).decode().strip()
                example = {"text": text, "label": match[2]}
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


def _read_at_most(file: Readable, limit: int) -> bytes:
    """The whole content of a file, whatever size it claims."""
    data = bytearray()
    while part := file.read(2**16):
        data += part
        if len(data) > limit:
            raise ValueError(f"it has more than {limit:,} bytes")
    return bytes(data)


def _check_labels(labels: np.ndarray) -> None:
    if labels.max(initial=0) > 9:
        raise ValueError(f"its labels reach {labels.max()}, and there are ten classes, 0 to 9")


def _read_idx(name: str, files: Mapping[str, bytes], shape: tuple[int | None, ...]) -> np.ndarray:
    """An array of bytes: two zeros, its type, its number of axes, their lengths, its values."""
    data, n_axes = files[name], len(shape)
    with blaming_file(name, "IDX file of MNIST"):
        found = struct.unpack_from(f">4B{n_axes}I", data)
        lengths = found[4:]
        whole = 4 + 4 * n_axes + math.prod(lengths) == len(data)
        fits = all(want in (None, got) for want, got in zip(shape, lengths, strict=True))
        if found[:4] != (0, 0, 8, n_axes) or not whole or not fits:
            raise ValueError(f"its header reads {found}, and it has {len(data):,} bytes")
        return np.frombuffer(data, np.uint8, offset=4 + 4 * n_axes).reshape(lengths)


def _read_rows(data: bytes, *, is_binary: bool) -> bytes:
    """A batch of CIFAR-10 in the layout of its binary version: label and pixels, row by row."""
    rows = np.frombuffer(data if is_binary else _rows_of_pickle(data), np.uint8).reshape(-1, 3073)
    if len(rows) == 0:
        raise ValueError("it holds no image")
    _check_labels(rows[:, 0])
    return rows.tobytes()


def _rows_of_pickle(data: bytes) -> bytes:
    """A batch of the Python version. Nothing of the pickle is executed.

    It is taken apart only: the labels stand in it one by one, the pixels as one string of bytes.
    """
    labels, pixels, key, last = bytearray(), b"", b"", ""
    for opcode, argument, _ in pickletools.genops(data):
        value: Any = argument.encode("latin-1") if isinstance(argument, str) else argument
        if value in (b"labels", b"data", b"batch_label", b"filenames"):
            key = value
        elif key == b"labels" and opcode.name == "BININT1":
            labels.append(value)
        elif key == b"data" and last == "NEWFALSE" and isinstance(value, bytes):
            pixels = value  # after the mark that says: not by columns
        last = opcode.name
    rows = np.frombuffer(pixels, np.uint8).reshape(len(labels), 3072)
    return np.column_stack([np.frombuffer(labels, np.uint8), rows]).tobytes()
