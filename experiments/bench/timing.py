"""Compiled programs, and how long they take: on ones, as time does not depend on values."""

import contextlib
import statistics
import time
from collections.abc import Callable, Generator, Hashable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental.compilation_cache import compilation_cache

Name = TypeVar("Name", bound=Hashable)
TURN_S = 0.1
LONG_S = 1


class Program(NamedTuple):
    """A compiled function and its arguments; a call runs it to its end."""

    compiled: jax.stages.Compiled
    arguments: tuple[Any, ...]

    def __call__(self) -> None:
        """Runs it."""
        jax.block_until_ready(self.compiled(*self.arguments))

    @property
    def temporary_bytes(self) -> int:
        """Memory beside arguments and results."""
        memory: Any = self.compiled.memory_analysis()
        return memory.temp_size_in_bytes


def forward(f: Callable[..., Any], *arguments: Any) -> Program:
    """``f(*arguments)``, compiled."""
    return Program(jax.jit(f).lower(*arguments).compile(), arguments)


def forward_and_backward(f: Callable[..., jax.Array], *arguments: Any) -> Program:
    """The gradient of a weighted sum of ``f(*arguments)`` in all of them, compiled."""
    y = jax.eval_shape(f, *arguments)
    weights = jnp.ones(y.shape, y.dtype)

    def loss(arguments: tuple[Any, ...], weights: jax.Array) -> jax.Array:
        return jnp.sum(weights * f(*arguments))

    return forward(jax.grad(loss), arguments, weights)


def functional(module: nnx.Module, f: Callable[..., Any]) -> tuple[Callable[..., Any], Any]:
    """``f(module, ...)`` as a function of the module's parameters, and these."""
    graphdef, parameters, constants = nnx.split(module, nnx.Param, ...)

    def apply(parameters: Any, *arguments: Any) -> Any:
        return f(nnx.merge(graphdef, parameters, constants), *arguments)

    return apply, parameters


@contextlib.contextmanager
def compiling_afresh() -> Generator[None]:
    """Nothing is read from a persistent compilation cache, nor written to it."""
    enabled = jax.config.values["jax_enable_compilation_cache"]
    _enable_cache(False)
    try:
        yield
    finally:
        _enable_cache(enabled)


def interleaved_medians(
    runs: Mapping[Name, Callable[[], None]], *, turns: int
) -> dict[Name, float]:
    """Median seconds of each function.

    They take turns after a first run, so that a slow spell hits all of them. What is short runs
    several times a turn, for a tenth of a second, and what takes a second and more has half of the
    turns. The others run once more before each: just after a neighbour had returned gigabytes to
    the system, the kernel of S4 took 0.5 s instead of 0.2.
    """
    times: dict[Name, list[float]] = {name: [] for name in runs}
    first = {name: _seconds(run) for name, run in runs.items()}
    for turn in range(turns):
        for name, run in runs.items():
            if first[name] < LONG_S:
                run()
            elif turn >= max(1, turns // 2):
                continue
            times[name] += [_seconds(run) for _ in range(max(1, round(TURN_S / first[name])))]
    return {name: statistics.median(values) for name, values in times.items()}


def _enable_cache(value: bool) -> None:
    jax.config.update("jax_enable_compilation_cache", value)
    compilation_cache.reset_cache()  # JAX looks once whether it is enabled


def _seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
