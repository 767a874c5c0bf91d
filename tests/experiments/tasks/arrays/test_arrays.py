"""A user's own arrays and folders, right and wrong."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from sounds import write_wav

from experiments.data.sources import Source
from experiments.errors import UsageError
from experiments.records import list_changes
from experiments.tasks.arrays.options import ArraysOptions
from experiments.tasks.arrays.tables import read_table
from experiments.tasks.arrays.task import Arrays
from experiments.training.pipeline import make_batches

N, L, D = 30, 7, 3
RNG = np.random.default_rng(0)
X = RNG.normal(3, 5, size=(N, L, D))
TOKENS = RNG.integers(0, 9, size=(N, L))
LENGTHS = RNG.integers(1, L + 1, size=N)
VALID = np.arange(L) < LENGTHS[:, None]
CLASSES = np.arange(N) % 4


def arrays(folder: Path, **options) -> Arrays:
    """The task of a file with the given arrays, and options."""
    names = {field.name for field in dataclasses.fields(ArraysOptions)}
    columns = {name: value for name, value in options.items() if name not in names}
    np.savez(folder / "data.npz", **columns)
    chosen = {name: value for name, value in options.items() if name in names}
    return Arrays(ArraysOptions(file=str(folder / "data.npz"), **chosen))


def whole(source: Source) -> dict[str, np.ndarray]:
    return source.batch(np.arange(len(source)), epoch=0)


def evaluate(task: Arrays, outputs: np.ndarray) -> dict[str, float]:
    """What the task reports of given outputs for its test examples."""
    batch = whole(task.source("test", seed=0))
    values = task.measure(jnp.asarray(outputs, jnp.float32), batch)
    assert {name: value.shape[1:] for name, value in values.items()} == task.quantities
    return task.report({name: np.asarray(value).mean(axis=0) for name, value in values.items()})


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        ({"x": X, "y": CLASSES}, ("linear", "classify", D, 4, "accuracy")),
        ({"x": TOKENS, "y": CLASSES}, ("tokens", "classify", 9, 4, "accuracy")),
        ({"x": X, "y": TOKENS}, ("linear", "label", D, 9, "accuracy")),
        ({"x": X, "y": CLASSES / 2}, ("linear", "classify", D, 1, "r2")),
        ({"x": TOKENS, "y": X[:, 0]}, ("tokens", "classify", 9, D, "r2")),
        ({"x": X, "y": X[..., :2]}, ("linear", "label", D, 2, "r2")),
        ({"x": TOKENS[..., None], "y": CLASSES}, ("linear", "classify", 1, 4, "accuracy")),
    ],
)
def test_the_arrays_say_what_the_task_is(tmp_path, columns, kind):
    task = arrays(tmp_path, **columns)
    assert (task.encoder, task.head, task.d_input, task.d_output, task.metric) == kind
    assert task.length == L
    assert (task.classes is None) == (task.metric == "r2")


@pytest.mark.parametrize(
    ("columns", "same", "remark"),
    [
        ({"x": X[..., 0]}, {"x": X[..., :1]}, "`x` is float64 of shape (N, L): read as one"),
        ({"x": X[..., 0] > 3}, {"x": X[..., :1] > 3}, "`x` is bool of shape (N, L): read as"),
        ({"x": X > 3}, {"x": 1.0 * (X > 3)}, None),
        ({"y": CLASSES > 1}, {"y": 1 * (CLASSES > 1)}, None),
        ({"y": CLASSES[:, None]}, {"y": CLASSES}, None),
        ({"x": np.asfortranarray(X)}, {"x": X}, None),
        ({"x": X.transpose(0, 2, 1)[:, :, ::-1].transpose(0, 2, 1)}, {"x": X[:, ::-1]}, None),
        ({"x": X.astype(">f8"), "y": CLASSES.astype(">i2")}, {"x": X}, None),
        ({"x": X.astype(np.float16)}, {"x": X.astype(np.float16).astype(np.float32)}, None),
        ({"y": 1.0 * CLASSES}, {"y": 1.0 * CLASSES[:, None]}, "`y` has whole numbers as floats"),
        ({"y": CLASSES / 2}, {"y": CLASSES[:, None] / 2}, None),
    ],
)
def test_arrays_of_other_types_with_one_meaning(tmp_path, columns, same, remark):
    rest = {"x": X, "y": CLASSES}
    np.savez_compressed(tmp_path / "a.npz", **{**rest, **columns})
    np.savez(tmp_path / "b.npz", **{**rest, **same})
    a, b = read_table(tmp_path / "a.npz"), read_table(tmp_path / "b.npz")
    assert np.array_equal(a.x, b.x)
    assert np.array_equal(a.y, b.y)
    assert a.y.dtype == b.y.dtype
    assert len(a.remarks) == (remark is not None)
    assert not remark or a.remarks[0].startswith(remark)


def test_large_numbers_keep_their_digits(tmp_path):
    x = 1_700_000_000 + np.arange(N * L * D).reshape(N, L, D)
    np.savez(tmp_path / "a.npz", x=x, y=1e9 + CLASSES / 7)
    table = read_table(tmp_path / "a.npz")
    assert table.x.dtype == table.y.dtype == np.float64
    assert np.array_equal(table.x, x)
    assert np.array_equal(table.y[:, 0], 1e9 + CLASSES / 7)
    np.savez(tmp_path / "b.npz", x=X.astype(np.float32), y=CLASSES)
    assert read_table(tmp_path / "b.npz").x.dtype == np.float32


def test_steps_that_do_not_count(tmp_path):
    y = np.where(RNG.random((N, L)) < 0.3, -100, TOKENS)
    np.savez(tmp_path / "a.npz", x=X, y=y, lengths=LENGTHS)
    with pytest.raises(
        UsageError, match=r"steps of a class, set --data.ignore_index=-100.*got -100"
    ):
        read_table(tmp_path / "a.npz")
    table = read_table(tmp_path / "a.npz", ignore_index=-100)
    assert np.array_equal(table.y[VALID], y[VALID])
    counts = np.bincount(y[VALID & (y >= 0)])
    said = ", ".join(f"{label} {n}" for label, n in enumerate(counts))
    assert Arrays(ArraysOptions(file=str(tmp_path / "a.npz"), ignore_index=-100)).note.endswith(
        said
    )
    np.savez(tmp_path / "a.npz", x=X, y=np.where(y == 8, -1, y))
    with pytest.raises(UsageError, match=r"must be classes counted from 0.*got -1 to 7"):
        read_table(tmp_path / "a.npz", ignore_index=-100)
    np.savez(tmp_path / "b.npz", x=X, y=np.full((N, L), -100))
    with pytest.raises(UsageError, match="a class at one or more steps; got none"):
        read_table(tmp_path / "b.npz", ignore_index=-100)


def test_the_splits_share_no_example_and_are_the_same_each_time(tmp_path):
    task = arrays(tmp_path, x=TOKENS, y=CLASSES)
    sizes = task.options.n_train, task.options.n_validation, task.options.n_test
    assert sizes == (24, 3, 3)
    sources = [task.source(split, seed=seed) for seed, split in enumerate(("train", "test"))]
    rows = np.concatenate([*(s.rows for s in sources), task.source("validation", seed=5).rows])
    assert sorted(rows) == list(range(N))
    fewer = arrays(tmp_path, x=TOKENS, y=CLASSES, n_train=5, n_test=7)
    assert [len(fewer.source(s, seed=0)) for s in ("train", "validation", "test")] == [5, 3, 7]
    batch = next(iter(make_batches(fewer, "test", seed=0, batch_size=8)))
    assert batch["mask"].tolist() == [True] * 7 + [False]


def test_features_are_standardised_by_the_valid_steps_of_the_training_examples(tmp_path):
    x = np.where(VALID[..., None], X, np.nan)
    x[..., 1] = 8.1
    task = arrays(tmp_path, x=x, y=CLASSES, lengths=LENGTHS)
    batch = whole(task.source("train", seed=0))
    u = np.asarray(task.inputs(batch)["u"])[np.arange(L) < batch["length"][:, None]]
    np.testing.assert_allclose(u.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(u.std(axis=0), [1, 0, 1], atol=1e-5)
    assert np.array_equal(task.inputs(batch)["lengths"], batch["length"])
    plain = arrays(tmp_path, x=x, y=CLASSES, lengths=LENGTHS, standardise=False)
    kept = whole(plain.source("train", seed=0))
    rows = plain.source("train", seed=0).rows
    assert np.array_equal(
        plain.inputs(kept)["u"], np.where(VALID[..., None], x, 0)[rows].astype("f4")
    )


@pytest.mark.parametrize("mean", [1e5, 1e9])
def test_readings_of_a_few_parts_in_ten_million_of_their_mean_keep_their_digits(tmp_path, mean):
    task = arrays(tmp_path, x=mean * (1 + 3e-7 * X), y=mean * (1 + 3e-7 * X[:, 0]), n_test=9)
    exact = arrays(tmp_path, x=X, y=X[:, 0], n_test=9)
    for split in ("train", "test"):
        batch, expected = (whole(t.source(split, seed=0)) for t in (task, exact))
        for name in ("x", "y"):
            np.testing.assert_allclose(batch[name], expected[name], atol=1e-4)
    np.savez(tmp_path / "new.npz", x=mean * (1 + 3e-7 * X))
    new = task.read_examples(tmp_path / "new.npz")["x"]
    assert np.array_equal(new[task.source("test", seed=0).rows], batch["x"])


def test_a_step_length_for_each_example_holds_for_its_steps(tmp_path):
    dt = np.arange(1, N + 1)
    task = arrays(tmp_path, x=X, y=CLASSES, dt=dt, normalise_dt=False)
    batch = whole(task.source("train", seed=0))
    assert task.irregular
    assert task.inputs(batch)["dt"].shape == (24, L)
    assert batch["dt"][0, 0] == batch["dt"][0, -1] == task.source("train", seed=0).rows[0] + 1


@pytest.mark.parametrize("unit", [1.0, 3_600.0, 1 / 8_766])
def test_the_unit_of_step_lengths_does_not_matter(tmp_path, unit):
    dt = RNG.uniform(1, 3, size=(N, L))
    dt[~VALID] = 0
    plain = arrays(tmp_path, x=X, y=CLASSES, dt=dt, lengths=LENGTHS)
    task = arrays(tmp_path, x=X, y=CLASSES, dt=unit * dt, lengths=LENGTHS)
    batch = whole(task.source("train", seed=0))
    valid = np.arange(L) < batch["length"][:, None]
    assert np.median(batch["dt"][valid]) == pytest.approx(1)
    assert task.preprocessing.dt_unit == pytest.approx(unit * plain.preprocessing.dt_unit)
    expected = whole(plain.source("train", seed=0))["dt"]
    np.testing.assert_allclose(batch["dt"][valid], expected[valid], rtol=1e-6)
    np.savez(tmp_path / "new.npz", x=X[:2], dt=7 * unit * dt[:2].clip(1))
    new = task.read_examples(tmp_path / "new.npz")["dt"]
    np.testing.assert_allclose(new, 7 * dt[:2].clip(1) / plain.preprocessing.dt_unit, rtol=1e-6)


def test_equal_step_lengths_are_no_step_lengths(tmp_path):
    task = arrays(tmp_path, x=X, y=CLASSES, dt=np.full(N, 3_600.0))
    assert not task.irregular, "models without step lengths learn it, too"
    assert task.inputs(whole(task.source("train", seed=0))).keys() == {"u"}
    assert task.preprocessing.dt_unit == 3_600
    assert "every step has the length 3600, which is the unit" in task.note
    np.savez(tmp_path / "new.npz", x=X, dt=np.full(N, 7_200.0))
    assert (task.read_examples(tmp_path / "new.npz")["dt"] == 2).all()
    np.savez(tmp_path / "new.npz", x=X)
    with pytest.raises(UsageError, match=r"must have an array `dt`.*where one step was 3600"):
        task.read_examples(tmp_path / "new.npz")


def test_values_are_measured_in_training_units_and_shown_in_the_file_s(tmp_path):
    y = 1e4 + 10 * RNG.normal(size=(N, 2))
    task = arrays(tmp_path, x=X, y=y, n_test=9)
    scaled, rows = whole(task.source("test", seed=0))["y"], task.source("test", seed=0).rows
    assert evaluate(task, scaled) == {"loss": 0, "r2": 1}
    average = np.broadcast_to(scaled.mean(axis=0), scaled.shape)
    assert abs(evaluate(task, average)["r2"]) < 1e-4
    np.testing.assert_allclose(task.present(scaled), y[rows], rtol=1e-6)


def test_targets_of_padding_do_not_count(tmp_path):
    y = np.where(VALID, TOKENS, -100)
    task = arrays(tmp_path, x=X, y=y, lengths=LENGTHS)
    test = whole(task.source("test", seed=0))
    logits = 50.0 * np.eye(9)[test["y"]]
    logits[np.arange(L) >= test["length"][:, None]] = np.nan
    assert evaluate(task, logits) == {"loss": 0, "accuracy": 1}


@pytest.mark.parametrize("ignored", [-100, 255])
def test_labels_that_do_not_count(tmp_path, ignored):
    ignore = RNG.uniform(size=(N, L)) < 0.3
    y = np.where(ignore, ignored, TOKENS)
    task = arrays(tmp_path, x=X, y=y, ignore_index=ignored)
    assert task.d_output == 9
    test = whole(task.source("test", seed=0))
    rows = task.source("test", seed=0).rows
    logits = 50.0 * np.eye(9)[TOKENS[rows]]
    logits[ignore[rows]] = RNG.normal(size=9)
    assert evaluate(task, logits) == {"loss": 0, "accuracy": 1}
    grad = jax.grad(lambda z: task.measure(z, test)["loss"].sum())(jnp.asarray(logits))
    assert not np.asarray(grad)[ignore[rows]].any()
    with pytest.raises(UsageError, match=r"`y` must|two or more"):
        arrays(tmp_path, x=X, y=np.where(ignore, -100, 0), ignore_index=-1)


def test_classes_are_counted_for_the_reader(tmp_path):
    assert arrays(tmp_path, x=X, y=CLASSES).note == "examples of each class: 0 8, 1 8, 2 7, 3 7"
    assert arrays(tmp_path, x=X, y=CLASSES / 2).note == ""
    y = np.where(np.arange(L) < 2, 1, 0) + 0 * TOKENS
    assert arrays(tmp_path, x=X, y=y).note == "steps of each class: 0 150, 1 60"
    many = arrays(tmp_path, x=X, y=np.arange(N)).note
    assert many.endswith("19 1 and 10 more")


def test_a_fingerprint_tells_what_has_changed(tmp_path):
    def fingerprint(**columns):
        return arrays(tmp_path, **{"x": X, "y": CLASSES, **columns}).fingerprint(seed=0)

    first = fingerprint()
    assert first == fingerprint()
    assert first["examples"] == N
    assert first["classes"] == {"0": 8, "1": 8, "2": 7, "3": 7}
    moved = fingerprint(x=X * 1_000)
    assert list_changes(first, moved)[-1].startswith("sha256")
    assert "mean of x" in list_changes(first, moved)[1]
    swapped = X.copy()
    swapped[[0, 1]] = X[[1, 0]]
    assert [c.split()[0] for c in list_changes(first, fingerprint(x=swapped))] == ["sha256"]
    assert fingerprint(dt=np.ones(N))["sha256"] != first["sha256"]


def folder_of(root: Path, write) -> str:
    for name, lengths in {"b": (3, 5), "a": (2, 4, 6)}.items():
        (root / name).mkdir()
        for i, length in enumerate(lengths):
            write(root / name / str(i), length)
    return str(root)


def write_csv(path: Path, length: int) -> None:
    rows = ["time,value", *(f"{t},{-t / 2}" for t in range(length))]
    path.with_suffix(".csv").write_text("\n".join(rows))


def test_a_folder_of_tables(tmp_path):
    task = Arrays(ArraysOptions(file=folder_of(tmp_path, write_csv), standardise=False))
    assert task.classes == ("a", "b")
    assert (task.length, task.d_input, task.d_output) == (6, 2, 2)
    table = task.table
    assert table.y.tolist() == [0, 0, 0, 1, 1]
    assert table.lengths.tolist() == [2, 4, 6, 3, 5]
    assert table.x[1].tolist() == [[0, 0], [1, -0.5], [2, -1], [3, -1.5], [0, 0], [0, 0]]
    columns = task.read_examples(tmp_path / "a" / "1.csv")
    assert columns["x"].tolist() == table.x[1:2, :4].tolist()


def test_a_folder_of_sounds(tmp_path):
    def write(path: Path, length: int) -> None:
        write_wav(path.with_suffix(".wav"), np.full((length, 2), 2**14), rate=8_000)

    task = Arrays(ArraysOptions(file=folder_of(tmp_path, write)))
    assert task.table.x[0, 0].tolist() == [0.5, 0.5]
    write_wav(tmp_path / "new.wav", np.zeros((4, 2)), rate=44_100)
    with pytest.raises(UsageError, match="8000 samples per second, as in training; got 44100"):
        task.read_examples(tmp_path / "new.wav")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"x": X}, "needs an array `y`"),
        ({"y": CLASSES}, "arrays named x, y.*got y"),
        ({"x": X, "y": CLASSES, "z": X}, "got x, y, z"),
        (
            {"x": X[0, 0], "y": CLASSES},
            r"`x` must be numbers of shape \(N, L, d\).*float64.*\(3,\)",
        ),
        ({"x": TOKENS - 1, "y": CLASSES}, "`x` must be in 0 to.*got -1 to 7"),
        ({"x": X, "y": CLASSES[1:]}, r"`y` must have 30 rows, as `x` has; got \(29,\)"),
        ({"x": X, "y": CLASSES + 1}, "`y` must be classes counted from 0.*got 1 to 4"),
        ({"x": X, "y": CLASSES - 1}, "`y` must be classes counted from 0.*got -1 to 2"),
        ({"x": X, "y": 0 * CLASSES}, "two or more.*got 0 to 0"),
        ({"x": X, "y": TOKENS[:, :3]}, r"`y` must be integers.*got int64 with shape \(30, 3\)"),
        ({"x": X, "y": X[:, 1:]}, r"`y` must be integers.*floats.*got float64 with shape \(30, 6"),
        ({"x": X, "y": np.where(CLASSES == 2, np.inf, 1)}, r"`y` must be finite; got inf at \[2"),
        ({"x": X, "y": CLASSES, "lengths": LENGTHS - 1}, "`lengths` must be in 1 to 7.*got 0 to"),
        ({"x": X, "y": CLASSES, "lengths": LENGTHS / 2}, "`lengths` must be integers.*float64"),
        ({"x": X, "y": CLASSES, "dt": X}, r"`dt` must be numbers of shape \(30, 7\) or \(30,\)"),
        ({"x": X, "y": CLASSES, "dt": CLASSES}, "`dt` must be positive; got 0"),
        ({"x": X[:2], "y": CLASSES[:2]}, "three examples or more.*got 2"),
        ({"x": X * 1e300, "y": CLASSES}, "`x` must be finite; got"),
        ({"x": np.where(X > 9, np.nan, X), "y": CLASSES}, "`x` must be finite; got nan"),
        ({"x": X, "y": CLASSES, "n_train": 29}, "must not exceed the 30 examples.*got 29, 3 and 3"),
        ({"x": X, "y": CLASSES, "n_test": 27}, "one or more to train; got 0, 3 and 27"),
        (
            {"x": X, "y": np.array([None] * N)},
            "`y` must be an array of numbers.*Python objects are not read",
        ),
        (
            {"x": X, "y": np.array(["a", "b"] * 15)},
            "`y` must be an array of numbers; got the type <U1: numb",
        ),
        (
            {"x": X.astype("M8[s]"), "y": CLASSES},
            r"`x` must be an array.*datetime64\[s\]: write times as",
        ),
        ({"x": 2**17 + TOKENS, "y": CLASSES}, r"be in 0 to 131,071.*write x\[\.\.\., None\]"),
    ],
)
def test_arrays_that_break_a_rule(tmp_path, columns, words):
    with pytest.raises(UsageError, match=words):
        arrays(tmp_path, **columns)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "two or more folders.*got nothing"),
        ({"a/1.csv": "1"}, "two or more folders.*got 1 folder"),
        ({"a/1.csv": "1", "b/1.wav": "1"}, "1 .csv file and 1 .wav file"),
        ({"a/1.csv": "1.5", "b/1.csv": "1.5,2"}, "same number of columns; got 1 in .*but 2 in"),
        ({"a/1.csv": "1", "b/1.csv": "x\n"}, "1.csv holds no row"),
        (
            {"a/1.csv": "1", "b/1.csv": "1\nx"},
            "1.csv, line 2, column 1: must be a finite number; got 'x'",
        ),
        ({"a/1.csv": "1", "b/1.csv": "1\nnan"}, "1.csv, line 2, column 1: the value is missing"),
    ],
)
def test_folders_that_break_a_rule(tmp_path, files, words):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=words):
        Arrays(ArraysOptions(file=str(tmp_path)))


def test_sounds_of_several_rates(tmp_path):
    for name, rate in {"a": 8_000, "b": 16_000}.items():
        (tmp_path / name).mkdir()
        write_wav(tmp_path / name / "1.wav", np.zeros(3), rate=rate)
    with pytest.raises(UsageError, match=r"sampling rate; got 8000 in .*, but 16000 in .*b/1"):
        Arrays(ArraysOptions(file=str(tmp_path)))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["a/1.csv", "b/1.csv", "c/1.txt", "c/2.TXT"], r"/c must hold .csv.*got 2 .txt files"),
        (["a/1.csv", "b/1.csv", "c/"], "/c must hold .csv files or sounds.*got nothing"),
        (["a/1.csv", "b/1.csv", "c/d/1.csv"], "/c must hold .csv files or sounds.*got 1 folder"),
        (["a/1.csv", "b/1.csv", "3.csv"], "3.csv is next to the class folders"),
        (["a/1.csv", "2.csv"], "two or more folders.*got 1 .csv file and 1 folder"),
        (["a/1.csv", "b/1.flac"], "got 1 .csv file and 1 .flac file. Keep one kind"),
    ],
)
def test_folders_with_files_that_would_be_left_out(tmp_path, files, words):
    make_files(tmp_path, files)
    with pytest.raises(UsageError, match=words):
        read_table(tmp_path)


def make_files(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        if name.endswith("/"):
            (folder / name).mkdir()
        else:
            (folder / name).write_text("1.5\n2.5\n")


def test_what_systems_and_editors_leave_in_folders(tmp_path):
    make_files(tmp_path, ["circle/1.csv", "circle/2.CSV", "shake/1.csv", "shake/3.Csv"])
    hidden = [".ipynb_checkpoints/1.csv", "__MACOSX/1.csv", "circle/._1.csv", ".DS_Store"]
    make_files(tmp_path, [*hidden, "shake/.ipynb_checkpoints/1.csv", "shake/Thumbs.db"])
    table = read_table(tmp_path)
    assert table.classes == ("circle", "shake")
    task = Arrays(ArraysOptions(file=str(tmp_path)))
    assert task.note.endswith("examples of each class: circle 2, shake 2")
    assert table.remarks == ("Read as: 1 column; decimal points; no header lines.",)
    make_files(tmp_path, ["README.md", "shake/notes.txt"])
    said = f"Left out: 1 .md file and 1 .txt file, such as {tmp_path / 'README.md'}."
    assert read_table(tmp_path).remarks[0] == said


def test_a_file_where_a_folder_belongs_and_a_folder_where_a_file_does(tmp_path):
    make_files(tmp_path, ["a/1.csv", "b/1.csv", "b/2.csv", "c.parquet"])
    with pytest.raises(UsageError, match=r"1.csv is one sequence, and training needs a .npz file"):
        read_table(tmp_path / "a" / "1.csv")
    with pytest.raises(UsageError, match=r"c.parquet is not a valid .npz file"):
        read_table(tmp_path / "c.parquet")
    task = Arrays(ArraysOptions(file=str(tmp_path)))
    with pytest.raises(UsageError, match=r"/a is a folder: name one file"):
        task.read_examples(tmp_path / "a")
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(UsageError, match=r"x.npy is one array.*np.savez\(FILE, x=x, y=y\)"):
        read_table(tmp_path / "x.npy")


def test_new_tables_are_read_as_the_training_tables_were(tmp_path):
    for name in ("a/1", "a/2", "b/1", "b/2"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.csv").write_text("t;v\n2024-01-01;0,5\n2024-01-02;0,7\n")
    task = Arrays(ArraysOptions(file=str(tmp_path), standardise=False))
    assert task.table.features == ("v",)
    (tmp_path / "new.csv").write_text("t;v\n2024-01-01;5\n2024-01-02;1,234\n")
    assert task.read_examples(tmp_path / "new.csv")["x"][0, :, 0].tolist() == [5, np.float32(1.234)]
    (tmp_path / "new.csv").write_text("t;w\n2024-01-01;5\n2024-01-02;7\n")
    with pytest.raises(UsageError, match="no column 'v': choose from t, w"):
        task.read_examples(tmp_path / "new.csv")


def test_options_of_sounds_and_tables(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write_wav(tmp_path / "a" / "1.wav", np.full((80, 2), 2**13), rate=16_000)
    write_wav(tmp_path / "b" / "1.WAV", np.full(40, 2**13), rate=8_000)
    soundfile.write(tmp_path / "b" / "2.flac", np.full(40, 0.25), 8_000)
    options = {"mono": True, "sample_rate": 8_000, "standardise": False}
    task = Arrays(ArraysOptions(file=str(tmp_path), **options))
    assert task.table.x.shape == (3, 40, 1)
    assert task.table.rate == 8_000
    x = task.read_examples(tmp_path / "a" / "1.wav")["x"]
    assert x.tolist() == task.table.x[:1].tolist()
    with pytest.raises(ValueError, match="`decimal` must be"):
        ArraysOptions(csv_decimal=";")


def test_no_file():
    with pytest.raises(UsageError, match=r"--data\.file=FILE\.npz"):
        Arrays(ArraysOptions())
    with pytest.raises(UsageError, match=r"No file or folder .*no/such"):
        Arrays(ArraysOptions(file="no/such"))
    with pytest.raises(ValueError, match="`n_test` must not be negative; got -1"):
        ArraysOptions(n_test=-1)


def test_a_sound_a_table_and_an_array_are_the_same_example(tmp_path):
    task = arrays(tmp_path, x=X[..., :1], y=CLASSES, standardise=False)
    (tmp_path / "a.csv").write_text("value\n0.5\n-1\n")
    write_wav(tmp_path / "a.wav", np.array([2**14, -(2**15)]))
    np.savez(tmp_path / "a.npz", x=np.array([0.5, -1])[None, :, None])
    for name in ("a.csv", "a.wav", "a.npz"):
        columns = task.read_examples(tmp_path / name)
        assert columns.keys() == {"x"}
        assert columns["x"].tolist() == [[[0.5], [-1]]]


def test_examples_that_are_not_like_those_of_training(tmp_path):
    task = arrays(tmp_path, x=X, y=CLASSES)
    np.savez(tmp_path / "new.npz", x=X[:4, :, :1], lengths=LENGTHS[:4])
    with pytest.raises(UsageError, match=r"`x` must have shape \(N, L, 3\), as in training"):
        task.read_examples(tmp_path / "new.npz")
    task = arrays(tmp_path, x=TOKENS, y=CLASSES)
    np.savez(tmp_path / "new.npz", x=TOKENS[:4] + 1)
    with pytest.raises(UsageError, match="tokens must be below 9, as in training; got 9"):
        task.read_examples(tmp_path / "new.npz")
