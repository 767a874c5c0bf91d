"""The wording of error messages that several modules share."""

import difflib
from collections.abc import Iterable


def check_choice(where: str, argument: str, received: object, valid: Iterable[object]) -> None:
    """Raises a ValueError that lists the valid names and the nearest one."""
    valid = list(valid)
    if received in valid:
        return
    near = difflib.get_close_matches(str(received), map(str, valid), n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    names = ", ".join(repr(name) for name in valid)
    raise ValueError(f"{where}: `{argument}` must be one of {names}; got {received!r}.{hint}")


def check_positive(where: str, **sizes: int) -> None:
    """Raises a ValueError unless every size is a positive integer."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"{where}: `{name}` must be a positive integer; got {size!r}.")
