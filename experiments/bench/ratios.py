"""Rows of ``--suite=ci`` that compare layers with their alternatives."""

import concurrent.futures
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
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
SHORT_LIMIT = 1.5
GENERATE_TARGET = 20
GENERATE_BATCH_TARGET = 60
STATE_BYTES = 2e9
FEW_SEQUENCES = 32
MOST_SEQUENCES = 1_024
POOLED_CONV_TARGET = 1.5
TOKENS = 16
BATCH_TOKENS = 2
ROUNDS = 2
LINEAR = [name for name in CONTESTANTS if name not in ("GRU", "Attention")]


def kernel_rows(size: Size) -> Iterator[Row]:
    """Compares kernels with the direct sums of the papers, with gradients in all parameters."""
    for name, target in KERNEL_TARGETS.items():
        layer = CONTESTANTS[name].make(size)
        kernels = {"ours": type(layer).kernel, "published": published.KERNELS[type(layer)]}
        if name == "DLR":
            kernels["published, shared table"] = published.dlr_shared_kernel
        programs = {
            form: forward_and_backward(*functional(layer, functools.partial(kernel, L=size.L)))
            for form, kernel in kernels.items()
        }
        yield _row(f"{name.lower()}_kernel", programs, target, rounds=ROUNDS)


def layer_rows(size: Size) -> Iterator[Row]:
    """Compares layers with the published algorithms, with gradients in parameters and input."""
    u = jnp.ones((1, size.L, size.H))
    for name in KERNEL_TARGETS:
        layer = CONTESTANTS[name].make(size)
        maps = {"ours": type(layer).__call__, "published": published.run_layer}
        programs = {
            form: forward_and_backward(*functional(layer, run), u) for form, run in maps.items()
        }
        yield _row(f"{name.lower()}_layer", programs, LAYER_TARGET, rounds=ROUNDS)


def short_row(lengths: Sequence[int], size: Size) -> Row:
    """Compares S4 and HOPE with S4D on short sequences, with gradients in parameters and input."""
    ms, ratios = {}, []
    for L in lengths:
        programs = {}
        for name in ("S4D", "S4", "HOPE"):
            layer = CONTESTANTS[name].make(size._replace(L=L))
            run, parameters = functional(layer, type(layer).__call__)
            programs[name] = forward_and_backward(run, parameters, jnp.ones((1, L, size.H)))
        seconds = interleaved_medians(programs, rounds=4 * ROUNDS)
        ms |= {f"{name} at {L}": 1e3 * value for name, value in seconds.items()}
        ratios += [SHORT_LIMIT * seconds["S4D"] / seconds[name] for name in ("S4", "HOPE")]
    return Row("short", min(ratios), 1, {"ms": ms})


def sgconv_row(size: Size) -> Row:
    """Compares SGConv with its plain convolution alone, with gradients."""
    u, K = jnp.ones((2, size.L, size.H))
    layer, parameters = functional(CONTESTANTS["SGConv"].make(size), s5jax.SGConv.__call__)
    programs = {
        "layer": forward_and_backward(layer, parameters, u[None]),
        "convolution": forward_and_backward(published.convolve, u[None], K),
    }
    return _row("sgconv_layer", programs, 1, rounds=2 * ROUNDS + 1, limit=SGCONV_LIMIT)


def pooled_conv_row(images: int) -> Row:
    """Compares the pendulum's first convolution and pooling with XLA's, with both gradients."""
    x, W = jnp.ones((images, 24, 24, 1)), jnp.ones((5, 5, 1, 12))
    forms = {"ours": s5jax.ops.pooled_conv, "XLA": s5jax.ops.pooled_conv_ref}
    programs = {
        name: forward_and_backward(functools.partial(form, padding=2), x, W)
        for name, form in forms.items()
    }
    return _row("pooled_conv", programs, POOLED_CONV_TARGET, rounds=4 * ROUNDS)


def length_rows(lengths: Sequence[int], size: Size, longest: Size) -> Iterator[Row]:
    """Measures the worst ratio of forward times at 2 L and L, and memory on a very long input.

    Other processes measure the memory while the programs to be timed compile.
    """
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        names = ("S5", "S4D", "DLR")
        measuring = pool.submit(lambda: {n: peak_bytes(n, longest) / 1e9 for n in names})
        programs = {name: _forward_at(name, lengths, size) for name in LINEAR}
        peaks = measuring.result()
    worst = {}
    for name, at in programs.items():
        seconds = interleaved_medians(at, rounds=4 * ROUNDS).values()
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


