"""Readers for the files in which data sets were published, packed or unpacked.

Each reader takes one pair ``(name, open)`` per file, and returns the examples of each split as
pairs ``(key, example)``. tensorflow-datasets orders the examples by their keys.
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
    """A file or a file-like object."""

    def read(self, size: int, /) -> bytes:
        """Returns the next bytes, at most ``size``."""
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
"""Checksums of CIFAR-10's six batches in the binary version, and of MNIST's four unpacked files."""


def walk(path: Path, name: str) -> Iterator[Entry]:
    """Walks through a folder and the archives in it, or through a single file or archive.

    Links and devices in an archive are skipped.

    Args:
        path: folder or file.
        name: the name of the path in what is yielded.

    Yields:
        Names, and functions that open the files; call each before the next is taken.

    Raises:
        UsageError: if an archive cannot be read, or unpacks to far more than its size.
    """
    if path.is_dir():
        for child in sorted(path.iterdir()):
            if not (child.is_symlink() and child.is_dir()):  # which may form a cycle
                yield from walk(child, f"{name}/{child.name}")
    elif not path.is_file():
        return
    elif name.endswith(ARCHIVES):
        with blaming_file(path, "archive"), path.open("rb") as packed:
            is_gzip = packed.peek(2)[:2] == GZIP
            content = gzip.GzipFile(fileobj=packed) if is_gzip else packed
            with tarfile.open(fileobj=_Bounded(content, path), mode="r|") as archive:
                for member in archive:
                    is_plain = member.isreg() and not member.issparse()
                    if is_plain and (file := archive.extractfile(member)) is not None:
                        yield f"{name}/{member.name}", lambda file=file: file
                _check_end(archive)
    elif name.endswith(".zip"):
        with blaming_file(path, "archive"), zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            check_expansion(path, path.stat().st_size, sum(m.file_size for m in members))
            for member in members:
                if not member.is_dir():
                    yield f"{name}/{member.filename}", lambda member=member: archive.open(member)
    else:
        yield name, lambda: path.open("rb")


def _check_end(archive: tarfile.TarFile) -> None:
    """Detects a corrupted header, which also ends an archive, by the data that follow."""
    while rest := archive.fileobj.read(2**16):
        if rest.strip(b"\0"):
            raise ValueError("the header of a member is corrupted")


class _Bounded(io.RawIOBase):
    """The content of an archive as a stream that raises an error if it is far too long."""

    def __init__(self, content: Readable, path: Path) -> None:
        self._content, self._path, self._size = content, path, path.stat().st_size
        self._read = 0

    def read(self, size: int = -1, /) -> bytes:
        """Returns the next bytes."""
        data = self._content.read(size)
        self._read += len(data)
        check_expansion(self._path, self._size, self._read)
        return data


def read_cifar10(entries: Iterable[Entry]) -> Splits:
    """Reads CIFAR-10 from the binary or the Python version."""
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
        examples = _list_examples(images, rows[:, 0])
        return [(i, {"id": f"{name}_{i:05d}", **example}) for i, example in examples]

    return {"train": split("train", train), "test": split("test", ["test_batch"])}


def read_mnist(entries: Iterable[Entry]) -> Splits:
    """Reads MNIST from the four IDX files, compressed or not."""
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
        return _list_examples(images, labels)

    return {"train": split("train"), "test": split("t10k")}


def read_imdb(entries: Iterable[Entry]) -> Splits:
    """Reads the labelled reviews of IMDB from its folder of text files."""
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


def _list_examples(images: np.ndarray, labels: np.ndarray) -> list[tuple[Any, dict[str, Any]]]:
    pairs = zip(map(encode_png, images), labels.tolist(), strict=True)
    return [(i, {"image": image, "label": label}) for i, (image, label) in enumerate(pairs)]


def encode_png(image: np.ndarray) -> bytes:
    """Encodes an image as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return file.getvalue()


def _check_complete(what: str, names: list[str], found: Iterable[str]) -> None:
    """Raises a UsageError if files are missing; prints which of them differ from the published."""
    if absent := [name for name in names if name not in found]:
        raise UsageError(f"Missing files of {what}: {', '.join(absent)}.")
    if isinstance(found, dict):
        differ = [name for name in names if hashlib.md5(found[name]).hexdigest() != MD5[name]]
        same = f"{what}: every file has the published content."
        print(
            f"{what}: different from the published files: {', '.join(differ)}." if differ else same
        )


def _read_at_most(file: Readable, limit: int) -> bytes:
    """Reads the whole content of a file, up to a limit that does not depend on its header."""
    data = bytearray()
    while part := file.read(2**16):
        data += part
        if len(data) > limit:
            raise ValueError(f"it has more than {limit:,} bytes")
    return bytes(data)


def _check_labels(labels: np.ndarray) -> None:
    if labels.max(initial=0) > 9:
        raise ValueError(f"it has the label {labels.max()}, and the classes are 0 to 9")


def _read_idx(name: str, files: Mapping[str, bytes], shape: tuple[int | None, ...]) -> np.ndarray:
    """Parses an array of bytes: two zeros, its type, number of axes, their lengths, and values."""
    data, n_axes = files[name], len(shape)
    with blaming_file(name, "IDX file of MNIST"):
        found = struct.unpack_from(f">4B{n_axes}I", data)
        lengths = found[4:]
        whole = 4 + 4 * n_axes + math.prod(lengths) == len(data)
        fits = all(want in (None, got) for want, got in zip(shape, lengths, strict=True))
        if found[:4] != (0, 0, 8, n_axes) or not whole or not fits:
            raise ValueError(f"its header is {found}, and it has {len(data):,} bytes")
        return np.frombuffer(data, np.uint8, offset=4 + 4 * n_axes).reshape(lengths)


def _read_rows(data: bytes, *, is_binary: bool) -> bytes:
    """Returns a batch of CIFAR-10 in the binary layout: label and pixels, row by row."""
    rows = np.frombuffer(data if is_binary else _rows_of_pickle(data), np.uint8).reshape(-1, 3073)
    if len(rows) == 0:
        raise ValueError("it has no images")
    _check_labels(rows[:, 0])
    return rows.tobytes()


def _rows_of_pickle(data: bytes) -> bytes:
    """Parses a batch of the Python version without executing anything in the pickle.

    The labels are single numbers in the pickle, the pixels one string of bytes.
    """
    labels, pixels, key, last = bytearray(), b"", b"", ""
    for opcode, argument, _ in pickletools.genops(data):
        value: Any = argument.encode("latin-1") if isinstance(argument, str) else argument
        if value in (b"labels", b"data", b"batch_label", b"filenames"):
            key = value
        elif key == b"labels" and opcode.name == "BININT1":
            labels.append(value)
        elif key == b"data" and last == "NEWFALSE" and isinstance(value, bytes):
            pixels = value  # follows the flag for row-major order
        last = opcode.name
    rows = np.frombuffer(pixels, np.uint8).reshape(len(labels), 3072)
    return np.column_stack([np.frombuffer(labels, np.uint8), rows]).tobytes()
