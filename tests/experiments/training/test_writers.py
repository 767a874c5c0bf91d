"""Writers of metrics that a user chooses: their calls, and what happens when they fail."""

import csv
import json
import re
import sys
import types
from pathlib import Path

import offline_wandb
import pytest

from experiments.errors import RunError, UsageError
from experiments.records import read_results
from experiments.training import loop
from experiments.training.loop import fit
from experiments.training.metrics import MetricsLog, read_rows
from experiments.training.writers import MetricWriter, TensorBoard, find_writer

CALLS = []
"""Calls of the writers below, in their order."""


class Recorder:
    def __init__(self, folder, config, step):
        CALLS.append(("open", folder, config, step))

    def write(self, step, metrics):
        CALLS.append(("write", step, metrics))

    def close(self):
        CALLS.append(("close",))


class Fragile(Recorder):
    def write(self, step, metrics):
        super().write(step, metrics)
        raise ConnectionError("no route to host.")

    def close(self):
        super().close()
        raise OSError


def not_made(folder, config, step):
    raise PermissionError("no key: log in first")


def made_of_nothing(folder, config, step):
    return None


@pytest.fixture(autouse=True)
def module(monkeypatch):
    """This file as a module of the user's, and no calls."""
    CALLS.clear()
    mine = types.ModuleType("mine")
    vars(mine).update(globals())
    monkeypatch.setitem(sys.modules, "mine", mine)


def open_log(config, folder, *, step=0):
    said = []
    return MetricsLog(config, folder, step=step, report=said.append), said


def test_a_writer_gets_every_number_and_its_failures_end_nothing(toy, one_device, tmp_path, capsys):
    config = toy(train={"logger": "mine:Fragile"})
    fit(config, tmp_path / "run", mesh=one_device)
    assert CALLS[0] == ("open", tmp_path / "run", config.to_dict(), 0)
    assert CALLS[-1] == ("close",)
    written = [(step, metrics) for _, step, metrics in CALLS[1:-1]]
    assert all(metrics.pop("samples_per_s") > 0 for _, metrics in written if "loss" in metrics)
    assert written == [(row.pop("step"), row) for row in read_rows(tmp_path / "run")]
    assert read_results(tmp_path / "run")["steps"] == 12
    assert not (tmp_path / "run" / "tensorboard").exists()
    (line,) = (x for x in capsys.readouterr().out.splitlines() if "logger" in x and "failed" in x)
    assert line == (
        "--train.logger=mine:Fragile failed: ConnectionError: no route to host. The run continues, "
        "and metrics.jsonl has every row; further failures are not reported."
    )


def test_a_resumed_run_goes_on_writing_with_another_writer(toy, tmp_path):
    log, _ = open_log(toy(), tmp_path)
    with log:
        for step in range(1, 6):
            log.write({"step": step, "loss": 1.0})
    log, _ = open_log(toy(train={"logger": "mine:Recorder"}), tmp_path, step=3)
    with log:
        log.write({"step": 4, "loss": 2.0, "accuracy": None}, samples_per_s=9.0)
        log.go_back(2)
        log.write({"step": 3, "loss": 3.0})
    assert [row["loss"] for row in read_rows(tmp_path)] == [1.0, 1.0, 3.0]
    assert [call[-1] for call in CALLS if call[0] == "open"] == [3, 2]
    assert [call[0] for call in CALLS] == ["open", "write", "close", "open", "write", "close"]
    assert CALLS[1] == ("write", 4, {"loss": 2.0, "samples_per_s": 9.0})


def test_the_folder_of_a_run_accepts_another_writer(finished, toy):
    loop.refuse_another_run(finished, toy(train={"logger": "mine:Recorder"}))


def test_a_writer_that_cannot_be_made_again_ends_nothing(toy, tmp_path, monkeypatch):
    log, said = open_log(toy(train={"logger": "mine:Recorder"}), tmp_path)
    with log:
        log.write({"step": 1, "loss": 1.0})
        monkeypatch.setattr(log._writer, "_make", not_made)
        log.go_back(0)
        log.write({"step": 1, "loss": 2.0})
    assert [row["loss"] for row in read_rows(tmp_path)] == [2.0]
    assert len(said) == 1
    assert "PermissionError: no key: log in first." in said[0]


