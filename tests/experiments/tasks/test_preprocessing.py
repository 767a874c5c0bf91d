"""What a trained model must know of its data is saved with it, for every task that has such."""

import dataclasses

import numpy as np
import pytest

import s5jax
from experiments.data.sources import Files
from experiments.recipes import get_recipe
from experiments.tasks import TASKS, get_task
from experiments.tasks.language.wikitext import WikiText103, WikiTextOptions
from experiments.tasks.text import Reviews, ReviewsOptions

SIZES = {"n_train": 16, "n_validation": 4, "n_test": 4}
IMAGES = [
    *("pathfinder", "image", "scifar", "noisy_scifar", "smnist", "digits", "noisy_digits"),
    "pendulum",
]


@pytest.mark.parametrize("name", IMAGES)
def test_pixels_as_they_are_stored_become_the_inputs(name, files):
    options = dataclasses.replace(get_recipe(name, "s5", "smoke").data, **SIZES)
    task = get_task(name)(options, files)
    batch = task.expand(task.source("test", seed=0).batch(np.arange(4), epoch=0))
    n_pixels = task.length // (1 + name.startswith("noisy"))
    raw = np.asarray(batch["image"]).reshape(4, n_pixels, -1)
    if name.startswith("noisy"):
        raw = np.concatenate([raw, batch["noise"]], axis=1)
    expected = task.inputs(batch)["u"]
    np.testing.assert_allclose(task.preprocessing.standardize(raw), expected, atol=1e-5)
    assert task.preprocessing.classes == task.classes


def test_a_preprocessing_of_nothing_is_not_saved():
    for name in ("chars", "digits_density", "shift"):
        task = get_task(name)(get_recipe(name, "s5", "smoke").data)
        assert task.preprocessing == s5jax.Preprocessing()


def test_ids_of_characters(files):
    options = ReviewsOptions(
        held_out="train_only", l_max=20, min_freq=1, vocabulary_size=200, **SIZES
    )
    task = Reviews(options, files)
    vocabulary = task.preprocessing.vocabulary
    assert len(vocabulary) == 200
    assert vocabulary[:3] == ("<pad>", "<unknown>", "<end>")
    batch = task.source("train", seed=0).batch(np.array([0]), epoch=0)
    text = "".join(vocabulary[k] for k in batch["token"][0, : batch["length"][0] - 1])
    row = task.source("train", seed=0).rows[0]
    codes = task.texts("train").text(row)
    assert text == "".join(map(chr, codes))


def test_a_language_model_keeps_its_words(tmp_path):
    words = ("<eos>", "a", "b")
    options = WikiTextOptions(vocabulary=3)
    saved = s5jax.Preprocessing(vocabulary=words)
    task = WikiText103.for_prediction(options, Files(data_dir=tmp_path), None, saved)
    assert task.encode("b a <eos>").tolist() == [2, 1, 0]
    assert task.decode(np.array([1, 2])) == "a b"


def test_fingerprints_of_files_and_of_what_is_drawn(files):
    for name in ("pathfinder", "pendulum", "listops", "shift"):
        options = dataclasses.replace(get_recipe(name, "s5", "smoke").data, **SIZES)
        assert TASKS[name](options, files).fingerprint(seed=0) == {}
    options = dataclasses.replace(get_recipe("smnist", "s5", "smoke").data, **SIZES)
    task = TASKS["smnist"](options, files)
    fingerprint = task.fingerprint(seed=0)
    assert fingerprint["examples"] == 16
    task.source("train", seed=0).columns["image"][task.source("train", seed=0).rows[0], 0] ^= 1
    assert task.fingerprint(seed=0)["sha256"] != fingerprint["sha256"]
    task.source("train", seed=0).columns["image"][task.source("train", seed=0).rows[0], 0] ^= 1
