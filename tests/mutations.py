"""Damaged files: seeded mutations of valid ones, and what may become of a reader that gets them."""

import contextlib
import copy
import json
import random
import re
import signal
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

Mutation = tuple[str, bytes]
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
VALUES = (
    *(None, True, False, 0, -1, 1.5, 2**31, 2**64, 10**400, -(10**30), 1e308, 5e-324),
    *("", "x", "../../etc/passwd", "\0", "\ud800", "9" * 5000, "1e5"),
    *([], [[]], [1, "2"], {}, {"": 0}, {"class": "S5"}, {"dtype": "object"}),
)
LITERALS = ("NaN", "-Infinity", "1e999", "nul", "'a'", "[" * 100_000, '{"a":' * 50_000, "\x00", "")
FORBIDDEN = re.compile(r"pickle\.find_class|os\.(system|exec|fork|posix_spawn|spawn)|subprocess\.")
SECONDS, MEGABYTES = 10, 24
_events: list[str] | None = None


class TooSlow(BaseException):
    """No reader turns it into an error of its own."""


def _audit(event: str, arguments: Any) -> None:
    if _events is not None:
        if FORBIDDEN.match(event):
            _events.append(f"{event} {arguments}")
        elif event == "open" and arguments[2] & 3:  # for writing
            _events.append(f"write {arguments[0]}")


sys.addaudithook(_audit)


@contextlib.contextmanager
def watched() -> Generator[list[str]]:
    """Collects what is executed, and which files are written: ``write PATH``."""
    global _events
    _events = found = []
    try:
        yield found
    finally:
        _events = None


def mutate_bytes(data: bytes, rng: random.Random) -> Mutation:
    """One random damage to the bytes of a file, and its kind."""
    at = rng.randrange(len(data))
    if rng.random() < 0.5:  # headers stand at the beginning or at the end
        at = rng.choice([at % 64, len(data) - 1 - at % 64]) % len(data)
    size = min(rng.choice((1, 2, 4, 16, 200)), len(data) - at)
    kind = rng.choice(
        ("flip", "replace", "zero", "truncate", "insert", "repeat", "delete", "field")
    )
    match kind:
        case "flip":
            changed = bytearray(data)
            for _ in range(rng.choice((1, 1, 8))):
                changed[min(at + rng.randrange(8), len(data) - 1)] ^= 1 << rng.randrange(8)
            return kind, bytes(changed)
        case "truncate":
            return kind, data[:at]
        case "insert":
            return kind, data[:at] + rng.randbytes(size) + data[at:]
        case "repeat":
            return kind, data[: at + size] + data[at:]
        case "delete":
            return kind, data[:at] + data[at + size :]
        case "field":
            width = rng.choice((1, 2, 4, 8))
            order = rng.choice(("little", "big"))
            new = (rng.choice(EXTREMES) % 256**width).to_bytes(width, order)
            return kind, data[:at] + new + data[at + width :]
    new = rng.randbytes(size) if kind == "replace" else bytes(size)
    return kind, data[:at] + new + data[at + size :]


def mutate_json(text: bytes, rng: random.Random) -> Mutation:
    """One random change to the structure of a JSON file, and its kind."""
    value = copy.deepcopy(json.loads(text))
    kind = rng.choice(("drop", "rename", "value", "literal", "copy"))
    parent, key = rng.choice(list(_places(value)))
    marker = "here it is"
    match kind:
        case "drop":
            del parent[key]
        case "rename" if isinstance(parent, dict):
            parent[rng.choice((f"{key}s", "", key.upper(), "__class__"))] = parent.pop(key)
        case "literal":
            parent[key] = marker
        case "copy":
            parent[key] = copy.deepcopy(rng.choice([p[k] for p, k in _places(value)]))
        case _:
            parent[key] = rng.choice(VALUES)
    written = json.dumps(value).replace(json.dumps(marker), rng.choice(LITERALS))
    return kind, written.encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in list(pairs):
        yield value, key
        if isinstance(child, dict | list):
            yield from _places(child)


def check_read(read: Callable[[], Any], *, names: str, size: int) -> Exception | None:
    """Reads: the result is right, or the error is one of ours, one line, and names the file.

    Args:
        read: reads a file, and checks what it got; an AssertionError comes through.
        names: a pattern that the message must hold.
        size: bytes of the file, for the bound on memory.

    Returns:
        The error, if there was one.
    """

    def too_slow(*_: object) -> None:
        raise TooSlow(f"more than {SECONDS} seconds")

    signal.signal(signal.SIGALRM, too_slow)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    tracemalloc.start()
    error: Exception | None = None
    try:
        with watched() as events:
            read()
    except (ValueError, FileNotFoundError, RuntimeError) as raised:
        error = raised
        kind, text = type(raised).__name__, str(raised)
        assert kind in ("UsageError", "BrokenRule", "RunError", "ValueError"), f"{kind}: {text}"
        assert "\n" not in text, text
        assert re.search(names, text), text
        assert len(text) < 1000, text
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert peak < 2 * size + MEGABYTES * 2**20, f"{peak / 2**20:.0f} MiB for {size} bytes"
    assert not [event for event in events if FORBIDDEN.match(event)]
    return error


def fuzz(
    path: Path,
    mutate: Callable[[bytes, random.Random], Mutation],
    read: Callable[[], Any],
    *,
    names: str,
    seeds: range,
) -> Counter[tuple[str, str]]:
    """Damages a file in many ways, each from the valid one, and reads it each time.

    Returns:
        How often each kind of damage ended in a result or in an error.
    """
    valid, found = path.read_bytes(), Counter()
    for seed in seeds:
        kind, damaged = mutate(valid, random.Random(seed))
        path.write_bytes(damaged)
        try:
            error = check_read(read, names=names, size=len(damaged))
        except BaseException as problem:
            problem.add_note(f"{path.name}, {mutate.__name__}, seed {seed}: {kind}")
            raise
        found[kind, "result" if error is None else "error"] += 1
    path.write_bytes(valid)
    return found
