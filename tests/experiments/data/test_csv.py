"""Tables as spreadsheets, loggers, R and pandas write them: read, or refused in one sentence."""

import csv
import io
import random
from pathlib import Path

import numpy as np
import pytest

from experiments.data.csv_files import CsvTables, read_csvs
from experiments.data.csv_options import CsvOptions
from experiments.errors import UsageError

TABLE = [[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]
HALVES = [[0.5, 1.5], [0.6, 1.6]]


def read(folder: Path, *files: str | bytes, **options) -> CsvTables:
    paths = []
    for i, text in enumerate(files):
        paths.append(folder / f"{i}.csv")
        paths[-1].write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_csvs(paths, CsvOptions(**options))


def refused(folder: Path, *files: str | bytes, **options) -> str:
    with pytest.raises(UsageError) as error:
        read(folder, *files, **options)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "rows", "features"),
    [
        ("1,10\n2,20\n3,30\n", TABLE, None),
        ("a,b\n1,10\n2,20\n3,30\n", TABLE, ("a", "b")),
        ("1,10\r\n2,20\r\n3,30\r\n", TABLE, None),
        ("1,10\r2,20\r3,30\r", TABLE, None),
        ("\n1,10\n\n2,20\n3,30\n\n", TABLE, None),
        ("1, 10\n2, 20\n3, 30", TABLE, None),
        ("\ufeff1,10\n2,20\n3,30\n", TABLE, None),
        ("\ufeffa,b\n1,10\n2,20\n3,30\n", TABLE, ("a", "b")),
        ("a\tb\n1\t10\n2\t20\n3\t30\n".encode("utf-16"), TABLE, ("a", "b")),
        ("Größe;µV\n1;10\n2;20\n3;30\n".encode("latin-1"), TABLE, ("Größe", "µV")),
        ("\u22121,10\n2,20\n3,5\n", [[-1, 10], [2, 20], [3, 5]], None),
        ("t,0,1\n1,10,5\n2,20,6\n", [[1, 10, 5], [2, 20, 6]], ("t", "0", "1")),
        ('"1","10"\n"2","20"\n"3","30"\n', TABLE, None),
        ('"a","b, c"\n1,10\n2,20\n3,30\n', TABLE, ("a", "b, c")),
        ("0.5;1.5\n0.6;1.6\n", HALVES, None),
        ("a;b\n0,5;1,5\n0,6;1,6\n", HALVES, ("a", "b")),
        ("1,5;2\n3;4\n5;6\n7;8\n", [[1.5, 2], [3, 4], [5, 6], [7, 8]], None),
        ("sep=;\n1,5;2\n3;4\n", [[1.5, 2], [3, 4]], None),
        ("sep=,\n1,10\n2,20\n3,30\n", TABLE, None),
        ("value\n0,5\n0,6\n", [[0.5], [0.6]], ("value",)),
        ('a,b\n"0,5","1,5"\n"0,6","1,6"\n', HALVES, ("a", "b")),
        ("1\t10\n2\t20\n3\t30\n", TABLE, None),
        ("1 10\n2 20\n3 30\n", TABLE, None),
        ("  1.0   10\n  2.0   20\n  3.0   30 \n", TABLE, None),
        ("1,10,\n2,20,\n3,30,\n", TABLE, None),
        ("a,b\n1,10,\n2,20,\n3,30,\n", TABLE, ("a", "b")),
        ("1,10\n2,20\n3,30\n,\n,\n", TABLE, None),
        ("# made by me\n# a,b\n1,10\n2,20\n3,30\n", TABLE, ("a", "b")),
        ("# 1,10\n1,10\n# pause\n2,20\n3,30\n", TABLE, ("1", "10")),
        ("a,b\nmV,1/s\n1,10\n2,20\n3,30\n", TABLE, ("a", "b")),
        ("Logger 3\nSerial,123\na,b\n1,10\n2,20\n3,30\n", TABLE, ("a", "b")),
        ("My measurement\n0.5,1.5\n0.6,1.6\n", HALVES, None),
        (",a,b\n0,1,10\n1,2,20\n2,3,30\n", TABLE, ("a", "b")),
        (",a,b\n70,1,10\n71,2,20\n72,3,30\n", TABLE, ("a", "b")),
        (",0\n0,1.5\n1,2.5\n", [[1.5], [2.5]], ("0",)),
        (",0,1\n0,1,10\n1,2,20\n2,3,30\n", TABLE, ("0", "1")),
        ('"","a","b"\n"1",1,10\n"2",2,20\n"3",3,30\n', TABLE, ("a", "b")),
        ('"a" "b"\n"1" 1 10\n"2" 2 20\n"3" 3 30\n', TABLE, ("a", "b")),
        ('"";"a"\n"1";0,5\n"2";0,7\n', [[0.5], [0.7]], ("a",)),
        ("2024-01-01 00:00,1.5\n2024-01-01 00:01,1.6\n", [[1.5], [1.6]], None),
        ("t;v\n01.02.2024 13:00;0,5\n01.02.2024 13:01;0,7\n", [[0.5], [0.7]], ("v",)),
        ("t,v\n2024-01-01T00:00:00.010Z,1\n2024-01-01T00:00:00.02Z,2\n", [[1], [2]], ("v",)),
        ("t,v\n1/2/2024 1:00:05 PM,0.5\n1/2/2024 1:00:06 PM,0.7\n", [[0.5], [0.7]], ("v",)),
        ("True,1\nFalse,2\n", [[1, 1], [0, 2]], None),
        ("5%,1\n6 %,2\n", [[0.05, 1], [0.06, 2]], None),
        ('"1,234.5",10\n"2,345",20\n', [[1234.5, 10], [2345, 20]], None),
        ('"1,234,567",10\n"950",20\n', [[1234567, 10], [950, 20]], None),
        ("1.234,5;2\n2.345,5;3\n", [[1234.5, 2], [2345.5, 3]], None),
        ("1e-3,2E5\n-1.5e+3,.5\n+1.,5\n", [[1e-3, 2e5], [-1500, 0.5], [1, 5]], None),
        ("t,v\n1700000001,1\n1700000002,2\n", [[1700000001, 1], [1700000002, 2]], ("t", "v")),
        ("0.1\n16777217\n1.0000000001\n", [[0.1], [16777217], [1.0000000001]], None),
    ],
)  # fmt: skip
def test_tables_with_one_meaning(tmp_path, text, rows, features):
    tables = read(tmp_path, text)
    assert tables.arrays[0].dtype == np.float64
    assert tables.arrays[0].tolist() == rows
    assert tables.features == features
    again = read(tmp_path, text, **vars(tables.options))
    assert again.arrays[0].tolist() == rows
    assert again.options == tables.options


