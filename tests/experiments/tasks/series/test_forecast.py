"""The task forecast: windows, standardisation, missing values, losses and baselines."""

import dataclasses
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.stats import norm

from experiments.config.models import GRUOptions, S5Options
from experiments.errors import UsageError
from experiments.tasks import Forecast
from experiments.tasks.series.losses import OUTPUTS, interval_of, losses_of, target_moments
from experiments.tasks.series.options import ForecastOptions

N, CONTEXT, HORIZON = 100, 6, 3
SMALL = {"context": CONTEXT, "horizon": HORIZON, "shares": (0.6, 0.2, 0.2), "season": 4}


def write(path: Path, columns: dict, *, times=None) -> str:
    """Writes a table with a row per hour."""
    n = len(next(iter(columns.values())))
    hours = np.datetime64("2026-01-01", "s") + np.arange(n) * np.timedelta64(1, "h")
    times = hours if times is None else times
    rows = zip(times, *columns.values(), strict=True)
    lines = [",".join(["time", *columns]), *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines).replace("nan", "") + "\n")
    return str(path)


@pytest.fixture
def make(tmp_path):
    """The task for columns: ``make({"a": ...}, targets=("a",))``."""

    def make(columns: dict, *, times=None, **options) -> Forecast:
        file = write(tmp_path / "table.csv", columns, times=times)
        return Forecast(ForecastOptions(file=file, **{**SMALL, **options}))

    return make


def whole(task: Forecast, split: str) -> dict[str, np.ndarray]:
    source = task.source(split, seed=0)
    return source.batch(np.arange(len(source)), epoch=0)


RAMP = {"a": np.arange(N, dtype=float)}


def test_windows_are_split_in_time(make):
    task = make(RAMP)
    mean, std = np.mean(RAMP["a"][:60]), np.std(RAMP["a"][:60])
    assert task.preprocessing.input_mean[0] == pytest.approx(mean)
    assert task.preprocessing.input_std[0] == pytest.approx(std)
    first = {"train": CONTEXT, "validation": 60, "test": 80}
    last = {"train": 60, "validation": 80, "test": 100}
    for split, start in first.items():
        batch = whole(task, split)
        y = np.rint(batch["y"][..., 0] * std + mean)
        np.testing.assert_array_equal(y[0], start + np.arange(HORIZON))
        np.testing.assert_array_equal(y[-1], last[split] - HORIZON + np.arange(HORIZON))
        assert task.options.n_examples(split) == len(y) == last[split] - start - HORIZON + 1
        x = batch["x"]
        past = np.rint(x[:, :CONTEXT, 0] * std + mean)
        np.testing.assert_array_equal(past, y[:, :1] + np.arange(-CONTEXT, 0))
        assert (x[:, :CONTEXT, 1] == 1).all()
        assert (x[:, CONTEXT:, :2] == 0).all(), "the future is not shown"
        np.testing.assert_array_equal(np.rint(batch["last"][:, 0, 0] * std + mean), y[:, 0] - 1)
        season = np.rint(batch["season"][..., 0] * std + mean)
        np.testing.assert_array_equal(season, y - 4)


def test_changed_data_are_standardised_as_in_training(make):
    """As ``evaluate --on-changed-data=use`` does."""
    task = make(RAMP)
    task.preprocessing = dataclasses.replace(
        task.preprocessing, input_mean=(10.0, 0.0, 0.0, 0.0), input_std=(2.0, 1.0, 1.0, 1.0)
    )
    assert whole(task, "test")["y"][0, 0, 0] == (80 - 10) / 2


def test_changed_data_have_the_calendar_of_training(make):
    """Their own would have no weekdays."""
    trained = make({"a": np.arange(300.0)})
    assert trained.calendar == ("hour", "weekday")
    task = make(RAMP)
    assert task.calendar == ("hour",)
    task.use_preprocessing(trained.preprocessing)
    assert task.d_input == trained.d_input == whole(task, "test")["x"].shape[2]
    other = make({"a": RAMP["a"], "b": RAMP["a"]})
    with pytest.raises(UsageError, match=r"has the columns a, b, and .* trained on a: evaluate it"):
        other.use_preprocessing(trained.preprocessing)


def test_a_season_shorter_than_the_horizon_repeats(make):
    batch = whole(make({"a": np.arange(N) % 2}, season=2), "test")
    np.testing.assert_allclose(batch["season"], batch["y"], atol=1e-6)
    task = make(RAMP, season=50)
    early = whole(task, "train")  # a season ago there was nothing
    np.testing.assert_array_equal(early["season"][0], np.tile(early["last"][0], (HORIZON, 1)))


def test_stride_and_numbers_of_windows(make):
    task = make(RAMP, stride=5, n_test=2)
    assert (task.options.n_train, task.options.n_test) == (11, 2)
    again = Forecast(task.options)
    assert again.options == task.options
    np.testing.assert_array_equal(whole(again, "test")["y"], whole(task, "test")["y"])


