"""Small files of the forms in which data sets are published, and as tasks read them."""

import gzip
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np

from experiments.data.prepare import prepare_dataset

WORDS = {"pos": "a fine film", "neg": "a bad, bad film"}


def cifar_rows(seed: int, n: int = 40) -> np.ndarray:
    """Rows of CIFAR-10's binary version: a label and 3 x 32 x 32 pixels."""
    rows = np.random.default_rng(seed).integers(256, size=(n, 3073), dtype=np.uint8)
    rows[:, 0] = np.arange(n) % 10
    return rows


def cifar_batches(n: int = 40) -> dict[str, np.ndarray]:
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    return {name: cifar_rows(seed, n) for seed, name in enumerate(names)}


def write_cifar_archive(folder: Path) -> Path:
    path = folder / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, rows in cifar_batches().items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = rows.size
            archive.addfile(member, io.BytesIO(rows.tobytes()))
    return path


def write_cifar_pickles(folder: Path, n: int = 40) -> Path:
    for name, rows in cifar_batches(n).items():
        batch = {b"labels": rows[:, 0].tolist(), b"data": rows[:, 1:].copy()}
        data = pickle.dumps(batch, protocol=3)  # with the names that NumPy had then
        (folder / name).write_bytes(data.replace(b"numpy._core", b"numpy.core"))
    return folder


def write_mnist(folder: Path, *, packed: bool) -> Path:
    for part, n in (("train", 200), ("t10k", 40)):
        images = np.random.default_rng(n).integers(256, size=(n, 28, 28), dtype=np.uint8)
        for name, array in (
            ("images-idx3", images),
            ("labels-idx1", np.arange(n, dtype=np.uint8) % 10),
        ):
            shape = np.array(array.shape, ">u4").tobytes()
            data = bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()
            path = folder / f"{part}-{name}-ubyte"
            if packed:
                path.with_suffix(".gz").write_bytes(gzip.compress(data))
            else:
                path.write_bytes(data)
    return folder


def write_imdb(folder: Path, n: int = 80, splits: tuple[str, ...] = ("train", "test")) -> Path:
    for split in splits:
        for label, words in WORDS.items():
            reviews = folder / "aclImdb" / split / label
            reviews.mkdir(parents=True)
            for i in range(n):
                (reviews / f"{i}_7.txt").write_text(f"{words} {i}<br />Ä\n", encoding="utf-8")
    return folder / "aclImdb"


def write_aan(folder: Path, n: int = 80) -> Path:
    for part in ("train", "eval", "test"):
        lines = [f'{i % 2}.0\tA{i}\tB{i}\t"text {i}\ttext "{i}" and' for i in range(n)]
        (folder / f"new_aan_pairs.{part}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def write_archive_set(folder: Path, name: str, *, values: bool = False, n: int = 80) -> Path:
    """A set of two dimensions and 64 steps, with two classes or with values."""
    draw = np.random.default_rng(0)
    for part in ("TRAIN", "TEST"):
        kind = "@targetlabel true" if values else "@classLabel true left right"
        lines = [f"# {name}", f"@problemName {name}", "@dimensions 2", kind, "@data"]
        for i in range(n):
            dimensions = [",".join(f"{x:.4f}" for x in draw.normal(size=64)) for _ in range(2)]
            lines.append(
                ":".join([*dimensions, f"{i / 2}" if values else ("left", "right")[i % 2]])
            )
        (folder / f"{name}_{part}.ts").write_text("\n".join(lines) + "\n")
    return folder


def prepare_all(data_dir: Path, source: Path) -> None:
    """Every data set, small, as tasks read them."""
    prepare_dataset("image", data_dir, write_cifar_archive(source))
    prepare_dataset("smnist", data_dir, write_mnist(_folder(source / "mnist"), packed=True))
    prepare_dataset("text", data_dir, write_imdb(source))
    prepare_dataset("retrieval", data_dir, write_aan(_folder(source / "aan")))
    prepare_dataset("uea", data_dir, write_archive_set(_folder(source / "uea"), "Sides"))
    values = write_archive_set(_folder(source / "tser"), "Values", values=True)
    prepare_dataset("tser", data_dir, values)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
