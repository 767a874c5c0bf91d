"""Tables of time series: CSV and Parquet files with a column of times."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.data.csv_cells import MISSING, cell_kind
from experiments.data.csv_columns import PLURALS
from experiments.data.csv_files import read_body, read_sample
from experiments.data.csv_guess import NAMES, guess
from experiments.data.csv_numbers import convert, read_cells
from experiments.data.readers import check_is_file
from experiments.errors import UsageError, blaming_file, shorten, suggest
from experiments.tasks.series.options import ForecastOptions
from experiments.tasks.series.times import format_times, parse_times

PARQUET = (".parquet", ".pq")


class Cells(NamedTuple):
    """The columns of a file before they have roles."""

    path: Path
    columns: dict[str, Any]
    """Arrow arrays by name: text, or the types of a Parquet file."""
    kinds: dict[str, str]
    """The kind of most cells of each column: number, percent, boolean, time, missing or text."""
    decimal: str
    """The decimal sign of numbers in text."""
    place: Callable[[int], str]
    """Names the place of a row, as in "FILE, line 7"."""
    remark: str
    """How the file was read."""


class SeriesTable(NamedTuple):
    """One or more series, stored one after another, each in the order of time."""

    times: np.ndarray
    """datetime64[us], or float64 where times are numbers; shape ``(N,)``."""
    zone: str
    """The offset of all times from UTC, or ""."""
    columns: dict[str, np.ndarray]
    """Numbers by name, float64 of shape ``(N,)``; missing ones are NaN."""
    starts: np.ndarray
    """The first row of each series, and N."""
    groups: tuple[str, ...]
    """The names of the series; one empty name if the table has no groups."""
    time: str
    """The name of the column of times."""
    remarks: tuple[str, ...] = ()
    """Lines to print: how the file was read."""


def read_series(path: Path, options: ForecastOptions) -> SeriesTable:
    """Reads a table of time series.

    Args:
        path: a CSV or Parquet file.
        options: the columns to read, by default found in the file.

    Raises:
        UsageError: if the file is not such a table; the message names the line and the remedy.
    """
    check_is_file(path)
    with blaming_file(path, "table of time series"):
        is_parquet = path.suffix.lower() in PARQUET
        cells = _read_parquet(path) if is_parquet else _read_csv(path, options)
        time = _find_column(cells, "time", options.time) if options.time else _find_time(cells)
        times, zone = _read_times(cells, time)
        groups, codes = _read_groups(cells, options)
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(len(groups) + 1))
        _check_order(cells, times, zone, order, starts, by_group=bool(options.group))
        names = _choose_columns(cells, options, exclude=(time, options.group))
        columns = {name: _read_numbers(cells, name)[order] for name in names}
        skipped = [n for n in cells.columns if n not in (*names, time, options.group)]
        remarks = [cells.remark, *([f"Not used: {', '.join(skipped)}."] if skipped else [])]
        return SeriesTable(times[order], zone, columns, starts, groups, time, tuple(remarks))


def _read_csv(path: Path, options: ForecastOptions) -> Cells:
    sample = read_sample(path, 1)
    delimiter, decimal, (layout,) = guess(
        [sample], delimiter=options.csv.delimiter, decimal=options.csv.decimal, header=1
    )
    names = layout.names or ()
    kinds_of_names = {cell_kind(name, ".") for name in names}
    if "time" in kinds_of_names or "text" not in kinds_of_names:
        raise UsageError(
            f"{path}: the first line must have the names of the columns, such as time,demand; got "
            f"{shorten(sample.lines[0], 60)!r}. Add such a line."
        )
    names = [name or f"column {i + 1}" for i, name in enumerate(names)]
    repeated = [name for name, n in Counter(names).items() if n > 1]
    if repeated:
        raise UsageError(
            f"{path}: every column must have a name of its own; got {repeated[0]!r} twice. Rename "
            "one of them."
        )
    body, find_line = read_body(path, 1)
    table = read_cells(path, body, delimiter, layout.width, range(layout.width), find_line)
    columns = {name: table.column(str(i)) for i, name in enumerate(names)}
    remark = (
        f"Read as: {len(names)} columns, separated by {NAMES.get(delimiter, repr(delimiter))}; "
        f"{PLURALS[decimal]}; {table.num_rows:,} rows."
    )
    kinds: dict[str, str] = dict(zip(names, layout.kinds, strict=True))
    return Cells(
        path, columns, kinds, decimal, lambda row: f"{path}, line {find_line(row)}", remark
    )


def _read_parquet(path: Path) -> Cells:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    columns, kinds = {}, {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        columns[name] = column
        is_time = pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)
        is_number = any(
            test(column.type)
            for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
        )
        is_boolean = pa.types.is_boolean(column.type)
        kinds[name] = "time" if is_time else "number" if is_number or is_boolean else "text"
    if not table.num_rows:
        raise UsageError(f"{path} holds no rows.")
    remark = f"Read as: Parquet, {len(columns)} columns, {table.num_rows:,} rows."
    return Cells(path, columns, kinds, ".", lambda row: f"{path}, row {row + 1}", remark)


def _find_column(cells: Cells, role: str, name: str) -> str:
    """Returns the name of a column that a user chose.

    Raises:
        UsageError: if there is no such column; names the nearest one.
    """
    if name in cells.columns:
        return name
    names = shorten(", ".join(cells.columns), 200)
    raise UsageError(
        f"{cells.path} has no column {name!r} for --data.{role}: choose from {names}."
        f"{suggest(name, cells.columns)}"
    )


def _find_time(cells: Cells) -> str:
    found = [name for name, kind in cells.kinds.items() if kind == "time"]
    if not found:  # such as 1949-01
        texts = [name for name, kind in cells.kinds.items() if kind == "text"]
        found = [name for name in texts if _is_time(cells, name)]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} columns of times ({', '.join(found)})" if found else "no column of times"
    raise UsageError(
        f"{cells.path} has {what}: choose one with --data.time=NAME from "
        f"{shorten(', '.join(cells.columns), 200)}."
    )


def _is_time(cells: Cells, name: str) -> bool:
    try:
        parse_times([str(cells.columns[name][0])], cells.place)
    except UsageError:
        return False
    return True


def _read_times(cells: Cells, name: str) -> tuple[np.ndarray, str]:
    import pyarrow as pa

    column = cells.columns[name]
    if cells.kinds[name] == "number" and not _is_compact_date(column):
        times = _read_numbers(cells, name)
        _refuse_missing(cells, name, np.isnan(times))
        return times, ""
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        _refuse_missing(cells, name, np.asarray(column.is_null()))
        zone = "+00:00" if getattr(column.type, "tz", None) else ""
        return column.to_numpy().astype("datetime64[us]"), zone
    texts = [str(cell or "").strip(' \t\xa0"') for cell in column.to_pylist()]
    _refuse_missing(cells, name, np.array([cell.lower() in MISSING for cell in texts]))
    return parse_times(texts, cells.place)


def _is_compact_date(column: Any) -> bool:
    """Whether numbers as text are dates such as 20260131."""
    import pyarrow as pa

    date = "(19|20)[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])"
    return pa.types.is_string(column.type) and all(
        re.fullmatch(date, cell.strip(' "')) for cell in column.to_pylist()
    )


def _refuse_missing(cells: Cells, name: str, missing: np.ndarray) -> None:
    if missing.any():
        raise UsageError(
            f"{cells.place(int(np.argmax(missing)))}: the time in column `{name}` is missing. "
            "Fill it in, or delete the row."
        )


def _read_groups(cells: Cells, options: ForecastOptions) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the names of the series in the order of the file, and the series of each row."""
    if not options.group:
        n = len(next(iter(cells.columns.values())))
        return ("",), np.zeros(n, int)
    column = cells.columns[_find_column(cells, "group", options.group)]
    names = ["" if cell is None else str(cell).strip(' "') for cell in column.to_pylist()]
    codes = {name: code for code, name in enumerate(dict.fromkeys(names))}
    return tuple(codes), np.array([codes[name] for name in names])