@pytest.mark.parametrize(
    ("text", "options", "rows"),
    [
        ("0,5\n0,6\n", {"decimal": ","}, [[0.5], [0.6]]),
        ("0,5\n0,6\n", {"decimal": "."}, [[0, 5], [0, 6]]),
        ("A title\n1,10\n2,20\n3,30\n", {"decimal": "."}, TABLE),
        ("6,788e-03\n1,286e-02\n", {"decimal": ","}, [[6.788e-03], [1.286e-02]]),
        ("1,10\n2\n", {"decimal": ","}, [[1.1], [2]]),
        ("0,1\n1,10\n2,20\n3,30\n", {"header": 1}, TABLE),
        ("0,1\n1,10\n2,20\n3,30\n", {"header": 0}, [[0, 1], *TABLE]),
        ("0\n0.7\n0.5\n", {"header": 0}, [[0], [0.7], [0.5]]),
        ('"1,234",10\n"2,345",20\n', {"decimal": "."}, [[1234, 10], [2345, 20]]),
        ('"1,234",10\n"2,345",20\n', {"decimal": ","}, [[1.234, 10], [2.345, 20]]),
        ("1,234\t10\n2,345\t20\n", {"decimal": ","}, [[1.234, 10], [2.345, 20]]),
        (",a\n7,1.5\n3,2.5\n", {"columns": ("2",)}, [[1.5], [2.5]]),
        ("a,b,label\n1,2,walk\n3,4,run\n", {"columns": ("b", "a")}, [[2, 1], [4, 3]]),
        ("1|10\n2|20\n3|30\n", {"delimiter": "|"}, TABLE),
        ("nan\n1\n2\n", {"header": 1}, [[1], [2]]),
        ("1e3,b\n1,10\n2,20\n3,30\n", {"header": 1}, TABLE),
        ("inf,b\n1,10\n2,20\n3,30\n", {"header": 1}, TABLE),
        ("OL,5\n1,10\n2,20\n3,30\n", {"header": 1}, TABLE),
    ],
)
def test_an_option_settles_what_is_refused_without(tmp_path, text, options, rows):
    message = refused(tmp_path, text)
    assert f"--data.csv_{next(iter(options))}" in message
    assert read(tmp_path, text, **options).arrays[0].tolist() == rows


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "0.csv holds no row of numbers"),
        ("a,b\n", "0.csv holds no row of numbers; got 'a,b'"),
        ("a,b\n,\n", "0.csv holds no row of numbers"),
        ("a,b\n\n1.5,10\n\n2.5,x\n", "0.csv, line 5, column 2 (`b`): must be a finite number; got"),
        ("NA,10\n2.5,20\n3.5,30\n", "0.csv, line 1, column 1: the value is missing (got 'NA')"),
        ("1.5,10\n2.5,\n3.5,30\n", "0.csv, line 2, column 2: the value is missing (got '')"),
        ("a,b\n1,2\n#N/A,3\n4,5\n", "0.csv, line 3, column 1 (`a`): the value is missing"),
        ("# c\na,b\n1,2\n# d\n4,nan\n", "0.csv, line 5, column 2 (`b`): the value is missing"),
        ("1.5x,2\n3.5,4\n5.5,6\n", "0.csv, line 1, column 1: must be a finite number; got '1.5x'"),
        ("1.5,Infinity\n2.5,3\n", "0.csv, line 1, column 2: must be a finite number; got 'Inf"),
        ("1.5,1\n1e300,3\n", "0.csv, line 2, column 1: must be a finite number; got '1e300'"),
        ("1_000,1\n2_000,2\n", "column 1 must hold numbers; got '1_000'"),
        ("1.5,2\n2.5,3,4\n3.5,5\n", "0.csv, line 2: each row must have 2 cells, as the"),
        ("a,b\n1,2\n3\n4,5\n", "0.csv, line 3: each row must have 2 cells"),
        ("a,b\n0,5,1,5\n0,6,1,7\n", "has 2 column names but rows of 4 cells"),
        ('a,b\n1,2\n"3,4\n5,6\n', "0.csv, line 3: each quote must be closed in its line"),
        ("5%,1\n6,2\n7%,3\n", "0.csv, line 2, column 1: must be a percentage; got '6'"),
        ("a,b,label\n1,2,walk\n3,4,run\n", "got 'walk'. Choose the columns to read"),
        ("t\n2024-01-01\n2024-01-02\n", "holds no row of numbers"),
        ("1.5,2,\n" * 50 + "1.5,2,3\n", "0.csv, line 51, column 3: must be empty, as in the first"),
        ("PK\0\0", "is not text (save it as CSV in UTF-8)"),
    ],
)  # fmt: skip
def test_tables_that_are_refused(tmp_path, text, words):
    assert words in refused(tmp_path, text)


