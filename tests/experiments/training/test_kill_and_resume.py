"""Runs in processes of their own, which die in all the ways that processes die."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import Command, Rows, flags, wait_for_rows, wait_until

ROOT = Path(__file__).parents[3]
SLOW = pytest.mark.slow
ARGS = ["--task=pathfinder", "--preset=smoke", "--model.n_layers=1", "--seed=3"]


def start_training(workdir, steps):
    args = [*ARGS, f"--train.steps={steps}", f"--workdir={workdir}"]
    return Command(workdir.parent, "train", *args)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder and the outputs of a run that nothing happens to."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    code, out, err = start_training(workdir, 40).end()
    assert code == 0, err
    return workdir, out, err


@pytest.fixture
def start(tmp_path):
    """Starts the same command on a folder of its own."""
    return lambda: start_training(tmp_path / "run", 40)


def finish(start):
    """Lets a run go on to its end."""
    code, _, err = start().end()
    assert code == 0, err


def record(workdir):
    """What must not depend on what happened on the way."""
    results = json.loads((workdir / "results.json").read_text())
    del results["wall_s"], results["samples_per_s"], results["commit"]
    model = {path.name: path.read_bytes() for path in (workdir / "model").iterdir()}
    return (workdir / "metrics.jsonl").read_text(), results, model


def is_torn(workdir):
    """Whether a checkpoint was being written."""
    folders = list((workdir / "checkpoints").glob("[0-9]*"))
    return any(not (folder / "checksums.json").exists() for folder in folders)


def test_smoke_run_says_nothing_on_stderr(undisturbed):
    workdir, out, err = undisturbed
    assert err == ""
    assert out.count("\n") < 25
    assert (workdir / "model").is_dir()


def kill_at_random_moments(workdir, start, n, seed):
    """Every other time just after a row that a checkpoint follows; counts those that tore it."""
    draw, n_torn = random.Random(seed), 0
    for k in range(n):
        rows, wanted = Rows(workdir), draw.randint(1, 9)
        command = start()
        if k % 2:
            dies = wait_until(command, lambda rows=rows: any(s % 5 == 0 for s in rows.read()))
            time.sleep(draw.uniform(0, 0.03))
        else:
            dies = wait_until(command, lambda rows=rows, n=wanted: len(rows.read()) >= n)
        assert dies, command.end()
        command.kill()
        n_torn += is_torn(workdir)
        assert not (workdir / "results.json").exists()
    return n_torn


@SLOW
def test_killed_a_few_times_gives_the_same_numbers(undisturbed, start, tmp_path):
    kill_at_random_moments(tmp_path / "run", start, n=3, seed=0)
    finish(start)
    assert record(tmp_path / "run") == record(undisturbed[0])


@SLOW
def test_killed_twenty_times_gives_the_same_numbers(tmp_path):
    folders = [tmp_path / name / "run" for name in ("killed", "undisturbed")]
    for folder in folders:
        folder.parent.mkdir()
    start, start_undisturbed = (lambda f=folder: start_training(f, 200) for folder in folders)
    n_torn = kill_at_random_moments(folders[0], start, n=20, seed=1)
    finish(start)
    finish(start_undisturbed)
    assert record(folders[0]) == record(folders[1])
    assert n_torn > 0


@SLOW
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_and_its_exit_code(undisturbed, start, tmp_path, number):
    workdir = tmp_path / "run"
    command = start()
    wait_for_rows(command, workdir, 8)
    before = time.monotonic()
    command.send(number)
    code, _, err = command.end()
    assert time.monotonic() - before < 10
    assert code == 128 + number
    assert err.count("\n") == 1
    assert f"--workdir={workdir}" in err
    finish(start)
    assert record(workdir) == record(undisturbed[0])


@SLOW
def test_a_full_disk_ends_the_run_and_costs_nothing(undisturbed, start, tmp_path):
    workdir = tmp_path / "run"
    command = start()
    wait_for_rows(command, workdir, 8)
    resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE, (4_000, 4_000))
    code, _, err = command.end()
    assert code == 1, err
    assert err.count("\n") == 1
    assert "Could not write" in err
    assert "File too large" in err
    finish(start)
    assert record(workdir) == record(undisturbed[0])


@SLOW
def test_a_lost_folder_ends_the_run_and_costs_nothing(undisturbed, start, tmp_path):
    workdir = tmp_path / "run"
    command = start()
    wait_for_rows(command, workdir, 8)
    (workdir / "checkpoints").rename(tmp_path / "away")
    (workdir / "checkpoints").write_text("in the way")
    code, _, err = command.end()
    assert code == 1, err
    assert err.count("\n") == 1
    assert "Could not write the checkpoint of step" in err
    (workdir / "checkpoints").unlink()
    (tmp_path / "away").rename(workdir / "checkpoints")
    finish(start)
    assert record(workdir) == record(undisturbed[0])


@SLOW
def test_evaluate_reproduces_a_run(undisturbed, tmp_path):
    """As a user starts it, with nothing imported beforehand."""
    workdir, _, _ = undisturbed
    command = [sys.executable, "-m", "experiments.evaluate", f"--workdir={workdir}"]
    environment = os.environ | {"XLA_FLAGS": flags()}
    found = subprocess.run(
        [*command, f"--json={tmp_path / 'again.json'}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "These are the figures in results.json." in found.stdout
    again = json.loads((tmp_path / "again.json").read_text())
    assert again == json.loads((workdir / "results.json").read_text())
