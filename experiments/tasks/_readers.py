"""The files that users bring: NumPy archives, images, WAV and CSV."""

import wave
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from experiments.errors import UsageError

FULL_SCALE = 2**15
"""The largest 16-bit sample, and one."""


class Sound(NamedTuple):
    """A decoded sound."""

    samples: np.ndarray
    """int16, shape ``(L, channels)``."""
    rate: int
    """Samples a second."""


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Reads a NumPy archive; nothing in it can be executed.

    Args:
        path: a file that ``np.savez`` wrote.

    Returns:
        Its arrays by name.

    Raises:
        UsageError: if it is not such a file, or holds Python objects.
    """
    check_is_file(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except (ValueError, EOFError, TypeError, zipfile.BadZipFile):
        raise UsageError(
            f"{path} is no .npz file of arrays of numbers, as np.savez(FILE, x=..., y=...) writes; "
            "arrays of Python objects are not read."
        ) from None


def read_image(path: Path, *, size: int, mode: str = "L") -> np.ndarray:
    """Decodes a square image.

    Args:
        path: the file.
        size: pixels a side.
        mode: Pillow's name of a kind of pixel: ``"L"`` for grey, ``"RGB"`` for colour.

    Returns:
        uint8, shape ``(size, size)`` or ``(size, size, 3)``.

    Raises:
        UsageError: if it is no image, or of another size.
    """
    check_is_file(path)
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert(mode))
    except (UnidentifiedImageError, SyntaxError, OSError) as error:
        raise UsageError(f"{path} is no image: {error}.") from None
    if pixels.shape[:2] != (size, size):
        height, width = pixels.shape[:2]
        raise UsageError(f"{path} must be an image of {size} x {size}; got {width} x {height}.")
    return pixels


def check_is_file(path: Path) -> None:
    """Raises a UsageError unless there is such a file."""
    if not path.is_file():
        raise UsageError(f"No file {path}.")


def read_wav(path: Path) -> Sound:
    """Decodes a WAV file of 16-bit samples.

    Args:
        path: the file.

    Returns:
        The samples and their rate.

    Raises:
        UsageError: if it is not such a file, or holds no sample.
    """
    check_is_file(path)
    try:
        with wave.open(str(path), "rb") as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            data = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise UsageError(f"{path} is no WAV file of 16-bit samples: {error}.") from None
    if width != 2:
        raise UsageError(
            f"{path} has {8 * width}-bit samples, and 16-bit ones are needed: convert it, for "
            "example with `ffmpeg -i IN.wav -c:a pcm_s16le OUT.wav`."
        )
    if not data:
        raise UsageError(f"{path} holds no sample.")
    whole = len(data) - len(data) % (2 * channels)
    return Sound(np.frombuffer(data[:whole], "<i2").reshape(-1, channels), rate)


def read_csv(path: Path) -> np.ndarray:
    """Reads a table of numbers: one row a step, one column a feature.

    Args:
        path: a file with commas between the numbers; a first line of names is left out.

    Returns:
        float32, shape ``(L, d)``.

    Raises:
        UsageError: if there is no row, or something is not a number.
    """
    check_is_file(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = lines[1:] if lines and not _is_number(lines[0].split(",")[0]) else lines
        values = np.loadtxt(rows, np.float32, delimiter=",", ndmin=2) if any(rows) else None
    except ValueError as error:
        raise UsageError(f"{path} is no table of numbers: {error}") from None
    if values is None:
        raise UsageError(f"{path} holds no row of numbers.")
    return values


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