def test_known_columns_and_calendar_reach_into_the_future(make):
    columns = {"a": np.arange(N), "plan": np.arange(N) % 5, "b": np.ones(N)}
    task = make(columns, known=("plan",))
    assert task.options.targets == ("a", "b")
    assert task.preprocessing.features == (
        *("a", "b", "a_given", "b_given", "plan", "plan_given", "hour_sin", "hour_cos"),
    )
    x = whole(task, "test")["x"]
    mean, std = task.preprocessing.input_mean[4], task.preprocessing.input_std[4]
    plan = np.rint(x[0, :, 4] * std + mean)
    np.testing.assert_array_equal(plan, np.arange(80 - CONTEXT, 80 + HORIZON) % 5)
    assert (x[..., 5] == 1).all()
    assert (x[..., 1] == 0).all(), "a constant is not scaled"
    angle = 2 * np.pi * (np.arange(80 - CONTEXT, 80 + HORIZON) % 24) / 24
    np.testing.assert_allclose(x[0, :, 6], np.sin(angle), atol=1e-6)


def test_missing_values_are_marked_and_do_not_count(make):
    a = np.arange(N, dtype=float)
    a[[82, 84, 85, 86, 90]] = np.nan
    task = make({"a": a})
    batch = whole(task, "test")
    assert len(batch["y"]) == 17, "a window without any target is left out"
    shown = batch["x"][..., :CONTEXT, :]
    assert (shown[..., 0][shown[..., 1] == 0] == 0).all()
    np.testing.assert_array_equal(batch["observed"][0, :, 0], [True, True, False])
    outputs = np.zeros((17, CONTEXT + HORIZON, 1), np.float32)
    sums = jax.jit(task.measure)(outputs, batch)
    report = task.report({name: np.mean(value) for name, value in sums.items()})
    y, seen = batch["y"], batch["observed"]
    assert report["mse"] == pytest.approx(np.mean(y[seen] ** 2), rel=1e-5)
    assert report["loss"] == pytest.approx(np.mean(y[seen] ** 2), rel=1e-5)
    assert np.mean(sums["loss"]) == pytest.approx(report["loss"], rel=1e-5)
    std = task.preprocessing.input_std[0]
    assert report["mae_units"] == pytest.approx(std * np.mean(np.abs(y[seen])), rel=1e-5)
    last = np.broadcast_to(batch["last"], y.shape)
    assert report["mse_last"] == pytest.approx(np.mean((last - y)[seen] ** 2), rel=1e-5)
    error = std * np.abs(batch["season"] - y)[seen]
    assert report["mae_units_season"] == pytest.approx(np.mean(error), rel=1e-5)
    origin = 87  # the last value before it is the one of row 83
    place = np.flatnonzero(task.source("test", seed=0).origins == origin)[0]
    known = batch["last"][place, 0, 0] * std + task.preprocessing.input_mean[0]
    assert known == pytest.approx(83, abs=1e-3)


def test_irregular_times(make):
    times = np.cumsum(np.where(np.arange(N) % 7 == 3, 2.5, 0.5))
    task = make(RAMP, times=times, time="time")
    assert task.irregular
    batch = whole(task, "test")
    expected = np.where(np.arange(80 - CONTEXT, 80 + HORIZON) % 7 == 3, 5, 1)
    np.testing.assert_allclose(task.inputs(batch)["dt"][0], expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"pendulum and forecast: --data\.gaps=append"):
        GRUOptions(bidirectional=False).build(task, rngs=None)
    appended = make(RAMP, times=times, time="time", gaps="append")
    assert not appended.irregular
    np.testing.assert_allclose(whole(appended, "test")["x"][0, :, -1], expected, rtol=1e-5)
    assert "irregular" in task.note


def test_groups_share_the_times_of_the_splits(tmp_path):
    rows = ["time,who,a"]
    rows += [f"{t},x,{t}" for t in range(100)] + [f"{t},y,{1000 + t}" for t in range(50, 100)]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(rows))
    task = Forecast(ForecastOptions(file=str(path), time="time", group="who", **SMALL))
    y = whole(task, "train")["y"]
    mean, std = task.preprocessing.input_mean[0], task.preprocessing.input_std[0]
    y = np.rint(y * std + mean)
    assert sorted({*y.reshape(-1)}) == [*range(CONTEXT, 60), *range(1056, 1060)]
    assert len(whole(task, "validation")["y"]) == 2 * 18


