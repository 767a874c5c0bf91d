"""How generators are compiled: at the first call, without the GIL."""

from collections.abc import Callable
from typing import Any

import numba

# `_nrt=False` switches numba's reference counts off, which cost more than all the arithmetic.
# Compiled functions therefore allocate nothing: their callers pass every array in.
_OPTIONS: dict[str, Any] = {"nogil": True, "_nrt": False, "no_cfunc_wrapper": True}


def entry(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function called from Python; kept on disk where some folder is writable.

    numba renews what it kept when the function's own file changes, so all that an entry calls
    belongs in the same file.
    """
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # numba found no folder that it can write to
        return numba.njit(**_OPTIONS)(function)


def inline(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function into its callers."""
    return numba.njit(no_cpython_wrapper=True, forceinline=True, **_OPTIONS)(function)
