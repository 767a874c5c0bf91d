"""Files made to execute something, to leave their folder, or to take all memory."""

import gzip
import io
import json
import os
import pickle
import struct
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from mutations import MEGABYTES, check_read, watched
from PIL import Image
from sounds import write_wav
from true_files import cifar_batches, write_mnist

from experiments.config import read_config
from experiments.data import published_files
from experiments.data.prepare import prepare_dataset
from experiments.data.published_files import walk
from experiments.data.readers import map_array, read_image, read_npz
from experiments.data.sounds import read_wav
from experiments.errors import UsageError
from experiments.records import read_results
from experiments.tasks.arrays.tables import read_table
from experiments.training.loop import refuse_another_run
from experiments.training.metrics import read_rows


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def header(shape: tuple[int, ...], descr: str = "<f8", version: int = 1) -> bytes:
    """What a .npy file begins with, whatever follows."""
    text = str({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text


def write_member(path: Path, data: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("x.npy", data)
    return path


def refused(read, *, names: str, size: int = 0) -> str:
    """The sentence in which reading ends; with little memory, and nothing executed."""
    error = check_read(read, names=names, size=size)
    assert isinstance(error, UsageError)
    return str(error)


@pytest.mark.parametrize(
    "data",
    [
        header((10**12,)),
        header((10**12,)) + bytes(80),
        header((10**30,)),
        header((2**31, 2**33)),
        header((-(10**12),)),
        header((10**12, 0)),
        header((10**12,), "V0"),
        header((10**12,), "<U0"),
        header((3,), "|O") + pickle.dumps([1, 2, 3]),
        header((3,), "O") + bytes(24),
        header((3,), version=2)[:6] + b"\x09" + header((3,), version=2)[7:] + bytes(24),
        header((3,), "[('a', '<f8')]") + bytes(24),
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{",
        b"\x93NUMPY\x01\x00" + struct.pack("<H", 9_000) + b"(" * 9_000,
        b"\x93NUMPY\x01\x00" + struct.pack("<H", 9_000) + b"-" * 9_000,
        b"",
    ],
    ids=range(16),
)
def test_headers_of_arrays_are_checked_before_anything_is_allocated(tmp_path, data):
    path = write_member(tmp_path / "x.npz", data)
    refused(lambda: read_npz(path), names="x.npz")
    plain = tmp_path / "x.npy"
    plain.write_bytes(data)
    refused(lambda: map_array(plain, np.float64, (None,), remove=plain), names="x.npy")


def test_an_archive_of_zeros_is_not_unpacked(tmp_path):
    data = header((2**22,)) + bytes(2**25)
    path = write_member(tmp_path / "x.npz", data, zipfile.ZIP_DEFLATED)
    assert "100 times" in refused(lambda: read_npz(path), names="x.npz")


def test_a_compressed_archive_is_read(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros(2**17))
    assert read_npz(tmp_path / "x.npz")["x"].shape == (2**17,)


def test_an_array_takes_its_own_memory_only(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.ones(2**22))
    size = (tmp_path / "x.npz").stat().st_size
    assert check_read(lambda: read_npz(tmp_path / "x.npz"), names="x.npz", size=size) is None
    assert size > MEGABYTES * 2**20


@pytest.mark.parametrize("suffix", ["npz", "pickle"])
def test_no_pickle_is_executed(tmp_path, suffix):
    made = tmp_path / "made"
    path = tmp_path / f"x.{suffix}"
    if suffix == "npz":
        np.savez(path, x=np.array([Bomb(made)], object), allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(Bomb(made)))
    refused(lambda: read_npz(path), names="x.")
    assert not made.exists()


def test_pickles_of_cifar10_are_taken_apart_not_executed(tmp_path):
    source, made = tmp_path / "files", tmp_path / "made"
    source.mkdir()
    for name in cifar_batches():
        (source / name).write_bytes(pickle.dumps({b"labels": [1], b"data": Bomb(made)}))
    with watched() as events, pytest.raises(UsageError, match=r"data_batch_1 is not a valid batch"):
        prepare_dataset("image", tmp_path / "data", source)
    assert not [event for event in events if "pickle" in event]
    assert not made.exists()


@pytest.mark.parametrize("size", [2**32 - 3, 2**31, 402])
def test_a_sound_that_claims_more_than_its_file_is_refused(tmp_path, size):
    path = tmp_path / "a.wav"
    write_wav(path, np.arange(200))
    data = path.read_bytes()
    path.write_bytes(data[:40] + struct.pack("<I", size) + data[44:])
    assert "cut off" in refused(lambda: read_wav(path), names="a.wav")


def test_a_sound_that_was_cut_off_is_refused(tmp_path):
    path = tmp_path / "a.wav"
    write_wav(path, np.arange(200))
    path.write_bytes(path.read_bytes()[:-10])
    assert "promises 400 bytes" in refused(lambda: read_wav(path), names="a.wav")


def test_padding_may_not_take_all_memory(tmp_path):
    for name, length in {"a": 2**18, **{f"b{i}": 1 for i in range(500)}}.items():
        folder = tmp_path / ("a" if name == "a" else "b")
        folder.mkdir(exist_ok=True)
        write_wav(folder / f"{name}.wav", np.ones(length))
    assert "would take" in refused(lambda: read_table(tmp_path), names=tmp_path.name)


@pytest.mark.parametrize("size", [(100_000, 90_000), (16, 30_000), (0, 0)])
def test_the_size_of_an_image_is_asked_before_it_is_decoded(tmp_path, size):
    path = tmp_path / "a.png"
    Image.new("L", (16, 16)).save(path)
    data = path.read_bytes()
    claim = b"IHDR" + struct.pack(">II", *size) + data[24:29]
    path.write_bytes(data[:12] + claim + struct.pack(">I", zlib.crc32(claim)) + data[33:])
    refused(lambda: read_image(path, size=16), names="a.png")


def test_images_of_forms_that_start_programs_are_not_read(tmp_path):
    Image.new("L", (16, 16)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    refused(lambda: read_image(tmp_path / "a.png", size=16), names="a.png")


DEEP = "[" * 100_000
JSON = {
    "deep": DEEP,
    "closed": DEEP + "]" * 100_000,
    "digits": "9" * 5_000,
    "nan": '{"seed": NaN}',
    "infinite": '{"seed": 1e999}',
    "large": " " * 2**21,
    "bytes": "\udcff",
    "list": "[]",
}


@pytest.mark.parametrize("text", JSON.values(), ids=JSON)
def test_json_that_no_run_wrote(tmp_path, text):
    for name in ("config.json", "results.json", "metrics.jsonl"):
        (tmp_path / name).write_bytes(text.encode(errors="surrogateescape") + b"\n")
    refused(lambda: read_config(tmp_path), names="config.json")
    refused(lambda: refuse_another_run(tmp_path, None), names="config.json")
    refused(lambda: read_results(tmp_path), names="results.json")
    refused(lambda: read_rows(tmp_path), names="metrics.jsonl, line 1")


def test_a_damaged_row_is_named_and_only_an_unfinished_last_one_is_left_out(tmp_path):
    rows = [json.dumps({"step": step, "loss": 1.0}) for step in range(3)]
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(rows)[:-5])
    assert [row["step"] for row in read_rows(tmp_path)] == [0, 1]
    path.write_text("\n".join([rows[0], "{", rows[2]]))
    with pytest.raises(UsageError, match=r"metrics\.jsonl, line 2: .*Delete the line"):
        read_rows(tmp_path)


OUTSIDE = [
    "../{}",
    "yes/../../{}",
    "../../{}",
    "/{}",
    "..\\{}",
    "yes/..{}",
    "a/b/../{}",
    "YES/{}",
]


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_members_of_archives_stay_in_their_folder(tmp_path, kind):
    source = tmp_path / f"clips.{kind}"
    names = [pattern.format("x.wav") for pattern in OUTSIDE] + ["yes/x.wav", "../testing_list.txt"]
    if kind == "zip":
        with zipfile.ZipFile(source, "w") as archive:
            for name in names:
                archive.writestr(name, "content")
    else:
        with tarfile.open(source, "w") as archive:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size = 7
                archive.addfile(member, io.BytesIO(b"content"))
    data = tmp_path / "a" / "b" / "data"
    with watched() as events:
        prepare_dataset("sc35", data, source)
    folder = data / "speech_commands_v0.02"
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {"yes/x.wav", "yes/..x.wav", "testing_list.txt"}
    written = {Path(event.removeprefix("write ")) for event in events if event.startswith("write")}
    assert all(folder in path.resolve().parents for path in written)


def special(kind: bytes, name: str, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


def test_links_and_devices_of_archives_are_passed_over(tmp_path):
    source = tmp_path / "clips.tar"
    with tarfile.open(source, "w") as archive:
        archive.addfile(special(tarfile.SYMTYPE, "yes/a.wav", "/etc/passwd"))
        archive.addfile(special(tarfile.SYMTYPE, "yes/b.wav", "b.wav"))
        archive.addfile(special(tarfile.SYMTYPE, "no", "/tmp"))
        archive.addfile(special(tarfile.LNKTYPE, "yes/c.wav", "../../etc/passwd"))
        archive.addfile(special(tarfile.CHRTYPE, "yes/d.wav"))
        archive.addfile(special(tarfile.FIFOTYPE, "yes/e.wav"))
    assert "does not hold" in refused(
        lambda: prepare_dataset("sc35", tmp_path / "data", source), names="clips.tar"
    )


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.REGTYPE])
def test_an_archive_may_claim_what_it_likes(tmp_path, kind):
    source = tmp_path / "clips.tar"
    member = special(kind, "yes/a.wav")
    member.size = 8 * 2**30 - 1
    source.write_bytes(member.tobuf() + bytes(2048))
    refused(lambda: prepare_dataset("sc35", tmp_path / "data", source), names="clips.tar")


def test_a_sparse_member_is_passed_over(tmp_path):
    source = tmp_path / "clips.tar"
    member = tarfile.TarInfo("yes/a.wav")
    member.size = 512
    member.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.name": "yes/a.wav",
        "GNU.sparse.size": str(10**12),
        "GNU.sparse.map": "0,512",
    }
    with tarfile.open(source, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member, io.BytesIO(bytes(512)))
    refused(lambda: prepare_dataset("sc35", tmp_path / "data", source), names="clips.tar")


def zeros(size: int) -> bytes:
    """So many of them, compressed."""
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=9) as packed:
        for _ in range(size // 2**20):
            packed.write(bytes(2**20))
    return file.getvalue()


def test_packed_zeros_are_not_unpacked(tmp_path, monkeypatch):
    member = special(tarfile.REGTYPE, "yes/a.wav")
    member.size = 2**25
    head = gzip.compress(member.tobuf())
    source = tmp_path / "clips.tar.gz"
    source.write_bytes(head + zeros(member.size))
    text = refused(lambda: prepare_dataset("sc35", tmp_path / "data", source), names="clips.tar.gz")
    assert "100 times" in text
    monkeypatch.setattr(published_files, "MNIST_BYTES", 2**20)
    files = tmp_path / "files"
    files.mkdir()
    write_mnist(files, packed=False)
    (files / "train-labels-idx1-ubyte").unlink()
    (files / "train-labels-idx1-ubyte.gz").write_bytes(zeros(2**21))
    with pytest.raises(
        UsageError, match=r"train-labels-idx1-ubyte\.gz is not a valid IDX file.*more than"
    ):
        prepare_dataset("smnist", tmp_path / "digits", files)


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_a_folder_that_leads_in_a_circle_is_walked_once(tmp_path):
    folder = tmp_path / "files"
    (folder / "deep").mkdir(parents=True)
    for name in ("a", "b"):
        (folder / "deep" / name).symlink_to(folder)
    os.mkfifo(folder / "pipe.wav")
    (folder / "c.wav").write_bytes(b"")
    assert [name for name, _ in walk(folder, "files")] == ["files/c.wav"]
