"""CSV files with one row per step and one column per feature."""

import codecs
import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.data.checks import clean_values
from experiments.data.csv_columns import Columns, choose_columns, describe
from experiments.data.csv_guess import Layout, Sample, guess
from experiments.data.csv_numbers import read_numbers
from experiments.data.csv_options import CsvOptions
from experiments.data.readers import check_is_file
from experiments.errors import UsageError, blaming_file, shorten

HEAD, LINES = 2**15, 40
"""Bytes (more if they have fewer than eight lines) and lines that are examined for guesses."""
MAX_COLUMNS = 10_000
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
EMPTY = ",;\t \n"
COMMENT = r"#(?![0-9]|(?:N/A|DIV/0!|VALUE!|REF!|NUM!|NAME\?|NULL!))"
_SKIPPED = re.compile(rf"^[ \t]*(?:{COMMENT}(.*))?$", re.M)
_CONTENT = re.compile(rf"^(?![ \t]*(?:{COMMENT}|$)).*$", re.M)
_UNCLOSED = re.compile(r'^[^"\n]*"(?:[^"\n]*"[^"\n]*")*[^"\n]*$', re.M)
_DECLARED = re.compile(r'"?sep=(.)"?', re.I)


class CsvTables(NamedTuple):
    """Files that were read with the same options."""

    arrays: list[np.ndarray]
    """float64, each of shape ``(L, d)``."""
    features: tuple[str, ...] | None
    """Names of the columns, if the files have them."""
    options: CsvOptions
    """How the files were read, completely."""
    remarks: tuple[str, ...]
    """A line that describes how the files were read."""


def read_csvs(paths: Sequence[Path], options: CsvOptions) -> CsvTables:
    """Reads tables of numbers, all with the same options.

    Args:
        paths: the files.
        options: how to read the files; options that are None are guessed from all files.

    Returns:
        The tables.

    Raises:
        UsageError: if a file is not such a table, the files differ, or they are ambiguous; the
            message names the option that settles that.
    """
    samples = [read_sample(path, options.header or 0) for path in paths]
    delimiter, decimal, layouts = guess(
        samples, delimiter=options.delimiter, decimal=options.decimal, header=options.header
    )
    for sample, layout in zip(samples, layouts, strict=True):
        _check_alike(samples[0], layouts[0], sample, layout)
    columns = choose_columns(paths, layouts, decimal, options.columns)
    resolved = CsvOptions(
        delimiter=delimiter,
        decimal=decimal,
        header=layouts[0].header,
        columns=columns.chosen if columns.dropped or options.columns else (),
    )
    arrays = [_read_csv(path, resolved, columns) for path in paths]
    return CsvTables(arrays, columns.features, resolved, (describe(resolved, columns),))


def read_sample(path: Path, header: int) -> Sample:
    """Reads the beginning of a file: its header, and some rows after it."""
    check_is_file(path)
    with blaming_file(path, "table of numbers"):
        text, lines, start = _read_head(path, header)
        if unclosed := _UNCLOSED.search(text):
            raise UsageError(
                f"{path}, line {_line_at(text, unclosed)}: each quote must be closed in its line."
            )
        declared = _DECLARED.fullmatch(lines[0].strip(" ")) if lines else None
        if not lines[bool(declared) :]:
            raise UsageError(f"{path} holds no row of numbers.")
        if len(max(lines, key=len)) > HEAD * 2**5:
            raise UsageError(f"{path} has lines of more than a million characters.")
        skipped = _SKIPPED.finditer(text, 0, start)
        comments = [match.group(1).strip() for match in skipped if match.group(1)]
        return Sample(
            path,
            lines[bool(declared) :],
            comments[-1] if comments else None,
            declared.group(1) if declared else None,
        )


def _read_head(path: Path, header: int) -> tuple[str, list[str], int]:
    """Reads the beginning of a text, its first lines with cells, and their start."""
    head, whole, lines = b"", False, list[str]()
    with path.open("rb") as file:
        while not whole and len(lines) < header + 8:
            more = file.read(max(HEAD, len(head)))
            head, whole = head + more, len(more) < max(HEAD, len(head))
            text = _decode(head, whole=whole)
            text = text if whole else text[: text.rfind("\n") + 1]
            lines, start = _first_lines(text, header)
    return text, lines, start


