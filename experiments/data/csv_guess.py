"""Guesses of the delimiter, the decimal sign and the header of CSV files."""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.data.csv_cells import Kind, cell_kind, is_count
from experiments.errors import UsageError, shorten

CANDIDATES = (
    *((",", "."), (";", "."), (";", ","), ("\t", "."), ("\t", ","), (" ", "."), (" ", ",")),
    (",", ","),
)
"""Delimiters with decimal signs, the most likely first."""
SINGLE = ((",", "."), (";", ","))
"""Pairs for files with one number per line."""
NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", " ": "spaces"}
_NAMELESS = re.compile(r"(?:[0-9.,;:|\t +/'\"\u2212-]|(?<=[0-9.])[eE%])*")
"""Pattern of cells that are not names, such as numbers between other delimiters."""


class Sample(NamedTuple):
    """The beginning of a file."""

    path: Path
    lines: list[str]
    """Lines with cells."""
    comment: str | None
    """The last comment before them."""
    delimiter: str | None
    """The delimiter that the file declares."""


class Layout(NamedTuple):
    """The structure of a file for a given delimiter and decimal sign."""

    header: int
    """Lines before the first row of numbers."""
    width: int
    """Cells per row."""
    names: tuple[str, ...] | None
    """Names of the columns."""
    kinds: tuple[Kind, ...]
    """Kind of most cells of each column."""
    rows: list[list[str]]
    """The first rows of numbers."""
    cost: int
    """Number of cells and rows that do not fit."""


