"""A trained model on files of a user's, and at another sampling rate."""

import csv
import dataclasses
import io
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from toys import finish

import s5jax
from experiments import predict as predict_module
from experiments.config import read_config
from experiments.config.models import GRUOptions, ModelOptions
from experiments.errors import UsageError
from experiments.recipes import get_recipe
from experiments.tasks import decimate, get_task
from experiments.tasks._task import measure_classification
from experiments.tasks.arrays.options import ArraysOptions
from experiments.tasks.pathfinder.paths import Paths
from experiments.training.evaluation import evaluate_run
from experiments.training.prediction import predict
from experiments.training.setup import make_setup

N, L = 24, 12
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, L, 1))


@pytest.fixture(scope="module")
def run_of(tmp_path_factory, toy):
    """The folder of a run of a small model on arrays: ``run_of(y=...)``."""

    def make(model: ModelOptions | None = None, **columns: np.ndarray) -> Path:
        folder = tmp_path_factory.mktemp("run")
        np.savez(folder / "data.npz", **{"x": X, **columns})
        data = ArraysOptions(file=str(folder / "data.npz"), n_validation=8, n_test=8)
        config = dataclasses.replace(toy(), task="arrays", data=data)
        return finish(dataclasses.replace(config, model=model or config.model), folder)

    return make


@pytest.fixture(scope="module")
def run(run_of):
    """A run that tells three classes apart."""
    return run_of(y=np.arange(N) % 3, lengths=np.full(N, L))


def test_names_and_probabilities_of_classes(run, tmp_path):
    np.savez(tmp_path / "new.npz", x=X[:10], lengths=np.full(10, 7))
    rows = predict(run, tmp_path / "new.npz")
    assert [row["example"] for row in rows] == list(range(10))
    for row in rows:
        shares = [row[f"p_{name}"] for name in "012"]
        assert sum(shares) == pytest.approx(1)
        assert row["class"] == str(np.argmax(shares))
    short = X[:10].copy()
    short[:, 7:] = np.nan
    np.savez(tmp_path / "new.npz", x=short, lengths=np.full(10, 7))
    assert predict(run, tmp_path / "new.npz") == rows


def test_values_a_step_in_the_units_of_the_file(run_of, tmp_path):
    run = run_of(y=1000 + 10 * np.concatenate([X, -X], axis=-1))
    np.savez(tmp_path / "new.npz", x=np.tile(X[:1], (1, 2, 1)))
    assert len(predict(run, tmp_path / "new.npz")) == 2 * L, "longer than in training"
    np.savez(tmp_path / "new.npz", x=X[:2], lengths=[3, 5])
    rows = predict(run, tmp_path / "new.npz")
    assert [(row["example"], row["step"]) for row in rows] == [
        *((0, step) for step in range(3)),
        *((1, step) for step in range(5)),
    ]
    assert all(900 < row["y0"] < 1100 and 900 < row["y1"] < 1100 for row in rows)


def test_command_line(command, run, tmp_path):
    np.savez(tmp_path / "new.npz", x=X[:2])
    args = [f"--workdir={run}", f"--data.file={tmp_path / 'new.npz'}"]
    code, out, _ = command(predict_module, *args)
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert list(rows[0]) == ["example", "class", "p_0", "p_1", "p_2"]
    for suffix in (".csv", ".json"):
        assert command(predict_module, *args, f"--out={tmp_path}/out{suffix}")[0] == 0
    assert (tmp_path / "out.csv").read_text() == out
    assert json.loads((tmp_path / "out.json").read_text())[1]["class"] == rows[1]["class"]
    code, _, err = command(predict_module, *args, "--out=a.txt")
    assert code == 2
    assert ".csv, .json" in err


def test_files_that_the_task_does_not_read(run, tmp_path):
    np.savez(tmp_path / "new.npz", y=X)
    with pytest.raises(UsageError, match="arrays named x"):
        predict(run, tmp_path / "new.npz")
    with pytest.raises(UsageError, match=r"No run in .* Set --workdir to a folder"):
        predict(tmp_path, tmp_path / "new.npz")


def test_images_and_samples_of_a_task(tmp_path):
    task = Paths(get_recipe("pathfinder", "s5", "smoke").data)
    pixels = RNG.integers(0, 256, (32, 32), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(task.read_examples(tmp_path / "a.png")["image"], pixels[None])
    np.savez(tmp_path / "a.npz", images=pixels[None], labels=np.zeros(1))
    assert np.array_equal(task.read_examples(tmp_path / "a.npz")["image"], pixels[None])
    Image.fromarray(pixels[:9]).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match="an image of 32 x 32; got 32 x 9"):
        task.read_examples(tmp_path / "a.png")
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(UsageError, match="is not a valid image"):
        task.read_examples(tmp_path / "a.png")


