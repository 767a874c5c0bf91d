"""Windows of a long text as examples."""

import functools

import numpy as np

from experiments.data.sources import BatchSource, Source


class TrainWindows(BatchSource):
    """Windows at random positions of a text, drawn anew in each epoch.

    Args:
        text: tokens, ``(N,)``.
        length: targets of a window, which has one more token.
        n: windows per epoch.
        seed: seed of the positions, together with the epoch.
    """

    def __init__(self, text: np.ndarray, length: int, n: int, *, seed: int) -> None:
        self._text, self._length, self._n, self._seed = text, length, n, seed

    def __len__(self) -> int:
        return self._n

    def batch(self, indices: np.ndarray, *, epoch: int) -> dict[str, np.ndarray]:
        """Returns windows, ``(B, length + 1)``."""
        starts = _draw(self._seed, epoch, len(self._text) - self._length, self._n)[indices, None]
        return {"token": self._text[starts + np.arange(self._length + 1)]}


class EvalWindows(Source):
    """Consecutive windows of a text; every token but the first is a target once.

    Args:
        text: tokens, ``(N,)``.
        length: targets of a window; the last window may have fewer and is padded with 0.
        n: number of windows.
    """

    def __init__(self, text: np.ndarray, length: int, n: int) -> None:
        self._text, self._length, self._n = text, length, n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: int) -> dict[str, np.ndarray | np.generic]:
        start = index * self._length
        window = self._text[start : start + self._length + 1]
        padded = np.pad(window, (0, self._length + 1 - len(window)))
        return {"token": padded, "length": np.int32(len(window) - 1)}


class Streams(BatchSource):
    """Windows of several streams, each rotated by a random offset that is new in each epoch.

    Window ``w`` of stream ``s`` is example ``w * n_streams + s``.

    Args:
        text: tokens, ``(N,)``; the remainder of the division into streams is left out.
        length: targets of a window.
        n_streams: number of streams.
        n: number of windows, at most all of them.
        seed: seed of the offsets, together with the epoch.
    """

    ordered = True

    def __init__(self, text: np.ndarray, length: int, n_streams: int, n: int, *, seed: int) -> None:
        each = len(text) // n_streams
        self._streams = text[: each * n_streams].reshape(n_streams, each)
        self._length, self._n, self._seed = length, n, seed

    def __len__(self) -> int:
        return self._n

    def batch(self, indices: np.ndarray, *, epoch: int) -> dict[str, np.ndarray]:
        """Returns windows, ``(B, length + 1)``."""
        n_streams, each = self._streams.shape
        windows, streams = np.divmod(indices, n_streams)
        offsets = _draw(self._seed, epoch, each, n_streams)
        starts = windows * self._length + offsets[streams]
        steps = (starts[:, None] + np.arange(self._length + 1)) % each
        lengths = np.full(len(indices), self._length, np.int32)
        return {"token": self._streams[streams[:, None], steps], "length": lengths}


@functools.lru_cache(maxsize=8)
def _draw(seed: int, epoch: int, bound: int, size: int) -> np.ndarray:
    """Draws integers below a bound."""
    return np.random.default_rng((seed, epoch)).integers(bound, size=size)
