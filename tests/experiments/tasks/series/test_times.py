"""Steps, calendars and continuations of times."""

import numpy as np
import pytest

from experiments.tasks.series.times import (
    Step,
    calendar_features,
    calendar_of,
    continue_times,
    find_step,
    format_times,
    season_of,
)

HOUR, DAY = 3_600.0, 86_400.0
START = np.datetime64("2026-01-01", "us")


def every(seconds: float, n: int) -> np.ndarray:
    return START + (np.arange(n) * round(1e6 * seconds)).astype("timedelta64[us]")


def months(every: int, n: int, *, end: bool = False) -> np.ndarray:
    """The first days of months, or the last ones."""
    firsts = np.datetime64("2026-01") + every * np.arange(n) + end
    return firsts.astype("datetime64[us]") - int(end) * np.timedelta64(1, "D")


@pytest.mark.parametrize(
    ("times", "step", "season", "calendar"),
    [
        (every(900, 3_000), Step(900, 0, True), 96, ("hour", "weekday", "day")),
        (every(HOUR, 9_000), Step(HOUR, 0, True), 24, ("hour", "weekday", "day", "month")),
        (every(HOUR, 100), Step(HOUR, 0, True), 24, ("hour",)),
        (every(DAY, 400), Step(DAY, 0, True), 7, ("weekday", "day", "month")),
        (every(7 * DAY, 60), Step(7 * DAY, 0, True), 52, ("month",)),
        (months(1, 24), Step(31 * DAY, 1, True), 12, ("month",)),
        (months(1, 24, end=True), Step(31 * DAY, 1, True), 12, ("month",)),
        (months(3, 8), Step(91 * DAY, 3, True), 1, ("month",)),
        (months(1, 30)[6:9], Step(31 * DAY, 1, True), 12, ()),
        (months(12, 5), Step(365 * DAY, 12, True), 1, ()),
        (every(600, 200), Step(600, 0, True), 1, ("hour",)),
        (np.delete(every(HOUR, 100), 5), Step(HOUR, 0, False), 24, ("hour",)),
        (0.5 * np.arange(9), Step(0.5, 0, True), 1, ()),
        (np.array([0.0, 1.0, 3.0, 4.0]), Step(1.0, 0, False), 1, ()),
    ],
)
def test_step_season_and_calendar(times, step, season, calendar):
    found = find_step(times, np.array([0, len(times)]))
    assert found == step
    assert season_of(found) == season
    assert calendar_of(times, found) == calendar


def test_steps_are_inside_series():
    times = np.concatenate([every(HOUR, 5), every(HOUR, 5)])
    assert find_step(times, np.array([0, 5, 10])) == Step(HOUR, 0, True)
    assert not find_step(times, np.array([0, 10])).uniform


def test_calendar_features():
    times = np.array(["2026-01-05T06:00", "2026-07-16T18:00"], "datetime64[us]")  # Mon, Thu
    found = calendar_features(times, ("hour", "weekday", "day", "month"))
    phases = np.array([[1 / 4, 0, 4 / 31, 0], [3 / 4, 3 / 7, 15 / 31, 1 / 2]])
    np.testing.assert_allclose(found[:, ::2], np.sin(2 * np.pi * phases), atol=1e-12)
    np.testing.assert_allclose(found[:, 1::2], np.cos(2 * np.pi * phases), atol=1e-12)
    assert calendar_features(times, ()).shape == (2, 0)


@pytest.mark.parametrize(
    ("times", "n"),
    [
        (every(HOUR, 50), 30),
        (every(7 * DAY, 10), 5),
        (months(1, 30), 14),
        (months(1, 30, end=True), 14),
        (months(3, 12), 6),
        (0.25 * np.arange(8), 4),
    ],
)
def test_times_continue(times, n):
    step = find_step(times, np.array([0, len(times)]))
    np.testing.assert_array_equal(continue_times(times[-n - 1], n, step), times[-n:])


def test_times_of_a_month_s_late_days_continue():
    last = np.datetime64("2026-01-30", "us")
    found = continue_times(last, 2, Step(30 * DAY, 1, True))
    assert format_times(found, "Z") == ["2026-02-28 00:00:00Z", "2026-03-30 00:00:00Z"]
    assert format_times(np.array([0.1]), "") == ["0.1"]
