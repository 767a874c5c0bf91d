import jax
import numpy as np
import pytest
from PIL import Image
from true_files import cifar_batches

from experiments.data.held_out import published_order
from experiments.data.sources import Files
from experiments.errors import UsageError
from experiments.tasks import TASKS
from experiments.tasks.pixels import SPLITS, bit_reversal, to_grey

SIZES = {"n_train": 180, "n_validation": 20, "n_test": 40}
CIFAR = ("image", "scifar", "noisy_scifar")


def make(name, files=None, **options):
    task = TASKS[name]
    sizes = {} if "digits" in name else SIZES
    return task(task.options_type(**{**sizes, **options}), files or Files())


def whole(source):
    return source.batch(np.arange(len(source)), epoch=0)


@pytest.mark.parametrize("name", [*CIFAR, "smnist", "psmnist", "digits", "noisy_digits"])
def test_shapes_and_splits(files, name):
    task = make(name, files)
    n = {"train": 180, "validation": 20, "test": 40}
    if "digits" in name:
        n = {"train": 1_200, "validation": 297, "test": 300}
    for split in n:
        source = task.source(split, seed=0)
        assert len(source) == n[split]
    batch = jax.jit(task.expand)(source.batch(np.array([3, 1]), epoch=0))
    u = task.inputs(batch)["u"]
    assert u.shape == (2, task.length, task.d_input)
    assert u.dtype == np.float32
    one = source[3]
    np.testing.assert_array_equal(one["image"], batch["image"][0])
    outputs = np.zeros((2, task.length, 10) if task.head == "label" else (2, 10), np.float32)
    measured = task.measure(outputs, batch)
    np.testing.assert_allclose(measured["loss"], np.log(10), rtol=1e-6)


def test_cifar_is_split_as_published(files):
    """The published order comes back from the ids, then S4's permutation follows."""
    rows = np.concatenate(list(cifar_batches().values()))
    images = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    order = published_order(200)
    task = make("scifar", files)
    for split, expected in (
        ("train", order[:180]),
        ("validation", order[180:]),
        ("test", np.arange(200, 240)),
    ):
        columns = whole(task.source(split, seed=0))
        np.testing.assert_array_equal(columns["image"], images[expected])
        np.testing.assert_array_equal(columns["label"], rows[expected, 0])


@pytest.mark.parametrize("name", CIFAR)
def test_training_images_are_mirrored_and_shifted_anew_in_each_epoch(files, name):
    task = make(name, files, augment=True)
    source, indices = task.source("train", seed=0), np.arange(20)

    def train(epoch, indices=indices):
        epochs = np.full(len(indices), epoch, np.int32)
        batch = source.batch(indices, epoch=epoch)
        return jax.jit(task.expand)({**batch, "index": indices, "epoch": epochs})["image"]

    images, originals = train(0), source.batch(indices, epoch=0)["image"]
    np.testing.assert_array_equal(train(0, indices[::-1])[::-1], images)  # whatever the batch
    assert (train(1) != images).any(axis=tuple(range(1, images.ndim))).mean() > 0.9
    edges = [(4, 4), (4, 4), *[(0, 0)] * (originals.ndim - 3)]
    seen = set()
    for image, original in zip(np.asarray(images), originals, strict=True):
        found = [
            (mirrored, top, left)
            for mirrored in (False, True)
            for top, left in np.ndindex(9, 9)
            if (
                np.pad(original[:, ::-1] if mirrored else original, edges)[
                    top : top + 32, left : left + 32
                ]
                == image
            ).all()
        ]
        assert len(found) == 1
        seen.update(found)
    assert {mirrored for mirrored, _, _ in seen} == {False, True}
    assert len({(top, left) for _, top, left in seen}) > 5


@pytest.mark.parametrize("name", CIFAR)
def test_images_of_evaluations_and_of_other_runs_stay(files, name):
    for options, mask in (({"augment": True}, {"mask": np.ones(2, bool)}), ({}, {})):
        task = make(name, files, **options)
        batch = task.source("train", seed=0).batch(np.arange(2), epoch=0)
        step = {"index": np.arange(2), "epoch": np.zeros(2, np.int32)}
        expanded = task.expand({**batch, **step, **mask})
        np.testing.assert_array_equal(expanded["image"], batch["image"])


def test_grey_is_pillow_s(files):
    colour = whole(make("scifar", files).source("train", seed=0))["image"][:20]
    grey = whole(make("image", files).source("train", seed=0))["image"][:20]
    for ours, image in zip(grey, colour, strict=True):
        np.testing.assert_array_equal(ours, np.asarray(Image.fromarray(image).convert("L")))
    assert to_grey(np.full((1, 3), 255, np.uint8)) == 255


