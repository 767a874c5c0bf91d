import dataclasses
import sys
from collections.abc import Callable

import numpy as np
import pytest
from true_files import prepare_all

from experiments.config import Config, OptimOptions, TrainOptions
from experiments.errors import run_command
from experiments.mesh import make_mesh
from experiments.models import S5Options
from experiments.tasks import TASKS, DataOptions, Files, Source, Task
from experiments.tasks._task import measure_classification


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyOptions(DataOptions):
    """Data: noise whose mean has a sign."""

    n_train: int = 64
    n_validation: int = 21
    n_test: int = 13
    bad_index: int = -1
    """The training example that is not finite."""


class ToySource(Source):
    def __init__(self, options: ToyOptions, split: str, seed: int) -> None:
        self.options, self.split, self.seed = options, split, seed

    def __len__(self) -> int:
        return self.options.n_examples(self.split)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        key = (self.seed, ["train", "validation", "test"].index(self.split), index)
        x = np.random.default_rng(key).normal(size=(8, 1)).astype(np.float32)
        label = np.int32(x.sum() > 0)
        if self.split == "train" and index == self.options.bad_index:
            x = x * np.inf
        return {"x": x, "label": label}


class ToyTask(Task):
    options_type = ToyOptions
    d_input = 1
    d_output = 2
    length = 8

    def source(self, split: str, *, seed: int) -> ToySource:
        return ToySource(self.options, split, seed)

    def inputs(self, batch):
        return {"u": batch["x"]}

    def measure(self, outputs, batch):
        return measure_classification(outputs, batch["label"])


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
