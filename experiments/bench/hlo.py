"""Traffic, launches and exchanges of a compiled program, counted in its text.

Every kernel reads its operands and writes its results; nothing is assumed to stay in a cache. A
fusion that only slices an operand reads the slices, and one that updates an operand in place writes
the update. Buffers in the on-chip memory of a TPU are free. The body of a loop counts as often as
it runs, if the text says how often, and else once.
"""

import collections
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

BITS = {
    "pred": 8, "token": 0, "opaque": 0, "bf16": 16, "c64": 64, "c128": 128,
    **{f"{kind}{n}": n for kind in "su" for n in (4, 8, 16, 32, 64)},
    **{f"f{n}": n for n in (16, 32, 64)},
}  # fmt: skip
_ARRAY = re.compile(r"([a-z]+\d*\w*)\[([\d,]*)\](\{[^}]*\})?")
_INSTRUCTION = re.compile(r"(ROOT\s+)?%?([\w.-]+) = (.*)")
_HEADER = re.compile(r"(ENTRY\s+)?%?([\w.-]+) \(.*\) -> .*\{")
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id",
    "replica-id", "opt-barrier", "add-dependency", "domain",
}  # fmt: skip
_SLICES = {"dynamic-slice", "slice", "gather"}
COLLECTIVES = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute",
    "collective-broadcast", "ragged-all-to-all",
)  # fmt: skip


class Instruction(NamedTuple):
    """One line of a computation."""

    name: str
    shape: str
    op: str
    arguments: str
    attributes: str
    root: bool

    @property
    def operands(self) -> list[str]:
        """Names of the operands."""
        return re.findall(r"%([\w.-]+)", self.arguments)

    def called(self, *kinds: str) -> list[str]:
        """Names of the computations that attributes of these kinds name."""
        names = []
        for kind in kinds:
            for one, several in re.findall(
                rf"{kind}=(?:%?([\w.-]+)|\{{([^}}]*)\}})", self.attributes
            ):
                names += re.findall(r"[\w.-]+", one or several)
        return names

    @property
    def trips(self) -> int | None:
        """How often a loop runs, if the text says so."""
        match = re.search(r'known_trip_count[^\d}]*?n[":=\s]*(\d+)', self.attributes)
        return int(match.group(1)) if match else None


class Traffic(NamedTuple):
    """What one run of a program does on each device."""

    moved: int
    """Bytes that kernels read and write."""
    launches: int
    """Kernels."""
    exchanged: dict[str, tuple[int, int]]
    """Number and bytes of each kind of exchange between devices."""
    unknown_loops: int
    """Loops that were counted once, because the text does not say how often they run."""


def traffic(text: str) -> Traffic:
    """Counts the traffic of an optimised program, ``compiled.as_text()``."""
    program = _Program(text)
    moved, launches, unknown = 0, 0, 0
    exchanges: collections.Counter[str] = collections.Counter()
    exchanged: collections.Counter[str] = collections.Counter()
    for computation, instruction, times in program.kernels(program.entry, 1):
        if instruction.op == "while":
            unknown += 1
            continue
        moved += times * program.bytes_moved(computation, instruction)
        launches += times
        kind = instruction.op.removesuffix("-start")
        if kind in COLLECTIVES:
            exchanges[kind] += times
            exchanged[kind] += times * array_bytes(instruction.shape, stored=False)
    both = {kind: (exchanges[kind], exchanged[kind]) for kind in exchanges}
    return Traffic(moved, launches, both, unknown)


def array_bytes(shape: str, *, stored: bool = True) -> int:
    """Returns the bytes of all arrays in the text of a shape.

    As stored, they are padded to the tiles of their layouts, and on-chip memory is free.
    """
    return sum(_bytes_of(*found, stored=stored) for found in _ARRAY.findall(shape))