def test_what_was_guessed_is_said(tmp_path):
    text = ",t,v,w,\n0,2024-01-01,0.5,5%,\n1,2024-01-02,0.7,6%,\n"
    assert read(tmp_path, text).remarks == (
        "Read as: 2 columns (v, w), separated by commas; decimal points; 1 header line; 5% means "
        "0.05; column 1 skipped (row numbers or names); column 2 (`t`) skipped (time stamps; `dt` "
        "can be given in a .npz file); column 5 skipped (empty).",
    )
    assert read(tmp_path, text).options.columns == ("v", "w")


def test_files_are_read_in_the_same_way(tmp_path):
    whole = read(tmp_path, "1;2\n3;4\n", "1,5;2\n3;4,5\n")
    assert whole.options.decimal == ","
    assert whole.arrays[1].tolist() == [[1.5, 2], [3, 4.5]]
    starts = read(tmp_path, "0,1\n1,10\n2,20\n", "5,1\n1,10\n2,20\n3,4\n")
    assert [len(x) for x in starts.arrays] == [3, 4]
    missing = read(tmp_path, "0.5,\n1.5,\n", "0.5,\n0.5,\n")
    assert [x.shape for x in missing.arrays] == [(2, 1), (2, 1)]


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("1.5,2\n", "1.5\n", "same number of columns; got 2 in {0}, but 1 in {1}"),
        ("a,b\n1,2\n3,4\n", "1,2\n3,4\n", "first row of numbers; got 1 in {0}, but 0 in {1}"),
        ("a,b\n1,2\n3,4\n", "b,a\n1,2\n3,4\n", "same order; got a, b in {0}, but b, a in {1}"),
        ("1.5;2\n2.5;3\n", "1,5;2\n2,5;3\n3,5;4\n", "got '1.5' in {0}, but '1,5' in {1}"),
        ("5%\n", "5\n", "got '5%' in {0}, but '5' in {1}"),
        ("1.5,2\n", "a,b\n", "{1} holds no row of numbers"),
    ],
)  # fmt: skip
def test_files_that_differ(tmp_path, first, second, words):
    names = [str(tmp_path / name) for name in ("0.csv", "1.csv")]
    assert words.format(*names) in refused(tmp_path, first, second)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"delimiter": "::"}, "`delimiter` must be one character, tab or space"),
        ({"decimal": ";"}, "`decimal` must be '.' or ','"),
        ({"header": -1}, "`header` must not be negative"),
    ],
)
def test_impossible_options(options, words):
    with pytest.raises(ValueError, match=words):
        CsvOptions(**options)