def test_a_column_that_is_missing(toy, tmp_path):
    finish(toy(), tmp_path)
    np.savez(tmp_path / "new.npz", y=X)
    with pytest.raises(UsageError, match="lacks the column 'x'; it has index, epoch, y"):
        predict(tmp_path, tmp_path / "new.npz")
    np.savez(tmp_path / "new.npz", x=3)
    with pytest.raises(UsageError, match="holds no example"):
        predict(tmp_path, tmp_path / "new.npz")


def test_tokens_outside_of_the_vocabulary(tmp_path):
    run = finish(get_recipe("listops", "s5", "smoke"), tmp_path)
    tokens = RNG.integers(0, 15, (3, 50))
    tokens[1, 20:] = -1
    np.savez(tmp_path / "new.npz", tokens=tokens, lengths=[50, 20, 50])
    assert len(predict(run, tmp_path / "new.npz")) == 3, "padding may hold anything"
    tokens[2, 7] = 999
    np.savez(tmp_path / "new.npz", tokens=tokens, lengths=[50, 20, 50])
    with pytest.raises(UsageError, match=r"tokens from 0 to \d+.*got 999 in example 2 at \[7\]"):
        predict(run, tmp_path / "new.npz")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"x": X, "z": X[1:]}, r"equally many rows of each column; got {'x': 24, 'z': 23}"),
        ({"x": X[:, 0, 0]}, "not a valid set of examples for this model"),
        ({"x": X[..., [0, 0]]}, "not a valid set of examples for this model"),
        ({"x": X.astype(complex)}, "not a valid set of examples for this model"),
    ],
)
def test_columns_that_do_not_fit_the_model(toy, tmp_path, columns, words):
    finish(toy(), tmp_path)
    np.savez(tmp_path / "new.npz", **columns)
    with pytest.raises(UsageError, match=words) as error:
        predict(tmp_path, tmp_path / "new.npz")
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------- another sampling rate


def test_decimation_keeps_lengths_and_times():
    inputs = {
        "u": jnp.arange(7.0)[None, :, None],
        "lengths": jnp.array([5]),
        "dt": jnp.array([[1.0, 2, 3, 4, 5, 6, 7]]),
    }
    kept = decimate(inputs, 3)
    assert kept["u"][0, :, 0].tolist() == [0, 3, 6]
    assert kept["lengths"].tolist() == [2]
    assert kept["dt"].tolist() == [[1, 9, 18]]


def test_at_another_rate_a_model_sees_fewer_and_longer_steps(run):
    plain, halved = evaluate_run(run, "data=1"), evaluate_run(run, "data=1", dt=2)
    assert "dt" not in plain
    assert halved["dt"] == 2
    with np.load(run / "data.npz") as data:
        x, y = data["x"][:, ::2], data["y"]
    task = get_task("arrays")(read_config(run).data)
    model = s5jax.load(run / "model")
    logits = jax.jit(lambda u: model(u, dt=2.0))(x)
    loss = np.asarray(measure_classification(logits, y)["loss"])
    rows = task.source("test", seed=0).rows
    assert halved["test"]["loss"] == pytest.approx(loss[rows].mean(), rel=1e-4)
    assert halved["test"]["loss"] != pytest.approx(plain["test"]["loss"], rel=1e-4)


@pytest.mark.slow
def test_the_sampling_rate_of_a_discrete_layer_is_fixed(run_of):
    run = run_of(GRUOptions(n_layers=1, d_model=4, d_state=4), y=np.arange(N) % 3)
    with pytest.raises(UsageError, match="GRU has no step length"):
        evaluate_run(run, "data=1", dt=2)


@pytest.mark.parametrize(
    ("columns", "dt", "words"),
    [
        ({"x": RNG.integers(0, 3, (N, L)), "y": np.arange(N) % 3}, 2, "arrays has tokens"),
        ({"x": X, "y": X}, 2, "the head 'label'"),
        ({"x": X, "y": np.arange(N) % 3}, 0, "`dt` is 0"),
    ],
)
def test_tasks_that_have_no_other_rate(toy, one_device, tmp_path, columns, dt, words):
    np.savez(tmp_path / "data.npz", **columns)
    options = ArraysOptions(file=str(tmp_path / "data.npz"))
    config = dataclasses.replace(toy(), task="arrays", data=options)
    with pytest.raises(UsageError, match=words):
        make_setup(config, one_device, dt=dt)
