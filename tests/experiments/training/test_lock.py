"""Two runs in one folder."""

import errno
import os
import time

import pytest
from processes import CONTEXT

from experiments.errors import UsageError
from experiments.training import lock, loop
from experiments.training.lock import lock_folder
from experiments.training.loop import fit


def test_a_second_run_in_the_same_folder_is_refused(
    finished, toy, one_device, tmp_path, monkeypatch
):
    advance, refusals = loop.Display.advance, []

    def start_another(shown):
        with pytest.raises(UsageError) as error:
            fit(toy(), tmp_path / "run", mesh=one_device)
        refusals.append(str(error.value))
        advance(shown)

    monkeypatch.setattr(loop.Display, "advance", start_another)
    fit(toy(), tmp_path / "run", mesh=one_device)
    assert len(refusals) == 12
    assert all(f"in use by the run of process {os.getpid()} on" in text for text in refusals)
    for name in ("metrics.jsonl", "model/parameters.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()
    assert {path.name for path in finished.iterdir()} == {
        path.name for path in (tmp_path / "run").iterdir()
    }


def hold_and_wait(folder, pipe):
    with lock_folder(folder):
        pipe.send("held")
        time.sleep(60)


def test_a_killed_run_leaves_no_lock(tmp_path):
    pipe, other = CONTEXT.Pipe()
    process = CONTEXT.Process(target=hold_and_wait, args=(tmp_path / "run", other))
    process.start()
    assert pipe.recv() == "held"
    with (
        pytest.raises(UsageError, match=f"process {process.pid} on"),
        lock_folder(tmp_path / "run"),
    ):
        pass
    process.kill()
    process.join()
    with lock_folder(tmp_path / "run"):
        pass
    assert list((tmp_path / "run").iterdir()) == []


def test_a_lock_that_was_removed_in_between_does_not_count(tmp_path, monkeypatch):
    flock, opened = lock.fcntl.flock, []

    def removed(file, how):
        flock(file, how)
        if not opened:
            (tmp_path / lock.LOCK).unlink()
        opened.append(file)

    monkeypatch.setattr(lock.fcntl, "flock", removed)
    in_use = f"in use by the run of process {os.getpid()} on"
    with lock_folder(tmp_path), pytest.raises(UsageError, match=in_use), lock_folder(tmp_path):
        pass
    assert len(opened) == 2


@pytest.mark.parametrize("has_locks", [False, None])
def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys, has_locks):
    def flock(file, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    if has_locks is None:
        monkeypatch.setattr(lock, "fcntl", None)
    else:
        monkeypatch.setattr(lock.fcntl, "flock", flock)
    with lock_folder(tmp_path / "run"):
        pass
    assert ("No locks" in capsys.readouterr().out) == (has_locks is False)


def test_of_many_processes_all_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "is_main", lambda: False)
    monkeypatch.setattr(lock, "from_main", lambda value: True)
    with pytest.raises(UsageError, match="Another run"), lock_folder(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()
