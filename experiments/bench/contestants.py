"""The layers that are compared: their sizes, their backends, and the least that they must do."""

import math
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx

import s5jax


class Size(NamedTuple):
    """Steps, features, and states a feature of the layers that have their own."""

    L: int = 16_384
    H: int = 128
    N: int = 64


class Contestant(NamedTuple):
    """A layer."""

    layer: type[s5jax.SequenceLayer]
    options: Callable[[Size], dict[str, Any]]
    """Its arguments at a size."""
    work: Callable[[Size], float]
    """Floating-point operations a step, of the cheapest algorithm known."""
    varied: tuple[str, ...] = ()
    """Options that choose an algorithm, of which every choice is measured."""

    def make(self, size: Size, **overrides: Any) -> s5jax.SequenceLayer:
        """The layer with first parameters."""
        arguments = {"d_model": size.H, **self.options(size), **overrides, "rngs": nnx.Rngs(0)}
        return self.layer(**arguments)

    def variants(self) -> dict[str, dict[str, str]]:
        """The layer as it is by default, and with every algorithm asked for by name."""
        hints = typing.get_type_hints(self.layer.__init__)
        named = {
            f"{option}={value}": {option: value}
            for option in self.varied
            for value in typing.get_args(hints[option])
            if value != "auto" and (value != "pallas" or jax.default_backend() == "gpu")
        }
        return {"ours": {}, **named}


def _states(size: Size) -> dict[str, Any]:
    return {"d_state": size.N}


def _shared_states(size: Size) -> dict[str, Any]:
    return {"d_state": 2 * size.H}


def _convolution(size: Size) -> float:
    """Real transforms of input and output at twice the length; the kernel is free."""
    return 10 * size.H * math.log2(2 * size.L)


def _dense(size: Size, P: int) -> float:
    """Two products between H features and P complex states, and their recurrence."""
    return 8 * size.H * P + 8 * P


CONTESTANTS = {
    "S4": Contestant(s5jax.S4, _states, _convolution, ("backend", "conv")),
    "S4D": Contestant(s5jax.S4D, _states, _convolution, ("conv",)),
    "DLR": Contestant(s5jax.DLR, _states, _convolution, ("conv",)),
    "HOPE": Contestant(s5jax.HOPE, _states, _convolution, ("conv",)),
    "SGConv": Contestant(s5jax.SGConv, lambda size: {"l_max": size.L}, _convolution),
    "S5": Contestant(s5jax.S5, _shared_states, lambda s: _dense(s, s.H), ("backend",)),
    "LRU": Contestant(s5jax.LRU, _shared_states, lambda s: _dense(s, 2 * s.H), ("backend",)),
    "GRU": Contestant(s5jax.GRU, lambda size: {"d_state": size.H}, lambda s: 14 * s.H**2),
    "Attention": Contestant(
        s5jax.Attention,
        lambda size: {"n_heads": 4, "l_max": size.L},
        lambda s: 8 * s.H**2 + 2 * s.L * s.H,
    ),
}
"""All layers; S5 and LRU have 2 H states, as in the papers."""
