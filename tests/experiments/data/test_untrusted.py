"""Thousands of damaged files, each of which ends in a right result or in one clear sentence."""

import dataclasses
import gzip
import io
import json
import random
import re
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from mutations import fuzz, mutate_bytes, mutate_json
from PIL import Image
from sounds import write_wav
from true_files import write_aan, write_cifar_pickles

from experiments.config import Config, read_config
from experiments.data.prepare import WIKITEXT, prepare_copies, prepare_speech
from experiments.data.published_files import read_cifar10, read_imdb, read_mnist, walk
from experiments.data.readers import map_array, read_image
from experiments.data.sources import Files
from experiments.data.tfds import cached
from experiments.recipes import get_recipe
from experiments.records import read_results
from experiments.tasks.arrays.tables import Table, read_arrays, read_sequence
from experiments.tasks.language.wikitext import WikiText103, WikiTextOptions
from experiments.tasks.text import Texts, _pairs, pack
from experiments.training.metrics import read_rows

RNG = np.random.default_rng(0)
COLUMNS = {
    "x": RNG.normal(size=(5, 7, 2)).astype(np.float32),
    "y": np.arange(5) % 3,
    "lengths": np.arange(5) + 3,
    "dt": np.full(5, 0.5),
}


@dataclasses.dataclass(frozen=True)
class Reader:
    """A file of a right form, and what reads it."""

    write: Callable[[Path], Path]
    """Writes it into a folder."""
    read: Callable[[Path], Any]
    """Reads it again, and checks the result."""
    mutate: Callable[[bytes, random.Random], tuple[str, bytes]] = mutate_bytes
    names: str = ""
    """A pattern of what messages name; by default the file."""


def write_npz(folder: Path, save: Callable[..., None] = np.savez) -> Path:
    save(folder / "data.npz", **COLUMNS)
    return folder / "data.npz"


def check_table(path: Path) -> Table:
    table = read_arrays(path)
    n, L = table.x.shape[:2]
    assert table.x.dtype in (np.float32, np.float64, np.int32)
    assert np.isfinite(table.x).all()
    assert table.y is None or len(table.y) == n
    assert table.lengths is None or ((table.lengths > 0) & (table.lengths <= L)).all()
    assert table.dt is None or table.dt.shape == (n, L)
    return table


def write_sound(folder: Path) -> Path:
    write_wav(folder / "a.wav", RNG.integers(-(2**15), 2**15, size=(200, 2)))
    return folder / "a.wav"


def write_floats(folder: Path) -> Path:
    soundfile.write(folder / "a.wav", RNG.normal(size=200), 8_000, subtype="FLOAT")
    return folder / "a.wav"


def write_compressed(folder: Path, suffix: str) -> Path:
    tone = np.sin(np.arange(9_000) / 20) / 2
    soundfile.write(folder / f"a.{suffix}", tone, 8_000)
    return folder / f"a.{suffix}"


def check_sequence(path: Path) -> None:
    x, rate = read_sequence(path)
    assert x.dtype in (np.float32, np.float64)
    assert x.ndim == 2
    assert x.size > 0
    assert np.isfinite(x).all()
    assert (rate is None) == (path.suffix == ".csv")


def write_table(folder: Path) -> Path:
    rows = ["time,value", *(f"{t},{-t / 3:.6g}" for t in range(25))]
    (folder / "a.csv").write_text("\n".join(rows))
    return folder / "a.csv"


def write_spreadsheet(folder: Path) -> Path:
    rows = ["sep=;", "Zeit;Größe;%", *(f"{t}.01.2024;-{t},{t};{t}%" for t in range(1, 25))]
    (folder / "a.csv").write_bytes("\r\n".join(rows).encode("utf-16"))
    return folder / "a.csv"


def write_image(folder: Path) -> Path:
    Image.fromarray(RNG.integers(256, size=(16, 16), dtype=np.uint8)).save(folder / "a.png")
    return folder / "a.png"


def check_image(path: Path) -> None:
    assert read_image(path, size=16).shape == (16, 16)


def write_pairs(folder: Path) -> Path:
    return write_aan(folder, n=10) / "new_aan_pairs.train.tsv"


