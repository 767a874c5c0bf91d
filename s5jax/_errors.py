"""Checks of arguments, with the error messages that modules share."""

import difflib
import operator
from collections.abc import Iterable
from typing import Any


def check_choice(where: str, argument: str, received: object, valid: Iterable[object]) -> None:
    """Raises a ValueError, with all valid names and the nearest one, unless the name is valid."""
    valid = list(valid)
    if received in valid:
        return
    names = ", ".join(repr(name) for name in valid)
    raise ValueError(
        f"{where}: `{argument}` must be one of {names}; got {received!r}.{suggest(received, valid)}"
    )


def suggest(received: object, valid: Iterable[object]) -> str:
    """Returns a sentence with the valid name that is nearest, or nothing if none is near."""
    near = difflib.get_close_matches(str(received), map(str, valid), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def as_integer(size: Any) -> int | None:
    """Returns ``size`` as a Python integer, or None if it is not an integer of any type."""
    try:
        return None if isinstance(size, bool) else operator.index(size)
    except TypeError:
        return None


def check_integers(where: str, name: str, sizes: Iterable[Any]) -> tuple[int, ...]:
    """Returns the sizes as Python integers; raises a ValueError unless all are integers."""
    sizes = tuple(sizes)
    integers = tuple(integer for size in sizes if (integer := as_integer(size)) is not None)
    if len(integers) < len(sizes):
        raise ValueError(f"{where}: `{name}` must be integers; got {sizes!r}.")
    return integers


def check_positive(where: str, **sizes: Any) -> tuple[int, ...]:
    """Returns the sizes as Python integers; raises a ValueError unless all are positive."""
    integers = []
    for name, size in sizes.items():
        integer = as_integer(size)
        if integer is None or integer < 1:
            raise ValueError(f"{where}: `{name}` must be a positive integer; got {size!r}.")
        integers.append(integer)
    return tuple(integers)
