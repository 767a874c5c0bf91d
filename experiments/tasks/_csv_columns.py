"""Which columns of CSV files are features, and their numbers."""

import io
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.errors import UsageError, shorten
from experiments.tasks._csv_cells import (
    BOOLEAN,
    MINUS,
    MISSING,
    NUMBER,
    PERCENT,
    Kind,
    cell_kind,
    is_count,
)
from experiments.tasks._csv_guess import NAMES, Layout
from experiments.tasks._csv_options import CsvOptions

BLOCK = 2**24
"""Bytes that hold the longest row."""
PLURALS = {".": "decimal points", ",": "decimal commas"}
WHY = {
    "count": "row numbers or names",
    "time": "time stamps; `dt` can be given in a .npz file",
    "missing": "empty",
}


class Columns(NamedTuple):
    """Which columns of all files are read."""

    width: int
    """Cells a row."""
    names: tuple[str, ...] | None
    """Of all columns."""
    kept: tuple[int, ...]
    """Which are features."""
    kinds: tuple[Kind, ...]
    """What they hold."""
    dropped: dict[int, str]
    """Which are not, and why: "count", "time", "missing"."""

    @property
    def features(self) -> tuple[str, ...] | None:
        """Names of the features."""
        return tuple(self.names[i] for i in self.kept) if self.names else None

    @property
    def chosen(self) -> tuple[str, ...]:
        """The features as ``CsvOptions.columns`` has them."""
        names = self.features or ()
        is_clear = names and all(name and (self.names or ()).count(name) == 1 for name in names)
        return names if is_clear else tuple(str(i + 1) for i in self.kept)

    def label(self, i: int) -> str:
        """``"column 2 (`b`)"``."""
        name = self.names[i] if self.names else ""
        return f"column {i + 1}" + (f" (`{shorten(name, 40)}`)" if name else "")


def choose_columns(
    paths: Sequence[Path], layouts: Sequence[Layout], decimal: str, chosen: tuple[str, ...]
) -> Columns:
    """Decides which columns are features.

    Args:
        paths: the files, for messages.
        layouts: of each; they agree in width and names.
        decimal: sign.
        chosen: names or numbers of columns, if the user gave them.

    Raises:
        UsageError: if a column does not exist, or holds something else than numbers.
    """
    width, names = layouts[0].width, layouts[0].names
    kinds: list[Kind] = []
    for i in range(width):
        counts = Counter(layout.kinds[i] for layout in layouts)
        del counts["missing"]
        kinds.append(counts.most_common(1)[0][0] if counts else "missing")
    columns = Columns(width, names, tuple(range(width)), tuple(kinds), {})
    if chosen:
        kept = tuple(_find_column(paths[0], columns, name) for name in chosen)
        dropped = {}
    else:
        dropped = _find_dropped(paths[0], layouts, columns)
        kept = tuple(i for i in range(width) if i not in dropped)
    if not kept:
        raise UsageError(f"{paths[0]} holds no column of numbers.")
    for i in kept:
        _check_kind(paths, layouts, decimal, columns, i)
    return columns._replace(kept=kept, kinds=tuple(kinds[i] for i in kept), dropped=dropped)


def _check_kind(
    paths: Sequence[Path], layouts: Sequence[Layout], decimal: str, columns: Columns, i: int
) -> None:
    """Raises a UsageError unless a column holds numbers of one kind in all files."""
    found = {}
    for path, layout in zip(paths, layouts, strict=True):
        kind = layout.kinds[i]
        cells = (row[i] for row in layout.rows if len(row) == columns.width)
        if kind != "missing" and kind not in found:
            cell = next((cell for cell in cells if cell_kind(cell, decimal) == kind), "")
            found[kind] = path, shorten(cell, 40)
    (path, cell), *others = found.values() or [(paths[0], "")]
    if others:
        raise UsageError(
            f"{columns.label(i).capitalize()} must hold numbers of one form, with "
            f"{PLURALS[decimal]}, in all files; got {cell!r} in {path}, but {others[0][1]!r} in "
            f"{others[0][0]}."
        )
    if {"text", "time"} & set(found):
        numbers = [j for j, kind in enumerate(columns.kinds) if kind not in ("text", "time")]
        rest = " ".join(str(j + 1) for j in numbers)
        raise UsageError(
            f"{path}: {columns.label(i)} must hold numbers; got {cell!r}. Choose the columns "
            f"to read, for example --data.csv_columns {rest}."
        )


def _find_column(path: Path, columns: Columns, name: str) -> int:
    names = columns.names or ()
    if names.count(name) == 1:
        return names.index(name)
    if name.isdecimal() and 0 < int(name) <= columns.width:
        return int(name) - 1
    valid = f"{', '.join(names)}, or " if names else ""
    raise UsageError(
        f"{path} has no column {name!r}: choose from {valid}1 to {columns.width} in "
        "--data.csv_columns."
    )


