"""Streams that have gone, and what ends a command."""

import contextlib
import errno
import io
import os
import pathlib
import sys

import jax
import pytest

from experiments import predict, results, train
from experiments.cli.ending import run_command
from experiments.data import __main__ as data
from experiments.errors import InterruptedRun
from experiments.recipes import __main__ as recipes
from experiments.training import display, loop
from experiments.training.loop import fit


@contextlib.contextmanager
def stdout(stream):
    before, sys.stdout = sys.stdout, stream
    try:
        yield
    finally:
        sys.stdout = before


def end_of(command):
    """The exit code of a command."""
    try:
        run_command(command)
    except SystemExit as leaving:
        return leaving.code
    return 0


def pipe_without_reader():
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w", encoding="utf-8")


@pytest.mark.parametrize(
    ("module", "args"),
    [
        (recipes, []),
        (recipes, ["--json"]),
        (results, []),
        (train, ["--help"]),
        (train, ["--task=pathx", "--help"]),
        (train, ["--task=pathx", "--print-config"]),
        (predict, ["--help"]),
        (data, []),
    ],
)
def test_a_reader_that_has_gone_ends_a_command_quietly(module, args, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["command", *args])
    monkeypatch.chdir(pathlib.Path(__file__).parents[3])
    with pipe_without_reader() as stream, stdout(stream):
        assert end_of(module.main) == 141
    assert capsys.readouterr().err == ""


def test_closed_streams_lead_nowhere(monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert end_of(lambda: print("nobody reads this")) == 0
    for name in ("stdin", "stdout", "stderr"):
        getattr(sys, name).close()


def test_letters_that_the_output_lacks_are_written_as_numbers():
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="ascii")
    with stdout(stream):
        assert end_of(lambda: print("Käse")) == 0
    assert written.getvalue() == b"K\\xe4se\n"


def test_a_run_whose_reader_has_gone_writes_a_checkpoint(
    finished, toy, one_device, tmp_path, monkeypatch
):
    advance = loop.Display.advance

    def lose_the_reader(shown):
        if shown.console.file is not broken:
            shown.console.file = broken
        advance(shown)
        shown.report("to nobody")

    monkeypatch.setattr(loop.Display, "advance", lose_the_reader)
    with pipe_without_reader() as broken:
        with pytest.raises(InterruptedRun, match="resumes from here") as error:
            fit(toy(), tmp_path / "run", mesh=one_device)
        with contextlib.suppress(BrokenPipeError):
            broken.close()
    assert error.value.exit_code == 141
    assert (tmp_path / "run" / "checkpoints" / "1").is_dir()
    monkeypatch.undo()
    fit(toy(), tmp_path / "run", mesh=one_device)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == (
        finished / "metrics.jsonl"
    ).read_text()


def test_a_run_goes_on_without_its_terminal(toy, one_device, tmp_path, monkeypatch):
    def print_nowhere(console, *args):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(display.PipeConsole, "print", print_nowhere)
    assert fit(toy(), tmp_path / "run", mesh=one_device)["steps"] == 12


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a/b"),
            1,
            "Could not read or write a/b: No such file or directory.\n",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "No space left on device.\n"),
        (OSError("closed"), 1, "closed\n"),
        (MemoryError("Unable to allocate 9 TiB"), 1, "Out of memory: Unable to allocate 9 TiB."),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 bytes"), 1, "Out of memory: RESOURCE"),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
    ],
)
def test_what_the_system_refuses_is_one_sentence(capsys, error, code, sentence):
    def fail():
        raise error

    assert end_of(fail) == code
    err = capsys.readouterr().err
    assert sentence in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("error", [RuntimeError("Unable to initialize"), AssertionError()])
def test_a_missing_accelerator_is_said(capsys, monkeypatch, error):
    def devices():
        raise error

    def fail():
        raise AssertionError  # as JAX does, depending on the operation

    with pytest.raises(AssertionError, match=r"^$"):
        end_of(fail)
    monkeypatch.setattr("jax.devices", devices)
    assert end_of(fail) == 2
    assert f"no device for JAX_PLATFORMS=cpu ({str(error) or 'there is none'})" in (
        capsys.readouterr().err
    )
