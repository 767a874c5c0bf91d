"""Conversion of the cells of CSV files to numbers."""

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.csv_cells import BOOLEAN, MINUS, MISSING, NUMBER, PERCENT, Kind
from experiments.data.csv_columns import Columns
from experiments.data.csv_options import CsvOptions
from experiments.errors import UsageError, shorten

BLOCK = 2**24
"""Upper bound on the length of a row [bytes]."""


def read_numbers(
    path: Path, body: str, options: CsvOptions, columns: Columns, find_line: Callable[[int], int]
) -> np.ndarray:
    """Converts rows of cells to numbers.

    Args:
        path: the file, for messages.
        body: rows, without a header, blank lines and comments.
        options: delimiter and decimal sign.
        columns: the columns to read.
        find_line: maps a row to its line in the file.

    Returns:
        float64, shape ``(L, d)``.

    Raises:
        UsageError: if a cell is missing or not a number; the message has its line and column.
    """
    delimiter, decimal, _ = options.resolved
    empty = [i for i, why in columns.dropped.items() if why == "missing"]
    included = sorted({*columns.kept, *empty})
    table = read_cells(path, body, delimiter, columns.width, included, find_line)
    for i, why in columns.dropped.items():
        cells = table.column(str(i)).to_pylist() if why == "missing" else []
        row = next((row for row, cell in enumerate(cells) if cell.strip(' "')), None)
        if row is not None:
            raise UsageError(
                f"{path}, line {find_line(row)}, {columns.label(i)}: must be empty, as in the "
                f"first rows; got {shorten(cells[row], 40)!r}. Choose the columns to read with "
                "--data.csv_columns."
            )
    x = np.empty((table.num_rows, len(columns.kept)))
    for j, (i, kind) in enumerate(zip(columns.kept, columns.kinds, strict=True)):
        bad = convert(table.column(str(i)), kind, decimal, x[:, j])
        if bad is not None:
            where = f"{path}, line {find_line(bad)}, {columns.label(i)}"
            raise UsageError(f"{where}: {_complain(table.column(str(i))[bad].as_py(), kind, bad)}")
    return x


def read_cells(
    path: Path,
    body: str,
    delimiter: str,
    width: int,
    included: Sequence[int],
    find_line: Callable[[int], int],
) -> Any:
    """Splits rows into a table of strings, whose names are the numbers of the columns.

    Args:
        path: the file, for messages.
        body: rows, without a header, blank lines and comments.
        delimiter: the character between cells.
        width: cells per row.
        included: indices of the columns to keep.
        find_line: maps a row to its line in the file.

    Raises:
        UsageError: if a row has more or fewer cells.
    """
    from pyarrow import csv, string  # slow to import

    if delimiter == " ":
        body = re.sub(r"(?m)^ +| +$|(?<= ) +", "", body)
    ragged: list[tuple[int, int]] = []

    def note(row: Any) -> str:
        ragged.append((row.number, row.actual_columns))
        return "skip"

    names = [str(i) for i in range(width)]
    data = body.encode()
    table = csv.read_csv(
        io.BytesIO(data),
        csv.ReadOptions(
            use_threads=False, column_names=names, block_size=min(BLOCK, len(data) + 1)
        ),
        csv.ParseOptions(delimiter=delimiter, invalid_row_handler=note),
        csv.ConvertOptions(
            include_columns=[str(i) for i in included],
            column_types=dict.fromkeys(names, string()),
            strings_can_be_null=False,
        ),
    )
    if ragged:
        number, n = ragged[0]
        raise UsageError(
            f"{path}, line {find_line(number - 1)}: each row must have {width} cells, as "
            f"the other rows have; got {n}."
        )
    return table


def convert(cells: Any, kind: Kind, decimal: str, out: np.ndarray) -> int | None:
    """Writes the numbers of a column; returns the row of a cell that is not a finite number."""
    import pyarrow.compute

    compute: Any = pyarrow.compute  # its functions are generated on import
    cells = compute.utf8_trim(cells, ' \t\xa0"')
    cells = compute.replace_substring(cells, MINUS, "-")
    forms = {"boolean": BOOLEAN, "percent": f"(?:{NUMBER[decimal]}){PERCENT}"}
    fits = compute.match_substring_regex(cells, f"^(?:{forms.get(kind, NUMBER[decimal])})$")
    bad = compute.index(fits, False).as_py()
    if bad >= 0:
        return bad
    if kind == "boolean":
        out[:] = compute.equal(compute.utf8_lower(cells), "true").to_numpy()
        return None
    cells = compute.replace_substring(cells, "," if decimal == "." else ".", "")
    cells = compute.replace_substring(cells, decimal, ".")
    cells = compute.utf8_rtrim(cells, " %")
    out[:] = compute.cast(cells, pyarrow.float64()).to_numpy()
    out /= 100 if kind == "percent" else 1
    with np.errstate(over="ignore"):
        wide = ~np.isfinite(out.astype(np.float32))
    return int(np.argmax(wide)) if wide.any() else None


def _complain(cell: str, kind: Kind, row: int) -> str:
    got = shorten(cell, 40)
    if cell.strip(' "').lower() in MISSING:
        problem = f"the value is missing (got {got!r}): fill it in, or delete the row"
    else:
        noun = {"boolean": "True or False", "percent": "a percentage"}.get(kind, "a finite number")
        problem = f"must be {noun}; got {got!r}"
    return problem + ("; or set --data.csv_header if this is a header." if row == 0 else ".")
