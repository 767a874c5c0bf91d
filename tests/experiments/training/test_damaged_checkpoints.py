"""Folders of checkpoints with damaged, lost, renamed and foreign files."""

import random
import shutil
import sys
from collections import Counter
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from mutations import check_read, mutate_bytes

from experiments.errors import RunError
from experiments.training.checkpoint import Checkpoints

NAMES = ["params/a", "step"]


def state(step: int) -> list:
    return [jnp.arange(300.0) + step, jnp.int32(step)]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Checkpoints of the steps 5 and 10; not to be changed."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    with Checkpoints(folder, NAMES, state(0)) as checkpoints:
        for step in (5, 10):
            checkpoints.save(step, state(step))
    return folder


def damage_a_file(folder: Path, rng: random.Random) -> str:
    path = rng.choice(sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size))
    kind, data = mutate_bytes(path.read_bytes(), rng)
    path.write_bytes(data)
    return kind


def lose(folder: Path, rng: random.Random) -> str:
    path = rng.choice(sorted(folder.rglob("*")))
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return "lose"


def rename(folder: Path, rng: random.Random) -> str:
    path = rng.choice(sorted(folder.rglob("*")))
    path.rename(path.with_name(rng.choice(("7", "12", "-3", "x", "0010", path.name + ".tmp"))))
    return "rename"


def exchange(folder: Path, rng: random.Random) -> str:
    """One file takes the place of another, or becomes a folder, or a link to nowhere."""
    path, other = rng.sample(sorted(p for p in folder.rglob("*") if p.is_file()), 2)
    path.unlink()
    match rng.randrange(3):
        case 0:
            shutil.copy(other, path)
        case 1:
            path.mkdir()
        case _:
            path.symlink_to(path)
    return "exchange"


def add(folder: Path, rng: random.Random) -> str:
    """Something that does not belong there."""
    place = rng.choice([folder, *(p for p in folder.rglob("*") if p.is_dir())])
    extra = place / rng.choice(("11", "x", "99999999999999999999", "\N{SNOWMAN}", "-1", "1e3"))
    if rng.random() < 0.5:
        extra.mkdir()
    else:
        extra.write_bytes(rng.randbytes(50))
    return "add"


DAMAGES = (damage_a_file, damage_a_file, lose, rename, exchange, add)


def restore(folder: Path) -> tuple[int, list] | None:
    messages: list[str] = []
    with Checkpoints(folder, NAMES, state(0)) as checkpoints:
        restored = checkpoints.restore_newest(messages.append)
    assert all("corrupted" in text and "\n" not in text for text in messages)
    return restored


def check_damage(written: Path, tmp_path: Path, seed: int) -> str:
    rng = random.Random(seed)
    folder = tmp_path / str(seed)
    shutil.copytree(written, folder)
    damage = rng.choice(DAMAGES)
    kind = damage(folder, rng)
    restored = []
    error = check_read(lambda: restored.append(restore(folder)), names="", size=0)
    shutil.rmtree(folder)
    if error is not None:
        assert isinstance(error, RunError)
        return f"{kind} error"
    if restored[0] is None:
        return f"{kind} none left"
    step, leaves = restored[0]
    assert step in (5, 10)
    for a, b in zip(leaves, state(step), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)
    return f"{kind} step {step}"


@pytest.mark.parametrize("seed", range(12))
def test_what_is_restored_is_what_was_saved(written, tmp_path, seed):
    check_damage(written, tmp_path, seed)


@pytest.mark.slow
def test_hundreds_of_damaged_folders(written, tmp_path, capsys):
    found = Counter(check_damage(written, tmp_path, seed) for seed in range(1_000, 1_200))
    with capsys.disabled():
        print(f"\ncheckpoints: {dict(sorted(found.items()))}", file=sys.stderr)


def test_a_checkpoint_under_another_name_is_refused(written, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(written, folder)
    (folder / "10").rename(folder / "12")
    with pytest.raises(RunError, match=r"step 12: .* of step 10"):
        restore(folder)


@pytest.mark.parametrize(
    "other", [jnp.ones(7), jnp.ones(301), jnp.ones((300, 1)), jnp.arange(300), None]
)
def test_arrays_of_another_model_are_refused(written, other):
    names, like = (
        (["params/b", "step"], state(0)) if other is None else (NAMES, [other, state(0)[1]])
    )
    with (
        Checkpoints(written, names, like) as checkpoints,
        pytest.raises(RunError, match=r"read the checkpoint of step 10: .*params/[ab]"),
    ):
        checkpoints.restore_newest(print)