def _check_order(
    cells: Cells,
    times: np.ndarray,
    zone: str,
    order: np.ndarray,
    starts: np.ndarray,
    *,
    by_group: bool,
) -> None:
    """Raises a UsageError unless times increase in each series."""
    sorted_times = times[order]
    bad = np.flatnonzero(~(sorted_times[1:] > sorted_times[:-1])) + 1
    bad = np.setdiff1d(bad, starts)
    if not len(bad):
        return
    earlier, later = format_times(sorted_times[bad[0] - 1 : bad[0] + 1], zone)
    where = cells.place(int(order[bad[0]]))
    which = "in each series" if by_group else "from row to row"
    if earlier == later:
        hint = "" if by_group else ", or name the column of the series with --data.group=NAME"
        raise UsageError(
            f"{where}: times must increase {which}; got {later} twice. Delete one of the "
            f"rows{hint}."
        )
    hint = "" if by_group else "; if the table holds several series, set --data.group=NAME"
    raise UsageError(
        f"{where}: times must increase {which}; got {later} after {earlier}. Sort the rows by "
        f"time{hint}."
    )


def _choose_columns(
    cells: Cells, options: ForecastOptions, *, exclude: tuple[str, ...]
) -> tuple[str, ...]:
    """Returns the targets, then the columns that are known in advance."""
    known = tuple(_find_column(cells, "known", name) for name in options.known)
    targets = tuple(_find_column(cells, "targets", name) for name in options.targets)
    both = [name for name in targets if name in (*known, *exclude)]
    both += [name for name in known if name in exclude]
    if both:
        raise UsageError(
            f"ForecastOptions: a column must have one role; got {both[0]!r} in two of "
            "--data.time, --data.group, --data.targets and --data.known."
        )
    if not targets:
        kinds = ("number", "percent", "boolean")
        targets = tuple(
            name
            for name, kind in cells.kinds.items()
            if kind in kinds and name not in (*known, *exclude) and not _is_row_number(cells, name)
        )
    if not targets:
        raise UsageError(
            f"{cells.path} has no column of numbers to forecast besides "
            f"{', '.join(filter(None, (*exclude, *known)))}; it has "
            f"{shorten(', '.join(cells.columns), 200)}. Name one with --data.targets."
        )
    return (*targets, *known)


