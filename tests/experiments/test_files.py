"""Paths as users give them, and files that are written whole."""

import json
import os
import pathlib
import threading

import pytest

from experiments.data.sources import Files
from experiments.errors import UsageError
from experiments.files import check_output, replacing, user_path
from experiments.records import write_json


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("~/runs/a", pathlib.Path("~/runs/a")):
        assert user_path(path) == tmp_path / "runs" / "a"
    assert Files("~/data").data_dir == tmp_path / "data"


def test_a_tilde_without_a_home_is_refused(monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user without an entry
    with pytest.raises(UsageError, match="no home folder"):
        user_path("~/runs")
    assert user_path("~$runs") == pathlib.Path("~$runs")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError, match="not JSON serializable"), replacing(path) as file:
        file.write(json.dumps({"a": 2, "b": object()}))
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def write_to_full_disk(file):
    """Fails when the buffer is flushed, at the end."""
    os.dup2(os.open("/dev/full", os.O_WRONLY), file.fileno())
    file.write("x")


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="of Linux")
def test_a_full_disk_is_named(tmp_path):
    with pytest.raises(OSError, match="No space left") as error, replacing(tmp_path / "x") as file:
        write_to_full_disk(file)
    assert error.value.filename == str(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_device_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    check_output(tmp_path / "pipe", "--json")
    write_json(tmp_path / "pipe", {"a": 1})
    reader.join()
    assert json.loads(read[0]) == {"a": 1}
    assert (tmp_path / "pipe").is_fifo()
