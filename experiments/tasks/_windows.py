"""Pieces of a long text as examples."""

import functools

import numpy as np

from experiments.tasks._task import BatchSource, Source


class TrainWindows(BatchSource):
    """Windows at random places of a text, in each epoch at others.

    Args:
        text: tokens, ``(N,)``.
        length: targets of a window, one less than its tokens.
        n: windows an epoch.
        seed: decides the places, with the epoch and the window's number.
    """

    def __init__(self, text: np.ndarray, length: int, n: int, *, seed: int) -> None:
        self._text, self._length, self._n, self._seed = text, length, n, seed
        self._starts = functools.lru_cache(maxsize=2)(self._draw_starts)

    def __len__(self) -> int:
        return self._n

    def batch(self, indices: np.ndarray, *, epoch: int) -> dict[str, np.ndarray]:
        """Windows, ``(B, length + 1)``."""
        starts = self._starts(epoch)[indices].tolist()
        return {"token": np.stack([self._text[s : s + self._length + 1] for s in starts])}

    def _draw_starts(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng((self._seed, epoch))
        return rng.integers(len(self._text) - self._length, size=self._n)


class EvalWindows(Source):
    """Windows of a text one after the other, each of whose tokens but the first is a target once.

    Args:
        text: tokens, ``(N,)``.
        length: targets of a window; the last window may have fewer and is padded with 0.
        n: windows.
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
    """Windows of several streams, each rotated by another random offset in each epoch.

    Window ``w`` of stream ``s`` is example ``w * n_streams + s``.

    Args:
        text: tokens, ``(N,)``; what does not divide among the streams is left out.
        length: targets of a window.
        n_streams: number of streams.
        n: windows, at most as many as there are.
        seed: decides the offsets, with the epoch.
    """

    ordered = True

    def __init__(self, text: np.ndarray, length: int, n_streams: int, n: int, *, seed: int) -> None:
        each = len(text) // n_streams
        self._streams = text[: each * n_streams].reshape(n_streams, each)
        self._length, self._n, self._seed = length, n, seed
        self._offsets = functools.lru_cache(maxsize=2)(self._draw_offsets)

    def __len__(self) -> int:
        return self._n

    def batch(self, indices: np.ndarray, *, epoch: int) -> dict[str, np.ndarray]:
        """Windows, ``(B, length + 1)``."""
        n_streams, each = self._streams.shape
        windows, streams = np.divmod(indices, n_streams)
        starts = (windows * self._length + self._offsets(epoch)[streams]) % each
        rows = [
            _wrapped(self._streams[s], start, self._length + 1)
            for s, start in zip(streams.tolist(), starts.tolist(), strict=True)
        ]
        return {"token": np.stack(rows), "length": np.full(len(rows), self._length, np.int32)}

    def _draw_offsets(self, epoch: int) -> np.ndarray:
        n_streams, each = self._streams.shape
        return np.random.default_rng((self._seed, epoch)).integers(each, size=n_streams)


def _wrapped(stream: np.ndarray, start: int, n: int) -> np.ndarray:
    """A piece of a ring."""
    piece = stream[start : start + n]
    return piece if len(piece) == n else np.concatenate([piece, stream[: n - len(piece)]])