def test_pixels_are_normalised_as_published(files):
    image = np.zeros((1, 32, 32), np.uint8)
    image[0, 0, 1] = 255
    u = make("image", files).inputs({"image": image})["u"][0, :, 0]
    np.testing.assert_allclose(u[:2], [-122.6 / 61, 132.4 / 61], rtol=1e-6)
    colour = np.full((1, 32, 32, 3), 255, np.uint8)
    u = make("scifar", files).inputs({"image": colour})["u"][0, 0]
    np.testing.assert_allclose(u, [0.5086 / 0.247, 0.5178 / 0.243, 0.5535 / 0.261], rtol=1e-5)
    u = make("scifar", files, std=(1.0, 1.0, 1.0)).inputs({"image": colour})["u"][0, 0]
    np.testing.assert_allclose(u, [0.5086, 0.5178, 0.5535], rtol=1e-5)


def test_permuted_mnist_has_the_published_order(files):
    order = bit_reversal(784)
    assert order[:8].tolist() == [0, 512, 256, 768, 128, 640, 384, 64]
    assert order[8:16].tolist() == [576, 320, 192, 704, 448, 32, 544, 288]
    assert order[-1] == 511
    assert sorted(order) == list(range(784))
    batch = make("smnist", files).source("test", seed=0).batch(np.arange(3), epoch=0)
    plain = make("smnist", files).inputs(batch)["u"]
    np.testing.assert_array_equal(make("psmnist", files).inputs(batch)["u"], plain[:, order])
    assert plain.max() <= 1


def test_noise_is_new_in_each_epoch_and_part_of_the_answer_s_place(files):
    task = make("noisy_scifar", files)
    rows = np.array([5, 0, 5])

    def noise(seed, split, epoch):
        source = task.source(split, seed=seed)
        return np.asarray(task.expand(source.batch(rows, epoch=epoch))["noise"])

    first = noise(0, "train", 0)
    assert first.shape == (3, 1024, 3)
    assert first.min() >= 0
    assert first.max() < 1
    assert abs(first.mean() - 0.5) < 0.01
    np.testing.assert_array_equal(first, noise(0, "train", 0))
    np.testing.assert_array_equal(first[0], first[2])
    others = [first[1], noise(0, "train", 1)[0], noise(1, "train", 0)[0]]
    others.append(noise(0, "validation", 0)[0])
    assert all(np.abs(first[0] - other).max() > 0.5 for other in others)
    batch = task.expand(task.source("train", seed=0).batch(rows, epoch=0))
    np.testing.assert_array_equal(task.inputs(batch)["u"][:, 1024:], first)
    outputs = np.zeros((3, 2048, 10), np.float32)
    outputs[:, :1024, 0] = 100  # what is said before the noise does not count
    outputs[np.arange(3), 1024:, batch["label"]] = 1
    assert task.measure(outputs, batch)["accuracy"].tolist() == [1, 1, 1]


def test_tails_of_other_lengths():
    task = make("noisy_digits", tail=100)
    batch = task.expand(task.source("train", seed=0).batch(np.arange(3), epoch=0))
    digits = make("digits")
    plain = digits.inputs(digits.source("train", seed=0).batch(np.arange(3), epoch=0))["u"]
    u = task.inputs(batch)["u"]
    np.testing.assert_array_equal(u, np.concatenate([plain, batch["noise"]], axis=1))
    assert u.shape == (3, task.length, 1) == (3, 164, 1)
    outputs = np.zeros((3, 164, 10), np.float32)
    outputs[:, :100, 0] = 100
    outputs[np.arange(3), 100:, batch["label"]] = 1
    assert task.measure(outputs, batch)["accuracy"].tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match=r"`tail` must be at least 64, the steps .*; got 63"):
        make("noisy_digits", tail=63)


def test_fewer_examples_are_the_first(files):
    many, few = (make("image", files, n_train=n).source("train", seed=0) for n in (180, 7))
    np.testing.assert_array_equal(whole(few)["image"], whole(many)["image"][:7])


def test_digits_hold_every_image_once():
    images = [whole(make("digits").source(split, seed=0))["image"] for split in SPLITS]
    assert len(np.concatenate(images)) == 1_797
    assert np.concatenate(images).max() == 16


def test_more_examples_than_there_are(files):
    with pytest.raises(ValueError, match=r"`n_validation` must be at most 20, .* got 21"):
        make("image", files, n_validation=21).source("train", seed=0)
    with pytest.raises(ValueError, match="`n_train` must be at most 1,200"):
        make("digits", n_train=1_201).source("test", seed=0)


@pytest.mark.parametrize(("name", "dataset"), [("image", "cifar10"), ("psmnist", "mnist")])
def test_missing_data_say_where_and_how(tmp_path, name, dataset):
    task = make(name, Files(tmp_path))
    with pytest.raises(UsageError, match=f"{tmp_path}/{dataset}.* prepare --task={name} "):
        task.source("train", seed=0)


def test_decoded_images_are_kept(tmp_path, files, monkeypatch, capsys):
    (kept,) = (files.data_dir / "s5jax").glob("mnist-*-train-200.npz")
    before = whole(make("smnist", files).source("train", seed=0))
    linked = tmp_path / "data"
    linked.mkdir()
    for path in files.data_dir.iterdir():
        (linked / path.name).symlink_to(path)
    after = whole(make("smnist", Files(linked)).source("train", seed=0))
    np.testing.assert_array_equal(before["image"], after["image"])
    assert kept.is_file()
    assert "Writing" not in capsys.readouterr().out
