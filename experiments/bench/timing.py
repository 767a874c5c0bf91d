"""Compiled programs and their times. Inputs are ones, as time does not depend on values."""

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
ROUND_S = 0.1
LONG_S = 1


class Program(NamedTuple):
    """A compiled function and its arguments."""

    compiled: jax.stages.Compiled
    arguments: tuple[Any, ...]

    def __call__(self) -> None:
        """Runs the program to its end."""
        jax.block_until_ready(self.compiled(*self.arguments))

    @property
    def temporary_bytes(self) -> int:
        """Memory besides arguments and results."""
        memory: Any = self.compiled.memory_analysis()
        return memory.temp_size_in_bytes


def forward(f: Callable[..., Any], *arguments: Any) -> Program:
    """Compiles ``f(*arguments)``."""
    return Program(jax.jit(f).lower(*arguments).compile(), arguments)


def forward_and_backward(f: Callable[..., jax.Array], *arguments: Any) -> Program:
    """Compiles the gradient of a weighted sum of ``f(*arguments)`` in all arguments."""
    y = jax.eval_shape(f, *arguments)
    weights = jnp.ones(y.shape, y.dtype)

    def loss(arguments: tuple[Any, ...], weights: jax.Array) -> jax.Array:
        return jnp.sum(weights * f(*arguments))

    return forward(jax.grad(loss), arguments, weights)


def functional(module: nnx.Module, f: Callable[..., Any]) -> tuple[Callable[..., Any], Any]:
    """Returns ``f(module, ...)`` as a function of the module's parameters, and the parameters."""
    graphdef, parameters, constants = nnx.split(module, nnx.Param, ...)

    def apply(parameters: Any, *arguments: Any) -> Any:
        return f(nnx.merge(graphdef, parameters, constants), *arguments)

    return apply, parameters


@contextlib.contextmanager
def compiling_afresh() -> Generator[None]:
    """Turns the persistent compilation cache off."""
    enabled = jax.config.values["jax_enable_compilation_cache"]
    _enable_cache(False)
    try:
        yield
    finally:
        _enable_cache(enabled)


def interleaved_medians(
    runs: Mapping[Name, Callable[[], None]], *, rounds: int
) -> dict[Name, float]:
    """Returns the median seconds of each function.

    In each round the functions run one after another, so that a slow phase of the machine affects
    all of them. A short function runs for a tenth of a second per round. A function of a second or
    more runs in half of the rounds. Other functions run once more before each measurement, because
    a run is slow after another function has returned gigabytes to the system.
    """
    times: dict[Name, list[float]] = {name: [] for name in runs}
    first = {name: seconds_per_run(run) for name, run in runs.items()}
    for number in range(rounds):
        for name, run in runs.items():
            if first[name] < LONG_S:
                run()
            elif number >= max(1, rounds // 2):
                continue
            times[name] += [
                seconds_per_run(run) for _ in range(max(1, round(ROUND_S / first[name])))
            ]
    return {name: statistics.median(values) for name, values in times.items()}


def _enable_cache(value: bool) -> None:
    jax.config.update("jax_enable_compilation_cache", value)
    compilation_cache.reset_cache()  # JAX checks only once whether it is enabled


def seconds_per_run(run: Callable[[], None], n: int = 1) -> float:
    """Returns the mean seconds of n runs in succession."""
    start = time.perf_counter()
    for _ in range(n):
        run()
    return (time.perf_counter() - start) / n
