"""What a hurried user does: each ends in a result, or in one sentence and an exit code."""

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import os
import pathlib
import shutil
import signal
import sys
import threading
import time
import types

import jax
import numpy as np
import pytest
from processes import CONTEXT

from experiments import data, display, evaluate, files, generate, ledger, loop, predict, train
from experiments.bench import __main__ as bench
from experiments.config import read_config
from experiments.errors import InterruptedRun, RunError, UsageError, nearest, run_command
from experiments.evaluate import evaluate_run
from experiments.files import check_output, holding, replacing, user_path
from experiments.interrupts import Interrupts
from experiments.loop import fit
from experiments.process import keep_compiled, report_unless_late
from experiments.recipes import __main__ as recipes
from experiments.recipes import get_recipe
from experiments.results import read_results, write_json
from experiments.tasks import Files


@pytest.fixture(scope="module")
def finished(toy, one_device, tmp_path_factory):
    """The folder of a finished run; not to be changed."""
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    fit(toy(), workdir, mesh=one_device)
    return workdir


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(finished, tmp_path / "run")


# Paths


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


@pytest.mark.parametrize(
    ("module", "args"),
    [
        (train, ["--task=pathfinder", "--preset=smoke", "--workdir="]),
        (train, ["--task=pathfinder", "--preset=smoke", "--data-dir="]),
        (evaluate, ["--workdir="]),
        (evaluate, ["--workdir=x", "--json="]),
        (predict, ["--workdir=x", "--data.file="]),
        (predict, ["--workdir=x", "--data.file=y.npz", "--out="]),
        (generate, ["--workdir=", "--prompt=a"]),
        (data, ["sample", "--task=pathfinder", "--out="]),
        (data, ["prepare", "--task=smnist", "--source="]),
        (ledger, ["--folder="]),
        (ledger, ["--write="]),
        (bench, ["--json="]),
    ],
)
def test_an_empty_path_is_refused(command, module, args):
    code, _, err = command(module, *args)
    assert code == 2
    assert "must not be empty" in " ".join(err.replace("│", " ").split())


def test_a_run_needs_a_folder(toy, one_device, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "prepare", pytest.fail)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        fit(toy(), tmp_path / "file", mesh=one_device)
    with pytest.raises(OSError, match="Not a directory"):
        fit(toy(), tmp_path / "file" / "run", mesh=one_device)


def test_python_takes_texts_for_paths(copy, monkeypatch, toy, one_device):
    monkeypatch.chdir(copy.parent)
    assert fit(toy(), "run/", mesh=one_device) == read_results(copy)
    assert evaluate_run("run")["test"].keys() == {"loss", "accuracy"}
    with pytest.raises(UsageError, match="predicts no tokens"):
        generate.generate("run", ["a"], generate.Sampling())


def test_a_moved_run_goes_on(copy, toy, one_device, tmp_path):
    (copy / "results.json").unlink()
    moved = copy.rename(tmp_path / "Läufe mit Leerzeichen")
    (tmp_path / "link").symlink_to(moved)
    assert fit(toy(), tmp_path / "link", mesh=one_device)["steps"] == 12
    assert read_results(moved)["steps"] == 12


def test_outputs_are_checked_before_the_work(command, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    for module, name in ((evaluate, "evaluate_run"), (predict, "predict"), (data, "sample")):
        monkeypatch.setattr(module, name, lambda *args, **options: pytest.fail("has begun"))
    commands = {
        "--json": (evaluate, ["--workdir=x"], ""),
        "--out": (predict, ["--workdir=x", "--data.file=y.npz"], "x.csv"),
    }
    for option, (module, args, name) in commands.items():
        code, _, err = command(module, *args, f"{option}={tmp_path / 'file' / (name or 'x')}")
        assert code == 2
        assert "cannot be written" in err
    for module, args in ((evaluate, ["--workdir=x", "--json"]), (data, ["sample", "--out"])):
        task = ["--task=pathfinder"] if module is data else []
        code, _, err = command(module, *args, str(tmp_path), *task)
        assert code == 2
        assert "must name a file" in err


def test_outputs_go_into_a_folder_that_is_made(copy, command, tmp_path):
    out = tmp_path / "new" / "folder" / "figures.json"
    assert command(evaluate, f"--workdir={copy}", f"--json={out}", "--mesh=data=1")[0] == 0
    assert json.loads(out.read_text())["test"]["accuracy"] >= 0
    out = tmp_path / "other" / "sample"
    code, text, _ = command(data, "sample", "--task=pathfinder", "--n=2", f"--out={out}")
    assert code == 0
    assert "sample.npz" in text
    assert np.load(tmp_path / "other" / "sample.npz")["images"].shape == (2, 32, 32)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError), replacing(path) as file:
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