def split_cells(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    """Splits lines into cells, without quotes and outer spaces."""
    rows = []
    for line in (line.strip(" ") for line in lines):
        if '"' in line:
            (row,) = csv.reader([line], delimiter=delimiter, skipinitialspace=True)
        else:
            row = re.split(" +", line) if delimiter == " " else line.split(delimiter)
        rows.append([cell.strip() for cell in row])
    return rows


def guess(
    samples: Sequence[Sample], *, delimiter: str | None, decimal: str | None, header: int | None
) -> tuple[str, str, list[Layout]]:
    """Guesses the format of all files together.

    Args:
        samples: the beginnings of the files.
        delimiter: the delimiter, if it is known.
        decimal: the decimal sign, if it is known.
        header: the number of lines before the numbers, if it is known.

    Returns:
        The delimiter, the decimal sign, and the layout of each file.

    Raises:
        UsageError: if the files are ambiguous.
    """
    declared = {sample.delimiter for sample in samples if sample.delimiter}
    given = delimiter or (declared.pop() if len(declared) == 1 else None)
    pairs = CANDIDATES if given is None else ((given, "."), (given, ","))
    marks = {mark for mark in NAMES if any(mark in line for s in samples for line in s.lines)}
    pairs = [pair for pair in pairs if given or pair in SINGLE or pair[0] in marks]
    quoted = given is not None or any('"' in line for sample in samples for line in sample.lines)
    pairs = [pair for pair in pairs if decimal in (None, pair[1]) and (quoted or len({*pair}) > 1)]
    tried = [(pair, [_lay_out(s, *pair, header) for s in samples]) for pair in pairs]

    def rank(candidate: tuple[tuple[str, str], list[Layout]]) -> tuple[int, int]:
        layouts = candidate[1]
        return sum(layout.cost for layout in layouts), -max(layout.width for layout in layouts)

    (delimiter, chosen), layouts = best = min(tried, key=rank)  # the first minimum
    if decimal is None:
        rivals = [pair for pair, others in tried if rank((pair, others)) == rank(best)]
        if (delimiter, ",") in rivals and chosen == ".":
            chosen = _settle_decimal(samples, layouts, delimiter)
            layouts = dict(tried)[delimiter, chosen]
        if given is None:
            _refuse_pairs(samples, (delimiter, chosen), layouts, dict(tried).get(SINGLE[1], ()))
    if header is None:
        _refuse_numbered_header(samples, layouts)
    for sample, layout in zip(samples, layouts, strict=True):
        _refuse_uneven_header(sample, layout, delimiter)
    return delimiter, chosen, layouts


def _lay_out(sample: Sample, delimiter: str, decimal: str, header: int | None) -> Layout:
    try:
        rows = split_cells(sample.lines, delimiter)
    except csv.Error as error:
        raise UsageError(f"{sample.path} is not a table of numbers: {error}.") from None
    known = rows[header or 0 :] or rows
    last = known[-max(1, len(known) // 3) :]
    width = Counter(map(len, last)).most_common(1)[0][0]
    kinds = _column_kinds([row for row in last if len(row) == width], decimal)
    if header is None:
        header = _count_header(rows, kinds, decimal)
    body, head = rows[header:], rows[:header]
    kinds = _column_kinds([row for row in body if len(row) == width], decimal) or kinds
    cost = sum(len(row) != width for row in body)
    cost += sum(cell_kind(cell, decimal) == "text" for row in body for cell in row)
    cost += len(body) * (not set(kinds) & {"number", "percent", "boolean"})
    names = _find_names(sample, head, body, delimiter, width)
    cost += 1 if head and names is None else 0
    if width == 1 and decimal == "," and any("," in cell for row in head for cell in row):
        cost += 10 * len(rows)  # names of several columns
    return Layout(header, width, names, kinds, body, cost)


def _column_kinds(rows: Sequence[Sequence[str]], decimal: str) -> tuple[Kind, ...]:
    """Returns the kind of most cells of each column that are not missing."""
    kinds: list[Kind] = []
    for column in zip(*rows, strict=True):
        counts = Counter(cell_kind(cell, decimal) for cell in column)
        counts["missing"] = min(counts["missing"], 0 if len(counts) > 1 else 1)
        kinds.append(counts.most_common(1)[0][0])
    return tuple(kinds)


def _count_header(rows: Sequence[Sequence[str]], kinds: Sequence[Kind], decimal: str) -> int:
    """Counts the rows before the numbers; the last of them consists of names only.

    A row with a word among numbers may have a typo. It belongs to the header if names follow.
    """
    n = len(kinds)
    header = 0
    for at, row in enumerate(rows[:-1]):
        below = [other[0] for other in rows[at + 1 :] if other]
        unnamed = row[0] == "" and len(row) == n > 1 and all(map(str.isdecimal, row[1:]))
        texts = [i for i, cell in enumerate(row) if cell_kind(cell, decimal) == "text"]
        if unnamed and len(below) > 1 and is_count(below) and below[0] in ("0", "1"):
            return at + 1
        if not any(i >= n or kinds[i] != "text" for i in texts):
            break
        numbers = [cell for cell in row if "number" in map(cell_kind, (cell, cell), ".,")]
        if any(_NAMELESS.fullmatch(row[i]) for i in texts):
            continue
        if not numbers or (len(numbers) > 1 and is_count(numbers) and numbers[0] in ("0", "1")):
            header = at + 1
    return header


def _find_names(
    sample: Sample,
    head: Sequence[list[str]],
    body: Sequence[Sequence[str]],
    delimiter: str,
    width: int,
) -> tuple[str, ...] | None:
    """Returns the names of the columns; R writes row numbers without a name."""
    if not head and sample.comment is not None:
        head = split_cells([sample.comment], delimiter)
        return tuple(head[0]) if len(head[0]) == width and all(head[0]) else None
    full = [row for row in head if len(row) == width]
    for row in sorted(full, key=lambda row: sum(cell_kind(cell, ".") != "text" for cell in row)):
        return tuple(row)
    for row in head:
        if len(row) == width - 1 and all(cells[-1:] == [""] for cells in body):
            return (*row, "")
        quoted = delimiter in " \t" or sample.lines[-1].startswith('"')
        if len(row) == width - 1 and quoted and len(body) > 1:
            return ("", *row)
    return None


def _settle_decimal(samples: Sequence[Sample], layouts: Sequence[Layout], delimiter: str) -> str:
    """Returns the decimal sign if commas may also separate thousands."""
    cells = [
        (cell, sample.path)
        for sample, layout in zip(samples, layouts, strict=True)
        for row in layout.rows
        for cell in row
        if "," in cell and cell_kind(cell, ",") != "text"
    ]
    if not cells or delimiter == ";":
        return "," if cells else "."
    cell, path = cells[0]
    raise UsageError(
        f"{path}: it is not clear whether {cell} has a decimal comma or a comma between thousands: "
        "set --data.csv_decimal=',' or --data.csv_decimal='.'."
    )


def _refuse_pairs(
    samples: Sequence[Sample],
    pair: tuple[str, str],
    layouts: Sequence[Layout],
    single: Sequence[Layout],
) -> None:
    """Raises a UsageError if two columns may be one column with decimal commas."""
    if any(layout.width != 1 or layout.cost for layout in single):
        return
    numbers = [row[0] for layout in single for row in layout.rows if "," in row[0]]
    if not numbers:
        return
    may_be_decimals = _may_be_decimals(numbers, single)
    has_name = any(layout.names for layout in single)
    if (has_name and may_be_decimals) if pair == SINGLE[1] else not may_be_decimals:
        return
    raise UsageError(
        f"{samples[0].path}: it is not clear whether {numbers[0]} is one number with a decimal "
        "comma or two numbers: set --data.csv_decimal=',' or --data.csv_decimal='.'."
    )


def _may_be_decimals(numbers: Sequence[str], single: Sequence[Layout]) -> bool:
    """Returns whether each pair of whole numbers may be one number."""
    columns = [[row[0].split(",")[0] for row in layout.rows] for layout in single]
    if all(map(is_count, columns)) and any(len(column) > 1 for column in columns):
        from_start = {column[0] for column in columns if column} <= {"0", "1"}
        if from_start or max(map(len, columns)) > 2:
            return False  # the first column is a row number
    fractions = [re.sub("[eE].*", "", number.split(",")[1]) for number in numbers]
    is_fixed = len({len(digits) for digits in fractions}) == 1
    is_shortest = not any(len(digits) > 1 and digits.endswith("0") for digits in fractions)
    return is_fixed or is_shortest


def _refuse_numbered_header(samples: Sequence[Sample], layouts: Sequence[Layout]) -> None:
    """Raises a UsageError if the first row 0, 1, ... may be default names of columns."""
    numbered = [
        not layout.header
        and len(layout.rows) > 1
        and layout.rows[0] == [str(i) for i in range(layout.width)]
        for layout in layouts
    ]
    if all(numbered):
        raise UsageError(
            f"{samples[0].path}: it is not clear whether the first row, "
            f"{shorten(', '.join(layouts[0].rows[0]), 40)}, has column numbers, as pandas writes "
            "them, or values: set --data.csv_header=1 or --data.csv_header=0."
        )


def _refuse_uneven_header(sample: Sample, layout: Layout, delimiter: str) -> None:
    """Raises a UsageError if there are more or fewer names than columns; a title is allowed."""
    if not layout.header or layout.names is not None:
        return
    n = len(split_cells([sample.lines[layout.header - 1]], delimiter)[0])
    if n > 1:
        raise UsageError(
            f"{sample.path} has {n} column names but rows of {layout.width} cells: correct the "
            "names, or set --data.csv_delimiter or --data.csv_decimal."
        )