def _bytes_of(dtype: str, sizes: str, layout: str, *, stored: bool = True) -> int:
    if dtype not in BITS or (stored and re.search(r"S\([1-46-9]", layout)):
        return 0
    dims = [int(size) for size in sizes.split(",") if size]
    order, _, rest = layout.strip("{}").partition(":")
    tile = re.match(r"T\(([\d,]+)\)", rest)
    if stored and tile:
        minor = [int(axis) for axis in order.split(",") if axis]
        for axis, size in zip(minor, reversed(tile.group(1).split(",")), strict=False):
            dims[axis] = -(-dims[axis] // int(size)) * int(size)
    return math.prod(dims) * BITS[dtype] // 8


class _Program:
    def __init__(self, text: str) -> None:
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry = ""
        current: dict[str, Instruction] | None = None
        for line in text.splitlines():
            line = re.sub(r"/\*.*?\*/", "", line).strip()
            header = _HEADER.match(line) if current is None else None
            if header:
                current = self.computations[header.group(2)] = {}
                self.entry = header.group(2) if header.group(1) else self.entry
            elif line.startswith("}"):
                current = None
            elif current is not None and (found := _INSTRUCTION.match(line)):
                instruction = _read(found)
                current[instruction.name] = instruction

    def kernels(self, computation: str, times: int) -> Iterator[tuple[str, Instruction, int]]:
        """Yields what runs, with its computation and how often; a loop of unknown length, too."""
        for instruction in self.computations[computation].values():
            op = instruction.op
            if op in _FREE or op.endswith("-done"):
                continue
            if op == "while":
                trips = instruction.trips
                if trips is None:
                    yield computation, instruction, times
                yield from self.kernels(instruction.called("body")[0], times * (trips or 1))
            elif op == "call":
                yield from self.kernels(instruction.called("to_apply", "calls")[0], times)
            elif op == "conditional":
                branches = instruction.called(
                    "true_computation", "false_computation", "branch_computations"
                )
                yield from max((list(self.kernels(b, times)) for b in branches), key=self._work)
            else:
                yield computation, instruction, times

    def bytes_moved(self, computation: str, instruction: Instruction) -> int:
        """Bytes that one kernel reads and writes."""
        op, operands = instruction.op, instruction.operands
        if op == "fusion":
            return self._fusion(computation, instruction)
        if op in ("dynamic-slice", "slice"):
            return 2 * array_bytes(instruction.shape)
        if op == "dynamic-update-slice":
            return 2 * self._size(computation, operands[1])
        read = sum(self._size(computation, name) for name in operands)
        if op == "copy-start":
            return read + _bytes_of(*_ARRAY.findall(instruction.shape)[0])
        return read + array_bytes(instruction.shape)

    def _work(self, kernels: list[tuple[str, Instruction, int]]) -> int:
        return sum(
            times * self.bytes_moved(name, instruction) for name, instruction, times in kernels
        )

    def _size(self, computation: str, name: str) -> int:
        found = self.computations[computation].get(name)
        return array_bytes(found.shape) if found else 0

    def _fusion(self, computation: str, fusion: Instruction) -> int:
        body = self.computations[fusion.called("calls")[0]]
        parameters = {
            int(inner.arguments): inner for inner in body.values() if inner.op == "parameter"
        }
        total = 0
        for number, operand in enumerate(fusion.operands):
            whole = self._size(computation, operand)
            total += self._read_by(body, parameters[number], whole)
        arrays = _ARRAY.findall(fusion.shape)
        for name, array in zip(_results(body), arrays, strict=False):
            update, size = _behind_bitcasts(body, name), _bytes_of(*array)
            if update.op == "dynamic-update-slice":
                size = min(size, array_bytes(body[update.operands[1]].shape))
            total += size
        return total

    def _read_by(self, body: dict[str, Instruction], parameter: Instruction, whole: int) -> int:
        """Bytes that a fusion reads of one operand."""
        read = 0
        for user, name in _users(body, parameter.name):
            first = user.operands[0] == name
            if first and user.op in _SLICES:
                read += array_bytes(user.shape)
            elif not (first and user.op == "dynamic-update-slice"):
                return whole
        return min(read, whole)


def _read(found: re.Match[str]) -> Instruction:
    rest = found.group(3)
    end = _closing(rest, 0) if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].strip()
    start = rest.index("(")
    stop = _closing(rest, start)
    op, arguments, attributes = rest[:start], rest[start + 1 : stop - 1], rest[stop:]
    return Instruction(found.group(2), shape, op, arguments, attributes, bool(found.group(1)))


def _closing(text: str, start: int) -> int:
    """Position behind the bracket that closes the one at ``start``."""
    depth = 0
    for position in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if depth == 0:
            return position + 1
    raise ValueError(f"No bracket closes the one at {start} of {text!r}.")


def _users(body: dict[str, Instruction], name: str) -> Iterator[tuple[Instruction, str]]:
    """Instructions that use a value, also as a bitcast, each with the name that it uses."""
    for user in body.values():
        if name in user.operands:
            if user.op == "bitcast":
                yield from _users(body, user.name)
            else:
                yield user, name


def _results(body: dict[str, Instruction]) -> list[str]:
    (root,) = [instruction for instruction in body.values() if instruction.root]
    return root.operands if root.op == "tuple" else [root.name]


def _behind_bitcasts(body: dict[str, Instruction], name: str) -> Instruction:
    while body[name].op == "bitcast":
        name = body[name].operands[0]
    return body[name]