# Two runs in one folder


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
    with holding(folder):
        pipe.send("held")
        time.sleep(60)


def test_a_killed_run_leaves_no_lock(tmp_path):
    pipe, other = CONTEXT.Pipe()
    process = CONTEXT.Process(target=hold_and_wait, args=(tmp_path / "run", other))
    process.start()
    assert pipe.recv() == "held"
    with pytest.raises(UsageError, match=f"process {process.pid} on"), holding(tmp_path / "run"):
        pass
    process.kill()
    process.join()
    with holding(tmp_path / "run"):
        pass
    assert list((tmp_path / "run").iterdir()) == []


def test_a_lock_that_was_removed_in_between_does_not_count(tmp_path, monkeypatch):
    flock, opened = files.fcntl.flock, []

    def removed(file, how):
        flock(file, how)
        if not opened:
            (tmp_path / files.LOCK).unlink()
        opened.append(file)

    monkeypatch.setattr(files.fcntl, "flock", removed)
    with holding(tmp_path), pytest.raises(UsageError), holding(tmp_path):
        pass
    assert len(opened) == 2


@pytest.mark.parametrize("has_locks", [False, None])
def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys, has_locks):
    def flock(file, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    if has_locks is None:
        monkeypatch.setattr(files, "fcntl", None)
    else:
        monkeypatch.setattr(files.fcntl, "flock", flock)
    with holding(tmp_path / "run"):
        pass
    assert ("No locks" in capsys.readouterr().out) == (has_locks is False)


def test_of_many_processes_all_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "is_main", lambda: False)
    monkeypatch.setattr(files, "from_main", lambda value: True)
    with pytest.raises(UsageError, match="Another run"), holding(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()


# Streams


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
        (ledger, []),
        (train, ["--help"]),
        (train, ["--task=pathx", "--help"]),
        (train, ["--task=pathx", "--print-config"]),
        (predict, ["--help"]),
        (data, []),
    ],
)
def test_a_reader_that_has_gone_ends_a_command_quietly(module, args, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["command", *args])
    monkeypatch.chdir(pathlib.Path(__file__).parents[2])
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
        with pytest.raises(InterruptedRun) as error:
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

    with pytest.raises(AssertionError):
        end_of(fail)
    monkeypatch.setattr("jax.devices", devices)
    assert end_of(fail) == 2
    assert f"no device for JAX_PLATFORMS=cpu ({str(error) or 'there is none'})" in (
        capsys.readouterr().err
    )


# Signals


