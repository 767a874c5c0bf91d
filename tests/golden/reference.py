"""Reference files, and how arrays are compared with them."""

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

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
    assert got.shape == expected.shape
    assert np.isfinite(got).all()
    scale = np.max(np.abs(expected)) or 1
    assert np.max(np.abs(got - expected)) <= tolerance * scale


def assert_trees_close(got, expected, tolerance=1e-9):
    jax.tree.map(lambda x, y: assert_close(x, y, tolerance), got, expected)


def take(options: dict, **defaults):
    """The named options; all others must be descriptions of sizes, so that none is overlooked."""
    sizes = {"H", "L", "N", "P", "ssm_size", "blocks", "C_init"}
    assert options.keys() <= defaults.keys() | sizes, "the file has options that nothing checks"
    return [options.get(name, default) for name, default in defaults.items()]


@functools.partial(jax.jit, static_argnames="return_state")
def call(module, u, **options):
    """Calls a layer or block; those that differ in values alone compile once."""
    return module(u, **options)


@functools.partial(jax.jit, static_argnames="L")
def kernel(layer, L: int):
    """The impulse response, forward and backward in time if there are both."""
    return layer.kernel(L)
