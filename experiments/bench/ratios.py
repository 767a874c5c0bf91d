"""Layers against what they replace: the rows of ``--suite=ci`` that are about layers."""

import concurrent.futures
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import s5jax
from experiments.bench import published
from experiments.bench.contestants import CONTESTANTS, Size
from experiments.bench.memory import peak_bytes
from experiments.bench.row import Row
from experiments.bench.timing import (
    Program,
    forward,
    forward_and_backward,
    functional,
    interleaved_medians,
)

KERNEL_TARGETS = {"S4D": 15, "DLR": 15, "S4": 8, "HOPE": 8}
LAYER_TARGET = 4
SGCONV_LIMIT = 1.3
DOUBLING_LIMIT = 2.2
MILLION_LIMIT_GB = 8
GENERATE_TARGET = 20
POOLED_CONV_TARGET = 1.5
TOKENS = 16
TURNS = 2
LINEAR = [name for name in CONTESTANTS if name not in ("GRU", "Attention")]


def kernel_rows(size: Size) -> Iterator[Row]:
    """Kernels and their gradients in all parameters, against the direct sums of the papers."""
    for name, target in KERNEL_TARGETS.items():
        layer = CONTESTANTS[name].make(size)
        direct = functools.partial(published.KERNELS[type(layer)], L=size.L)
        kernels = {"ours": lambda layer: layer.kernel(size.L), "published": direct}
        if name == "DLR":
            kernels["published, shared table"] = functools.partial(
                published.dlr_shared_kernel, L=size.L
            )
        programs = {
            form: forward_and_backward(*functional(layer, kernel))
            for form, kernel in kernels.items()
        }
        seconds = interleaved_medians(programs, turns=TURNS)
        ratio = seconds["published"] / seconds["ours"]
        yield Row(f"{name.lower()}_kernel", ratio, target, {"ms": _milliseconds(seconds)})


def layer_rows(size: Size) -> Iterator[Row]:
    """Layers on one sequence, with gradients in parameters and input, against the published."""
    u = jnp.ones((1, size.L, size.H))
    for name in KERNEL_TARGETS:
        layer = CONTESTANTS[name].make(size)
        maps = {"ours": type(layer).__call__, "published": published.run_layer}
        programs = {
            form: forward_and_backward(*functional(layer, run), u) for form, run in maps.items()
        }
        seconds = interleaved_medians(programs, turns=TURNS)
        ratio = seconds["published"] / seconds["ours"]
        yield Row(f"{name.lower()}_layer", ratio, LAYER_TARGET, {"ms": _milliseconds(seconds)})


def sgconv_row(size: Size) -> Row:
    """SGConv against its plain convolution alone, with gradients."""
    u, K = jnp.ones((2, size.L, size.H))
    layer, parameters = functional(CONTESTANTS["SGConv"].make(size), s5jax.SGConv.__call__)
    programs = {
        "layer": forward_and_backward(layer, parameters, u[None]),
        "convolution": forward_and_backward(published.convolve, u[None], K),
    }
    seconds = interleaved_medians(programs, turns=2 * TURNS + 1)
    ratio = SGCONV_LIMIT * seconds["convolution"] / seconds["layer"]
    return Row("sgconv_layer", ratio, 1, {"ms": _milliseconds(seconds)})


def pooled_conv_row(images: int) -> Row:
    """The pendulum's first convolution with its pooling and both gradients, against XLA's."""
    x, W = jnp.ones((images, 24, 24, 1)), jnp.ones((5, 5, 1, 12))
    forms = {"ours": s5jax.ops.pooled_conv, "XLA": s5jax.ops.pooled_conv_ref}
    programs = {
        name: forward_and_backward(functools.partial(form, padding=2), x, W)
        for name, form in forms.items()
    }
    seconds = interleaved_medians(programs, turns=4 * TURNS)
    ratio = seconds["XLA"] / seconds["ours"]
    return Row("pooled_conv", ratio, POOLED_CONV_TARGET, {"ms": _milliseconds(seconds)})


def length_rows(lengths: Sequence[int], size: Size, longest: Size) -> Iterator[Row]:
    """The worst ratio of forward times at 2 L and L; and peak memory on a very long input.

    Memory is measured in other processes while the programs to be timed compile.
    """
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        measuring = pool.submit(_peaks_gb, longest)
        programs = {name: _forward_at(name, lengths, size) for name in LINEAR}
        peaks = measuring.result()
    worst = {}
    for name, at in programs.items():
        seconds = interleaved_medians(at, turns=4 * TURNS).values()
        worst[name] = max(b / a for a, b in itertools.pairwise(seconds))
    detail = {"forward time at 2 L over time at L": worst}
    yield Row("linear_in_L", DOUBLING_LIMIT / max(worst.values()), 1, detail)
    yield Row("million", MILLION_LIMIT_GB / max(peaks.values()), 1, {"peak GB": peaks})


def _forward_at(name: str, lengths: Sequence[int], size: Size) -> dict[int, Program]:
    programs = {}
    for L in lengths:
        layer = CONTESTANTS[name].make(size._replace(L=L))
        run, parameters = functional(layer, type(layer).__call__)
        programs[L] = forward(run, parameters, jnp.ones((1, L, size.H)))
    return programs


def _peaks_gb(size: Size) -> dict[str, float]:
    return {name: peak_bytes(name, size) / 1e9 for name in ("S5", "S4D", "DLR")}


def generate_row(position: int, *, d_model: int, n_layers: int) -> Row:
    """A token of a language model, against attention with a cache of all tokens before it."""
    layers = {
        "S5": (s5jax.S5, {"d_state": d_model}),
        "attention": (published.CachedAttention, {"n_heads": 4, "l_max": position}),
    }
    models = {
        name: s5jax.LanguageModel(
            layer,
            d_input=256,
            d_model=d_model,
            n_layers=n_layers,
            layer_options=options,
            norm="layer",
            rngs=nnx.Rngs(0),
        )
        for name, (layer, options) in layers.items()
    }
    runs = {name: _Generation(model, position) for name, model in models.items()}
    seconds = interleaved_medians(runs, turns=2 * TURNS + 1)
    token_ms = {name: value / TOKENS for name, value in _milliseconds(seconds).items()}
    ratio = seconds["attention"] / seconds["S5"]
    return Row("generate", ratio, GENERATE_TARGET, {"ms a token": token_ms})


class _Generation:
    """Takes the likeliest token a few times at every call, as `s5jax.generate` does."""

    def __init__(self, model: s5jax.LanguageModel, position: int) -> None:
        graphdef, self.parameters = nnx.split(model)

        def run(parameters: Any, carry: Any) -> Any:
            model = nnx.merge(graphdef, parameters)

            def step(carry: Any, _: None) -> Any:
                logits, state = model.step(*carry)
                return (jnp.argmax(logits, -1).astype(jnp.int32), state), None

            return jax.lax.scan(step, carry, length=TOKENS)[0]

        def reach(x: jax.Array) -> jax.Array:
            counts = jnp.issubdtype(x.dtype, jnp.integer)
            return jnp.full_like(x, position) if counts else jnp.ones_like(x)

        state = jax.tree.map(reach, model.init_state((1,)))
        self.carry = jnp.zeros(1, jnp.int32), state
        self.run = jax.jit(run, donate_argnums=1)

    def __call__(self) -> None:
        self.carry = jax.block_until_ready(self.run(self.parameters, self.carry))


def _milliseconds(seconds: dict[str, float]) -> dict[str, float]:
    return {name: 1e3 * value for name, value in seconds.items()}
