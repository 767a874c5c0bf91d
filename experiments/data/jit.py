"""Compilation of generators: at the first call, without the GIL; and their random numbers."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

# `_nrt=False` disables numba's reference counting, which costs more than all the arithmetic.
# Compiled functions therefore allocate nothing: their callers pass all arrays.
_OPTIONS: dict[str, Any] = {"nogil": True, "_nrt": False, "no_cfunc_wrapper": True}


def entry(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function that Python calls, and caches it on disk if a folder is writable.

    numba compiles anew only when the file of the function changes. Everything that the function
    calls therefore belongs in the same file, except the random numbers below, which never change.
    """
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # numba found no writable folder
        return numba.njit(**_OPTIONS)(function)


def inline(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function inline into its callers."""
    return numba.njit(no_cpython_wrapper=True, forceinline=True, **_OPTIONS)(function)


@inline
def _mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@inline
def next_word(rng):
    """Advances splitmix64, whose state is ``rng[0]``, and returns 64 random bits."""
    rng[0] += np.uint64(0x9E3779B97F4A7C15)
    return _mix(rng[0])


@inline
def hash_words(seed, stream, counter):
    """Returns 64 bits that depend on all three numbers."""
    z = _mix(np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15))
    z = _mix((z ^ np.uint64(stream)) + np.uint64(0x9E3779B97F4A7C15))
    return _mix((z ^ np.uint64(counter)) + np.uint64(0x9E3779B97F4A7C15))


@inline
def uniform(rng):
    """Draws a float64 in [0, 1)."""
    return np.float64(next_word(rng) >> np.uint64(11)) * 2.0**-53


@inline
def below(rng, n):
    """Draws an integer in [0, n)."""
    return np.int64(((next_word(rng) >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))