def test_closing_the_terminal_ends_a_run_with_a_checkpoint(toy, one_device, tmp_path, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    advance = loop.Display.advance

    def hang_up(shown):
        for _ in range(2):  # terminal and shell
            os.kill(os.getpid(), signal.SIGHUP)
        advance(shown)

    monkeypatch.setattr(loop.Display, "advance", hang_up)
    try:
        with pytest.raises(InterruptedRun) as error:
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
            assert interrupts.heed() is None
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


# Options


def test_names_are_near_in_any_case():
    assert nearest("PathX", ["pathx", "digits"]) == " Did you mean 'pathx'?"
    assert nearest("S5", ["s4", "s5", "lru"]) == " Did you mean 's5'?"
    assert nearest("pathx ", ["pathx"]) == " Did you mean 'pathx'?"
    with pytest.raises(UsageError, match="Unknown preset None"):
        get_recipe("pathx", "s5", None)


@pytest.mark.parametrize(
    ("module", "args", "words"),
    [
        (train, ["--taks=pathx"], ["'--taks'", "Did you mean '--task'?"]),
        (train, ["task=pathx"], ["'task'", "Did you mean '--task'?"]),
        (train, ["pathx"], ["'pathx'", "--task"]),
        (train, ["--task=pathx", "--optim.lr=inf"], ["`lr`", "below 2**31", "inf"]),
        (train, ["--task=pathx", "--train.steps=3000000000"], ["`steps`", "below 2**31"]),
        (recipes, ["--task=pathz"], ["Did you mean 'pathx'?"]),
        (recipes, ["--model=S5"], ["Did you mean 's5'?"]),
        (data, ["sampl"], ["Did you mean 'sample'?"]),
    ],
)
def test_a_slip_is_named(command, module, args, words):
    code, _, err = command(module, *args)
    assert code == 2
    assert all(word in " ".join(err.replace("│", " ").split()) for word in words)


def test_options_of_numpy_and_paths_become_python_s(toy, one_device, tmp_path):
    config = dataclasses.replace(
        toy(train={"steps": np.int64(6)}, optim={"lr": np.float32(0.5), "ssm_lr": 1}),
        seed=np.int32(1),
    )
    fit(config, tmp_path / "run", mesh=one_device)
    read = read_config(tmp_path / "run")
    assert (read.seed, read.train.steps, read.optim.lr, read.optim.ssm_lr) == (1, 6, 0.5, 1.0)
    recipe = get_recipe("arrays", "s5", "smoke")
    named = dataclasses.replace(recipe.data, file=pathlib.Path("my data") / "x.npz")
    checked = dataclasses.replace(recipe, data=named).checked()
    assert checked.data.file == os.path.abspath(os.path.join("my data", "x.npz"))


def test_a_rate_beyond_the_sequence_is_refused(copy):
    with pytest.raises(UsageError, match="`dt` is 100000000000000000000"):
        evaluate_run(copy, dt=10**20)


def test_options_of_another_type_are_refused(toy, one_device, tmp_path):
    with pytest.raises(UsageError, match=r"`train\.steps` must be int; got 12\.0"):
        fit(toy(train={"steps": 12.0}), tmp_path / "run", mesh=one_device)
    with pytest.raises(ValueError, match="`steps` must be a number; got '12'"):
        toy(train={"steps": "12"})
    assert not (tmp_path / "run").exists()


# Folders and caches


@pytest.mark.parametrize("has_home", [True, False])
def test_a_cache_that_cannot_be_written_is_said_once(monkeypatch, tmp_path, capsys, has_home):
    before = jax.config.values["jax_compilation_cache_dir"]
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    try:
        jax.config.update("jax_compilation_cache_dir", "file" if has_home else None)
        if not has_home:
            monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
            monkeypatch.setattr(os.path, "expanduser", lambda path: path)
        keep_compiled()
        assert jax.config.values["jax_compilation_cache_dir"] == ""
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    err = capsys.readouterr().err
    assert f"nothing can be written to {'file' if has_home else '~/.cache/s5jax'}" in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_in_place_of_the_checkpoints_is_found_first(copy, toy, one_device, monkeypatch):
    (copy / "results.json").unlink()
    shutil.rmtree(copy / "checkpoints")
    (copy / "checkpoints").touch()
    monkeypatch.setattr(loop._Run, "train", pytest.fail)
    with pytest.raises(RunError, match="Could not open the checkpoints"):
        fit(toy(), copy, mesh=one_device)


@pytest.mark.parametrize("text", ["", "{}", '{"task": "to'])
def test_a_damaged_record_says_how_to_go_on(copy, toy, one_device, text):
    (copy / "results.json").write_text(text)
    with pytest.raises(UsageError, match=r"results\.json is .* Delete it"):
        fit(toy(), copy, mesh=one_device)
    (copy / "results.json").unlink()
    assert fit(toy(), copy, mesh=one_device)["steps"] == 12


def test_the_ledger_writes_into_text_only(command, tmp_path):
    path = tmp_path / "latin.md"
    path.write_bytes(b"caf\xe9")
    folder = pathlib.Path(__file__).parents[2] / "results"
    code, _, err = command(ledger, f"--folder={folder}", f"--write={path}")
    assert code == 2
    assert "no text in UTF-8" in err
    assert path.read_bytes() == b"caf\xe9"


def test_late_ends_of_writes_are_not_printed(monkeypatch):
    printed = []
    monkeypatch.setattr(sys, "__unraisablehook__", lambda event: printed.append(event))

    def event(text, origin):
        return types.SimpleNamespace(
            exc_type=RuntimeError, exc_value=RuntimeError(text), object=origin
        )

    late = event("Event loop is closed", None)
    others = [event("something else", None), event("Event loop is closed", len)]
    for each in (late, *others):
        report_unless_late(each)
    assert printed == others
