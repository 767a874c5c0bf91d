import random
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.checkpoint import Checkpoints
from experiments.errors import RunError

NAMES = ["params/a", "params/blocks/0/b", "step"]


def state(step):
    return [jnp.arange(1000.0) + step, jnp.ones((3, 4)) * step, jnp.int32(step)]


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of the steps 5, 10 and 15, of which 5 is the best."""
    with Checkpoints(tmp_path / "checkpoints", NAMES, state(0)) as checkpoints:
        for step in (5, 10, 15):
            checkpoints.save(step, state(step))
            checkpoints.progress.best = {"step": 5, "accuracy": 0.9}
    return tmp_path / "checkpoints"


def restore(folder):
    messages = []
    with Checkpoints(folder, NAMES, state(0)) as checkpoints:
        restored = checkpoints.restore_newest(messages.append)
    return restored, messages, checkpoints.progress


def steps_on_disk(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def test_last_two_and_best_are_kept(folder):
    with Checkpoints(folder, NAMES, state(0)) as checkpoints:
        checkpoints.restore_newest(print)
        checkpoints.save(20, state(20))
    assert steps_on_disk(folder) == [5, 15, 20]


def test_newest_comes_back_bit_for_bit(folder):
    (step, leaves), messages, progress = restore(folder)
    assert step == 15
    assert messages == []
    assert progress.best == {"step": 5, "accuracy": 0.9}
    for a, b in zip(leaves, state(15), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


def test_an_empty_folder_has_none(tmp_path):
    assert restore(tmp_path / "new")[0] is None


def largest(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def truncate(folder):
    path = largest(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(folder):
    largest(folder).write_bytes(b"")


def remove_checksums(folder):
    (folder / "checksums.json").unlink()


def remove_arrays(folder):
    shutil.rmtree(folder / "arrays")


def remove_progress(folder):
    shutil.rmtree(folder / "progress")


def garbage_progress(folder):
    (folder / "progress" / "metadata").write_text("{")


def empty_folder(folder):
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGE = [
    truncate,
    empty,
    remove_checksums,
    remove_arrays,
    remove_progress,
    garbage_progress,
    empty_folder,
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(folder, damage):
    damage(folder / "15")
    (step, leaves), messages, _ = restore(folder)
    assert step == 10
    np.testing.assert_array_equal(leaves[0], state(10)[0])
    assert len(messages) == 1
    assert "step 15" in messages[0]
    assert "\n" not in messages[0]
    assert steps_on_disk(folder) == [5, 10]


def flip_a_byte(folder, rng):
    path = rng.choice([p for p in sorted(folder.rglob("*")) if p.is_file() and p.stat().st_size])
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "seed", [*range(5), *(pytest.param(s, marks=pytest.mark.slow) for s in range(5, 30))]
)
def test_a_flipped_bit_is_noticed(folder, seed):
    flip_a_byte(folder / "15", random.Random(seed))
    (step, leaves), messages, _ = restore(folder)
    assert step == 10
    assert len(messages) == 1
    for a, b in zip(leaves, state(step), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_checkpoint_that_cannot_be_written_ends_the_run(tmp_path):
    with Checkpoints(tmp_path / "checkpoints", NAMES, state(0)) as checkpoints:
        checkpoints.save(5, state(5))
        shutil.rmtree(tmp_path / "checkpoints")
        (tmp_path / "checkpoints").write_text("in the way")
        with pytest.raises(RunError, match="checkpoint of step 10"):
            checkpoints.save(10, state(10))
