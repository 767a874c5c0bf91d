"""Sets of the UEA, UCR and TSER archives: the protocol, the inputs, and what is refused."""

import dataclasses
import json
import os
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from true_files import write_archive_set

import s5jax
from experiments.cli.runs import parse_sample, parse_train
from experiments.config import Config
from experiments.config.models import MODELS
from experiments.data.prepare import prepare_dataset
from experiments.data.sources import Files
from experiments.errors import UsageError
from experiments.recipes import OF_DATA_SETS, describe_changes, get_recipe
from experiments.tasks import get_task
from experiments.tasks.archives.options import ArchiveOptions
from experiments.training.loop import fit
from experiments.training.prediction import predict
from experiments.training.publish import train_command

N = 40
"""Series of a file."""


def write(folder: Path, part: str, lines: list[str], *headers: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join([*headers, "@data", *lines]) + "\n"
    (folder / f"{folder.name}_{part}.ts").write_text(text)


def write_set(data_dir: Path, *, missing: bool = False) -> Files:
    """Series of 3 to 5 steps, each with its number as the first value; the last two are equal."""
    classes = "@classLabel true a b", "@classLabel true b a"
    for k, part in enumerate(("TRAIN", "TEST")):
        rows = [f"{min(k * N + i, 2 * N - 2)},2{',7' * (1 + i % 3)}" for i in range(N)]
        rows[-1] = rows[-2] if k else rows[-1]
        second = [",".join("1" for _ in row.split(",")) for row in rows]
        if missing:
            second[0] = f"?{second[0][1:]}"
        lines = [
            f"{a}:{b}:{'ab'[i % 2]}" for i, (a, b) in enumerate(zip(rows, second, strict=True))
        ]
        write(data_dir / "uea" / "Steps", part, lines, classes[k])
    return Files(data_dir)


def steps(files: Files, **options):
    return get_task("uea")(ArchiveOptions(name="Steps", **options), files)


def whole(task, split: str, seed: int = 0) -> dict[str, np.ndarray]:
    source = task.source(split, seed=seed)
    return source.batch(np.arange(len(source)), epoch=0)


def test_files_are_merged_and_split_by_the_seed(tmp_path):
    task = steps(write_set(tmp_path))
    n = 2 * N - 1
    assert "1 series that are equal to others are left out" in task.note
    assert "series of each class: a 40, b 39" in task.note
    sizes = [task.options.n_examples(split) for split in ("train", "validation", "test")]
    assert sizes == [int(0.7 * n), int(0.85 * n) - int(0.7 * n), n - int(0.85 * n)]
    parts = [whole(task, split)["x"][:, 0, 0] for split in ("train", "validation", "test")]
    assert sorted(np.concatenate(parts).tolist()) == list(range(n))
    assert set(whole(task, "test", seed=1)["x"][:, 0, 0]) != set(parts[2])
    np.testing.assert_array_equal(whole(steps(Files(tmp_path)), "test")["x"][:, 0, 0], parts[2])


def test_classes_have_the_order_of_the_first_file(tmp_path):
    task = steps(write_set(tmp_path))
    batch = whole(task, "train")
    assert task.classes == task.preprocessing.classes == ("a", "b")
    np.testing.assert_array_equal(batch["y"], batch["x"][:, 0, 0] % 2)


def test_time_lengths_and_masks_are_inputs(tmp_path):
    task = steps(write_set(tmp_path, missing=True), time=True)
    batch = whole(task, "train")
    inputs = task.inputs(batch)
    assert task.preprocessing.features == ("time", "x1", "x2", "x1 observed", "x2 observed")
    assert inputs["u"].shape == (len(batch["y"]), task.length, task.d_input)
    number = int(np.flatnonzero(batch["length"] == 3)[1])
    np.testing.assert_allclose(inputs["u"][number, :, 0], [0, 1 / 3, 2 / 3, 1, 1], rtol=1e-6)
    np.testing.assert_array_equal(inputs["u"][number, 3:, 1:], np.zeros((2, 4)))
    gap = int(np.flatnonzero(batch["x"][:, 0, 0] == 0)[0])
    np.testing.assert_array_equal(inputs["u"][gap, 0], [0, 0, 0, 1, 0])
    np.testing.assert_array_equal(inputs["u"][gap, 1, 1:], [2, 1, 1, 1])
    np.testing.assert_array_equal(inputs["lengths"], batch["length"])


def test_inputs_are_as_in_the_file_unless_standardised(tmp_path):
    files = write_set(tmp_path, missing=True)
    assert steps(files).preprocessing.input_std == 1.0
    task = steps(files, standardise=True, time=True)
    for seed in (3, 4):
        batch = whole(task, "train", seed=seed)
        valid = np.arange(task.length) < batch["length"][:, None]
        np.testing.assert_allclose(batch["x"][valid].mean(axis=0), 0, atol=1e-6)
        np.testing.assert_allclose(batch["x"][valid, 0].std(axis=0), 1, rtol=1e-5)
    mean, std = task.preprocessing.input_mean, task.preprocessing.input_std
    assert (mean[0], *mean[3:], std[0], *std[2:]) == (0, 0, 0, 1, 1, 1, 1)


def test_saved_statistics_stay_as_they_are(tmp_path):
    task = steps(write_set(tmp_path), standardise=True)
    saved = s5jax.Preprocessing(
        input_mean=(5.0, 0.0), input_std=(2.0, 1.0), classes=("a", "b"), features=("x1", "x2")
    )
    task.preprocessing = saved
    x = whole(task, "test", seed=7)["x"]
    assert task.preprocessing is saved
    assert x[0, 1].tolist() == [(2 - 5) / 2, 1]


def test_errors_of_regression_are_in_the_units_of_the_set(tmp_path):
    lines = [f"{i},{i + 1}:{10 * i}" for i in range(N)]
    for part in ("TRAIN", "TEST"):
        write(tmp_path / "tser" / "Tens", part, lines, "@targetlabel true")
    for standardise in (False, True):
        options = ArchiveOptions(name="Tens", standardise=standardise)
        task = get_task("tser")(options, Files(tmp_path))
        batch = whole(task, "test")
        wrong = (batch["y"] * task.preprocessing.target_std) + task.preprocessing.target_mean + 20
        outputs = (wrong - task.preprocessing.target_mean) / task.preprocessing.target_std
        values = task.measure(jnp.asarray(outputs, jnp.float32), batch)
        found = task.report({name: np.asarray(v).mean(axis=0) for name, v in values.items()})
        assert found["rmse"] == pytest.approx(20, rel=1e-5)
        restored = task.present(outputs)
        np.testing.assert_allclose(restored, 10 * np.rint(restored / 10), atol=1e-3)
    assert len(batch["y"]) == 2 * N - int(0.85 * 2 * N)  # equal series are kept


def test_what_is_missing_is_named(tmp_path, capsys):
    with pytest.raises(UsageError, match=r"No set: .* --data.name=EigenWorms.*prepare --task=uea"):
        get_task("uea")(ArchiveOptions(), Files(tmp_path))
    with pytest.raises(UsageError, match=r"The file Own_TRAIN.ts is not in .*prepare --task=tser"):
        get_task("tser")(ArchiveOptions(name="Own"), Files(tmp_path))
    for task, where in (("uea", "aeon-toolkit/NAME.zip"), ("tser", "tseregression.org")):
        with pytest.raises(UsageError, match=rf"{where} yourself, and set --source"):
            prepare_dataset(task, tmp_path, None)
    with pytest.raises(UsageError, match=r"`name` must be the name of a set, .* got 'a/b'"):
        ArchiveOptions(name="a/b")


def test_sets_of_the_other_task_and_small_ones_are_refused(tmp_path):
    files = write_set(tmp_path)
    (tmp_path / "uea").rename(tmp_path / "tser")
    with pytest.raises(UsageError, match=r"Steps has classes to learn, so .* task uea: move"):
        get_task("tser")(ArchiveOptions(name="Steps"), files)
    (tmp_path / "tser").rename(tmp_path / "uea")
    with pytest.raises(UsageError, match=r"Steps has 79 series, of which train 55.* got train 56"):
        steps(files, n_train=56)
    for part in ("TRAIN", "TEST"):
        write(tmp_path / "uea" / "Two", part, [f"{len(part)}:a"], "@classLabel true a b")
    with pytest.raises(UsageError, match=r"Two has 2 series.* at least one each"):
        get_task("uea")(ArchiveOptions(name="Two"), files)


@pytest.mark.parametrize(
    ("header", "lines", "message"),
    [
        ("@classLabel true a c", ["1,2,3:1,2,3:c"], r"labels of Steps_TRAIN.ts \(a, b\); got a, c"),
        ("@targetlabel true", ["1,2,3:1,2,3:4"], "must have the labels of .* got values"),
        ("@classLabel true a b", ["1,2,3:b"], "must have 2 dimensions, as Steps_TRAIN.ts.* got 1"),
        ("@classLabel false", ["1,2:3,4"], "has neither classes nor values to learn"),
    ],
)
def test_files_that_do_not_fit_together_are_refused(tmp_path, header, lines, message):
    files = write_set(tmp_path)
    write(tmp_path / "uea" / "Steps", "TEST", lines, header)
    with pytest.raises(UsageError, match=message):
        steps(files)


def test_a_zip_is_unpacked_and_half_a_set_refused(tmp_path, capsys):
    source = tmp_path / "files"
    source.mkdir()
    write_archive_set(source, "Sides")
    with zipfile.ZipFile(tmp_path / "Sides.zip", "w") as archive:
        for path in source.iterdir():
            archive.write(path, f"any/{path.name}")
        archive.writestr("any/Sides_TRAIN.arff", "")
    prepare_dataset("uea", tmp_path / "data", tmp_path / "Sides.zip")
    assert "Sides." in capsys.readouterr().out
    assert len(list((tmp_path / "data/uea/Sides").iterdir())) == 2
    assert get_task("uea")(ArchiveOptions(name="Sides"), Files(tmp_path / "data")).length == 64
    (source / "Sides_TEST.ts").unlink()
    with pytest.raises(UsageError, match=r"does not hold Sides_TEST.ts: get the whole set"):
        prepare_dataset("uea", tmp_path / "data", source)
    (source / "Sides_TRAIN.ts").unlink()
    with pytest.raises(UsageError, match=r"does not hold NAME_TRAIN.ts and NAME_TEST.ts files"):
        prepare_dataset("uea", tmp_path / "data", source)


def test_a_recipe_depends_on_the_set():
    args = ["--task=uea", "--preset=paper", "--model=lru", "--optim.lr=0.5"]
    (config,) = parse_train([*args, "--data.name", "SelfRegulationSCP1"]).configs()
    known = OF_DATA_SETS["uea", "lru", "paper", "SelfRegulationSCP1"]
    assert known.published == 0.826
    assert known.deviation == 0.034
    assert config.model == known.config.model
    assert config.data == known.config.data
    assert config.optim.lr == 0.5
    assert config.run_name == "uea-SelfRegulationSCP1-lru-paper-seed0"
    assert "published: 0.826" in describe_changes(config)
    assert "optim.lr 0.0001 -> 0.5" in describe_changes(config)
    assert "--optim.lr 0.5" in train_command(config).replace("=", " ")
    assert "n_layers" not in train_command(config)
    (other,) = parse_train([*args, "--data.name=Own"]).configs()
    assert other.model == get_recipe("uea", "lru", "paper").model
    assert Config.from_dict(json.loads(config.to_json())) == config
    sample = parse_sample(["--task=uea", "--data.name=SelfRegulationSCP1"])
    assert sample.data == OF_DATA_SETS["uea", "s5", "paper", "SelfRegulationSCP1"].config.data


def test_every_published_set_has_a_recipe_of_every_model():
    sets = {(key[0], key[3]) for key in OF_DATA_SETS}
    assert len(OF_DATA_SETS) == len(MODELS) * 9 == len(MODELS) * len(sets)
    figures = {key: row.published for key, row in OF_DATA_SETS.items() if row.published}
    assert len(figures) == 6 * 3 + 3 * 2
    assert figures["uea", "linoss", "paper", "EigenWorms"] == 0.95
    assert figures["tser", "s4", "paper", "BIDMC32HR"] == 0.332


@pytest.mark.slow
@pytest.mark.parametrize(("task", "name"), [("uea", "Sides"), ("tser", "Values")])
def test_predictions_are_those_of_training(task, name, files, one_device, tmp_path):
    config = get_recipe(task, "s5", "smoke")
    data = ArchiveOptions(name=name, standardise=True, time=True)
    fit(dataclasses.replace(config, data=data), tmp_path, mesh=one_device, files=files)
    path = files.data_dir / task / name / f"{name}_TEST.ts"
    rows = predict(tmp_path, path)
    assert len(rows) == 80
    assert set(rows[0]) >= ({"class"} if task == "uea" else {"y0"})
    loaded = s5jax.load(tmp_path / "model")
    made = get_task(task)(data, files)
    assert loaded.preprocessing.features == made.preprocessing.features
    path = tmp_path / "new.ts"
    path.write_text("@data\n1,2\n")
    with pytest.raises(UsageError, match="must have 2 dimensions, as in training; got 1"):
        predict(tmp_path, path)
    path.write_text("@data\n1,2:?,1\n")
    with pytest.raises(UsageError, match="must have no missing values, as there were none"):
        predict(tmp_path, path)


ROOT = Path(__file__).parents[4]
REAL = Path(os.environ.get("S5JAX_TS_SETS", "/nonexistent"))
"""A folder of real sets, such as ``aeon/datasets/data`` in aeon's wheel."""
LEAST = {
    ("uea", "BasicMotions"): 0.8,
    ("uea", "JapaneseVowels"): 0.8,
    ("tser", "Covid3Month"): 0.04,
}
"""Accuracies that a run must reach, and errors that it must not exceed."""


@pytest.mark.slow
@pytest.mark.parametrize(("task", "name"), LEAST)
def test_naive_figures_are_those_of_the_sets(task, name, tmp_path):
    """The most frequent class of training, or the mean of its values."""
    if not (REAL / name).is_dir():
        pytest.skip(f"S5JAX_TS_SETS names no folder with {name}, such as aeon's datasets/data.")
    prepare_dataset(task, tmp_path, REAL / name)
    made, found = get_task(task)(ArchiveOptions(name=name), Files(tmp_path)), []
    for seed in range(5):
        train, test = (whole(made, split, seed)["y"] for split in ("train", "test"))
        if task == "uea":
            found.append(np.mean(test == np.bincount(train).argmax()))
        else:
            found.append(np.sqrt(np.mean((test - train.mean()) ** 2)))
    recorded = json.loads((ROOT / "results/archives/naive.json").read_text())
    np.testing.assert_allclose(found, recorded[f"{task} {name}"], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "name"), LEAST)
def test_real_sets_are_learnt(task, name, one_device, tmp_path):
    if not (REAL / name).is_dir():
        pytest.skip(f"S5JAX_TS_SETS names no folder with {name}, such as aeon's datasets/data.")
    prepare_dataset(task, tmp_path, REAL / name)
    args = [f"--task={task}", f"--data.name={name}", "--preset=cpu", "--train.steps=200"]
    (config,) = parse_train(args).configs()
    results = fit(config, tmp_path / "run", mesh=one_device, files=Files(tmp_path))
    assert results["data_set"] == name
    figure = results["test"][results["metric"]]
    assert figure >= LEAST[task, name] if task == "uea" else figure <= LEAST[task, name]
    assert predict(tmp_path / "run", tmp_path / task / name / f"{name}_TEST.ts")
