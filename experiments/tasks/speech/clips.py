"""The clips of Speech Commands: decoded once, split as in the papers, read as a memory map."""

import functools
import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from experiments.data.readers import map_array, write_atomically
from experiments.data.sounds import Sound, read_wav
from experiments.data.sources import Split
from experiments.errors import UsageError, blaming_file

LENGTH, RATE = 16_000, 16_000
ARCHIVE = "speech_commands_v0.02.tar.gz"
FOLDER = ARCHIVE.removesuffix(".tar.gz")
ADDRESS = f"http://download.tensorflow.org/data/{ARCHIVE}"
LISTS: dict[Split, str] = {"validation": "validation_list.txt", "test": "testing_list.txt"}
Vocabulary = Literal["all", "ten"]
WORDS: dict[Vocabulary, tuple[str, ...]] = {
    "all": tuple(
        "bed cat down five forward go house left marvin no on right sheila tree up visual yes "
        "backward bird dog eight follow four happy learn nine off one seven six stop three two wow "
        "zero".split()
    ),
    "ten": ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"),
}
"""The words, in the order of the published classes."""


class Clips(NamedTuple):
    """All clips of a vocabulary."""

    audio: np.ndarray
    """int16 in a memory map, shape ``(N, 16000)``; short clips end in zeros."""
    label: np.ndarray
    """int32, shape ``(N,)``."""
    splits: Mapping[Split, np.ndarray]
    """Indices of the clips, in a fixed random order."""
    sums: np.ndarray
    """Sums of samples and of their squares over the training clips, ``(2, 16000)``."""

    def moments(self, *, per_step: bool) -> tuple[np.ndarray, np.ndarray]:
        """Returns mean and unbiased standard deviation of training clips, per step or of all."""
        n = len(self.splits["train"]) * (1 if per_step else LENGTH)
        total, squares = self.sums if per_step else self.sums.sum(axis=1)
        mean = total / n
        return mean, np.sqrt((squares - total * mean) / max(n - 1, 1))


@functools.lru_cache(maxsize=2)
def load_clips(data_dir: Path, vocabulary: Vocabulary) -> Clips:
    """Loads the clips of a vocabulary; the first call on a machine decodes them.

    Args:
        data_dir: folder of the unpacked archive.
        vocabulary: a name in ``WORDS``.

    Returns:
        The clips.

    Raises:
        UsageError: if the archive is missing or incomplete, or a file is not one of its sounds.
    """
    folder = data_dir / FOLDER
    names, label = _list_files(folder, vocabulary)
    lists = {split: _read_list(folder / name) for split, name in LISTS.items()}
    digest = hashlib.sha256("\n".join([*names, *lists["validation"], *lists["test"]]).encode())
    decoded = data_dir / f"{FOLDER}.decoded" / f"{vocabulary}-{digest.hexdigest()[:16]}"
    if not decoded.is_dir():
        _decode(folder, names, decoded)
    audio = map_array(decoded / "audio.npy", np.int16, (len(names), LENGTH), remove=decoded)
    if vocabulary == "all":
        splits = _published_splits(names, lists)
    else:
        lengths = map_array(decoded / "lengths.npy", np.int32, (len(names),), remove=decoded)
        splits = _stratified_splits(label, np.flatnonzero(lengths == LENGTH))
    return Clips(audio, label, splits, _training_sums(audio, splits["train"], decoded))


def check_sound(path: Path, sound: Sound) -> np.ndarray:
    """Returns the samples of a clip, shape ``(L,)``.

    Raises:
        UsageError: if there are several channels, another rate, or more than one second.
    """
    samples, rate = sound
    if samples.shape[1] != 1 or rate != RATE or len(samples) > LENGTH:
        raise UsageError(
            f"{path} must have one channel, {RATE:,} samples a second and at most {LENGTH:,} of "
            f"them; got {samples.shape[1]}, {rate:,} and {len(samples):,}."
        )
    return samples[:, 0]