def _first_lines(text: str, header: int) -> tuple[list[str], int]:
    """Returns the first lines with cells, fewer if they are long, and their start."""
    lines: list[str] = []
    size, start = 0, 0
    for match in _CONTENT.finditer(text):
        n = len(lines) - header
        if n >= LINES or (n >= 4 and size > 4 * HEAD):
            break
        start = start if lines else match.start()
        lines.append(match.group())
        size += len(lines[-1])
    return lines, start


def _decode(data: bytes, *, whole: bool = True) -> str:
    """Decodes UTF-8, UTF-16 with a mark, or Latin-1, and unifies the ends of lines."""
    name = next((name for mark, name in MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = codecs.getincrementaldecoder(name)().decode(data, final=whole)
    except UnicodeDecodeError:
        if name != "utf-8":
            raise
        text = data.decode("latin-1")
    if "\0" in text:
        raise ValueError("it is not text (save it as CSV in UTF-8)")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _check_alike(first_sample: Sample, expected: Layout, sample: Sample, layout: Layout) -> None:
    first, path = first_sample.path, sample.path
    if not {"number", "percent", "boolean", "missing"} & set(layout.kinds):
        raise UsageError(
            f"{path} holds no row of numbers; got {shorten(sample.lines[-1], 40)!r}. If its cells "
            "are separated by another character than , ; tab or space, set --data.csv_delimiter; "
            "after a long header, set --data.csv_header."
        )
    if layout.width > MAX_COLUMNS:
        raise UsageError(
            f"{path} has {layout.width:,} columns, but at most {MAX_COLUMNS:,} are read: a row is "
            "a step and a column a feature, so the file may have to be transposed."
        )
    if layout.width != expected.width:
        raise UsageError(
            f"All files must have the same number of columns; got {expected.width} in {first}, but "
            f"{layout.width} in {path}."
        )
    if layout.header != expected.header:
        raise UsageError(
            "All files must have the same number of lines before the first row of numbers; got "
            f"{expected.header} in {first}, but {layout.header} in {path}: correct one of them, or "
            "set --data.csv_header=N."
        )
    if layout.names != expected.names:
        raise UsageError(
            "All files must have the same names of columns in the same order; got "
            f"{_join(expected.names)} in {first}, but {_join(layout.names)} in {path}."
        )


def _join(names: tuple[str, ...] | None) -> str:
    return ", ".join(names) if names else "none"


def _read_csv(path: Path, options: CsvOptions, columns: Columns) -> np.ndarray:
    with blaming_file(path, "table of numbers"):
        body, find_line = read_body(path, options.header or 0)
        x = read_numbers(path, body, options, columns, find_line)
        return clean_values(path, "x", x, np.ones(len(x), bool))


def read_body(path: Path, header: int) -> tuple[str, Callable[[int], int]]:
    """Reads the rows after the header, without blank lines and comments.

    Returns:
        The text, and a function from the index of a row to its line in the file.
    """
    text = _decode(path.read_bytes())
    start = _find_rows(path, text, header)
    end = text.find("\n", len(text.rstrip(EMPTY)))  # spreadsheets append empty rows
    body = text[start : end if end > 0 else None]
    if not body:
        raise UsageError(f"{path} holds no row of numbers.")
    if _SKIPPED.search(body):
        body = "\n".join(match.group() for match in _CONTENT.finditer(body))

    def find_line(row: int) -> int:
        match = next(itertools.islice(_CONTENT.finditer(text, start), row, None))
        return _line_at(text, match)

    return body, find_line


def _find_rows(path: Path, text: str, header: int) -> int:
    """Returns the start of the first row after the header."""
    for i, match in enumerate(_CONTENT.finditer(text)):
        header += i == 0 and _DECLARED.fullmatch(match.group().strip(" ")) is not None
        if i == header:
            return match.start()
    raise UsageError(f"{path} holds no row of numbers.")


def _line_at(text: str, match: re.Match[str]) -> int:
    """Returns the number of the line at which a match begins."""
    return text.count("\n", 0, match.start()) + 1