def generate_row(position: int, *, d_model: int, n_layers: int) -> Row:
    """Compares language models of S5 and of cached attention, at a position."""
    runs = {
        name: _Generation(_language_model(name, position, d_model, n_layers), position)
        for name in ("S5", "attention")
    }
    rounds = 2 * ROUNDS + 1
    return _row("generate", runs, GENERATE_TARGET, rounds=rounds, unit="ms a token", count=TOKENS)


def generate_batch_row(position: int, *, d_model: int, n_layers: int) -> Row:
    """Compares tokens a second of S5 and S4 with cached attention, each in its better batch.

    One batch is as large as 2 GB of states, or of caches, allow, up to 1,024 sequences, which
    bounds the time of the row. The states of the other one stay in the caches of a CPU.
    """
    runs = {}
    for name in ("S5", "S4", "attention"):
        model = _language_model(name, position, d_model, n_layers)
        state = jax.eval_shape(lambda model=model: model.init_state((1,)))
        size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
        most = min(MOST_SEQUENCES, int(STATE_BYTES // size))
        for n, tokens in ((FEW_SEQUENCES, TOKENS), (most, BATCH_TOKENS)):
            runs[name, n] = _Generation(model, position, n, tokens=tokens)
    seconds = interleaved_medians(runs, rounds=2 * ROUNDS)
    speed: dict[str, dict[str, float]] = {}
    for (name, n), value in seconds.items():
        tokens = runs[name, n].tokens * n
        speed.setdefault(name, {})[f"{n:,} sequences"] = tokens / value
    best = {name: max(speeds.values()) for name, speeds in speed.items()}
    ratio = min(best["S5"], best["S4"]) / best["attention"]
    detail = {f"tokens a second, {name}": speeds for name, speeds in speed.items()}
    return Row("generate_batch", ratio, GENERATE_BATCH_TARGET, detail)


def _language_model(name: str, position: int, d_model: int, n_layers: int) -> s5jax.LanguageModel:
    layers = {
        "S5": (s5jax.S5, {"d_state": d_model}),
        "S4": (s5jax.S4, {"d_state": 64}),
        "attention": (published.CachedAttention, {"n_heads": 4, "l_max": position}),
    }
    layer, options = layers[name]
    sizes: dict[str, Any] = {"d_input": 256, "d_model": d_model, "n_layers": n_layers}
    return s5jax.LanguageModel(
        layer, **sizes, layer_options=options, norm="layer", rngs=nnx.Rngs(0)
    )


class _Generation:
    """Selects the most likely token a few times at every call, as `s5jax.generate` does."""

    def __init__(
        self, model: s5jax.LanguageModel, position: int, batch: int = 1, *, tokens: int = TOKENS
    ) -> None:
        graphdef, self.parameters = nnx.split(model)
        self.tokens = tokens

        def run(parameters: Any, carry: Any) -> Any:
            model = nnx.merge(graphdef, parameters)

            def step(carry: Any, _: None) -> Any:
                logits, state = model.step(*carry)
                return (jnp.argmax(logits, -1).astype(jnp.int32), state), None

            return jax.lax.scan(step, carry, length=tokens)[0]

        def reach(x: jax.Array) -> jax.Array:
            counts = jnp.issubdtype(x.dtype, jnp.integer)
            return jnp.full_like(x, position) if counts else jnp.ones_like(x)

        state = jax.tree.map(reach, model.init_state((batch,)))
        self.carry = jnp.zeros(batch, jnp.int32), state
        self.run = jax.jit(run, donate_argnums=1)

    def __call__(self) -> None:
        self.carry = jax.block_until_ready(self.run(self.parameters, self.carry))


def _row(
    name: str,
    programs: Mapping[str, Callable[[], None]],
    target: float,
    *,
    rounds: int,
    limit: float = 1,
    unit: str = "ms",
    count: int = 1,
) -> Row:
    """Compares the first program with the second: the ratio is limit * second / first."""
    seconds = interleaved_medians(programs, rounds=rounds)
    ours, other = list(seconds.values())[:2]
    detail = {unit: {form: 1e3 * value / count for form, value in seconds.items()}}
    return Row(name, limit * other / ours, target, detail)
