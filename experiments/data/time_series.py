"""Reader of ``.ts`` files, in which the UEA, UCR and TSER archives publish their time series.

It exists because aeon 1.6, which also reads them, requires ``numpy<2.4``.

A file has comments (``#`` or ``%``), headers (``@equalLength true``), a line ``@data``, and then a
line for each series: its dimensions and its class or value, separated by colons. Values of a
dimension are separated by commas, and ``?`` or ``NaN`` stands for a missing one.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.data.readers import check_is_file
from experiments.errors import UsageError, choose, shorten

HEADERS = dict.fromkeys(
    (
        *("problemname", "timestamps", "missing", "univariate", "dimensions", "dimension"),
        *("equallength", "serieslength", "classlabel", "targetlabel"),
    )
)
"""Names of headers, in lower case, as files differ in that."""
MISSING = "?"


class SeriesFile(NamedTuple):
    """The series of a file in its order."""

    values: list[np.ndarray]
    """float32 of shape ``(L, d)`` for each series; NaN where a value is missing."""
    labels: np.ndarray | None
    """Classes, int32 of shape ``(N,)``; or values, float64 ``(N,)``; None if there are neither."""
    classes: tuple[str, ...] | None
    """Names of the classes, in the order of the header; None for values."""


class _Line(NamedTuple):
    """A line of a file, for messages."""

    path: Path
    number: int
    text: str

    def error(self, rule: str, received: object, remedy: str) -> UsageError:
        got = shorten(received, 60)
        return UsageError(f"{self.path}, line {self.number}: {rule}; got {got}. {remedy}")


@dataclasses.dataclass(kw_only=True)
class _Header:
    """What the headers promise; None for what they leave open."""

    missing: bool | None = None
    n_dimensions: int | None = None
    equal: bool | None = None
    length: int | None = None
    classes: tuple[str, ...] | None = None
    has_targets: bool = False


def read_time_series(path: Path) -> SeriesFile:
    """Reads a ``.ts`` file.

    Args:
        path: the file.

    Returns:
        Its series, with their classes or values.

    Raises:
        UsageError: if a line breaks a rule of the format or differs from the headers; the message
            names the line and a remedy.
    """
    check_is_file(path)
    with path.open(encoding="utf-8", errors="replace") as file:
        lines = _numbered(path, file)
        header = _read_header(path, lines)
        values, labels = [], []
        for line in lines:
            series, label = _read_series(line, header)
            values.append(series)
            labels.append(label)
    if not values:
        raise UsageError(f"{path} has no series after the line @data: copy the file again.")
    if header.classes is None and not header.has_targets:
        return SeriesFile(values, None, None)
    dtype = np.float64 if header.classes is None else np.int32
    return SeriesFile(values, np.array(labels, dtype), header.classes)


def _numbered(path: Path, file: Iterable[str]) -> Iterator[_Line]:
    """Yields the lines that are neither empty nor comments."""
    for number, text in enumerate(file, start=1):
        if (text := text.strip()) and text[0] not in "#%":
            yield _Line(path, number, text)


def _read_header(path: Path, lines: Iterator[_Line]) -> _Header:
    """Reads the lines up to ``@data``."""
    header = _Header()
    for line in lines:
        name, *words = line.text.split()
        if name.lower() == "@data":
            return header
        if not name.startswith("@") or not words:
            rule = "must be a header, @NAME VALUE, as the line @data has not come yet"
            raise line.error(rule, repr(line.text), "Correct the line, or add @data above it.")
        try:
            choose("header", name[1:].lower(), HEADERS)
        except UsageError as error:
            raise UsageError(f"{path}, line {line.number}: {error}") from None
        _set(header, line, name[1:].lower(), words)
    raise UsageError(f"{path} has no line @data, after which the series begin: add it.")


def _set(header: _Header, line: _Line, name: str, words: list[str]) -> None:
    """Takes one header over."""
    if name == "timestamps":
        if _boolean(line, words[0]):
            rule = "@timeStamps must be false, as only series with regular steps are read"
            raise line.error(rule, words[0], "Write (time,value) pairs as values alone.")
    elif name == "missing":
        header.missing = _boolean(line, words[0])
    elif name == "univariate":
        header.n_dimensions = 1 if _boolean(line, words[0]) else header.n_dimensions
    elif name in ("dimensions", "dimension"):
        header.n_dimensions = _count(line, words[0])
    elif name == "equallength":
        header.equal = _boolean(line, words[0])
    elif name == "serieslength":
        header.length = _count(line, words[0])
    elif name == "classlabel":
        if _boolean(line, words[0]):
            header.classes = tuple(words[1:])
            if len(set(header.classes)) < max(len(header.classes), 2):
                rule = "@classLabel must name two or more classes, each of them once"
                raise line.error(rule, " ".join(words[1:]) or "none", "Correct the header.")
    elif name == "targetlabel":
        header.has_targets = _boolean(line, words[0])


def _boolean(line: _Line, word: str) -> bool:
    if word.lower() not in ("true", "false"):
        rule = f"{line.text.split()[0]} must be true or false"
        raise line.error(rule, repr(word), "Correct the header.")
    return word.lower() == "true"


def _count(line: _Line, word: str) -> int:
    if not (word.isascii() and word.isdigit() and int(word) > 0):
        rule = f"{line.text.split()[0]} must be a whole number above 0"
        raise line.error(rule, repr(word), "Correct the header.")
    return int(word)


def _read_series(line: _Line, header: _Header) -> tuple[np.ndarray, float]:
    """Reads the values of one series, and its class, value, or NaN if the file has neither."""
    parts = line.text.split(":")
    label = parts.pop() if header.classes or header.has_targets else ""
    if header.n_dimensions is None:
        header.n_dimensions = max(len(parts), 1)  # those of the first series hold for all
    if len(parts) != header.n_dimensions:
        ending = "" if not (header.classes or header.has_targets) else ", then a colon and the "
        ending += "class" if header.classes else "value" if header.has_targets else ""
        rule = f"must have {header.n_dimensions} dimensions between colons{ending}"
        remedy = "Correct the line, or the number in the header @dimensions."
        raise line.error(rule, f"{len(parts)} dimensions", remedy)
    columns = [_read_values(line, i, text) for i, text in enumerate(parts, start=1)]
    lengths = sorted({len(column) for column in columns})
    if len(lengths) > 1:
        rule = "all dimensions of a series must have the same number of values"
        remedy = "Fill up the shorter ones with ?."
        raise line.error(rule, " and ".join(map(str, lengths)), remedy)
    series = np.stack(columns, axis=-1)
    _check_series(line, series, header)
    return series, _read_label(line, label.strip(), header)


def _read_values(line: _Line, i: int, text: str) -> np.ndarray:
    """Reads one dimension."""
    cells = text.replace(MISSING, "NaN").split(",")
    try:
        values = np.array(cells, np.float64)
    except ValueError:
        values = None
    with np.errstate(over="ignore"):
        found = None if values is None or "_" in text else values.astype(np.float32)
    if found is None or np.isinf(found).any():
        for j, cell in enumerate(text.split(","), start=1):
            if not _is_number(cell):
                rule = f"value {j} of dimension {i} must be a finite number, or ? if it is missing"
                raise line.error(rule, repr(cell.strip()), "Correct it, or write ? there.")
        raise AssertionError("one of the values is no number")
    return found


def _is_number(cell: str) -> bool:
    if cell.strip() in (MISSING, "NaN"):
        return True
    try:
        return "_" not in cell and (abs(float(cell)) < 3e38 or math.isnan(float(cell)))
    except ValueError:
        return False


def _check_series(line: _Line, series: np.ndarray, header: _Header) -> None:
    """Checks length and missing values against the headers."""
    if header.equal and header.length is None:
        header.length = len(series)  # that of the first series holds for all
    if header.equal and len(series) != header.length:
        rule = f"must have {header.length} values in each dimension, as @equalLength is true"
        remedy = "Correct the line, or write @equalLength false."
        raise line.error(rule, len(series), remedy)
    n = int(np.isnan(series).sum())
    if n and header.missing is False:
        rule = "must have no missing values, as @missing is false"
        raise line.error(rule, f"{n} of them", "Fill them in, or write @missing true.")
    if n == series.size:
        raise line.error("must have a value", "missing values alone", "Remove the line.")


def _read_label(line: _Line, label: str, header: _Header) -> float:
    if header.classes is not None:
        if label not in header.classes:
            known = ", ".join(header.classes)
            rule = f"the class after the last colon must be one of @classLabel ({shorten(known)})"
            raise line.error(rule, repr(label), "Add it to the header, or correct the line.")
        return header.classes.index(label)
    if not header.has_targets:
        return math.nan
    if not _is_number(label) or label.lower() in (MISSING, "nan"):
        rule = "the value after the last colon must be a finite number"
        raise line.error(rule, repr(label), "Correct it, or remove the line.")
    return float(label)
