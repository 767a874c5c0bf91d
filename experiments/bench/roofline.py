"""The roofline: the least time that a machine's memory and arithmetic allow."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.bench.hlo import traffic
from experiments.bench.timing import Program, forward, interleaved_medians

FIRST_COPY = 1 << 26
FIRST_PRODUCT = 1 << 11
PASSES = 8
LONG_ENOUGH_S = 0.002


class Roofline(NamedTuple):
    """Measured limits of the machine."""

    bytes_per_s: float
    """Bytes that a copy reads and writes per second."""
    flops_per_s: float
    """Operations per second of a float32 matrix product at JAX's default precision."""

    def __str__(self) -> str:
        copied, computed = self.bytes_per_s / 1e9, self.flops_per_s / 1e9
        return f"copies {copied:.1f} GB/s, matrix products {computed:.0f} GFLOP/s"

    def floor(self, *, n_bytes: float, flops: float) -> float:
        """Returns the least seconds in which to move these bytes and do these operations."""
        return max(n_bytes / self.bytes_per_s, flops / self.flops_per_s)


def measure_roofline() -> Roofline:
    """Measures copies and matrix products of sufficient size."""
    copies, copies_s = _first_long(lambda n: forward(_pass, jnp.ones(n)), FIRST_COPY)
    product, product_s = _first_long(
        lambda m: forward(jnp.matmul, *[jnp.ones((m, m))] * 2), FIRST_PRODUCT
    )
    moved, m = traffic(copies.compiled.as_text() or "").moved, len(product.arguments[0])
    return Roofline(bytes_per_s=moved / copies_s, flops_per_s=2 * m**3 / product_s)


def size_of(tree: Any) -> int:
    """Returns the bytes of all arrays."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def _pass(x: jax.Array) -> jax.Array:
    """Reads and writes an array several times, after a copy of it."""
    return jax.lax.fori_loop(0, PASSES, lambda _, x: -x, x)


def _first_long(make: Callable[[int], Program], n: int) -> tuple[Program, float]:
    """Doubles n until a program takes long enough to be timed; returns it and its seconds."""
    while True:
        program = make(n)
        seconds = interleaved_medians({"": program}, rounds=3)[""]
        if seconds > LONG_ENOUGH_S:
            return program, seconds
        n *= 2
