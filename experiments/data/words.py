"""Words of a text file as integers, numbered by frequency."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from experiments.errors import UsageError

EOS = "<eos>"
"""The word that ends every line."""
CHUNK = 2**24
"""Characters read at a time."""


def count_words(path: Path) -> tuple[np.ndarray, list[str]]:
    """Numbers the words of a text: ``<eos>`` is 0, the others follow in order of frequency.

    Equally frequent words are numbered in the order of their first occurrence.

    Args:
        path: a text whose words are separated by white space.

    Returns:
        The numbers of the words as int32, ``<eos>`` at the end of each line; and the vocabulary.
    """
    numbers: dict[str, int] = defaultdict(itertools.count().__next__)
    numbers[EOS]
    found = _look_up(path, numbers.__getitem__)
    counts = np.bincount(found, minlength=len(numbers))
    counts[0] = len(found) + 1
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order))
    words = list(numbers)
    return rank[found], [words[i] for i in order]


def read_words(path: Path, vocabulary: list[str]) -> np.ndarray:
    """Reads the words of a text as numbers, int32, under a known vocabulary.

    Raises:
        UsageError: if a word is not in the vocabulary, and ``<unk>`` is not, either.
    """
    numbers = {word: i for i, word in enumerate(vocabulary)}
    unknown = numbers.get("<unk>", -1)
    found = _look_up(path, lambda word: numbers.get(word, unknown))
    if np.any(found < 0):
        raise UsageError(f"{path} has words that are not in the training text, which has no <unk>.")
    return found


def _look_up(path: Path, number: Callable[[str], int]) -> np.ndarray:
    parts = [np.fromiter(map(number, words), np.int32) for words in _words(path)]
    return np.concatenate(parts) if parts else np.empty(0, np.int32)


def _words(path: Path) -> Iterator[list[str]]:
    """Yields the words of whole lines, some millions at a time."""
    with path.open(encoding="utf-8") as file:
        while lines := file.readlines(CHUNK):
            text = "".join(lines)
            if not text.endswith("\n"):
                text += "\n"
            yield text.replace("\n", f" {EOS} ").split()
