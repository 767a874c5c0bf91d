"""Runs the annotations of s5jax: what each function takes and returns is what its signature says.

`conftest` gives `check` to the import hook of jaxtyping, which decorates all functions and
dataclasses of s5jax with it. Programs that tests start run without it.
"""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jaxtyping
import numpy as np
from beartype import BeartypeConf, FrozenDict, beartype
from beartype.roar import BeartypeDecorHintPep585DeprecationWarning

CHECKED = "s5jax"
CHECKER = "annotations.check"
RESULT = "ret0"
CHECKS: dict[str, Callable[..., Any]] = {}
"""Checks of functions without defaults: those inside of others are decorated at every call."""


def install() -> None:
    """Checks all modules of s5jax that are imported from now on."""
    jaxtyping.install_import_hook(CHECKED, CHECKER)


@functools.cache
def numbers() -> BeartypeConf:
    """What is an int and a float.

    So are numbers of NumPy, which `test_numpy_sizes` has as sizes and rates throughout, and, as
    lengths, symbols of `jax.export`. An int is a float, as for type checkers.
    """
    from jax import export  # `conftest` imports this file before it sets the environment

    symbol = type(export.symbolic_shape("n")[0])
    whole = int | np.integer | symbol
    return BeartypeConf(hint_overrides=FrozenDict({int: whole, float: whole | float | np.floating}))


def check(f: Callable[..., Any]) -> Callable[..., Any]:
    """Checks parameters only after a function has returned.

    Tests of refusals pass wrong values on purpose, and the sentence that the function raises is the
    one that they expect. A wrong value that the function accepts is a wrong annotation.

    jaxtyping decorates two stand-ins for a function: one with its parameters, which it calls
    before, and one with its result as an additional parameter ``ret0``, which it calls afterwards.
    As the second has all of the parameters, the first may accept everything.
    """
    code = f.__code__
    if RESULT not in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:
        return _accept
    if f.__defaults__ or f.__kwdefaults__:
        return _decorate(f)
    key = f"{f.__module__}.{f.__qualname__}: {f.__annotations__}"
    if key not in CHECKS:
        CHECKS[key] = _decorate(f)
    return CHECKS[key]


def _decorate(f: Callable[..., Any]) -> Callable[..., Any]:
    with warnings.catch_warnings():
        # nnx.State, a MutableMapping of `typing`
        warnings.simplefilter("ignore", BeartypeDecorHintPep585DeprecationWarning)
        return beartype(conf=numbers())(f)


@contextlib.contextmanager
def off() -> Iterator[None]:
    """Checks nothing in a ``with`` block."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def _accept(*args: Any, **kwargs: Any) -> None:
    """Checks nothing."""
