"""Times of a series: their text, their step, what the calendar says, and how they continue."""

import datetime
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from experiments.errors import UsageError, shorten

DAY = 86_400.0
FORMS = (
    *("%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%Y-%m", "%Y/%m"),
    *("%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y"),
)
"""Dates besides ISO 8601, each also with a time of day."""
CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
SEASONS = {900.0: 96, 3_600.0: 24, DAY: 7, 7 * DAY: 52}
"""Steps of a season by the time step [s]."""
CALENDAR = {
    "hour": (DAY, DAY),
    "weekday": (7 * DAY, 2 * DAY),
    "day": (31 * DAY, 2 * DAY),
    "month": (365 * DAY, 365 * DAY),
}
"""Calendar features: their period, and a bound below which a step distinguishes its phases [s]."""


class Step(NamedTuple):
    """The step of a series."""

    length: float
    """Seconds, or the unit of times that are numbers; the median of all steps."""
    months: int
    """Whole months of a step, 0 if the step is not one of months."""
    uniform: bool
    """Whether all steps are equal."""


def parse_times(cells: Sequence[str], place: Callable[[int], str]) -> tuple[np.ndarray, str]:
    """Reads times as text.

    Args:
        cells: the texts.
        place: names the place of a row, for messages.

    Returns:
        Local times, datetime64[us] of shape ``(N,)``, and their common offset from UTC, or "".

    Raises:
        UsageError: if a cell is not a time, the order of day and month is not clear, or the offsets
            differ.
    """
    parsed = _parse_all(cells, datetime.datetime.fromisoformat)
    if isinstance(parsed, int):
        parsed = _parse_forms(cells, parsed, place)
    offsets = [time.strftime("%z") for time in parsed]
    for row, offset in enumerate(offsets):
        if offset != offsets[0]:
            first, second = (each or "no time zone" for each in (offsets[0], offset))
            raise UsageError(
                f"{place(row)}: all times must have the same time zone; got {first} in the first "
                f"row, but {second} here ({cells[row]!r}). Write all times in UTC."
            )
    zone = f"{offsets[0][:3]}:{offsets[0][3:5]}" if offsets[0] else ""
    return np.array([time.replace(tzinfo=None) for time in parsed], "datetime64[us]"), zone


def _parse_all(
    cells: Sequence[str], parse: Callable[[str], datetime.datetime]
) -> list[datetime.datetime] | int:
    """Returns all times, or the first row that is not one."""
    times = []
    for row, cell in enumerate(cells):
        try:
            times.append(parse(cell))
        except ValueError:
            return row
    return times


def _parse_forms(
    cells: Sequence[str], bad: int, place: Callable[[int], str]
) -> list[datetime.datetime]:
    """Reads times in the one of `FORMS` that fits all of them."""
    found: dict[str, list[datetime.datetime]] = {}
    for form in (date + clock for date in FORMS for clock in CLOCKS):
        read = _parse_all(cells, lambda cell, form=form: datetime.datetime.strptime(cell, form))
        if isinstance(read, int):
            bad = max(bad, read)
        else:
            found[form] = read
    if not found:
        raise UsageError(
            f"{place(bad)}: must be a time, in the form of the rows before; got "
            f"{shorten(cells[bad], 40)!r}. Write times as 2026-01-31 or 2026-01-31 13:00."
        )
    first, *others = found.values()
    if any(times != first for times in others):
        raise UsageError(
            f"{place(0)}: it is not clear which part of {cells[0]!r} is the day and which the "
            "month. Write times as 2026-01-31 or 2026-01-31 13:00."
        )
    return first


def elapsed(times: np.ndarray) -> np.ndarray:
    """Returns the time since the first row [s, or the unit of times that are numbers]."""
    since = times - times[0] if len(times) else times
    return since / np.timedelta64(1, "s") if times.dtype.kind == "M" else since


def find_step(times: np.ndarray, starts: np.ndarray) -> Step:
    """Finds the step of series that are stored one after another.

    Args:
        times: all times, shape ``(N,)``.
        starts: the first row of each series, and N.
    """
    inside = np.setdiff1d(np.arange(1, len(times)), starts)
    steps = (elapsed(times)[inside] - elapsed(times)[inside - 1]) if len(inside) else np.ones(1)
    length = float(np.median(steps))
    if times.dtype.kind == "M" and len(inside) and length >= 28 * DAY:
        months = times.astype("datetime64[M]")
        within = times - months
        left = (months + 1).astype(times.dtype) - times
        advance = np.diff(months.astype(int))[inside - 1]
        if (advance == advance[0]).all() and advance[0] > 0:
            if (within == within[0]).all() or (left == left[0]).all():
                return Step(length, int(advance[0]), uniform=True)
    return Step(length, 0, uniform=bool(np.allclose(steps, length, rtol=1e-6, atol=0)))


def season_of(step: Step) -> int:
    """Returns the usual season of a time step: a day of hours, a week of days, a year of months."""
    return 12 if step.months == 1 else SEASONS.get(step.length, 1)


def calendar_of(times: np.ndarray, step: Step) -> tuple[str, ...]:
    """Selects the calendar features that a time step gives a meaning, and that repeat in ``times``.

    Args:
        times: the times of the training part.
        step: their step.
    """
    if times.dtype.kind != "M":
        return ()
    span = float((times.max() - times.min()) / np.timedelta64(1, "s")) + step.length
    return tuple(
        name for name, (period, bound) in CALENDAR.items() if step.length < bound and span >= period
    )


def calendar_features(times: np.ndarray, names: Sequence[str]) -> np.ndarray:
    r"""Computes sine and cosine of the phase of each calendar feature.

    .. math:: \sin 2\pi\phi, \; \cos 2\pi\phi, \qquad \phi \in [0, 1)

    Returns:
        float64, shape ``(N, 2 * len(names))``.
    """
    if not names:
        return np.empty((len(times), 0))
    days, months = times.astype("datetime64[D]"), times.astype("datetime64[M]")
    phases = {
        "hour": (times - days) / np.timedelta64(1, "D"),
        "weekday": (days.astype(int) + 3) % 7 / 7,  # day 0 was a Thursday
        "day": (days - months.astype(days.dtype)).astype(int) / 31,
        "month": months.astype(int) % 12 / 12,
    }
    angles = 2 * np.pi * np.stack([phases[name] for name in names], axis=1)
    return np.stack([np.sin(angles), np.cos(angles)], axis=2).reshape(len(times), -1)


def continue_times(last: np.ndarray, n: int, step: Step) -> np.ndarray:
    """Returns the n times after the last one, a scalar array."""
    k = np.arange(1, n + 1)
    if last.dtype.kind != "M":
        return last + k * step.length
    if not step.months:
        return last + (k * round(step.length * 1e6)).astype("timedelta64[us]")
    month = last.astype("datetime64[M]")
    months = month + k * step.months
    day = np.timedelta64(1, "D")
    if (month + 1).astype(last.dtype) - last <= day:  # the last day of a month
        return (months + 1).astype(last.dtype) - ((month + 1).astype(last.dtype) - last)
    return np.minimum(
        months.astype(last.dtype) + (last - month), (months + 1).astype(last.dtype) - day
    )


def format_times(times: np.ndarray, zone: str) -> list[str]:
    """Writes times as text, dates in ISO 8601."""
    if times.dtype.kind != "M":
        return [repr(float(time)) for time in times]
    return [str(time).removesuffix(".000000").replace("T", " ") + zone for time in times]
