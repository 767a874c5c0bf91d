"""The sets of the Informer paper: their splits and windows, from files of the published form."""

from pathlib import Path

import numpy as np
import pytest

from experiments.data.prepare import INFORMER as PREPARED
from experiments.data.prepare import prepare_dataset
from experiments.data.sources import Files
from experiments.errors import UsageError
from experiments.tasks.series.informer import FOLDER, INFORMER, InformerOptions

HEADERS = {
    "ETT": "date,HUFL,HULL,MUFL,MULL,LUFL,LULL,OT",
    "WTH": "date,Visibility,DryBulbFarenheit,DryBulbCelsius,WetBulbFarenheit,DewPointFarenheit,"
    "DewPointCelsius,RelativeHumidity,WindSpeed,WindDirection,StationPressure,Altimeter,"
    "WetBulbCelsius",
    "ECL": "date,MT_000,MT_001,MT_320",
}
ROWS = {"ETTh": 17_420, "ETTm": 69_680, "WTH": 35_064, "ECL": 26_304}


def write_set(folder: Path, task: str, *, n: int | None = None) -> np.ndarray:
    """Writes a set in its published form; returns its target."""
    name = PREPARED[task]
    header = next(text for key, text in HEADERS.items() if name.startswith(key))
    n = n or next(rows for key, rows in ROWS.items() if name.startswith(key))
    step = int(INFORMER[task].published.step)
    times = np.datetime64("2016-07-01T00:00:00") + step * np.arange(n)
    target = np.random.default_rng(0).normal(size=n).round(3)
    zeros = "0.0," * (header.count(",") - 1)
    lines = [
        f"{time.replace('T', ' ')},{zeros}{y}"
        for time, y in zip(np.datetime_as_string(times), target.tolist(), strict=True)
    ]
    (folder / name).write_text("\n".join([header, *lines]) + "\n")
    return target


@pytest.mark.parametrize("task", ["etth1", "weather", "ecl"])
def test_windows_are_those_of_the_published_loader(task, tmp_path):
    target = write_set(tmp_path, task)
    prepare_dataset(task, tmp_path / "data", tmp_path)
    C, F = 384, 24
    made = INFORMER[task](InformerOptions(context=C, horizon=F), Files(tmp_path / "data"))
    train, validation, test = INFORMER[task].published.sizes
    scaled = (target - target[:train].mean()) / target[:train].std()
    ends = {"train": (0, train), "validation": (train - C, train + validation)}
    ends["test"] = (train + validation - C, train + validation + test)
    for split, (start, end) in ends.items():
        source = made.source(split, seed=0)
        assert len(source) == made.options.n_examples(split) == end - start - C - F + 1
        batch = source.batch(np.array([0, len(source) - 1]), epoch=0)
        for row, first in enumerate((start, end - C - F)):
            np.testing.assert_allclose(batch["x"][row, :C, 0], scaled[first : first + C], rtol=1e-5)
            future = scaled[first + C : first + C + F]
            np.testing.assert_allclose(batch["y"][row, :, 0], future, rtol=1e-5)
    assert batch["x"].shape == (2, made.length, made.d_input)
    assert made.fingerprint(seed=0)["rows"] == len(target)


@pytest.mark.parametrize("stride", [1, 7])
def test_strides_and_all_columns(stride, tmp_path):
    (tmp_path / FOLDER).mkdir()
    write_set(tmp_path / FOLDER, "etth2", n=14_400)
    targets = ("HUFL", "OT")
    options = InformerOptions(context=50, horizon=9, stride=stride, targets=targets)
    made = INFORMER["etth2"](options, Files(tmp_path))
    assert made.d_output == 2
    for split in ("train", "validation", "test"):
        assert len(made.source(split, seed=0)) == made.options.n_examples(split)


def test_prepared_files_are_those_of_the_tasks():
    assert {name: task.published.file for name, task in INFORMER.items()} == PREPARED
    assert all(task.published.task == name for name, task in INFORMER.items())
    for name, task in INFORMER.items():
        rows = next(n for key, n in ROWS.items() if task.published.file.startswith(key))
        used = rows if name in ("weather", "ecl") else rows * 14_400 // 17_420
        assert sum(task.published.sizes) == used


def test_refused(tmp_path):
    made = INFORMER["etth1"](InformerOptions(), Files(tmp_path))
    with pytest.raises(UsageError, match=r"ETTh1.csv is not in .*data prepare --task=etth1"):
        made.source("train", seed=0)
    (tmp_path / FOLDER).mkdir()
    write_set(tmp_path / FOLDER, "etth1", n=1_000)
    with pytest.raises(UsageError, match=r"must have 14,400 rows or more, 3600 s apart, as publ"):
        made.source("train", seed=0)
    with pytest.raises(UsageError, match=r"download ETT-small yourself, and set --source to the"):
        prepare_dataset("etth1", tmp_path, None)
    with pytest.raises(ValueError, match=r"`n_test` must not exceed the 2,857 windows of 384 \+"):
        INFORMER["etth1"](InformerOptions(n_test=3_000))