@pytest.mark.parametrize(
    ("columns", "options", "words"),
    [
        (
            {"a": np.arange(30)},
            {"horizon": 7, "shares": (0.5, 0.3, 0.2)},
            "the test part must be at least as long as --data.horizon, 7 steps; got 6 rows (0.2 of "
            "30 times). Shorten the windows, or change --data.shares.",
        ),
        ({"a": np.arange(1)}, {}, "the train part must be at least as long as --data.context plus"),
        (
            {"a": np.arange(20)},
            {"context": 10},
            "the train part must be at least as long as --data.context plus --data.horizon, 13 "
            "steps; got 12 rows (0.6 of 20 times). Shorten the windows, or change --data.shares.",
        ),
        (
            {"a": np.full(N, np.nan), "b": np.arange(N)},
            {"targets": ("a", "b")},
            "column `a` has no value in the training part, the first 0.6 of the times. Leave it "
            "out of --data.targets and --data.known, or change --data.shares.",
        ),
        (
            {"a": np.where(np.arange(N) < 80, 1, np.nan)},
            {},
            "the test part has no window of 6 + 3 steps with an observed target.",
        ),
        (
            RAMP,
            {"n_test": 19},
            "`n_test` must not exceed the 18 windows of the test part; got 19. Lower it, or set it "
            "to 0 for all.",
        ),
    ],
)
def test_refused_tables(columns, options, words, make):
    with pytest.raises(UsageError, match=re.escape(words)):
        make(columns, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shares": (0.9, 0.1, 0.1)}, "`shares` must be three numbers above 0"),
        ({"shares": (0.9, 0.1)}, "`shares` must be three numbers above 0"),
        ({"horizon": 0}, "`horizon` must be positive"),
        ({"n_test": -1}, "`n_test` must not be negative"),
        ({"csv_decimal": "x"}, "`decimal` must be"),
    ],
)
def test_refused_options(options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        ForecastOptions(**options)


def test_without_a_file_the_table_is_el_nino(make):
    task = Forecast(ForecastOptions())
    assert "El Niño, monthly sea temperatures: --data.file=FILE sets" in task.note
    assert (task.options.targets, task.options.season) == (("temperature",), 12)
    assert task.step.months == 1
    assert str(task.table.times[[0, -1]].astype("datetime64[M]")) == "['1950-01' '2010-12']"
    years = task.table.columns["temperature"].reshape(-1, 12)
    assert years.mean(axis=0).argmax() == 2, "the warmest month is March"
    assert sorted(1950 + np.argsort(years[:, 5:].mean(axis=1))[-2:]) == [1983, 1997]
    assert task.fingerprint(seed=0)["rows"] == 732
    assert "El Niño" not in make(RAMP).note


@pytest.mark.parametrize("loss", OUTPUTS)
def test_the_best_checkpoint_is_that_of_the_interval_too(loss, make):
    task = make(RAMP, loss=loss)
    assert (task.metric, task.larger_is_better) == ("mse" if loss == "mse" else "loss", False)
    again = Forecast.for_prediction(task.options, task.files, None, task.preprocessing)
    assert again.metric == task.metric


def test_a_fingerprint_sees_values_and_times(make):
    first = make(RAMP).fingerprint(seed=0)
    assert (first["rows"], first["series"], first["columns"]) == (N, 1, "a")
    other = make({"a": np.where(np.arange(N) == 99, 0, RAMP["a"])}).fingerprint(seed=0)
    assert first["sha256"] != other["sha256"]
    assert make(RAMP).fingerprint(seed=0) == first


def test_losses_are_their_definitions():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(5, 2)).astype(np.float32)
    outputs = rng.normal(size=(5, 6)).astype(np.float32)
    mean, s = outputs[:, :2], outputs[:, 2:4]
    loss, forecast = losses_of(outputs[:, :4], y, "gaussian")
    np.testing.assert_allclose(loss, -norm.logpdf(y, mean, np.exp(s / 2)), rtol=1e-5)
    np.testing.assert_array_equal(forecast, mean)
    loss, forecast = losses_of(outputs, y, "quantile")
    np.testing.assert_array_equal(forecast, outputs[:, 2:4])
    expected = 0.0
    for q, found in zip((0.1, 0.5, 0.9), np.split(outputs, 3, axis=1), strict=True):
        expected = expected + np.where(y > found, q * (y - found), (1 - q) * (found - y)) / 3
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert np.isfinite(losses_of(np.full((1, 2), 1e6, np.float32), y[:1, :1], "gaussian")[0]).all()


@pytest.mark.parametrize("loss", OUTPUTS)
def test_intervals_in_the_units_of_the_data(loss):
    mean, std = np.array([100.0, -5.0]), np.array([10.0, 0.5])
    standard = {
        "mse": np.zeros(2),
        "gaussian": np.zeros(4),
        "quantile": np.array([1.0, 1, 0, 0, -1, -1]),  # crossed
    }[loss]
    target_mean, target_std = target_moments(mean, std, loss)
    found = interval_of(standard * target_std + target_mean, loss)
    np.testing.assert_allclose(found.mean, mean)
    if loss == "mse":
        assert found.low is found.high is None
    else:
        half = std * (norm.ppf(0.9) if loss == "gaussian" else 1)
        np.testing.assert_allclose(found.low, mean - half)
        np.testing.assert_allclose(found.high, mean + half)


def test_the_model_must_be_causal():
    task = Forecast(ForecastOptions(n_train=8))
    with pytest.raises(ValueError, match="must be False, as the task is causal"):
        S5Options().build(task, rngs=None)
    assert dataclasses.replace(task.options).season == 12
