"""What a large GPU should reach: the rows of ``--suite=gpu``."""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from experiments.bench import published
from experiments.bench.contestants import CONTESTANTS, Size
from experiments.bench.layers import floor
from experiments.bench.roofline import Roofline
from experiments.bench.row import Row
from experiments.bench.timing import (
    Program,
    forward_and_backward,
    functional,
    interleaved_medians,
)
from experiments.bench.training import Step
from experiments.build import prepare
from experiments.config import Config
from experiments.mesh import make_mesh

PUBLISHED_TARGET = 5
FLOOR_LIMIT = 4
CHUNKED_TARGET = 3
TOKENS_PER_S = 8e6
TURNS = 5


def gpu_rows(config: Config, size: Size, roofline: Roofline) -> Iterator[Row]:
    """S5 and S4D, forward and backward on a batch, by every algorithm; and a recipe's train step.

    Args:
        config: the recipe.
        size: of the layers; their batch is that of the recipe.
        roofline: what the machine was measured to do.
    """
    batch = config.train.batch_size
    u = jnp.ones((batch, size.L, size.H))

    layer = CONTESTANTS["S5"].make(size)
    programs = _by_every_algorithm("S5", size, u)
    programs["published"] = forward_and_backward(*functional(layer, published.run_layer), u)
    seconds = interleaved_medians(programs, turns=TURNS)
    work = CONTESTANTS["S5"].work(size)
    least_s = floor("forward+backward", layer, size, work, roofline, batch=batch)
    ms = {"ms": {name: 1e3 * value for name, value in {**seconds, "floor": least_s}.items()}}
    yield Row("s5_layer", seconds["published"] / seconds["ours"], PUBLISHED_TARGET, ms)
    yield Row("s5_floor", FLOOR_LIMIT * least_s / seconds["ours"], 1, ms)

    seconds = interleaved_medians(_by_every_algorithm("S4D", size, u), turns=TURNS)
    ms = {"ms": {name: 1e3 * value for name, value in seconds.items()}}
    yield Row("s4d_chunked", seconds["conv=fft"] / seconds["conv=chunked"], CHUNKED_TARGET, ms)

    mesh = make_mesh("data=1", batch_size=batch)
    for precision in ("float32", "bfloat16"):
        train = dataclasses.replace(config.train, precision=precision)
        setup = prepare(dataclasses.replace(config, train=train), mesh)
        step_s = interleaved_medians({"": Step(setup)}, turns=TURNS)[""]
        tokens_per_s = batch * setup.task.length / step_s
        detail = {"tokens a second": {precision: tokens_per_s}}
        yield Row(f"{config.task}_{precision}", tokens_per_s / TOKENS_PER_S, 1, detail)


def _by_every_algorithm(name: str, size: Size, u: jax.Array) -> dict[str, Program]:
    contestant = CONTESTANTS[name]
    return {
        variant: forward_and_backward(
            *functional(contestant.make(size, **options), contestant.layer.__call__), u
        )
        for variant, options in contestant.variants().items()
    }
