import dataclasses
import shutil
import sys
from collections.abc import Callable

import pytest
from toys import ToyOptions, ToyTask
from true_files import prepare_all

from experiments.cli.ending import run_command
from experiments.config import Config, OptimOptions, TrainOptions
from experiments.config.models import S5Options
from experiments.data.sources import Files
from experiments.devices.mesh import make_mesh
from experiments.tasks import TASKS
from experiments.training import fit


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Files:
    """A folder with small data sets of the true formats."""
    folder = tmp_path_factory.mktemp("data")
    prepare_all(folder, tmp_path_factory.mktemp("published"))
    return Files(folder)


@pytest.fixture(scope="session", autouse=True)
def toy_task():
    TASKS["toy"] = ToyTask
    yield
    del TASKS["toy"]


@pytest.fixture(scope="session")
def toy() -> Callable[..., Config]:
    """A configuration that takes a second: ``toy(train={"steps": 3}, data={"bad_index": 1})``."""
    config = Config(
        task="toy",
        preset="smoke",
        data=ToyOptions(),
        model=S5Options(n_layers=1, d_model=4, d_state=4, n_blocks=1, dt_min=1e-2),
        optim=OptimOptions(lr=1e-2, ssm_lr=1e-2, warmup_steps=2),
        train=TrainOptions(steps=12, batch_size=8, log_every=1, eval_every=6, checkpoint_every=3),
    )

    def configure(**changes: dict) -> Config:
        sections = {
            name: dataclasses.replace(getattr(config, name), **values)
            for name, values in changes.items()
        }
        return dataclasses.replace(config, **sections)

    return configure


@pytest.fixture(scope="session")
def one_device():
    return make_mesh("data=1", batch_size=8)


@pytest.fixture(scope="session")
def finished(toy, one_device, tmp_path_factory):
    """The folder of a finished run of the toy task; not to be changed."""
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    fit(toy(), workdir, mesh=one_device)
    return workdir


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs a command line in this process: exit code, stdout, stderr."""

    def call(module, *args):
        monkeypatch.setattr(sys, "argv", ["command", *args])
        monkeypatch.setenv("COLUMNS", "160")
        try:
            run_command(module.main)
            code = 0
        except SystemExit as leaving:
            code = leaving.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
