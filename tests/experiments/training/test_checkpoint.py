import random
import resource
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.devices.mesh import by_example, make_mesh, replicated
from experiments.errors import RunError
from experiments.training import checkpoint
from experiments.training.checkpoint import Checkpoints

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


def save_and_wait(checkpoints, step):
    checkpoints.save(step, state(step))
    checkpoints.wait()


def test_a_folder_that_is_lost_ends_the_run(tmp_path):
    folder = tmp_path / "checkpoints"
    with Checkpoints(folder, NAMES, state(0)) as checkpoints:
        save_and_wait(checkpoints, 5)
        folder.rename(tmp_path / "away")
        folder.write_text("in the way")
        with pytest.raises(RunError, match=f"checkpoint of step 10 to {folder}: ") as error:
            save_and_wait(checkpoints, 10)
    assert "\n" not in str(error.value)
    folder.unlink()
    (tmp_path / "away").rename(folder)
    assert restore(folder)[0][0] == 5


@pytest.fixture
def file_size_limit():
    """Sets the size at which a file cannot grow any more: a full disk, for whoever writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda n_bytes: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_ends_the_run(tmp_path, file_size_limit):
    folder = tmp_path / "checkpoints"
    like = [jax.random.normal(jax.random.key(0), (400, 400))]
    with Checkpoints(folder, ["x"], like) as checkpoints:
        checkpoints.save(5, like)
        checkpoints.wait()
        file_size_limit(100_000)
        with pytest.raises(RunError, match=r"checkpoint of step 10 to .*File too large") as error:
            _save_until_it_fails(checkpoints, like)
        file_size_limit(resource.RLIM_INFINITY)
    assert "\n" not in str(error.value)
    with Checkpoints(folder, ["x"], like) as checkpoints:
        step, (x,) = checkpoints.restore_newest(print)
    assert step == 5
    np.testing.assert_array_equal(x, like[0])


def _save_until_it_fails(checkpoints, leaves):
    """As the loop does it: the failure in the background is noticed between two steps."""
    checkpoints.save(10, leaves)
    while True:
        checkpoints.check()
        time.sleep(0.001)


def test_a_failure_is_told_at_the_end_unless_there_is_another(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    def save(folder, *errors):
        with Checkpoints(folder, NAMES, state(0)) as checkpoints:
            checkpoints.save(5, state(5))
            for error in errors:
                raise error

    monkeypatch.setattr(checkpoint, "write_json", fail)
    with pytest.raises(RunError, match=r"step 5 .*No space left"):
        save(tmp_path / "a")
    with pytest.raises(RunError, match="another"):
        save(tmp_path / "b", RunError("another"))
    assert restore(tmp_path / "a")[0] is None


@pytest.mark.parametrize("n", [1, 8])
def test_a_checkpoint_is_the_state_at_its_moment(tmp_path, n):
    """Though the next steps reuse the memory of its arrays while it is being written."""
    mesh = make_mesh(f"data={n}", batch_size=8)
    step = jax.jit(lambda x: x + 1, donate_argnums=0, out_shardings=replicated(mesh))
    x = jax.device_put(jnp.zeros(500_000), replicated(mesh))
    with Checkpoints(tmp_path, ["x"], [x]) as checkpoints:
        checkpoints.progress.best = {"step": 0}
        checkpoints.save(7, [x])
        checkpoints.progress.best["step"] = 1
        for _ in range(20):
            x = step(x)
        x.block_until_ready()
        (saved,), progress = checkpoints.restore(7)
    assert progress.best == {"step": 0}
    assert float(jnp.abs(saved).max()) == 0
    assert float(x[0]) == 20


@pytest.mark.parametrize(("before", "after"), [(8, 1), (8, 4), (1, 8)])
def test_a_checkpoint_opens_on_another_number_of_devices(tmp_path, before, after):
    def on(n):
        mesh = make_mesh(f"data={n}", batch_size=8)
        rows = jax.device_put(jnp.arange(32.0).reshape(8, 4), by_example(mesh))
        return [rows, jax.device_put(jnp.arange(3), replicated(mesh))]

    with Checkpoints(tmp_path, ["rows", "copies"], on(before)) as checkpoints:
        checkpoints.save(5, on(before))
    with Checkpoints(tmp_path, ["rows", "copies"], on(after)) as checkpoints:
        _, leaves = checkpoints.restore_newest(print)
    for leaf, expected in zip(leaves, on(after), strict=True):
        np.testing.assert_array_equal(leaf, expected)
        assert leaf.sharding == expected.sharding