def check_pairs(path: Path) -> None:
    texts = pack(_pairs(path), 50)
    assert set(texts.label) <= {0, 1}
    assert len(texts.starts) == 2 * len(texts.label) + 1


def write_config(folder: Path) -> Path:
    config = get_recipe("pathx", "s5", "smoke").to_dict()
    record = {"environment": {"versions": {"jax": "0.10"}, "device": "1 x cpu"}}
    (folder / "config.json").write_text(json.dumps({**config, **record}, indent=2))
    return folder / "config.json"


def check_config(path: Path) -> None:
    config = read_config(path.parent)
    assert Config.from_dict(json.loads(config.to_json())) == config


def write_results(folder: Path) -> Path:
    values = {
        **{"task": "pathx", "model": "s5", "preset": "cpu", "seed": 0, "metric": "accuracy"},
        **{"validation": {"loss": 0.5, "accuracy": 0.9}, "test": {"loss": 0.5, "accuracy": 0.8}},
        **{"wall_s": 3.5, "device": "1 x cpu", "commit": None, "best_step": 3},
    }
    (folder / "results.json").write_text(json.dumps(values, indent=2))
    return folder / "results.json"


def check_results(path: Path) -> None:
    results = read_results(path.parent)
    assert results is not None
    json.dumps(results["test"], allow_nan=False)


def write_metrics(folder: Path) -> Path:
    rows = [{"step": i, "loss": 1 / i, "accuracy": None, "lr": 1e-3} for i in range(1, 30)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "metrics.jsonl"


def check_metrics(path: Path) -> None:
    for row in read_rows(path.parent):
        assert isinstance(row["step"], int)
        json.dumps(row, allow_nan=False)


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def cifar_members(n: int = 1) -> dict[str, bytes]:
    rows = RNG.integers(10, size=(n, 3073), dtype=np.uint8)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    return {f"cifar/{name}.bin": rows.tobytes() for name in names}


def check_cifar(path: Path) -> None:
    splits = read_cifar10(walk(path, path.name))
    assert all(example["label"] < 10 for split in splits.values() for _, example in split)


def write_pickles(folder: Path) -> Path:
    return write_cifar_pickles(folder, n=1) / "data_batch_2"


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_digits(folder: Path) -> Path:
    for part in ("train", "t10k"):
        images = RNG.integers(256, size=(4, 28, 28), dtype=np.uint8)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(4, dtype=np.uint8)))
    return folder / "train-images-idx3-ubyte.gz"


def check_digits(path: Path) -> None:
    for split in read_mnist(walk(path.parent, "files")).values():
        assert all(example["label"] < 10 for _, example in split)


def write_reviews(folder: Path) -> Path:
    names = [
        f"aclImdb/{s}/{c}/{i}_7.txt"
        for s in ("train", "test")
        for c in ("pos", "neg")
        for i in (1, 2)
    ]
    return write_tar(folder / "a.tar", {name: b"a fine film \xc3\x84" * 9 for name in names})


def check_reviews(path: Path) -> None:
    splits = read_imdb(walk(path, path.name))
    assert {x["label"] for split in splits.values() for _, x in split} <= {"pos", "neg"}