def _is_row_number(cells: Cells, name: str) -> bool:
    """Whether a column without a name counts rows, as pandas writes it."""
    unnamed = name in ("column 1", "Unnamed: 0", "__index_level_0__")
    return unnamed and bool((np.diff(_read_numbers(cells, name)) == 1).all())


def _read_numbers(cells: Cells, name: str) -> np.ndarray:
    """Reads a column of numbers; missing ones are NaN."""
    import pyarrow as pa
    import pyarrow.compute

    compute: Any = pyarrow.compute  # its functions are generated on import
    column = cells.columns[name].combine_chunks()
    kind = cells.kinds[name]
    if kind in ("number", "boolean") and not pa.types.is_string(column.type):
        values = compute.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        _refuse_infinite(cells, name, values)
        return values.astype(np.float64)
    if not pa.types.is_string(column.type):
        raise UsageError(
            f"{cells.path}: column `{name}` must hold numbers; got the type {column.type}. Choose "
            "the columns to forecast with --data.targets."
        )
    trimmed = compute.utf8_lower(compute.utf8_trim(column, ' \t\xa0"'))
    missing = compute.or_(
        compute.is_null(column), compute.is_in(trimmed, value_set=pa.array(sorted(MISSING)))
    )
    zero = {"percent": "0%", "boolean": "false"}.get(kind, "0")
    filled = compute.if_else(missing, zero, column)
    values = np.empty(len(column))
    kind = kind if kind in ("percent", "boolean") else "number"
    bad = convert(filled, kind, cells.decimal, values)
    if bad is not None:
        raise UsageError(
            f"{cells.place(bad)}, column `{name}`: must be a finite number, or empty if it is "
            f"missing; got {shorten(column[bad], 40)!r}. Correct the cell, or choose the columns "
            "to forecast with --data.targets."
        )
    values[np.asarray(missing)] = np.nan
    return values


def _refuse_infinite(cells: Cells, name: str, values: np.ndarray) -> None:
    infinite = np.isinf(values)
    if infinite.any():
        raise UsageError(
            f"{cells.place(int(np.argmax(infinite)))}, column `{name}`: must be a finite number, "
            "or empty if it is missing; got infinity. Correct the cell."
        )
