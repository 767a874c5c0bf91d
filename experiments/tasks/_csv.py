"""CSV files: one row a step, one column a feature."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.errors import UsageError, blaming_file, check_not_negative
from experiments.tasks._checks import clean_values
from experiments.tasks._readers import check_is_file

DELIMITERS = {"tab": "\t", "\\t": "\t", "space": " ", "comma": ",", "semicolon": ";"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CsvOptions:
    """How CSV files are read; what is not given is guessed, for all files together."""

    delimiter: str | None = None
    """Between cells: a character, or "tab" or "space"."""
    decimal: str | None = None
    """The decimal sign, "." or ","."""
    header: int | None = None
    """How many lines come before the first row of numbers, without blank lines and comments."""
    columns: tuple[str, ...] = ()
    """Which columns are features, by name or by number from 1; by default all that are numbers."""

    def __post_init__(self) -> None:
        delimiter = DELIMITERS.get(self.delimiter or "", self.delimiter)
        object.__setattr__(self, "delimiter", delimiter)
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
            raise ValueError(
                f"CsvOptions: `delimiter` must be one character, tab or space; got {delimiter!r}."
            )
        if self.decimal not in (None, ".", ","):
            raise ValueError(f"CsvOptions: `decimal` must be '.' or ','; got {self.decimal!r}.")
        check_not_negative(self, header=self.header or 0)


class CsvTables(NamedTuple):
    """Files that were read in the same way."""

    arrays: list[np.ndarray]
    """float64, each of shape ``(L, d)``."""
    features: tuple[str, ...] | None
    """Names of the columns, if the files have them."""
    options: CsvOptions
    """How they were read, with nothing left to guess."""
    remarks: tuple[str, ...]
    """A line that says so."""


def read_csvs(paths: Sequence[Path], options: CsvOptions) -> CsvTables:
    """Reads tables of numbers, all in the same way.

    Args:
        paths: the files.
        options: how to read them; what is None is guessed from all files.

    Returns:
        The tables.

    Raises:
        UsageError: if a file is not such a table, the files differ, or it is not clear what they
            mean; says which option settles that.
    """
    arrays = [_read_csv(path) for path in paths]
    for path, x in zip(paths, arrays, strict=True):
        if x.shape[1] != arrays[0].shape[1]:
            raise UsageError(
                f"All files must have the same number of columns; got {arrays[0].shape[1]} in "
                f"{paths[0]}, but {x.shape[1]} in {path}."
            )
    return CsvTables(arrays, None, options, ())


def _read_csv(path: Path) -> np.ndarray:
    check_is_file(path)
    with blaming_file(path, "table of numbers"), path.open(encoding="utf-8") as file:
        first = file.readline()
        rows = filter(str.strip, itertools.chain([first] if _is_number(first) else [], file))
        row = next(rows, None)
        if row is None:
            raise UsageError(f"{path} holds no row of numbers.")
        lines = itertools.chain([row], rows)
        x = np.loadtxt(lines, np.float64, comments=None, delimiter=",", ndmin=2)
        return clean_values(path, "x", x, np.ones(len(x), bool))


def _is_number(line: str) -> bool:
    """Whether a line begins with a number."""
    try:
        float(line.split(",")[0])
    except ValueError:
        return False
    return True