def write_words(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "words.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in WIKITEXT.names:
            archive.writestr(f"wikitext-103/{name}", " some words \n" * 20)
    return folder / "words.zip"


def check_words(path: Path) -> None:
    prepare_copies(WIKITEXT, path.parent / "data", path)


def write_clips(folder: Path) -> Path:
    sound = write_sound(folder).read_bytes()
    names = ("yes/a_nohash_0.wav", "no/b_nohash_0.wav", "testing_list.txt")
    return write_tar(folder / "clips.tar.gz", dict.fromkeys(names, sound))


def check_clips(path: Path) -> None:
    prepare_speech(path.parent / "data", path)


def write_text(folder: Path) -> Path:
    words = folder / "wikitext-103"
    words.mkdir()
    for part in ("train", "valid", "test"):
        (words / f"wiki.{part}.tokens").write_text(" a b c <unk> d\n a b a\n" * 4)
    source = WikiText103(WikiTextOptions(vocabulary=6, length=4, n_streams=1), Files(folder))
    source._words("validation")
    return words / "wiki.train.tokens"


def check_text(path: Path) -> None:
    task = WikiText103(WikiTextOptions(vocabulary=6), Files(path.parent.parent))
    words = task._words("train")
    assert words.dtype == np.int32
    assert not words.size or (words.min() >= 0 and words.max() < 6)


def write_numbers(folder: Path) -> Path:
    return write_text(folder).with_suffix(".npy")


def write_array(folder: Path) -> Path:
    np.save(folder / "a.npy", np.arange(300, dtype=np.int16).reshape(3, 100))
    return folder / "a.npy"


def check_array(path: Path) -> None:
    array = map_array(path, np.int16, (None, 100), remove=path)
    assert array.dtype == np.int16
    assert array.shape[1:] == (100,)
    assert array.sum() is not None


def write_kept(folder: Path) -> Path:
    cached(folder / "kept.npz", make_kept, names=Texts._fields)
    return folder / "kept.npz"


def make_kept() -> dict[str, np.ndarray]:
    return pack([(1, ["abc", "d"]), (0, ["", "ef"])], 10)._asdict()


def check_kept(path: Path) -> None:
    texts = Texts(**cached(path, make_kept, names=Texts._fields))
    assert texts.codes.sum() == sum(map(ord, "abcdef"))


READERS = {
    "npz": Reader(write_npz, check_table),
    "compressed npz": Reader(lambda f: write_npz(f, np.savez_compressed), check_table),
    "WAV": Reader(write_sound, check_sequence),
    "WAV of floats": Reader(write_floats, check_sequence),
    "FLAC": Reader(lambda f: write_compressed(f, "flac"), check_sequence),
    "OGG": Reader(lambda f: write_compressed(f, "ogg"), check_sequence),
    "MP3": Reader(lambda f: write_compressed(f, "mp3"), check_sequence),
    "CSV": Reader(write_table, check_sequence),
    "CSV of a spreadsheet": Reader(write_spreadsheet, check_sequence),
    "PNG": Reader(write_image, check_image),
    "TSV": Reader(write_pairs, check_pairs),
    "config.json, bytes": Reader(write_config, check_config),
    "config.json, structure": Reader(write_config, check_config, mutate_json),
    "results.json, bytes": Reader(write_results, check_results),
    "results.json, structure": Reader(write_results, check_results, mutate_json),
    "metrics.jsonl": Reader(write_metrics, check_metrics),
    "tar": Reader(
        lambda f: write_tar(f / "a.tar", cifar_members()), check_cifar, names=r"a\.tar|CIFAR-10"
    ),
    "tar.gz": Reader(
        lambda f: write_tar(f / "a.tar.gz", cifar_members()),
        check_cifar,
        names=r"a\.tar\.gz|CIFAR-10",
    ),
    "pickle of CIFAR-10": Reader(write_pickles, lambda p: check_cifar(p.parent)),
    "IDX": Reader(write_digits, check_digits, names="train-images"),
    "tar of reviews": Reader(write_reviews, check_reviews, names=r"a\.tar|IMDB"),
    "zip": Reader(write_words, check_words),
    "tar.gz of clips": Reader(write_clips, check_clips),
    "text of words": Reader(write_text, check_text),
    "kept numbers of words": Reader(write_numbers, check_text),
    "kept array": Reader(write_array, check_array),
    "kept npz": Reader(write_kept, check_kept),
}


def run(name: str, folder: Path, seeds: range) -> Counter[tuple[str, str]]:
    reader = READERS[name]
    path = reader.write(folder)
    reader.read(path)
    names = reader.names or re.escape(path.name)
    return fuzz(path, reader.mutate, lambda: reader.read(path), names=names, seeds=seeds)


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_end_in_a_result_or_in_one_sentence(name, tmp_path, capsys):
    found = run(name, tmp_path, range(25))
    capsys.readouterr()
    assert found.total() == 25


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_thousands_of_damaged_files(name, tmp_path, capsys):
    found = run(name, tmp_path, range(1_000, 2_000))
    capsys.readouterr()
    with capsys.disabled():
        kinds = ", ".join(f"{kind} {how} {n}" for (kind, how), n in sorted(found.items()))
        print(f"\n{name}: {kinds}", file=sys.stderr)