def test_long_lines_and_long_headers(tmp_path):
    row = ",".join(str(i + 0.5) for i in range(9_000))
    assert read(tmp_path, f"{row}\n{row}\n").arrays[0].shape == (2, 9_000)
    wide = ",".join(str(i + 0.5) for i in range(11_000))
    assert "may have to be transposed" in refused(tmp_path, f"{wide}\n")
    assert "more than a million characters" in refused(tmp_path, "1," * 2**20)
    titled = "".join("Title\n" for _ in range(60)) + "1.5,2\n2.5,3\n"
    assert "after a long header, set --data.csv_header" in refused(tmp_path, titled)
    assert read(tmp_path, titled, header=60).arrays[0].tolist() == [[1.5, 2], [2.5, 3]]


def test_columns_that_do_not_exist(tmp_path):
    assert "choose from a, b, or 1 to 2" in refused(tmp_path, "a,b\n1,2\n", columns=("c",))
    assert "no column '3'" in refused(tmp_path, "1.5,2\n", columns=("3",))


def write_in_a_dialect(rng: random.Random, x: np.ndarray, names: list[str] | None) -> str:
    delimiter, decimal = rng.choice([",.", ";.", ";,", "\t.", "\t,", " .", " ,", ",,"])
    form = rng.choice([repr, "{:.2f}".format, "{:.3e}".format, lambda v: str(int(100 * v))])
    index = names is not None and len(x) > 1 and rng.random() < 0.3
    out = io.StringIO()
    quoting = rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    end = rng.choice(["\n", "\r\n"])
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=end)
    if names:
        writer.writerow([*([""] if index else []), *names])
    for i, row in enumerate(x.tolist()):
        cells = [form(v).replace(".", decimal) for v in row]
        writer.writerow([*([i] if index else []), *cells])
    return out.getvalue()


def test_no_table_is_misread(tmp_path):
    """Of random tables in random dialects each is read as it was written, or refused."""
    n_read, refusals = 0, []
    for seed in range(300):
        rng, numbers = random.Random(seed), np.random.default_rng(seed)
        d = rng.randint(1, 4)
        x = 10.0 ** rng.randint(-1, 3) * numbers.normal(size=(rng.randint(1, 12), d))
        names = rng.choice([None, ["a", "b c", "d", "e"][:d]])
        text = write_in_a_dialect(rng, x, names)
        try:
            tables = read(tmp_path, text)
        except UsageError as error:
            refusals.append(str(error))
            continue
        n_read += 1
        assert tables.features == (names and tuple(names)), seed
        assert tables.arrays[0].shape == x.shape, seed
        error = np.abs(tables.arrays[0] - x)
        is_scaled = np.abs(tables.arrays[0] - 100 * x) <= 1
        assert ((error <= 0.01 + 1e-3 * np.abs(x)) | is_scaled).all(), seed
    assert n_read > 250
    assert all("--data.csv_" in refusal for refusal in refusals)


def test_no_row_is_lost(tmp_path):
    """Of random lines each is read, is part of the header, or makes the file an error."""
    alphabets = [
        "0123456789.,\n",
        "01,;\n",
        "0123.,;- \n",
        '12,."\n',
        "1\t \n,",
        "1a,;\n2",
        "12:-. \n,",
    ]
    n_read, refusals = 0, []
    for seed in range(600):
        rng = random.Random(seed)
        text = "".join(rng.choices(rng.choice(alphabets), k=rng.randint(1, 40)))
        try:
            tables = read(tmp_path, text)
        except UsageError as error:
            refusals.append(str(error))
            continue
        n_read += 1
        lines = [line for line in text.rstrip(",;\t \n").split("\n") if line.strip(" \t")]
        n_header = tables.options.header
        assert len(tables.arrays[0]) == len(lines) - n_header, text
        assert not n_header or "a" in lines[n_header - 1] or lines[0][0] in ",;\t", text
    assert n_read > 50
    assert all(refusal.startswith(str(tmp_path / "0.csv")) for refusal in refusals)
