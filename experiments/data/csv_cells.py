"""Kinds of cells of a CSV file."""

import itertools
import re
from collections.abc import Iterable
from typing import Literal

Kind = Literal["number", "percent", "boolean", "time", "missing", "text"]

_E = r"(?:[eE][+-]?[0-9]+)?"
_GROUPS = "[1-9][0-9]{0,2}"
NUMBER = {
    ".": rf"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+){_E}|{_GROUPS}(?:,[0-9]{{3}})+(?:\.[0-9]+)?)",
    ",": rf"[+-]?(?:(?:[0-9]+(?:,[0-9]+)?|,[0-9]+){_E}|{_GROUPS}(?:\.[0-9]{{3}})+,[0-9]+)",
}
"""Patterns of numbers by decimal sign; the other sign may separate thousands."""
INFINITY = r"[+-]?(?i:inf|infinity)"
BOOLEAN = r"(?i:true|false)"
PERCENT = r" ?%"
MINUS = "\u2212"
_CLOCK = r"[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?(?: ?(?i:[AP]M))?"
_DATE = r"(?:[0-9]{1,4}[-/.][0-9]{1,2}[-/.][0-9]{1,4}|[0-9]{1,2}[- ][A-Za-z]{3}[- ][0-9]{2,4})"
TIME = re.compile(rf"(?:{_DATE}(?:[T ]+{_CLOCK} ?(?:Z|UTC|[+-][0-9]{{2}}:?[0-9]{{2}})?)?|{_CLOCK})")
MISSING = {
    "",
    *("na", "n/a", "<na>", "nan", "null", "none", "nil", "n.a.", "nd", "n/d", "missing"),
    *("-", "--", "?", ".", "#n/a", "#div/0!", "#value!", "#ref!", "#num!", "#name?", "#null!"),
}
_NUMBERS = {sign: re.compile(f"{number}|{INFINITY}") for sign, number in NUMBER.items()}
_PERCENTS = {sign: re.compile(number + PERCENT) for sign, number in NUMBER.items()}
_BOOLEAN = re.compile(BOOLEAN)


def cell_kind(cell: str, decimal: str) -> Kind:
    """Classifies a cell, for a given decimal sign."""
    cell = cell.strip().replace(MINUS, "-")
    if _NUMBERS[decimal].fullmatch(cell):
        return "number"
    if cell.lower() in MISSING:
        return "missing"
    if _PERCENTS[decimal].fullmatch(cell):
        return "percent"
    if _BOOLEAN.fullmatch(cell):
        return "boolean"
    return "time" if TIME.fullmatch(cell) else "text"


def is_count(cells: Iterable[str]) -> bool:
    """Returns whether cells are integers in steps of one."""
    stripped = [cell.strip() for cell in cells]
    return all(re.fullmatch(r"-?[0-9]{1,15}", cell) for cell in stripped) and all(
        int(b) == int(a) + 1 for a, b in itertools.pairwise(stripped)
    )
