"""Rows of ``--suite=gpu``: targets for a large GPU."""

import dataclasses
from collections.abc import Iterator

from experiments.bench.contestants import CONTESTANTS, Size
from experiments.bench.layers import compile_layer, floor
from experiments.bench.roofline import Roofline
from experiments.bench.row import Row
from experiments.bench.timing import interleaved_medians
from experiments.bench.training import Step
from experiments.config import Config
from experiments.devices.mesh import make_mesh
from experiments.training.setup import make_setup

PUBLISHED_TARGET = 5
FLOOR_LIMIT = 4
CHUNKED_TARGET = 3
TOKENS_PER_S = 8e6
ROUNDS = 5


def gpu_rows(config: Config, size: Size, roofline: Roofline) -> Iterator[Row]:
    """Measures S5 and S4D, forward and backward, by every algorithm, and a recipe's train step.

    The layers have the batch size of the recipe.
    """
    batch, mode = config.train.batch_size, "forward+backward"
    seconds = interleaved_medians(compile_layer(mode, "S5", size, batch=batch), rounds=ROUNDS)
    layer, work = CONTESTANTS["S5"].make(size), CONTESTANTS["S5"].work(size)
    least_s = floor(mode, layer, size, work, roofline, batch=batch)
    ms = {"ms": {name: 1e3 * value for name, value in {**seconds, "floor": least_s}.items()}}
    yield Row("s5_layer", seconds["published"] / seconds["ours"], PUBLISHED_TARGET, ms)
    yield Row("s5_floor", FLOOR_LIMIT * least_s / seconds["ours"], 1, ms)

    programs = compile_layer(mode, "S4D", size, batch=batch, baseline=False)
    seconds = interleaved_medians(programs, rounds=ROUNDS)
    ms = {"ms": {name: 1e3 * value for name, value in seconds.items()}}
    ratio = seconds["algorithm=fft"] / seconds["algorithm=chunked"]
    yield Row("s4d_chunked", ratio, CHUNKED_TARGET, ms)

    mesh = make_mesh("data=1", batch_size=batch)
    for precision in ("float32", "bfloat16"):
        train = dataclasses.replace(config.train, precision=precision)
        setup = make_setup(dataclasses.replace(config, train=train), mesh)
        step_s = interleaved_medians({"": Step(setup)}, rounds=ROUNDS)[""]
        tokens_per_s = batch * setup.task.length / step_s
        detail = {"tokens a second": {precision: tokens_per_s}}
        yield Row(f"{config.task}_{precision}", tokens_per_s / TOKENS_PER_S, 1, detail)
