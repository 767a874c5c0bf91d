"""Runs in processes of their own, which die in all the ways that processes die."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ARGS = ["--task=pathx", "--preset=smoke", "--model.n_layers=1", "--train.steps=40", "--seed=3"]


@pytest.fixture(scope="module")
def environment():
    return {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}


@pytest.fixture(scope="module")
def start(environment):
    """Starts a command of this project."""

    def start_command(module, *args):
        command = [sys.executable, "-m", f"experiments.{module}", *args]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)

    return start_command


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "undisturbed"
    process = start("train", *ARGS, f"--workdir={workdir}")
    out, err = process.communicate()
    assert process.returncode == 0, err
    return workdir, out, err


def record(workdir):
    results = json.loads((workdir / "results.json").read_text())
    del results["wall_s"], results["commit"]
    return (workdir / "metrics.jsonl").read_text(), results


def wait_for_rows(process, workdir, n):
    path = workdir / "metrics.jsonl"
    while process.poll() is None:
        if path.exists() and len(path.read_text().splitlines()) >= n:
            return
        time.sleep(0.002)
    pytest.fail(f"The run ended before row {n}: {process.communicate()}")


def test_smoke_run_says_nothing_on_stderr(undisturbed):
    workdir, out, err = undisturbed
    assert err == ""
    assert out.count("\n") < 25
    assert (workdir / "model").is_dir()


@pytest.mark.slow
def test_killed_and_started_again_gives_the_same_numbers(undisturbed, start, tmp_path):
    workdir = tmp_path / "run"
    process = start("train", *ARGS, f"--workdir={workdir}")
    wait_for_rows(process, workdir, 13)
    process.kill()
    process.communicate()
    assert not (workdir / "results.json").exists()
    process = start("train", *ARGS, f"--workdir={workdir}")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "going on from step" in out
    assert record(workdir) == record(undisturbed[0])


@pytest.mark.slow
def test_killed_many_times_gives_the_same_numbers(undisturbed, start, tmp_path):
    workdir = tmp_path / "run"
    for n in (1, 6, 10, 11, 12, 22, 27, 33, 43):
        process = start("train", *ARGS, f"--workdir={workdir}")
        wait_for_rows(process, workdir, n)
        time.sleep(0.01 * (n % 4))
        process.kill()
        process.communicate()
    process = start("train", *ARGS, f"--workdir={workdir}")
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert record(workdir) == record(undisturbed[0])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_and_its_exit_code(undisturbed, start, tmp_path, number):
    workdir = tmp_path / "run"
    process = start("train", *ARGS, f"--workdir={workdir}")
    wait_for_rows(process, workdir, 8)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == 128 + number
    assert err.count("\n") == 1
    assert f"--workdir={workdir}" in err
    process = start("train", *ARGS, f"--workdir={workdir}")
    process.communicate()
    assert record(workdir) == record(undisturbed[0])


@pytest.mark.slow
def test_evaluate_reproduces_a_run(undisturbed, start, tmp_path):
    workdir, _, _ = undisturbed
    process = start("evaluate", f"--workdir={workdir}", f"--json={tmp_path / 'again.json'}")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "These are the figures in results.json." in out
    again = json.loads((tmp_path / "again.json").read_text())
    assert again == json.loads((workdir / "results.json").read_text())
