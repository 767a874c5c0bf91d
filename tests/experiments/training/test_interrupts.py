"""Signals to a run."""

import hashlib
import os
import signal
import threading
import time

import pytest
from processes import CONTEXT

from experiments.errors import InterruptedRun
from experiments.training import loop
from experiments.training.interrupts import Interrupts
from experiments.training.loop import fit


def test_closing_the_terminal_ends_a_run_with_a_checkpoint(toy, one_device, tmp_path, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    advance = loop.Display.advance

    def hang_up(shown):
        for _ in range(2):  # terminal and shell
            os.kill(os.getpid(), signal.SIGHUP)
        advance(shown)

    monkeypatch.setattr(loop.Display, "advance", hang_up)
    try:
        with pytest.raises(InterruptedRun, match="resumes from here") as error:
            fit(toy(), tmp_path / "run", mesh=one_device)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
    assert error.value.exit_code == 129
    assert (tmp_path / "run" / "checkpoints" / "1").is_dir()


def test_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            assert interrupts.check() is None
    finally:
        signal.signal(signal.SIGHUP, before)


def compute_without_python(pipe):
    """As XLA does when it compiles: Python's handlers wait until it is done."""
    with Interrupts():
        pipe.send("begins")
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)


def test_a_second_signal_ends_a_compilation():
    pipe, other = CONTEXT.Pipe()
    process = CONTEXT.Process(target=compute_without_python, args=(other,))
    process.start()
    assert pipe.recv() == "begins"
    for number in (signal.SIGINT, signal.SIGTERM):
        time.sleep(0.2)
        os.kill(process.pid, number)
    process.join(10)
    assert process.exitcode == 128 + signal.SIGTERM


def test_a_run_in_a_thread(toy, one_device, tmp_path):
    found = []
    thread = threading.Thread(
        target=lambda: found.append(fit(toy(), tmp_path / "run", mesh=one_device))
    )
    thread.start()
    thread.join()
    assert found[0]["steps"] == 12
