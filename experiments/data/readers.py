"""NumPy archives, arrays and images of users."""

import io
import math
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike
from PIL import Image, UnidentifiedImageError

from experiments.errors import UsageError, blaming_file, check_expansion

KIND_NPZ = ".npz file of arrays of numbers, as np.savez(FILE, x=..., y=...) writes"
INSTEAD = {
    "O": "Python objects are not read, as they can run programs: make an array of numbers, with "
    "sequences padded to one length",
    "U": "number the names, as in names, y = np.unique(y, return_inverse=True)",
    "S": "number the names, as in names, y = np.unique(y, return_inverse=True)",
    "M": "write times as numbers, as in x.astype('datetime64[s]').astype(float)",
}
"""Advice for arrays without numbers, by the kind of their type."""
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
MAX_HEADER = 1_000
IMAGES = ("PNG", "JPEG", "BMP", "PPM")
"""Formats whose decoders do not start other programs."""


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Reads a NumPy archive; nothing in it is executed.

    Args:
        path: a file that ``np.savez`` wrote.

    Returns:
        The arrays by name.

    Raises:
        UsageError: if it is not such a file, or has anything but arrays of numbers.
    """
    check_is_file(path)
    with path.open("rb") as file:
        if file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
            raise UsageError(
                f"{path} is one array, as np.save writes it, but named arrays are needed: use "
                "np.savez(FILE, x=x, y=y)."
            )
    with blaming_file(path, KIND_NPZ), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        check_expansion(path, path.stat().st_size, sum(member.file_size for member in members))
        return {m.filename.removesuffix(".npy"): _read_member(path, archive, m) for m in members}


def _read_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        try:
            _read_header(file, member.file_size)
        except _NoNumbersError as error:
            (dtype,) = error.args
            advice = INSTEAD.get(dtype.kind, "write each number into a column of its own")
            name = member.filename.removesuffix(".npy")
            raise UsageError(
                f"{path}: `{name}` must be an array of numbers; got the type {dtype}: {advice}."
            ) from None
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False, max_header_size=MAX_HEADER)


class _NoNumbersError(ValueError):
    """Raised for an array of another type than numbers; the argument is the type."""


def _read_header(file: IO[bytes], size: int) -> dict[str, Any]:
    """Reads type, shape, order and offset of an array, and compares them with the file's size."""
    head = io.BytesIO(file.read(2**12))  # a longer header is not read
    read_header = HEADERS.get(np.lib.format.read_magic(head))
    if read_header is None:
        raise ValueError("an array has a header of an unknown version")
    shape, by_columns, dtype = read_header(head, max_header_size=MAX_HEADER)
    offset = head.tell()
    if dtype.kind not in "biufc":
        raise _NoNumbersError(dtype)
    if math.prod(shape) * dtype.itemsize != size - offset or 0 in shape[1:]:
        raise ValueError(f"an array of {dtype} has the shape {shape} but {size - offset:,} bytes")
    return {"dtype": dtype, "shape": shape, "order": "CF"[by_columns], "offset": offset}


def map_array(
    path: Path, dtype: DTypeLike, shape: tuple[int | None, ...], *, remove: Path
) -> np.ndarray:
    """Maps an array that this project wrote into memory, and checks its type and shape.

    Args:
        path: a file that ``np.save`` wrote.
        dtype: the expected type.
        shape: the expected shape, with None for any length.
        remove: the path that the user can delete to have the file made again.

    Raises:
        UsageError: if it is not such a file, or has another type or shape.
    """
    with blaming_file(path, f"array of this data set (delete {remove}, and it will be made again)"):
        with path.open("rb") as file:
            array = np.memmap(path, mode="r", **_read_header(file, path.stat().st_size))
        fits = len(array.shape) == len(shape) and all(
            want in (None, got) for want, got in zip(shape, array.shape, strict=True)
        )
        if array.dtype != dtype or not fits:
            raise ValueError(f"it is {array.dtype} of shape {array.shape}")
        return array


def read_image(path: Path, *, size: int, mode: str = "L") -> np.ndarray:
    """Decodes a square image.

    Args:
        path: the file.
        size: pixels per side.
        mode: Pillow's mode: ``"L"`` for grey, ``"RGB"`` for colour.

    Returns:
        uint8, shape ``(size, size)`` or ``(size, size, 3)``.

    Raises:
        UsageError: if it is not an image, or has another size; checked before it is decoded.
    """
    check_is_file(path)
    with blaming_file(path, f"image ({', '.join(IMAGES)})"), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked below
        data = io.BytesIO(path.read_bytes())  # so that a header cannot claim more
        try:
            image = Image.open(data, formats=IMAGES)
        except UnidentifiedImageError:
            raise ValueError("it does not begin like any of these") from None
        if image.size != (size, size):
            width, height = image.size
            raise UsageError(f"{path} must be an image of {size} x {size}; got {width} x {height}.")
        return np.asarray(image.convert(mode))


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file that appears only when it is complete."""
    part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with part.open("wb") as file:
            write(file)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def check_is_file(path: Path) -> None:
    """Raises a UsageError unless the path is a file."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name one file.")
    if not path.is_file():
        raise UsageError(f"No file {path}.")
