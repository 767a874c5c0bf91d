"""Layers in the tables of `nnx.tabulate`."""

import functools
import inspect
from types import FunctionType
from typing import Any, TypeVar

T = TypeVar("T")

_ROWS = ("__call__", "step")
"""Methods that get a row; the others take structures and sizes, which rows cannot show."""


class Unlisted:
    """A method in a descriptor of its own, because `nnx.tabulate` wraps all plain functions."""

    def __init__(self, f: FunctionType) -> None:
        functools.update_wrapper(self, f)
        self.f = f

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else self.f.__get__(instance, owner)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.f(*args, **kwargs)


def unlist_methods(cls: type[T]) -> type[T]:
    """Hides the public methods of a class from `nnx.tabulate`, except calls and steps."""
    for name, value in list(vars(cls).items()):
        if inspect.isfunction(value) and not name.startswith("_") and name not in _ROWS:
            setattr(cls, name, Unlisted(value))
    return cls
