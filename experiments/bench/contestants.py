"""The layers of the benchmarks: sizes, algorithms, and the least number of operations."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx

import s5jax


class Size(NamedTuple):
    """Numbers of steps, of features, and of states per feature where these are separate."""

    L: int = 16_384
    H: int = 128
    N: int = 64


class Contestant(NamedTuple):
    """A layer to measure."""

    layer: type[s5jax.SequenceLayer]
    options: Callable[[Size], dict[str, Any]]
    """Arguments of the layer at a size."""
    work: Callable[[Size], float]
    """Floating-point operations per step of the cheapest known algorithm."""
    algorithms: tuple[str, ...] = ()
    """Algorithms to measure besides the default."""

    def make(self, size: Size, **overrides: Any) -> s5jax.SequenceLayer:
        """Builds the layer with initial parameters."""
        arguments = {"d_model": size.H, **self.options(size), **overrides, "rngs": nnx.Rngs(0)}
        return self.layer(**arguments)

    def variants(self) -> dict[str, dict[str, str]]:
        """Returns the options of the default layer, and of the layer with each algorithm."""
        on_gpu = jax.default_backend() == "gpu"
        named = (name for name in self.algorithms if name != "pallas" or on_gpu)
        return {"ours": {}, **{f"algorithm={name}": {"algorithm": name} for name in named}}


def _states(size: Size) -> dict[str, Any]:
    return {"d_state": size.N}


def _shared_states(size: Size) -> dict[str, Any]:
    return {"d_state": 2 * size.H}


def _oscillators(size: Size) -> float:
    """Counts real products between H features and 2 H complex states, and the recurrence."""
    return 8 * size.H**2 + 16 * size.H


def _convolution(size: Size) -> float:
    """Counts real transforms of input and output at twice the length, without the kernel."""
    return 10 * size.H * math.log2(2 * size.L)


def _dense(size: Size, P: int) -> float:
    """Counts two products between H features and P complex states, and the recurrence."""
    return 8 * size.H * P + 8 * P


CONVOLUTIONS = ("fft", "chunked")
SCANS = ("sequential", "associative", "chunked")

CONTESTANTS = {
    "S4": Contestant(s5jax.S4, _states, _convolution, (*CONVOLUTIONS, "cauchy")),
    "S4D": Contestant(s5jax.S4D, _states, _convolution, CONVOLUTIONS),
    "DLR": Contestant(s5jax.DLR, _states, _convolution, (*CONVOLUTIONS, "scan")),
    "HOPE": Contestant(s5jax.HOPE, _states, _convolution, CONVOLUTIONS),
    "SGConv": Contestant(s5jax.SGConv, lambda size: {"l_max": size.L}, _convolution),
    "S5": Contestant(s5jax.S5, _shared_states, lambda s: _dense(s, s.H), (*SCANS, "pallas")),
    "LRU": Contestant(s5jax.LRU, _shared_states, lambda s: _dense(s, 2 * s.H), SCANS),
    "LinOSS": Contestant(s5jax.LinOSS, lambda size: {"d_state": size.H}, _oscillators, SCANS),
    "GRU": Contestant(s5jax.GRU, lambda size: {"d_state": size.H}, lambda s: 14 * s.H**2),
    "Attention": Contestant(
        s5jax.Attention,
        lambda size: {"n_heads": 4, "l_max": size.L},
        lambda s: 8 * s.H**2 + 2 * s.L * s.H,
    ),
}
"""All layers. S5 and LRU have 2 H states, as in the papers, and LinOSS has 2 H oscillators."""
