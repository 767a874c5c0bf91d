"""Reference files, and how arrays are compared with them."""

import functools
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np


class Golden(Mapping):
    """The arrays of one reference file, what its ``meta`` says, and which arrays were looked at."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as file:
            self.arrays = {name: file[name] for name in file.files}
        meta = json.loads(str(self.arrays.pop("meta")))
        self.family: str = meta["family"]
        self.case: str = meta.get("case", path.stem)
        self.options: dict = meta["options"]
        self.unread = set(self.arrays)

    def __getitem__(self, name: str) -> np.ndarray:
        self.unread.discard(name)
        return self.arrays[name]

    def __contains__(self, name: object) -> bool:
        return name in self.arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)


def assert_close(got, expected, tolerance=1e-9):
    """Bounds the largest error relative to the largest expected magnitude."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, f"shapes differ: {got.shape} and {expected.shape}"
    assert np.isfinite(got).all()
    scale = np.max(np.abs(expected)) or 1
    error = np.max(np.abs(got - expected)) / scale
    assert error <= tolerance, f"arrays differ by {error:.1e}, the tolerance is {tolerance}"


def assert_trees_close(got, expected, tolerance=1e-9):
    jax.tree.map(lambda x, y: assert_close(x, y, tolerance), got, expected)


SIZES = {"H", "L", "N", "P", "ssm_size", "blocks", "C_init"}
"""Options that describe the arrays: their sizes, and how they were drawn."""

NAMES = {
    "disc": "discretization",
    "max_kernel_length": "l_kernel",
    "bn_momentum": "norm_momentum",
}
"""Official names of options that have another one here."""


def take(options: dict, **defaults):
    """The named options; all others must be descriptions of sizes, so that none is overlooked."""
    return take_and_pass(options, (), **defaults)[0]


def take_and_pass(
    options: dict, builders: Iterable[Callable], **defaults
) -> tuple[list, dict[str, Any]]:
    """The named options, and all others as arguments of the public functions that build a layer."""
    accepted = {
        parameter.name
        for build in builders
        for parameter in inspect.signature(build).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    others = {
        NAMES.get(name, name): value
        for name, value in options.items()
        if name not in defaults.keys() | SIZES
    }
    unknown = sorted(others.keys() - (accepted - {"dtype"}))
    assert not unknown, f"the file has options that nothing takes: {unknown}"
    return [options.get(name, default) for name, default in defaults.items()], others


@functools.partial(jax.jit, static_argnames="return_state")
def call(module, u, **options):
    """Calls a layer or block; those that differ in values alone compile once."""
    return module(u, **options)


@functools.partial(jax.jit, static_argnames="L")
def kernel(layer, L: int):
    """The impulse response, forward and backward in time if there are both."""
    return layer.kernel(L)
