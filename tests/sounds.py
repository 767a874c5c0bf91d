"""Sounds that tests make."""

import wave
from pathlib import Path

import numpy as np


def write_wav(path: Path, samples: np.ndarray, *, rate: int = 16_000, width: int = 2) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1] if samples.ndim == 2 else 1)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.astype(f"<i{width}" if width > 1 else "u1").tobytes())
