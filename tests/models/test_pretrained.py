"""Trained models: the library's are the published files, and the Hub's are downloaded."""

import shutil
import sys

import pytest
from offline_hub import OfflineHub

import s5jax
from s5jax.models import _pretrained

MAX_BYTES = 20_000_000


@pytest.mark.parametrize("name", s5jax.list_pretrained())
def test_every_model_loads(name):
    facts = s5jax.list_pretrained()[name]
    model = s5jax.load_pretrained(name)
    assert isinstance(getattr(model, "model", model), s5jax.models.SequenceModel)
    assert (
        f"| {facts['metric']}, test | {facts['test']:.4f} |"
        in (facts["folder"] / "card.md").read_text()
    )


def test_every_file_is_in_the_index():
    found = {p for p in _pretrained.FOLDER.rglob("*") if p.is_file()}
    listed = {
        _pretrained.FOLDER / name / file
        for name, entry in _pretrained._read_index().items()
        for file in entry["files"]
    }
    assert found == listed | {_pretrained.FOLDER / "index.json"}
    assert sum(path.stat().st_size for path in found) < MAX_BYTES


@pytest.fixture
def damaged(tmp_path, monkeypatch):
    """A copy of the models, to be damaged."""
    folder = shutil.copytree(_pretrained.FOLDER, tmp_path / "pretrained")
    monkeypatch.setattr(_pretrained, "FOLDER", folder)
    return folder / "digits-s5"


def test_a_wrong_checksum_is_refused(damaged):
    s5jax.load_pretrained("digits-s5")
    path = damaged / "model" / "parameters.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(ValueError, match=r"safetensors must be the published file, whose sha256"):
        s5jax.load_pretrained("digits-s5")
    path.unlink()
    with pytest.raises(ValueError, match=r"safetensors must be .* it is missing\. Install"):
        s5jax.load_pretrained("digits-s5")


def test_unknown_names():
    known = ", ".join(repr(name) for name in s5jax.list_pretrained())
    with pytest.raises(ValueError, match=rf"`name` must be one of {known}; got 'digit-s5'\. Did"):
        s5jax.load_pretrained("digit-s5")


@pytest.fixture
def hub(monkeypatch):
    run = _pretrained.FOLDER / "digits-s5"
    monkeypatch.setitem(
        sys.modules, "huggingface_hub", OfflineHub({"some/model": run / "model", "some/run": run})
    )


@pytest.mark.parametrize("name", ["some/model", "some/run"])
def test_models_of_the_hub(hub, name):
    pipeline = s5jax.load_pretrained(f"hf://{name}")
    assert pipeline.preprocessing.classes == tuple("0123456789")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hf://some/other", r"hf://some/other cannot be downloaded: 404 .* Not Found\.$"),
        ("hf://some", r"`name` must be hf://OWNER/NAME; got 'hf://some'"),
        ("hf://../../etc/x", r"`name` must be hf://OWNER/NAME"),
    ],
)
def test_what_the_hub_does_not_have(hub, name, words):
    with pytest.raises(ValueError, match=words):
        s5jax.load_pretrained(name)


def test_without_the_package_of_the_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"needs the package .* pip install huggingface_hub"):
        s5jax.load_pretrained("hf://some/model")
