"""Folders of tensorflow-datasets with damaged files."""

import json
import random
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mutations import check_read, mutate_bytes, mutate_json
from true_files import write_mnist

from experiments.data.prepare import prepare_dataset
from experiments.data.sources import Files
from experiments.data.tfds import read_images


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    prepare_dataset("smnist", folder / "data", write_mnist(folder, packed=False))
    return folder / "data" / "mnist"


def images(data_dir: Path) -> dict[str, np.ndarray]:
    return read_images("mnist", "test", Files(data_dir), task="smnist")


def check_damage(prepared: Path, data_dir: Path, seed: int) -> str:
    rng = random.Random(seed)
    shutil.copytree(prepared, data_dir / "mnist")
    path = rng.choice(sorted(p for p in (data_dir / "mnist").rglob("*") if p.is_file()))
    mutate = rng.choice((mutate_json, mutate_bytes)) if path.suffix == ".json" else mutate_bytes
    path.write_bytes(mutate(path.read_bytes(), rng)[1])
    read = []
    error = check_read(lambda: read.append(images(data_dir)), names="mnist", size=2**20)
    shutil.rmtree(data_dir)
    if error is None:
        assert read[0]["image"].shape[1:] == (28, 28)
        assert read[0]["label"].dtype == np.int32
    return f"{path.suffix.split('-')[0] or path.name} {'result' if error is None else 'error'}"


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_data_set_ends_in_a_result_or_in_one_sentence(prepared, tmp_path, seed):
    check_damage(prepared, tmp_path / "data", seed)


@pytest.mark.slow
def test_hundreds_of_damaged_data_sets(prepared, tmp_path, capsys):
    found = Counter(
        check_damage(prepared, tmp_path / str(seed), seed) for seed in range(1_000, 1_200)
    )
    with capsys.disabled():
        print(f"\ndata sets: {dict(sorted(found.items()))}", file=sys.stderr)


def test_a_data_set_imports_no_module_of_its_choice(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "mnist")
    (path,) = tmp_path.glob("mnist/*/features.json")
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "pythonClassName": "antigravity.Feature"}))
    check_read(lambda: images(tmp_path), names="mnist", size=2**20)
    assert "antigravity" not in sys.modules
