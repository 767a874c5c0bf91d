"""Selection of the columns of CSV files that are features."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.data.csv_cells import Kind, cell_kind, is_count
from experiments.data.csv_guess import NAMES, Layout
from experiments.data.csv_options import CsvOptions
from experiments.errors import UsageError, shorten

PLURALS = {".": "decimal points", ",": "decimal commas"}
WHY = {
    "count": "row numbers or names",
    "time": "time stamps; `dt` can be given in a .npz file",
    "missing": "empty",
}


class Columns(NamedTuple):
    """The columns that are read in all files."""

    width: int
    """Cells per row."""
    names: tuple[str, ...] | None
    """Names of all columns."""
    kept: tuple[int, ...]
    """Indices of the features."""
    kinds: tuple[Kind, ...]
    """Kinds of the cells of each feature."""
    dropped: dict[int, str]
    """Indices of the other columns, and the reason: "count", "time", "missing"."""

    @property
    def features(self) -> tuple[str, ...] | None:
        """Names of the features."""
        return tuple(self.names[i] for i in self.kept) if self.names else None

    @property
    def chosen(self) -> tuple[str, ...]:
        """The features in the form of ``CsvOptions.columns``."""
        names = self.features or ()
        is_clear = names and all(name and (self.names or ()).count(name) == 1 for name in names)
        return names if is_clear else tuple(str(i + 1) for i in self.kept)

    def label(self, i: int) -> str:
        """Names a column in a message, as in ``"column 2 (`b`)"``."""
        name = self.names[i] if self.names else ""
        return f"column {i + 1}" + (f" (`{shorten(name, 40)}`)" if name else "")


def choose_columns(
    paths: Sequence[Path], layouts: Sequence[Layout], decimal: str, chosen: tuple[str, ...]
) -> Columns:
    """Selects the columns that are features.

    Args:
        paths: the files, for messages.
        layouts: the layout of each file, with equal widths and names.
        decimal: the decimal sign.
        chosen: names or numbers of columns, if the user set them.

    Raises:
        UsageError: if a column does not exist, or does not consist of numbers.
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
        raise UsageError(f"{paths[0]} has no column of numbers.")
    for i in kept:
        _check_kind(paths, layouts, decimal, columns, i)
    return columns._replace(kept=kept, kinds=tuple(kinds[i] for i in kept), dropped=dropped)


def _check_kind(
    paths: Sequence[Path], layouts: Sequence[Layout], decimal: str, columns: Columns, i: int
) -> None:
    """Raises a UsageError unless a column consists of numbers of one kind in all files."""
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
    """Finds unnamed row numbers, time stamps, and an empty last column without a name."""
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
    """Describes in one line how files were read."""
    delimiter, decimal, n = options.resolved
    delimiter = NAMES.get(delimiter, repr(delimiter))
    parts = [f"{len(columns.kept)} column{'s' if len(columns.kept) > 1 else ''}"]
    if columns.features:
        parts[0] += f" ({shorten(', '.join(columns.features), 120)})"
    if columns.width > 1:
        parts[0] += f", separated by {delimiter}"
    parts += [PLURALS[decimal], f"{n or 'no'} header line{'' if n == 1 else 's'}"]
    if "percent" in columns.kinds:
        parts.append("5% means 0.05")
    for i, why in sorted(columns.dropped.items()):
        parts.append(f"{columns.label(i)} skipped ({WHY[why]})")
    return f"Read as: {'; '.join(parts)}."
