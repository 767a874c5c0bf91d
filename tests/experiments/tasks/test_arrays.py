"""A user's own arrays and folders, right and wrong."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from sounds import write_wav

from experiments.data import eval_batches
from experiments.errors import UsageError
from experiments.tasks import Source
from experiments.tasks.arrays import Arrays, ArraysOptions

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


def test_the_splits_share_no_example_and_are_the_same_each_time(tmp_path):
    task = arrays(tmp_path, x=TOKENS, y=CLASSES)
    sizes = task.options.n_train, task.options.n_validation, task.options.n_test
    assert sizes == (24, 3, 3)
    sources = [task.source(split, seed=seed) for seed, split in enumerate(("train", "test"))]
    rows = np.concatenate([*(s.rows for s in sources), task.source("validation", seed=5).rows])
    assert sorted(rows) == list(range(N))
    fewer = arrays(tmp_path, x=TOKENS, y=CLASSES, n_train=5, n_test=7)
    assert [len(fewer.source(s, seed=0)) for s in ("train", "validation", "test")] == [5, 3, 7]
    batch = next(iter(eval_batches(fewer, "test", seed=0, batch_size=8)))
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
    assert np.array_equal(plain.inputs(batch)["u"], batch["x"])


def test_a_step_length_for_each_example_holds_for_its_steps(tmp_path):
    task = arrays(tmp_path, x=X, y=CLASSES, dt=np.arange(1, N + 1))
    batch = whole(task.source("train", seed=0))
    assert task.irregular
    assert task.inputs(batch)["dt"].shape == (24, L)
    assert batch["dt"][0, 0] == batch["dt"][0, -1] == task.source("train", seed=0).rows[0] + 1


def test_values_are_measured_in_training_units_and_shown_in_the_file_s(tmp_path):
    y = 1e4 + 10 * RNG.normal(size=(N, 2))
    task = arrays(tmp_path, x=X, y=y, n_test=9)
    mean, std = task.target_moments
    truth = whole(task.source("test", seed=0))["y"]
    assert evaluate(task, (truth - mean) / std) == {"loss": 0, "r2": 1}
    average = np.broadcast_to((truth.mean(axis=0) - mean) / std, truth.shape)
    assert abs(evaluate(task, average)["r2"]) < 1e-4
    np.testing.assert_allclose(task.present((truth - mean) / std), truth, rtol=1e-6)


def test_targets_of_padding_do_not_count(tmp_path):
    y = np.where(VALID, TOKENS, -100)
    task = arrays(tmp_path, x=X, y=y, lengths=LENGTHS)
    test = whole(task.source("test", seed=0))
    logits = 50.0 * np.eye(9)[test["y"]]
    logits[np.arange(L) >= test["length"][:, None]] = np.nan
    assert evaluate(task, logits) == {"loss": 0, "accuracy": 1}


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
    with pytest.raises(UsageError, match="8000 samples a second, as in training; got 44100"):
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
        ({"x": TOKENS - 1, "y": CLASSES}, "`x` must lie in 0 to.*got -1 to 7"),
        ({"x": X, "y": CLASSES[1:]}, r"`y` must have 30 rows, as `x` has; got \(29,\)"),
        ({"x": X, "y": CLASSES + 1}, "`y` must be classes counted from 0.*got 1 to 4"),
        ({"x": X, "y": CLASSES - 1}, "`y` must be classes counted from 0.*got -1 to 2"),
        ({"x": X, "y": 0 * CLASSES}, "two or more.*got 0 to 0"),
        ({"x": X, "y": TOKENS[:, :3]}, r"`y` must be integers.*got int64 with shape \(30, 3\)"),
        ({"x": X, "y": X[:, 1:]}, r"`y` must be integers.*floats.*got float64 with shape \(30, 6"),
        ({"x": X, "y": np.where(CLASSES == 2, np.inf, 1)}, r"`y` must be finite; got inf at \[2"),
        ({"x": X, "y": CLASSES, "lengths": LENGTHS - 1}, "`lengths` must lie in 1 to 7.*got 0 to"),
        ({"x": X, "y": CLASSES, "lengths": LENGTHS / 2}, "`lengths` must be integers.*float64"),
        ({"x": X, "y": CLASSES, "dt": X}, r"`dt` must be numbers of shape \(30, 7\) or \(30,\)"),
        ({"x": X, "y": CLASSES, "dt": CLASSES}, "`dt` must be positive; got 0"),
        ({"x": X[:2], "y": CLASSES[:2]}, "three examples or more.*got 2"),
        ({"x": X * 1e300, "y": CLASSES}, "`x` must be finite; got"),
        ({"x": np.where(X > 9, np.nan, X), "y": CLASSES}, "`x` must be finite; got nan"),
        ({"x": X, "y": CLASSES, "n_train": 29}, "must not exceed the 30 examples.*got 29, 3 and 3"),
        ({"x": X, "y": CLASSES, "n_test": 27}, "one or more to train; got 0, 3 and 27"),
        ({"x": X, "y": np.array([None] * N)}, "Python objects are not read"),
    ],
)
def test_arrays_that_break_a_rule(tmp_path, columns, words):
    with pytest.raises(UsageError, match=words):
        arrays(tmp_path, **columns)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "two or more folders.*got 0 with 0 such files"),
        ({"a/1.csv": "1"}, "two or more folders.*got 1 with 1 such file"),
        ({"a/1.csv": "1", "b/1.wav": "1"}, "1 file of .csv and 1 file of .wav"),
        ({"a/1.csv": "1", "b/1.csv": "1,2"}, "same number of columns; got 1 in .*but 2 in"),
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
    with pytest.raises(UsageError, match=r"samples a second; got 8000 in .*, but 16000 in .*b/1"):
        Arrays(ArraysOptions(file=str(tmp_path)))


def test_no_file():
    with pytest.raises(UsageError, match=r"--data\.file=FILE\.npz"):
        Arrays(ArraysOptions())
    with pytest.raises(UsageError, match="No file or folder no/such"):
        Arrays(ArraysOptions(file="no/such"))
    with pytest.raises(ValueError, match="`n_test` must not be negative; got -1"):
        ArraysOptions(n_test=-1)


def test_a_sound_a_table_and_an_array_are_the_same_example(tmp_path):
    task = arrays(tmp_path, x=X[..., :1], y=CLASSES)
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
    with pytest.raises(UsageError, match="tokens must lie below 9, as in training; got 9"):
        task.read_examples(tmp_path / "new.npz")