def _read_list(path: Path) -> list[str]:
    with blaming_file(path, "list of clips"):
        return path.read_text(encoding="utf-8").split()


def _list_files(folder: Path, vocabulary: Vocabulary) -> tuple[list[str], np.ndarray]:
    """Lists names such as ``bed/00176480_nohash_0.wav`` by word, and their classes."""
    words = WORDS[vocabulary]
    missing = [name for name in (*LISTS.values(), *words) if not (folder / name).exists()]
    if missing:
        raise UsageError(
            f"No Speech Commands in {folder}: {', '.join(missing[:3])} "
            f"{'is' if len(missing) == 1 else 'are'} missing. Download {ARCHIVE} (2.4 GB, "
            f"{ADDRESS}) and unpack it there with `python -m experiments.data prepare --task=sc35 "
            f"--data-dir={folder.parent} --source=FOLDER_OF_THE_FILE`."
        )
    names, label = [], []
    for index, word in enumerate(words):
        found = sorted(file for file in os.listdir(folder / word) if file.endswith(".wav"))
        names += [f"{word}/{file}" for file in found]
        label += [index] * len(found)
    return names, np.array(label, np.int32)


def _decode(folder: Path, names: Sequence[str], decoded: Path) -> None:
    """Writes ``audio.npy`` and ``lengths.npy`` to a folder that appears when it is complete."""
    print(f"Decoding {len(names):,} clips into {decoded}, only once ...", flush=True)
    decoded.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=decoded.parent, ignore_cleanup_errors=True) as partial:
        shape = (len(names), LENGTH)
        audio = np.lib.format.open_memmap(
            f"{partial}/audio.npy", mode="w+", dtype=np.int16, shape=shape
        )
        lengths = np.empty(len(names), np.int32)
        for i, name in enumerate(names):
            samples = check_sound(folder / name, read_wav(folder / name))
            audio[i, : len(samples)], lengths[i] = samples, len(samples)
        audio.flush()
        np.save(f"{partial}/lengths.npy", lengths)
        Path(partial).chmod(0o755)
        try:
            os.rename(partial, decoded)
        except OSError:
            if not decoded.is_dir():  # otherwise another process was faster
                raise


def _published_splits(
    names: Sequence[str], lists: Mapping[Split, Sequence[str]]
) -> dict[Split, np.ndarray]:
    """Returns the published splits; clips on neither list are for training."""
    part: dict[str, Split] = {name: split for split, listed in lists.items() for name in listed}
    parts = np.array([part.get(name, "train") for name in names])
    rng = np.random.default_rng(0)
    splits: tuple[Split, ...] = ("train", "validation", "test")
    return {split: rng.permutation(np.flatnonzero(parts == split)) for split in splits}


def _stratified_splits(label: np.ndarray, rows: np.ndarray) -> dict[Split, np.ndarray]:
    """Splits into 70 % for training and 15 % each for the others, stratified by class."""
    from sklearn.model_selection import train_test_split  # slow to import

    train, rest = train_test_split(rows, train_size=0.7, random_state=0, stratify=label[rows])
    validation, test = train_test_split(rest, train_size=0.5, random_state=1, stratify=label[rest])
    return {"train": train, "validation": validation, "test": test}


def _training_sums(audio: np.ndarray, rows: np.ndarray, decoded: Path) -> np.ndarray:
    """Sums over the training clips in exact integers, and caches the result."""
    path = decoded / "training_sums.npy"
    if path.is_file():
        return map_array(path, np.int64, (2, LENGTH), remove=path)
    sums = np.zeros((2, LENGTH), np.int64)
    rows = np.sort(rows)
    for start in range(0, len(rows), 1024):
        clips = audio[rows[start : start + 1024]].astype(np.int64)
        sums += [clips.sum(axis=0), (clips**2).sum(axis=0)]
    write_atomically(path, lambda file: np.save(file, sums))
    return sums
