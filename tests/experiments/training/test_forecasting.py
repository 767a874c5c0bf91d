"""Forecasts of a trained model: of a user's table, with a picture, and row by row."""

import csv
import dataclasses
import datetime
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import finish

import s5jax
from experiments import predict as predict_module
from experiments.config.models import S4DOptions
from experiments.errors import UsageError
from experiments.tasks import Forecast
from experiments.tasks.series.options import ForecastOptions
from experiments.training import ForecastStream, predict
from experiments.training.finished import load_run
from experiments.training.forecasting import forecast_test
from experiments.training.plot import plot_run

CONTEXT, HORIZON = 12, 4
START = datetime.datetime(2026, 1, 1)
RNG = np.random.default_rng(0)


def rows_of(n: int, *, start: int = 0, plan: bool = False) -> list[dict]:
    """Rows of an hourly series around 50."""
    rows = []
    for t in range(start, start + n):
        row = {"time": str(START + datetime.timedelta(hours=t))}
        row["a"] = 50 + 10 * np.sin(t) + (t % 5)
        rows.append({**row, "plan": t % 3} if plan else row)
    return rows


def write(path: Path, rows: list[dict]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def run_of(tmp_path_factory, toy):
    """The folder of a run: ``run_of(rows, loss="mse")``."""

    def make(rows: list[dict], *, model=None, **options) -> Path:
        folder = tmp_path_factory.mktemp("run")
        file = str(write(folder / "train.csv", rows))
        sizes = {"context": CONTEXT, "horizon": HORIZON}
        data = ForecastOptions(file=file, **{**sizes, **options})
        model = model or dataclasses.replace(toy().model, bidirectional=False)
        config = dataclasses.replace(toy(), task="forecast", data=data, model=model)
        run = finish(config, folder)
        Path(file).unlink()  # not needed any more
        return run

    return make


@pytest.fixture(scope="module")
def run(run_of):
    return run_of(rows_of(200), loss="quantile")


def test_what_follows_a_table(run, tmp_path):
    new = rows_of(40, start=300)
    rows = predict(run, write(tmp_path / "new.csv", new))
    assert [row["time"] for row in rows] == [r["time"] for r in rows_of(HORIZON, start=340)]
    assert list(rows[0]) == ["time", "a", "a_low", "a_high"]
    assert all(row["a_low"] <= row["a"] <= row["a_high"] for row in rows)
    assert all(20 < row["a"] < 80 for row in rows), "in the units of the table"
    longer = write(tmp_path / "longer.csv", rows_of(100, start=240))
    assert predict(run, longer) == rows, "the context is the same"
    assert predict(run, write(tmp_path / "short.csv", new[-3:])) != rows


def test_a_start_inside_the_table_has_a_truth(run, tmp_path):
    new = rows_of(40, start=300)
    path = write(tmp_path / "new.csv", new)
    rows = predict(run, path, start=new[30]["time"])
    assert [row["time"] for row in rows] == [row["time"] for row in new[30:34]]
    assert [row["a_true"] for row in rows] == pytest.approx([row["a"] for row in new[30:34]])
    before = predict(run, write(tmp_path / "before.csv", new[:30]))
    assert [{k: v for k, v in row.items() if k != "a_true"} for row in rows] == before
    late = predict(run, path, start=new[38]["time"])
    assert [row["a_true"] for row in late[2:]] == ["", ""]


def test_command_line(command, run, tmp_path):
    path = write(tmp_path / "new.csv", rows_of(40))
    args = [f"--workdir={run}", f"--data.file={path}"]
    code, out, _ = command(predict_module, *args, "--start=2026-01-02 06:00")
    assert code == 0
    assert out.splitlines()[0] == "time,a,a_low,a_high,a_true"
    assert command(predict_module, *args, f"--out={tmp_path}/out.csv")[0] == 0
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == "time,a,a_low,a_high"
    picture = np.asarray(Image.open(tmp_path / "out.png").convert("L"))
    assert picture.shape[1] > 500
    assert (picture < 128).any()


def test_the_picture_of_a_run_is_the_last_test_window(run_of, tmp_path):
    """Of each series; the second one ends earlier, inside the test part."""
    table = [{**row, "who": "x"} for row in rows_of(200)]
    table += [{**row, "who": "y"} for row in rows_of(190)]
    run, path = run_of(table, group="who", stride=3), write(tmp_path / "train.csv", table)
    sizes = {"context": CONTEXT, "horizon": HORIZON, "group": "who", "stride": 3}
    task = Forecast(ForecastOptions(file=str(path), **sizes))
    model = load_run(run)[2].model
    x, y = forecast_test(model, task, n_series=5, batch_size=8)
    for outlook, n in ((x, 200), (y, 190)):
        origin = CONTEXT + (n - HORIZON - CONTEXT) // 3 * 3
        expected = rows_of(n)[origin : origin + HORIZON]
        times = [str(time)[:19].replace("T", " ") for time in outlook.times]
        assert times == [row["time"] for row in expected]
        np.testing.assert_allclose(outlook.truth[:, 0], [row["a"] for row in expected])
        assert len(outlook.past) == CONTEXT
        new = write(tmp_path / "new.csv", [{**row, "who": "y"} for row in rows_of(origin)])
        rows = predict(run, new)
        np.testing.assert_allclose(outlook.interval.mean[:, 0], [r["a"] for r in rows], rtol=1e-5)
    assert len(forecast_test(model, task, n_series=1, batch_size=8)) == 1
    plot_run(run, task, batch_size=8)
    assert Image.open(run / "forecast.png").size[0] > 500


def test_the_saved_model_returns_quantiles_in_the_units_of_the_data(run, tmp_path):
    pipeline = s5jax.load(run / "model")
    u = np.zeros((1, 5, pipeline.model.d_input)) + np.asarray(pipeline.preprocessing.input_mean)
    assert np.all(np.abs(pipeline(u) - 50) < 40)


@pytest.mark.parametrize(
    ("rows", "start", "words"),
    [
        (
            [{**row, "a": ""} for row in rows_of(9)],
            None,
            "no target has a value, so there is nothing to forecast from. Fill in past "
            "values of a.",
        ),
        (rows_of(9), "2026-01-01", "--start must be after the first row, 2026-01-01 00:00:00, and"),
        (rows_of(9), "2027-01-01", "at most the last, 2026-01-01 08:00:00; got 2027-01-01. Leave"),
        (rows_of(9), "soon", "--start: must be a time"),
        (
            rows_of(9)[::2],
            None,
            "the time step must be about 3600, as in training; got 7200. Average or repeat rows,",
        ),
        (
            rows_of(20)[:9] + rows_of(20)[10:],
            None,
            "times must be uniform, as in training; got steps of different lengths. Add the "
            "missing times with empty cells, or train with --data.gaps=dt.",
        ),
        (
            [{"time": row["time"], "A": 1} for row in rows_of(9)],
            None,
            "has no column 'a' for --data.targets: choose from time, A. Did you mean 'A'?",
        ),
    ],
)
def test_refused_tables(rows, start, words, run, tmp_path):
    with pytest.raises(UsageError, match=re.escape(words)):
        predict(run, write(tmp_path / "new.csv", rows), start=start)


def test_a_start_is_for_forecasts(finished, tmp_path):
    with pytest.raises(UsageError, match="--start is the first time to forecast, and toy"):
        predict(finished, tmp_path / "new.npz", start="2026-01-01")


def test_columns_known_in_advance(run_of, tmp_path):
    run = run_of(rows_of(200, plan=True), known=("plan",))
    new = rows_of(30, plan=True)
    future = [{**row, "a": ""} for row in rows_of(HORIZON, start=30, plan=True)]
    rows = predict(run, write(tmp_path / "new.csv", new + future))
    assert [row["time"] for row in rows] == [row["time"] for row in future]
    other = [{**row, "plan": 2 - row["plan"]} for row in future]
    assert predict(run, write(tmp_path / "new.csv", new + other)) != rows
    with pytest.raises(UsageError, match=r"plan must be given for 4 steps after the last value"):
        predict(run, write(tmp_path / "new.csv", new + future[:3]))
    stream = ForecastStream(run)
    for row in new[-CONTEXT:]:
        following = [{**future[0], "time": row["time"]}] * HORIZON
        if row is not new[-1]:
            time = datetime.datetime.fromisoformat(row["time"])
            later = [time + datetime.timedelta(hours=h + 1) for h in range(HORIZON)]
            following = [{"time": str(time), "plan": 0.0} for time in later]
            stream.step(row, following)
    outlook = stream.step(new[-1], [{k: row[k] for k in ("time", "plan")} for row in future])
    np.testing.assert_allclose(outlook.interval.mean[:, 0], [r["a"] for r in rows], rtol=1e-5)
    with pytest.raises(UsageError, match=r"`future` must have 4 rows, the horizon; got 0"):
        stream.step({"time": "2026-02-01", "a": 1.0})


def test_series_of_a_group(run_of, tmp_path):
    train = [{**row, "who": who} for row in rows_of(100) for who in "xy"]
    run = run_of(train, group="who", context=8)
    x, y = rows_of(30), rows_of(5, start=90)
    new = [{**row, "who": "x"} for row in x] + [{**row, "who": "y"} for row in y]
    rows = predict(run, write(tmp_path / "new.csv", new))
    assert [(row["who"], row["time"]) for row in rows] == [
        *(("x", row["time"]) for row in rows_of(HORIZON, start=30)),
        *(("y", row["time"]) for row in rows_of(HORIZON, start=95)),
    ]
    alone = predict(run, write(tmp_path / "y.csv", [{**row, "who": "y"} for row in y]))
    assert [r["a"] for r in alone] == pytest.approx([r["a"] for r in rows[HORIZON:]], rel=1e-5)


@pytest.mark.parametrize("loss", ["gaussian", "mse"])
def test_a_stream_equals_the_whole(loss, run_of, tmp_path):
    """Gaussian: with irregular times and missing values."""
    table = rows_of(200)
    model = S4DOptions(n_layers=2, d_model=4, d_state=4, bidirectional=False, norm="layer")
    if loss == "gaussian":
        table = [row for i, row in enumerate(table) if i % 7 != 3]
        table[-5]["a"] = ""
    run = run_of(table, loss=loss, model=model if loss == "mse" else None)
    seen = table[-CONTEXT:]
    stream = ForecastStream(run)
    for row in seen:
        values = {"a": row["a"]} if row["a"] != "" else {}
        outlook = stream.step({"time": row["time"], **values})
    rows = predict(run, write(tmp_path / "new.csv", seen))
    expected = np.array([row["a"] for row in rows])
    np.testing.assert_allclose(outlook.interval.mean[:, 0], expected, rtol=1e-5)
    assert [str(t)[:19].replace("T", " ") for t in outlook.times] == [r["time"] for r in rows]
    if loss == "gaussian":
        low = np.array([row["a_low"] for row in rows])
        np.testing.assert_allclose(outlook.interval.low[:, 0], low, rtol=1e-5)


def test_refused_rows_of_a_stream(run, finished):
    stream = ForecastStream(run)
    stream.step({"time": datetime.datetime(2026, 1, 2), "a": 1.0})
    with pytest.raises(UsageError, match=r"times must increase from row to row; got 2026-01-02 0"):
        stream.step({"time": "2026-01-01", "a": 1.0})
    with pytest.raises(UsageError, match=r"as 'time', and values of a; got 'time', 'A'\. Did you"):
        stream.step({"time": "2026-01-03", "A": 1.0})
    with pytest.raises(UsageError, match=r"a row must have the time as 'time', .* got 'a'\.$"):
        stream.step({"a": 1.0})
    with pytest.raises(UsageError, match="has the task toy; a stream of forecasts needs one"):
        ForecastStream(finished)