def _find_dropped(path: Path, layouts: Sequence[Layout], columns: Columns) -> dict[int, str]:
    """Row numbers without a name, time stamps, and a last column without a name or a cell."""
    names = columns.names
    dropped = {i: "time" for i, kind in enumerate(columns.kinds) if kind == "time"}
    last = columns.width - 1
    if columns.kinds[last] == "missing" and last and not (names and names[last]):
        dropped[last] = "missing"
    unnamed = names is not None and (names[0] == "" or names[0] == "Unnamed: 0")
    if unnamed and columns.width > 1 and columns.kinds[0] in ("number", "text"):
        counts = all(is_count(row[0] for row in layout.rows if row) for layout in layouts)
        if columns.kinds[0] == "number" and not counts:
            rest = " ".join(str(i + 1) for i in range(1, columns.width))
            raise UsageError(
                f"{path}: it is not clear whether column 1, which has no name, is a feature: "
                f"choose the columns to read, for example --data.csv_columns {rest}."
            )
        dropped[0] = "count"
    return dropped


def describe(options: CsvOptions, columns: Columns) -> str:
    """How files were read, in one line."""
    delimiter, decimal, n = _resolved(options)
    delimiter = NAMES.get(delimiter, repr(delimiter))
    said = [f"{len(columns.kept)} column{'s' if len(columns.kept) > 1 else ''}"]
    if columns.features:
        said[0] += f" ({shorten(', '.join(columns.features), 120)})"
    if columns.width > 1:
        said[0] += f", separated by {delimiter}"
    said += [PLURALS[decimal], f"{n or 'no'} header line{'' if n == 1 else 's'}"]
    if "percent" in columns.kinds:
        said.append("5% means 0.05")
    for i, why in sorted(columns.dropped.items()):
        said.append(f"{columns.label(i)} skipped ({WHY[why]})")
    return f"Read as: {'; '.join(said)}."


def read_numbers(
    path: Path,
    body: str,
    options: CsvOptions,
    columns: Columns,
    find_line: Callable[[int], int],
) -> np.ndarray:
    """The numbers in rows of cells.

    Args:
        path: the file, for messages.
        body: rows, without a header, blank lines and comments.
        options: delimiter and decimal sign.
        columns: which cells to read.
        find_line: the line of the file that holds a row.

    Returns:
        float64, shape ``(L, d)``.

    Raises:
        UsageError: if a cell is missing or no number; names its line and column.
    """
    from pyarrow import csv, string  # slow to import

    delimiter, decimal, _ = _resolved(options)
    if delimiter == " ":
        body = re.sub(r"(?m)^ +| +$|(?<= ) +", "", body)
    ragged: list[tuple[int, int]] = []

    def note(row: Any) -> str:
        ragged.append((row.number, row.actual_columns))
        return "skip"

    names = [str(i) for i in range(columns.width)]
    data = body.encode()
    table = csv.read_csv(
        io.BytesIO(data),
        csv.ReadOptions(
            use_threads=False, column_names=names, block_size=min(BLOCK, len(data) + 1)
        ),
        csv.ParseOptions(delimiter=delimiter, invalid_row_handler=note),
        csv.ConvertOptions(
            include_columns=[str(i) for i in columns.kept],
            column_types=dict.fromkeys(names, string()),
            strings_can_be_null=False,
        ),
    )
    if ragged:
        number, n = ragged[0]
        raise UsageError(
            f"{path}, line {find_line(number - 1)}: each row must have {columns.width} cells, as "
            f"the other rows have; got {n}."
        )
    x = np.empty((table.num_rows, len(columns.kept)))
    for j, (i, kind) in enumerate(zip(columns.kept, columns.kinds, strict=True)):
        bad = _convert(table.column(j), kind, decimal, x[:, j])
        if bad is not None:
            where = f"{path}, line {find_line(bad)}, {columns.label(i)}"
            raise UsageError(f"{where}: {_complain(table.column(j)[bad].as_py(), kind, bad)}")
    return x


def _convert(cells: Any, kind: Kind, decimal: str, out: np.ndarray) -> int | None:
    """Writes the numbers of a column; returns the row of a cell that is no finite number."""
    import pyarrow.compute

    compute: Any = pyarrow.compute  # makes its functions when it is imported
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
    return int(wide.argmax()) if wide.any() else None


def _complain(cell: str, kind: Kind, row: int) -> str:
    got = shorten(cell, 40)
    if cell.strip(' "').lower() in MISSING:
        said = f"the value is missing (got {got!r}): fill it in, or delete the row"
    else:
        noun = {"boolean": "True or False", "percent": "a percentage"}.get(kind, "a finite number")
        said = f"must be {noun}; got {got!r}"
    return said + ("; or set --data.csv_header if this is a header." if row == 0 else ".")


def _resolved(options: CsvOptions) -> tuple[str, str, int]:
    delimiter, decimal, header = options.delimiter, options.decimal, options.header
    assert delimiter is not None, "it was guessed"
    assert decimal is not None, "it was guessed"
    return delimiter, decimal, header or 0