def test_a_row_that_is_lost_does_end_the_run(toy, tmp_path):
    log, _ = open_log(toy(train={"logger": "mine:Recorder"}), tmp_path)
    log._close()
    log._file = types.SimpleNamespace(name="metrics.jsonl", write=_full, close=lambda: None)
    with log, pytest.raises(RunError, match=r"Could not write to metrics\.jsonl: .*No space left"):
        log.write({"step": 1, "loss": 1.0})
    assert [call[0] for call in CALLS] == ["open", "close"]


def _full(text):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.at_all:Writer", r"cannot be imported \(ModuleNotFoundError: No module named"),
        ("broken:Writer", r"cannot be imported \(SyntaxError: .*\)\. It must be installed, or"),
        ("mine:Recoder", r"mine has no 'Recoder'; .* Did you mean 'Recorder'\?"),
        ("mine:CALLS", r"must be a class or function that makes a writer; got \[\]"),
        ("mine:not_made", "failed to start: PermissionError: no key: log in first"),
        ("mine:Recorder.write", r"mine has no 'Recorder\.write'"),
        (
            "mine:made_of_nothing",
            r"with the methods write\(step, metrics\) and close\(\); got None",
        ),
        ("builtins:dict", "failed to start: TypeError"),
    ],
)
def test_a_wrong_name_is_refused_before_training(toy, tmp_path, monkeypatch, name, words):
    (tmp_path / "broken.py").write_text("import = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=f"^--train.logger={name}.*{words}") as error:
        open_log(toy(train={"logger": name}), tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["wandb", "wandb:", ":Writer", ""])
def test_a_name_of_another_form_is_refused(toy, name):
    with pytest.raises(ValueError, match=r"`logger` must be module:name, .* got '"):
        toy(train={"logger": name})


def test_only_process_0_writes(toy, tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.training.metrics.is_main", lambda: False)
    log, _ = open_log(toy(train={"logger": "mine:Recorder"}), tmp_path)
    with log:
        log.write({"step": 1, "loss": 1.0})
        log.go_back(0)
    assert CALLS == []
    assert list(tmp_path.iterdir()) == []


def test_the_default_is_tensorboard(toy, tmp_path):
    assert find_writer(toy().train.logger) is TensorBoard
    writer = TensorBoard(tmp_path, {}, 0)
    assert isinstance(writer, MetricWriter)
    writer.close()


@pytest.fixture
def page(monkeypatch, module):
    """The writers of the page on watching, in the module ``mine``."""
    monkeypatch.setitem(sys.modules, "wandb", offline_wandb)
    text = (Path(__file__).parents[3] / "docs" / "watching.md").read_text()
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(code, vars(sys.modules["mine"]))


def test_wandb_gets_the_rows_of_a_resumed_run(toy, tmp_path, page):
    config = toy(train={"logger": "mine:Wandb"})
    for start in (0, 2):
        log, said = open_log(config, tmp_path, step=start)
        with log:
            log.write({"step": start + 1, "loss": 0.5})
        assert said == []
    rows = [json.loads(line) for line in (tmp_path / "wandb.jsonl").read_text().splitlines()]
    assert rows == [{"step": 1, "loss": 0.5}, {"step": 3, "loss": 0.5}]
    made = json.loads((tmp_path / "wandb.json").read_text())
    assert made["id"] == made["name"] == tmp_path.name
    assert made["config"] == json.loads(config.to_json())


def test_the_table_of_the_page_is_cut_back(toy, tmp_path, page):
    config = toy(train={"logger": "mine:Table"})
    for start, loss in ((0, 0.5), (1, 0.25)):
        log, said = open_log(config, tmp_path, step=start)
        with log:
            log.write({"step": start + 1, "loss": loss})
            log.write({"step": start + 2, "loss": loss, "validation_loss": 1.0})
        assert said == []
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["1", "loss", "0.5"],
        ["2", "loss", "0.25"],
        ["3", "loss", "0.25"],
        ["3", "validation_loss", "1.0"],
    ]
