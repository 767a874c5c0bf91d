"""The wording of error messages that several modules share."""

import difflib
import operator
from collections.abc import Iterable
from typing import Any


def check_choice(where: str, argument: str, received: object, valid: Iterable[object]) -> None:
    """Raises a ValueError that lists the valid names and the nearest one."""
    valid = list(valid)
    if received in valid:
        return
    near = difflib.get_close_matches(str(received), map(str, valid), n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    names = ", ".join(repr(name) for name in valid)
    raise ValueError(f"{where}: `{argument}` must be one of {names}; got {received!r}.{hint}")


def as_integer(size: Any) -> int | None:
    """The integer that ``size`` holds, of any type such as NumPy's; None for anything else."""
    try:
        return None if isinstance(size, bool) else operator.index(size)
    except TypeError:
        return None


def check_integers(where: str, name: str, sizes: Iterable[Any]) -> tuple[int, ...]:
    """Returns them as Python integers; raises a ValueError for anything else."""
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
