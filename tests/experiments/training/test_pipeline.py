import jax
import numpy as np
import pytest

from experiments.devices.mesh import make_mesh
from experiments.errors import UsageError
from experiments.recipes import get_recipe
from experiments.tasks import get_task
from experiments.training.pipeline import make_batches, on_device, sample


@pytest.fixture
def task(toy):
    return get_task("toy")(toy().data)


def indices(batches):
    return [np.asarray(batch["index"]).tolist() for batch in batches]


def test_an_epoch_sees_each_example_once_and_epochs_differ(task):
    batches = make_batches(task, "train", seed=1, batch_size=8)
    first = np.concatenate(indices(batches[k] for k in range(8)))
    second = np.concatenate(indices(batches[k] for k in range(8, 16)))
    assert sorted(first) == sorted(second) == list(range(64))
    assert first.tolist() != second.tolist()


def test_ragged_rest_of_an_epoch_is_dropped(task):
    batches = make_batches(task, "train", seed=1, batch_size=10)
    epoch = np.concatenate(indices(batches[k] for k in range(6)))
    assert len(set(epoch)) == 60


def test_data_position_is_the_step(task, one_device):
    batches = make_batches(task, "train", seed=1, batch_size=8)
    late = on_device(batches, one_device, start=11)
    assert indices(next(late) for _ in range(5)) == indices(batches[k] for k in range(11, 16))


def test_seed_decides_the_order(task):
    a, b, c = (
        make_batches(task, "train", seed=seed, batch_size=8)[0]["index"] for seed in (1, 1, 2)
    )
    assert a.tolist() == b.tolist() != c.tolist()


def test_evaluation_sees_each_example_once_and_masks_the_rest(task, one_device):
    batches = list(on_device(make_batches(task, "validation", seed=1, batch_size=8), one_device))
    assert all(batch["x"].shape == (8, 8, 1) for batch in batches)
    seen = [i for batch in batches for i in np.asarray(batch["index"])[np.asarray(batch["mask"])]]
    assert seen == list(range(21))


def test_batches_are_split_over_the_devices(task):
    mesh = make_mesh("data=8", batch_size=8)
    batch = next(on_device(make_batches(task, "train", seed=1, batch_size=8), mesh))
    assert {shard.data.shape for shard in batch["x"].addressable_shards} == {(1, 8, 1)}
    assert len(batch["x"].sharding.device_set) == len(jax.devices())


def test_epochs_are_counted(task):
    batches = make_batches(task, "train", seed=1, batch_size=8)
    assert [batches[k]["epoch"].tolist() for k in (7, 8)] == [[0] * 8, [1] * 8]


def test_an_ordered_source_keeps_its_order(task, monkeypatch):
    monkeypatch.setattr(type(task.source("train", seed=0)), "ordered", True)
    assert make_batches(task, "train", seed=1, batch_size=8)[9]["index"].tolist() == list(
        range(8, 16)
    )


def test_sample_is_what_training_sees():
    config = get_recipe("pathfinder", "s5", "smoke")
    task = get_task("pathfinder")(config.data)
    arrays = sample(task, "train", seed=7, n=20)
    batches = make_batches(task, "train", seed=7, batch_size=10)
    for name, plural in {"image": "images", "label": "labels", "margin": "margins"}.items():
        seen = np.concatenate([batches[0][name], batches[1][name]])
        np.testing.assert_array_equal(arrays[plural], seen)
    assert arrays["images"].dtype == np.uint8
    assert arrays["images"].shape == (20, 32, 32)
    assert arrays["labels"].shape == (20,)


@pytest.mark.parametrize("n", [0, 61])
def test_sample_of_an_impossible_size_is_refused(n):
    task = get_task("pathfinder")(get_recipe("pathfinder", "s5", "smoke").data)
    with pytest.raises(UsageError, match="--n"):
        sample(task, "validation", seed=0, n=n)


def test_pixels_enter_the_model_centred():
    task = get_task("pathfinder")(get_recipe("pathfinder", "s5", "smoke").data)
    image = np.zeros((1, 32, 32), np.uint8)
    image[0, 0, 1], image[0, 1, 0] = 255, 51
    u = task.inputs({"image": image})["u"]
    assert u.shape == (1, 1024, 1)
    np.testing.assert_allclose(u[0, [0, 1, 32], 0], [-1, 1, -0.6], atol=1e-6)
