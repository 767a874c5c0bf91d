"""Rows of ``--suite=layers``: time against length for every algorithm, with the roofline."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx

import s5jax
from experiments.bench import published
from experiments.bench.contestants import CONTESTANTS, Size
from experiments.bench.roofline import Roofline, size_of
from experiments.bench.timing import (
    Program,
    forward,
    forward_and_backward,
    functional,
    interleaved_medians,
)
from experiments.training.compile import memory_of

Mode = Literal["forward", "forward+backward", "step"]
MEMORY_SHARE = 0.5
PUBLISHED = {*published.KERNELS, s5jax.S5}


@dataclasses.dataclass(frozen=True)
class LayerTime:
    """Time of one layer, by one algorithm, at one length."""

    layer: str
    variant: str
    mode: Mode
    length: int
    seconds: float
    floor_s: float
    """Least time that the machine's memory and arithmetic allow [s]."""

    def __str__(self) -> str:
        return (
            f"{self.mode:<18}{self.length:>9,} {self.layer:<10}{self.variant:<22}"
            f"{1e3 * self.seconds:>12.3f} ms  floor {1e3 * self.floor_s:>10.3f} ms"
        )


def layer_times(lengths: Sequence[int], size: Size, roofline: Roofline) -> Iterator[LayerTime]:
    """Measures every layer on one sequence and on one step.

    Programs that need more than half of the machine's memory are skipped, with a message.
    """
    for L in lengths:
        for mode in get_args(Mode):
            yield from _at(mode, size._replace(L=L), roofline)


def _at(mode: Mode, size: Size, roofline: Roofline) -> Iterator[LayerTime]:
    """Measures each layer's algorithms in alternation, but not different layers.

    A program is slow right after another, such as attention, has freed gigabytes.
    """
    for name, contestant in CONTESTANTS.items():
        layer = contestant.make(size)
        floor_s = floor(mode, layer, size, contestant.work(size), roofline)
        programs = {}
        for variant, program in compile_layer(mode, name, size).items():
            if program.temporary_bytes > MEMORY_SHARE * memory_of(jax.devices()[0]):
                needed = program.temporary_bytes / 1e9
                print(f"{mode} {size.L:,} {name} {variant} is skipped: it needs {needed:.0f} GB")
            else:
                programs[variant] = program
        for variant, seconds in interleaved_medians(programs, rounds=3).items():
            yield LayerTime(name, variant, mode, size.L, seconds, floor_s)


def compile_layer(
    mode: Mode, name: str, size: Size, *, batch: int = 1, baseline: bool = True
) -> dict[str, Program]:
    """Compiles a layer with every algorithm, and with the published one as the baseline."""
    layer = CONTESTANTS[name].make(size)
    if mode == "step":
        step, parameters = functional(layer, type(layer).step)
        return {"ours": forward(step, parameters, jnp.ones((1, size.H)), layer.init_state((1,)))}
    u = jnp.ones((batch, size.L, size.H))
    compiled = forward if mode == "forward" else forward_and_backward
    forms = {
        variant: functional(CONTESTANTS[name].make(size, **options), type(layer).__call__)
        for variant, options in CONTESTANTS[name].variants().items()
    }
    if baseline and type(layer) in PUBLISHED:
        forms["published"] = functional(layer, published.run_layer)
    return {variant: compiled(run, parameters, u) for variant, (run, parameters) in forms.items()}


def floor(
    mode: Mode,
    layer: s5jax.SequenceLayer,
    size: Size,
    work: float,
    roofline: Roofline,
    *,
    batch: int = 1,
) -> float:
    """Returns the least seconds of a layer.

    Every array is read and written once; the backward pass has twice the operations. The state of a
    step is read from memory and written to it, although a cache can be faster.
    """
    n_bytes = size_of(nnx.state(layer, nnx.Param))
    if mode == "step":
        n_bytes += batch * (2 * size_of(layer.init_state((1,))) + 8 * size.H)
        return roofline.floor(n_bytes=n_bytes, flops=batch * work)
    passes = 1 if mode == "forward" else 3
    n_bytes += batch * 8 * size.L * size.H
    return roofline.floor(n_bytes=min(passes, 2) * n_bytes, flops=passes * batch * size.L * work)
