"""Tables of time series: read as they were meant, or refused in one sentence."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.errors import UsageError
from experiments.tasks.series.options import ForecastOptions
from experiments.tasks.series.table import SeriesTable, read_series

PLAIN = "time,a\n2026-01-01,1.5\n2026-01-02,2.5\n2026-01-03,3.5\n"
DAYS = np.array(["2026-01-01", "2026-01-02", "2026-01-03"], "datetime64[us]")
A = [1.5, 2.5, 3.5]


def read(folder: Path, text: str | bytes, **options) -> SeriesTable:
    path = folder / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_series(path, ForecastOptions(**options))


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        b"\xef\xbb\xbf" + PLAIN.encode(),
        PLAIN.encode("utf-16"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", ";").replace(".", ","),
        "# a comment\n" + PLAIN + "\n\n",
        'time,a\n"2026-01-01","1.5"\n"2026-01-02","2.5"\n"2026-01-03","3.5"\n',
        ",time,a\n0,2026-01-01,1.5\n1,2026-01-02,2.5\n2,2026-01-03,3.5\n",
        "time,a,who\n2026-01-01,1.5,x\n2026-01-02,2.5,y\n2026-01-03,3.5,x\n",
        "time,a\n01.01.2026 00:00,1.5\n02.01.2026 00:00,2.5\n03.01.2026 00:00,3.5\n",
        ",time,a\n5,2026-01-01,1.5\n6,2026-01-02,2.5\n7,2026-01-03,3.5\n",
        "time,a\n2026/01/01 12:00 AM,1.5\n2026/01/02 12:00 AM,2.5\n2026/01/03 12:00 AM,3.5\n",
    ],
)
def test_one_table_in_many_forms(text, tmp_path):
    table = read(tmp_path, text)
    assert table.times.tolist() == DAYS.tolist()
    assert {name: column.tolist() for name, column in table.columns.items()} == {"a": A}
    assert (table.time, table.zone, table.groups) == ("time", "", ("",))


@pytest.mark.parametrize("last", ["13/02/2026", "02/13/2026"])
def test_one_date_settles_the_order_of_day_and_month(last, tmp_path):
    table = read(tmp_path, f"time,a\n01/02/2026,1\n02/02/2026,2\n{last},3\n")
    first = "2026-02-01" if last.startswith("13") else "2026-01-02"
    assert str(table.times[0]).startswith(first)
    assert str(table.times[2]).startswith("2026-02-13")


def test_missing_values_percents_and_time_zones(tmp_path):
    text = "t,a,b,c\n2026-01-01T00:00+01:00,,5%,n/a\n2026-01-01T01:00+01:00,2,NA,1e3\n"
    table = read(tmp_path, text)
    assert table.zone == "+01:00"
    assert str(table.times[0]) == "2026-01-01T00:00:00.000000"
    for name, expected in {"a": [np.nan, 2], "b": [0.05, np.nan], "c": [np.nan, 1000]}.items():
        np.testing.assert_array_equal(table.columns[name], expected)


def test_compact_dates_and_unnamed_columns(tmp_path):
    table = read(tmp_path, "time,a\n20260101,1.5\n20260102,2.5\n", time="time")
    assert table.times.tolist() == DAYS[:2].tolist()
    table = read(tmp_path, ",time\n3,2026-01-01\n5,2026-01-02\n")
    assert table.columns["column 1"].tolist() == [3, 5], "no numbers of rows"


def test_series_of_a_group_are_stored_one_after_another(tmp_path):
    text = "t,g,a,b\n1,x,1,0\n1,y,10,0\n2,y,20,0\n3,x,3,0\n"
    table = read(tmp_path, text, time="t", group="g", targets=("a",))
    assert table.groups == ("x", "y")
    assert table.times.tolist() == [1.0, 3.0, 1.0, 2.0]
    assert table.columns["a"].tolist() == [1.0, 3.0, 10.0, 20.0]
    assert table.starts.tolist() == [0, 2, 4]
    assert table.remarks[-1] == "Not used: b."


@pytest.mark.parametrize("zone", [None, "UTC"])
def test_parquet_equals_csv(zone, tmp_path):
    columns = {
        "time": pa.array(DAYS, pa.timestamp("us", tz=zone)),
        "a": pa.array([1.5, None, 3.5]),
        "n": pa.array([1, 2, 3]),
        "on": pa.array([True, None, False]),
        "who": pa.array(["x", "y", "x"]).dictionary_encode(),
    }
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table(columns), path)
    table = read_series(path, ForecastOptions(targets=("a", "n", "on")))
    other = read(tmp_path, "time,a,n,on\n2026-01-01,1.5,1,1\n2026-01-02,,2,\n2026-01-03,3.5,3,0\n")
    assert table.zone == ("+00:00" if zone else "")
    np.testing.assert_array_equal(table.times, other.times)
    for name, column in other.columns.items():
        np.testing.assert_array_equal(table.columns[name], column)
    assert read_series(path, ForecastOptions(group="who")).groups == ("x", "y")
    with pytest.raises(UsageError, match=r"`who` must hold numbers|line|row 1, column `who`"):
        read_series(path, ForecastOptions(targets=("who",)))


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        (
            "time,a\n2026-01-01,1\n2026-01-03,2\n2026-01-02,3\n",
            {},
            "line 4: times must increase from row to row; got 2026-01-02 00:00:00 after 2026-01-03 "
            "00:00:00. Sort the rows by time; if the table holds several series, set "
            "--data.group=NAME.",
        ),
        (
            "time,a\n2026-01-01,1\n\n2026-01-01,2\n",
            {},
            "line 4: times must increase from row to row; got 2026-01-01 00:00:00 twice. Delete "
            "one of the rows, or name the column of the series with --data.group=NAME.",
        ),
        (
            "time,g,a\n2026-01-01,x,1\n2026-01-01,y,1\n2026-01-01,x,2\n",
            {"group": "g"},
            "line 4: times must increase in each series; got 2026-01-01 00:00:00 twice. Delete "
            "one of the rows.",
        ),
        (
            "time,a\n2026-01-01T00:00Z,1\n2026-01-02T00:00+02:00,2\n",
            {},
            "line 3: all times must have the same time zone; got +0000 in the first row, but +0200 "
            "here ('2026-01-02T00:00+02:00'). Write all times in UTC.",
        ),
        (
            "time,a\n2026-01-01T00:00Z,1\n2026-01-02T00:00,2\n",
            {},
            "got +0000 in the first row, but no time zone here",
        ),
        (
            "time,a,b\n2026-01-01,1,2\n2026-01-02,x,3\n2026-01-03,3,4\n",
            {},
            "line 3, column `a`: must be a finite number, or empty if it is missing; got 'x'. "
            "Correct the cell, or choose the columns to forecast with --data.targets.",
        ),
        (
            "time,a\n2026-01-01,1\n2026-01-02,1e999\n2026-01-03,1\n",
            {},
            "line 3, column `a`: must be a finite number",
        ),
        (
            "time,a\n2026-01-01,1\n2026-01-32,2\n2026-02-02,2\n",
            {},
            "line 3: must be a time, in the form of the rows before; got '2026-01-32'. Write times "
            "as 2026-01-31 or 2026-01-31 13:00.",
        ),
        (
            "time,a\n01/02/2026,1\n02/03/2026,2\n",
            {},
            "line 2: it is not clear which part of '01/02/2026' is the day and which the month. "
            "Write times as",
        ),
        (
            "time,a\n2026-01-01,1\n,2\n",
            {},
            "line 3: the time in column `time` is missing. Fill it in, or delete the row.",
        ),
        (
            "x,a\n1,1\n2,2\n",
            {},
            "has no column of times: choose one with --data.time=NAME from x, a.",
        ),
        (
            "t,u,a\n2026-01-01,2026-01-01,1\n",
            {},
            "has 2 columns of times (t, u): choose one with --data.time=NAME from t, u, a.",
        ),
        (
            PLAIN,
            {"time": "tiem"},
            "has no column 'tiem' for --data.time: choose from time, a. Did you mean 'time'?",
        ),
        (PLAIN, {"targets": ("b",)}, "has no column 'b' for --data.targets: choose from time, a."),
        (PLAIN, {"known": ("A",)}, "for --data.known: choose from time, a. Did you mean 'a'?"),
        (PLAIN, {"group": "gruop"}, "has no column 'gruop' for --data.group"),
        (
            PLAIN,
            {"targets": ("a",), "known": ("a",)},
            "a column must have one role; got 'a' in two of",
        ),
        (
            PLAIN,
            {"known": ("a",)},
            "has no column of numbers to forecast besides time, a; it has time, a. Name one with "
            "--data.targets.",
        ),
        (
            "2026-01-01,1\n2026-01-02,2\n",
            {},
            "the first line must have the names of the columns, such as time,demand; got "
            "'2026-01-01,1'. Add such a line.",
        ),
        (
            "time,a,a\n2026-01-01,1,2\n",
            {},
            "every column must have a name of its own; got 'a' twice. Rename one of them.",
        ),
        (
            "time,a\n2026-01-01,1\n2026-01-02\n2026-01-03,1\n2026-01-04,1\n",
            {},
            "line 3: each row must have 2 cells",
        ),
        (
            "time;a\n2026-01-01;1,5\n2026-01-02;1.5\n",
            {"csv_decimal": ","},
            "line 3, column `a`: must be a finite number",
        ),
    ],
)
def test_refused(text, options, words, tmp_path):
    with pytest.raises(UsageError, match=re.escape(words)) as error:
        read(tmp_path, text, **options)
    assert "\n" not in str(error.value)


def test_infinite_values_of_parquet_are_refused(tmp_path):
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"time": DAYS, "a": [1.0, np.inf, 2.0]}), path)
    with pytest.raises(UsageError, match=r"row 2, column `a`: must be a finite number"):
        read_series(path, ForecastOptions())
    pq.write_table(pa.table({"time": DAYS[:0], "a": pa.array([], pa.float64())}), path)
    with pytest.raises(UsageError, match="holds no rows"):
        read_series(path, ForecastOptions())
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(UsageError, match="is not a valid table of time series, or is corrupted"):
        read_series(path, ForecastOptions())
