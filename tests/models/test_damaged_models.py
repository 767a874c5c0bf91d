"""Damaged files of a saved model end in a model or in one sentence."""

import json
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import annotations
import pytest
from flax import nnx
from mutations import check_read, fuzz, mutate_bytes, mutate_json

from s5jax import LRU, Pipeline, Preprocessing, SequenceClassifier, load, save

FILES = [
    pytest.param("model.json", mutate_bytes, marks=pytest.mark.slow),
    ("model.json", mutate_json),
    ("parameters.safetensors", mutate_bytes),
    pytest.param("preprocessing.json", mutate_bytes, marks=pytest.mark.slow),
    ("preprocessing.json", mutate_json),
]


@pytest.fixture(scope="module", autouse=True)
def unchecked():
    """A damaged file may hold a value of any type, and `load` passes on what it does not use."""
    with annotations.off():
        yield


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = SequenceClassifier(
        LRU,
        d_input=1,
        d_model=2,
        d_output=2,
        n_layers=1,
        layer_options={"d_state": 4},
        rngs=nnx.Rngs(0),
    )
    folder = tmp_path_factory.mktemp("models") / "model"
    preprocessing = Preprocessing(
        input_mean=(1e9,), input_std=(0.5,), dt_unit=60.0, classes=("a", "b"), sample_rate=8_000
    )
    save(Pipeline(model, preprocessing), folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def run(folder: Path, name: str, mutate: Callable, seeds: range) -> Counter[tuple[str, str]]:
    names = r"model\.json|parameters\.safetensors|preprocessing\.json"
    return fuzz(folder / name, mutate, lambda: load(folder), names=names, seeds=seeds)


@pytest.mark.parametrize(("name", "mutate"), FILES)
def test_a_damaged_model_is_one_sentence(folder, name, mutate):
    assert run(folder, name, mutate, range(10)).total() == 10


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mutate"), FILES)
def test_hundreds_of_damaged_models(folder, name, mutate, capsys):
    found = run(folder, name, mutate, range(1_000, 1_200))
    with capsys.disabled():
        print(f"\n{name}, {mutate.__name__}: {dict(sorted(found.items()))}", file=sys.stderr)


@pytest.mark.parametrize("name", ["d_model", "n_layers", "d_output", "d_state"])
def test_sizes_without_parameters_are_refused_before_anything_is_built(folder, name):
    text = (folder / "model.json").read_text()
    values = json.loads(text)
    if name == "d_state":
        values["arguments"]["layer_options"] = [["d_state", 10**9]]
    else:
        values["arguments"][name] = 10**9
    (folder / "model.json").write_text(json.dumps(values))
    error = check_read(lambda: load(folder), names=f"`{name}` is 1000000000", size=len(text))
    assert error is not None


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5_000, '{"class": NaN}', " " * 2**21])
def test_json_that_save_did_not_write(folder, text):
    (folder / "model.json").write_text(text)
    assert check_read(lambda: load(folder), names=r"model\.json is corrupted", size=0) is not None


def test_a_header_of_arrays_that_claims_too_much(folder):
    path = folder / "parameters.safetensors"
    data = path.read_bytes()
    rng = random.Random(0)
    for claim in (2**63 - 1, 2**40, 10**8, len(data) + rng.randrange(100)):
        path.write_bytes(claim.to_bytes(8, "little") + data[8:])
        error = check_read(lambda: load(folder), names=r"parameters\.safetensors", size=len(data))
        assert error is not None
