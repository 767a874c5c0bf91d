"""Two real processes that train together, over the loopback interface."""

import json
import random
import re
import signal
import time

import jax
import numpy as np
import pytest
from processes import Command, free_port, wait_for_rows

from experiments import train
from experiments.config.models import MODELS
from experiments.devices import distributed
from experiments.devices.distributed import check_processes, connect, noticing_lost_processes
from experiments.devices.mesh import make_mesh, own_rows
from experiments.errors import RunError, UsageError
from experiments.tasks import get_task
from experiments.training.lock import lock_folder
from experiments.training.metrics import read_rows
from experiments.training.pipeline import make_batches

SLOW = pytest.mark.slow


def smoke(model):
    n = 2 if model == "hybrid" else 1
    return ["--task=pathfinder", "--preset=smoke", f"--model={model}", f"--model.n_layers={n}"]


@pytest.fixture
def start_pair(tmp_path):
    """Starts two processes that train together, by hand or with other options for the second."""

    def start(*args, devices=1, second=()):
        joined = ["--distributed", f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"]
        both = [*args, *joined, f"--workdir={tmp_path / 'run'}"]
        return [
            Command(tmp_path, "train", *both, f"--process={i}", *extra, devices=devices)
            for i, extra in enumerate(((), second))
        ]

    return start


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of the same run in one process on one device."""
    folders = {}

    def run(*args):
        if args not in folders:
            folders[args] = tmp_path_factory.mktemp("alone")
            command = Command(folders[args], "train", *args, f"--workdir={folders[args]}")
            assert command.end()[0] == 0
        return folders[args]

    return run


def without_gloo(out):
    """Without what the library for collectives on CPUs prints, of which threads mix the pieces."""
    pieces = [
        r"\[Gloo\] Rank",
        r"Expected number of connected peer ranks is :",
        r"is connected to",
        r"peer ranks\.",
        r"\d+",
    ]
    return re.sub("|".join(pieces), "", out).strip()


def assert_same_curve(workdir, expected):
    """Losses to 1e-5, and figures by which the run is judged."""
    rows, wanted = read_rows(workdir), read_rows(expected)
    assert [row["step"] for row in rows] == [row["step"] for row in wanted]
    for name in ("loss", "validation_loss"):
        a, b = ([row[name] for row in x if name in row] for x in (rows, wanted))
        np.testing.assert_allclose(a, b, rtol=1e-5)
    found, known = (json.loads((x / "results.json").read_text()) for x in (workdir, expected))
    assert found["test"]["accuracy"] == known["test"]["accuracy"]
    assert found["steps"] == 20


@SLOW
@pytest.mark.parametrize(
    ("model", "devices", "mesh"),
    [(model, 1, None) for model in MODELS]
    + [("s5", 4, None), ("s4d", 4, "data=2,seq=4"), ("s5", 1, "seq=2"), ("hope", 1, "seq=2")],
)
def test_two_processes_learn_what_one_does(start_pair, alone, tmp_path, model, devices, mesh):
    """Also with sequences split within each process, and over both."""
    args = [*smoke(model), *([] if mesh is None else [f"--mesh={mesh}"])]
    pair = start_pair(*args, devices=devices)
    (code, out, err), (other_code, other_out, other_err) = (command.end() for command in pair)
    assert (code, other_code) == (0, 0), err + other_err
    assert (err, without_gloo(other_out), other_err) == ("", "", "")
    assert f"{2 * devices} x cpu" in out
    assert_same_curve(tmp_path / "run", alone(*smoke(model)))
    again = [command.end() for command in start_pair(*args, devices=devices)]
    assert [code for code, *_ in again] == [0, 0]
    assert "finished" in again[0][1]


@SLOW
def test_two_processes_that_are_killed_go_on_on_any_devices(start_pair, alone, tmp_path):
    """Killed twice, then finished by one process with its one device."""
    workdir = tmp_path / "run"
    for rows, devices in ((8, 4), (14, 1)):
        pair = start_pair(*smoke("s5"), devices=devices)
        wait_for_rows(pair[0], workdir, rows)
        for command in pair:
            command.kill()
    code, out, err = Command(tmp_path, "train", *smoke("s5"), f"--workdir={workdir}").end()
    assert code == 0, err
    assert "resuming at step" in out
    assert_same_curve(workdir, alone(*smoke("s5")))


@SLOW
@pytest.mark.parametrize(("number", "who"), [(signal.SIGTERM, 1), (signal.SIGINT, 0)])
def test_a_signal_to_one_process_stops_both_at_one_step(start_pair, tmp_path, number, who):
    pair = start_pair(*smoke("s5"), "--train.steps=2000")
    wait_for_rows(pair[0], tmp_path / "run", 8)
    before = time.monotonic()
    pair[who].send(number)
    ends = [command.end() for command in pair]
    assert time.monotonic() - before < 20
    assert [code for code, *_ in ends] == [
        128 + (number if i == who else signal.SIGTERM) for i in (0, 1)
    ]
    assert all("resumes from here" in err for *_, err in ends)
    stopped = read_rows(tmp_path / "run")[-1]["step"]
    assert 8 <= stopped < 2000
    assert (tmp_path / "run" / "checkpoints" / str(stopped) / "checksums.json").exists()


@SLOW
@pytest.mark.parametrize("who", [0, 1])
def test_a_killed_process_ends_the_other(start_pair, tmp_path, who):
    pair = start_pair(*smoke("s5"), "--train.steps=2000")
    wait_for_rows(pair[0], tmp_path / "run", 8)
    pair[who].kill()
    killed = time.monotonic()
    code, _, err = pair[1 - who].end()
    assert time.monotonic() - killed < 60
    if who == 0 and code == -signal.SIGABRT:  # its service is gone, which JAX may notice first
        assert "JAX distributed service detected fatal errors" in err
    else:
        assert code == 1
        *before, last = err.splitlines()
        assert f"Process {1 - who} failed in a collective operation" in last
        assert not before or who == 0  # JAX may log that its service is gone


@SLOW
def test_other_options_in_one_process_are_refused_by_both(start_pair, tmp_path):
    pair = start_pair(*smoke("s5"), second=["--optim.lr=1e-4"])
    for code, _, err in (command.end() for command in pair):
        assert code == 2
        assert "different options" in err
    assert not (tmp_path / "run").exists()


JOBS = {
    "slurm": lambda i, job: {
        "SLURM_JOB_ID": str(job),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(i),
        "SLURM_LOCALID": str(i),
    },
    "open_mpi": lambda i, job: {
        "OMPI_MCA_orte_hnp_uri": f"{job * 2**12}.0;tcp://127.0.0.1:9",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": str(i),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(i),
    },
}
"""The variables of two processes on one host, as the launchers set them."""


@SLOW
@pytest.mark.parametrize("launcher", JOBS)
def test_the_processes_of_a_job_find_each_other(alone, tmp_path, launcher):
    job = random.Random(launcher).randrange(4096)
    args = [*smoke("s5"), "--distributed", f"--workdir={tmp_path / 'run'}"]
    pair = [Command(tmp_path, "train", *args, **JOBS[launcher](i, job)) for i in (0, 1)]
    for command in pair:
        code, _, err = command.end()
        assert code == 0, err
    assert_same_curve(tmp_path / "run", alone(*smoke("s5")))


def test_a_coordinator_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(distributed, "CONNECT_S", 0.1)
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(RunError, match=f"Nothing listened at {address} for 0.1 s"):
        connect(address, 2, 1)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--coordinator=a:1"], "need --distributed"),
        (["--distributed", "--coordinator=a:1", "--processes=2"], "--process is missing"),
        (["--distributed", "--processes=2", "--process=0"], "--coordinator is missing"),
        (["--distributed", "--coordinator=a", "--processes=2", "--process=0"], "HOST:PORT"),
    ],
)
def test_incomplete_flags_are_refused(command, flags, text):
    code, _, err = command(train, *smoke("s5"), *flags)
    assert code == 2
    assert text in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "error", "kind", "text"),
    [
        ((None, None, None), ValueError("x should be defined."), UsageError, "SLURM"),
        (("a:1", 2, 2), ValueError("bad"), UsageError, "between 0 and"),
        (("a:1", 2, 0), RuntimeError("Address in use.\nmore"), RunError, "Address in use.$"),
    ],
)
def test_what_keeps_processes_apart_is_one_sentence(monkeypatch, args, error, kind, text):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    monkeypatch.setattr(distributed, "_wait_for", lambda coordinator: None)
    with pytest.raises(kind, match=text) as raised:
        connect(*args)
    assert "\n" not in str(raised.value)


def test_help_does_not_look_for_other_processes(command, monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", None)
    code, out, _ = command(train, *smoke("s5"), "--distributed", "--help")
    assert code == 0
    assert "--coordinator" in out


def test_every_process_and_device_must_take_part(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UsageError, match="4 of the 8 devices that 2 processes have"):
        check_processes(make_mesh("data=4", batch_size=8), "")


def test_a_lost_process_is_one_sentence(monkeypatch):
    failure = jax.errors.JaxRuntimeError("Connection reset by peer.\nmore")
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"^Connection reset by peer\.\nmore$"):
        with noticing_lost_processes():
            raise failure
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(RunError, match=r"\(Connection reset by peer\).*intact"):
        with noticing_lost_processes():
            raise failure


def test_other_processes_print_nothing(monkeypatch, capsys):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    distributed.log_primary("hello")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("split", ["train", "validation"])
def test_processes_read_their_rows_of_one_batch(toy, split):
    task = get_task("toy")(toy().data)

    def read(k, rows=None):
        return make_batches(task, split, seed=1, batch_size=8, rows=rows)[k]

    for k in range(3):  # the last one of validation has five examples
        parts = [read(k, np.arange(i, i + 2)) for i in range(0, 8, 2)]
        for name, column in read(k).items():
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), column)


def test_a_single_process_owns_all_rows():
    assert own_rows(make_mesh("data=4", batch_size=8), 8).tolist() == list(range(8))


@SLOW
def test_both_processes_are_kept_out_of_a_folder_in_use(start_pair, tmp_path):
    with lock_folder(tmp_path / "run"):
        ends = [process.end() for process in start_pair(*smoke("s5"))]
    assert [code for code, _, _ in ends] == [2, 2]
    assert "in use by the run of process" in ends[0][2]
    assert "Another run is using" in ends[1][2]
    assert all(err.count("\n") == 1 for _, _, err in ends)
