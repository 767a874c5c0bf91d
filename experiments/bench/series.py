"""Rows of ``--suite=series``: forecasts by layers in continuous time, a GRU and attention."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx

from experiments.bench.timing import interleaved_medians
from experiments.bench.training import Step
from experiments.devices.mesh import make_mesh
from experiments.recipes import get_recipe
from experiments.training.forecasting import make_advance
from experiments.training.setup import Setup, count_parameters, make_setup

MODELS = ("s5", "s4d", "linoss", "gru", "attention")
ROUNDS = 5


@dataclasses.dataclass(frozen=True)
class SeriesSpeed:
    """Speed of a model that forecasts."""

    model: str
    parameters: int
    samples_per_s: float
    """Windows of context and horizon that training takes per second."""
    row_ms: float
    """Time in which a stream reads a row and forecasts the horizon after it [ms]."""

    def __str__(self) -> str:
        return (
            f"{self.model:<12}{self.parameters:>9,} parameters "
            f"{self.samples_per_s:>9,.0f} windows/s {self.row_ms:>9.3f} ms a row"
        )


def series_speeds(preset: str = "paper") -> Iterator[SeriesSpeed]:
    """Measures models of equal width and depth by their recipes for the task ``forecast``."""
    configs = {name: get_recipe("forecast", name, preset) for name in MODELS}
    batch_size = configs["s5"].train.batch_size
    mesh = make_mesh("data=1", batch_size=batch_size)
    setups = {name: make_setup(config, mesh) for name, config in configs.items()}
    step_s = interleaved_medians({name: Step(s) for name, s in setups.items()}, rounds=ROUNDS)
    row_s = interleaved_medians({name: Stream(s) for name, s in setups.items()}, rounds=ROUNDS)
    for name, setup in setups.items():
        parameters = sum(count_parameters(setup).values())
        yield SeriesSpeed(name, parameters, batch_size / step_s[name], 1e3 * row_s[name])


class Stream:
    """The program of `ForecastStream`; every call reads a row and forecasts those after it."""

    def __init__(self, setup: Setup) -> None:
        task, config = setup.task, setup.config
        model: Any = config.model.build(task, rngs=nnx.Rngs(config.seed))
        model.eval()
        graph, self.parameters = nnx.split(model)
        self.advance, self.state = make_advance(graph), model.init_state((1,))
        self.columns = {"x": np.ones((1, 1 + task.options.horizon, task.d_input), np.float32)}

    def __call__(self) -> None:
        """Reads a row."""
        self.state, outputs = self.advance(self.parameters, self.state, self.columns)
        jax.block_until_ready(outputs)
