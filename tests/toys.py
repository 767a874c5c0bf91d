"""A task that takes a second, and the folder of a run that was not trained."""

import dataclasses
import json
from pathlib import Path

import numpy as np
from flax import nnx

import s5jax
from experiments.config import Config
from experiments.data.sources import DEFAULT_PATHS, DataOptions, Files, Source
from experiments.tasks import Task, get_task
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


def finish(config: Config, folder: Path, files: Files = DEFAULT_PATHS) -> Path:
    """A folder as a finished run leaves it, with a model that was not trained."""
    task = get_task(config.task)(config.data, files)
    model = s5jax.Pipeline(config.model.build(task, rngs=nnx.Rngs(0)), task.preprocessing)
    record = {**config.to_dict(), "fingerprint": task.fingerprint(seed=config.seed)}
    record["resolved_data"] = dataclasses.asdict(task.options)
    (folder / "config.json").write_text(json.dumps(record))
    results = {"task": config.task, "model": config.model.name, "preset": "smoke", "seed": 0}
    results |= {"validation": {}, "test": {}, "wall_s": 0.0, "device": "1 x cpu", "commit": None}
    (folder / "results.json").write_text(json.dumps(results))
    s5jax.save(model, folder / "model")
    return folder
