"""A task that takes a second."""

import dataclasses

import numpy as np

from experiments.data.sources import DataOptions, Source
from experiments.tasks import Task
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
