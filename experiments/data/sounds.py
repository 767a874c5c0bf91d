"""Sounds: WAV, FLAC, OGG and MP3 files, decoded by libsndfile."""

import dataclasses
import io
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from experiments.data.checks import clean_values
from experiments.data.readers import check_is_file
from experiments.errors import UsageError, blaming_file, check_expansion, check_positive

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
FULL_SCALE = 2**15
"""The largest 16-bit sample plus one."""
BLOCK = 2**18
"""Samples decoded at a time, so that a header cannot claim gigabytes."""
STREAMED = (0, 0x7FFFF000, 0xFFFFFFFF)
"""Sizes that programs write to a pipe: the samples extend to the end of the file."""
MAX_RATIO = 200_000
"""Bound on both terms of a resampling ratio; a filter has twenty times as many coefficients."""
WIDE = ("PCM_32", "DOUBLE")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoundOptions:
    """Conversion of sounds to a common format."""

    sample_rate: int | None = None
    """Resample to this rate [samples/s]."""
    mono: bool = False
    """Average the channels."""

    def __post_init__(self) -> None:
        if self.sample_rate is not None:
            check_positive(self, sample_rate=self.sample_rate)


class Sound(NamedTuple):
    """A decoded sound."""

    samples: np.ndarray
    """Shape ``(L, channels)``."""
    rate: int
    """Samples per second."""


def read_sound(path: Path, options: SoundOptions) -> Sound:
    """Decodes a sound.

    Args:
        path: a WAV, FLAC, OGG or MP3 file.
        options: whether to resample the sound and average its channels.

    Returns:
        Floats with full scale 1; float64 if float32 cannot represent the samples.

    Raises:
        UsageError: if it is not such a file, is cut off, or has no samples.
    """
    samples, rate = _decode(path, None)
    if options.mono:
        samples = samples.mean(axis=1, keepdims=True)
    if options.sample_rate is None or options.sample_rate == rate:
        return Sound(samples, rate)
    return Sound(_resample(path, samples, rate, options.sample_rate), options.sample_rate)


def read_wav(path: Path) -> Sound:
    """Decodes a sound of 16-bit samples as int16.

    Raises:
        UsageError: if it is not such a file, is cut off, or has no samples.
    """
    return _decode(path, "PCM_16")


def _decode(path: Path, subtype: str | None) -> Sound:
    check_is_file(path)
    with blaming_file(path, "sound (WAV, FLAC, OGG or MP3)"):
        start, promised, held = _find_data(path)
        try:
            with _open(path, start, promised) as file:
                if subtype not in (None, file.subtype):
                    raise UsageError(
                        f"{path} has samples of the type {file.subtype_info}, but 16-bit PCM is "
                        "needed: convert it, for example with "
                        "`ffmpeg -i IN.wav -c:a pcm_s16le OUT.wav`."
                    )
                samples = _read_blocks(path, file, as_stored=subtype is not None)
                rate, n = file.samplerate, file.frames if file.format == "FLAC" else 0
        except soundfile.LibsndfileError as error:
            raise ValueError(error.error_string) from None
    if promised > held or len(samples) < n:
        raise UsageError(
            f"{path} is cut off: its header promises {promised or n:,} "
            f"{'bytes of samples' if promised else 'samples'}, but there are "
            "fewer. Copy it again, or write it with a correct header, for example with "
            "`ffmpeg -i IN.wav -c:a pcm_s16le OUT.wav`."
        )
    if not len(samples):
        raise UsageError(f"{path} has no samples.")
    return Sound(samples, rate)


def _read_blocks(path: Path, file: soundfile.SoundFile, *, as_stored: bool) -> np.ndarray:
    """Reads all samples: int16 as stored, or floats with full scale 1."""
    dtype = "int16" if as_stored else "float64" if file.subtype in WIDE else "float32"
    size, blocks, total = path.stat().st_size, [], 0
    while len(block := file.read(max(1, BLOCK // file.channels), dtype, always_2d=True)):
        total += block.nbytes
        check_expansion(path, size, total)
        blocks.append(block)
    return np.concatenate(blocks) if blocks else np.empty((0, file.channels), dtype)


def _find_data(path: Path) -> tuple[int, int, int]:
    """Returns the offset of the samples of a RIFF file, their promised and their actual bytes."""
    with path.open("rb") as file:
        if file.read(4) not in (b"RIFF", b"RF64"):
            return 0, 0, 0
        whole = int.from_bytes(file.read(4), "little")
        file.seek(12)
        end, long_size = path.stat().st_size, 0
        while len(head := file.read(8)) == 8:
            kind, size = struct.unpack("<4sI", head)
            start = file.tell()
            if kind == b"data":
                size = long_size or size
                is_streamed = size in STREAMED and (size or whole in STREAMED)
                return start, end - start if is_streamed else size, end - start
            if kind == b"ds64" and len(sizes := file.read(16)) == 16:
                long_size = struct.unpack("<8xQ", sizes)[0]
            file.seek(start + size + size % 2)
    return 0, 0, 0


def _open(path: Path, start: int, promised: int) -> soundfile.SoundFile:
    """Opens a sound; replaces a size of 0, which libsndfile takes literally, by the real size."""
    with path.open("rb") as file:
        head = file.read(start)
        if not promised or int.from_bytes(head[-4:], "little"):
            return soundfile.SoundFile(path)
        size = min(promised, 2**32 - 1).to_bytes(4, "little")
        return soundfile.SoundFile(io.BytesIO(head[:-4] + size + file.read()))


def _resample(path: Path, samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Resamples with a polyphase anti-aliasing filter."""
    from scipy.signal import resample_poly  # slow to import

    common = math.gcd(rate, wanted)
    up, down = wanted // common, rate // common
    if max(up, down) > MAX_RATIO:
        raise UsageError(
            f"{path} cannot be resampled from {rate:,} to {wanted:,} samples per second: the terms "
            f"of the ratio {up:,} / {down:,} must be at most {MAX_RATIO:,}; choose another "
            "--data.sample_rate."
        )
    check_expansion(path, samples.nbytes, samples.nbytes * up // down)
    return resample_poly(samples, up, down, axis=0).astype(samples.dtype)


def read_sounds(paths: Sequence[Path], options: SoundOptions) -> tuple[list[np.ndarray], int]:
    """Decodes sounds with the same rate and number of channels.

    Returns:
        Their samples, which are finite, and the rate.

    Raises:
        UsageError: if a file cannot be decoded, or differs from the first.
    """
    arrays, first = [], None
    for path in paths:
        samples, rate = read_sound(path, options)
        arrays.append(clean_values(path, "x", samples, np.ones(len(samples), bool)))
        first = first or (samples.shape[1], rate)
        if first[0] != samples.shape[1]:
            raise UsageError(
                f"All sounds must have the same number of channels; got {first[0]} in {paths[0]}, "
                f"but {samples.shape[1]} in {path}: --data.mono=True averages them."
            )
        if first[1] != rate:
            raise UsageError(
                f"All sounds must have the same sampling rate; got {first[1]} in "
                f"{paths[0]}, but {rate} in {path}: --data.sample_rate={min(first[1], rate)} "
                "resamples them."
            )
    assert first is not None, "there is at least one file"
    return arrays, first[1]
