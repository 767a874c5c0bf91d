"""Models that earlier versions wrote are read as before.

``earlier/write.py`` wrote the models at commit 22034eb.
"""

from pathlib import Path

import numpy as np
import pytest
from helpers import assert_close, run

import s5jax

DATA = Path(__file__).parent / "earlier"
MODELS = sorted(path.parent.name for path in DATA.glob("*/model.json"))


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_has_the_same_outputs(name):
    calls = dict(np.load(DATA / name / "calls.npz"))
    u, y = calls.pop("u"), calls.pop("y")
    model = s5jax.load(DATA / name)
    call = model if isinstance(model, s5jax.Pipeline) else lambda u, **call: run(model, u, **call)
    assert_close(np.asarray(call(u, **calls), np.float32), y)


@pytest.mark.parametrize("name", ["classifier_one_hot", "s4_cauchy"])
def test_it_is_saved_in_the_form_of_this_version(name, tmp_path):
    s5jax.save(s5jax.load(DATA / name), tmp_path)
    text = (tmp_path / "model.json").read_text()
    assert '"algorithm"' in text
    assert '"backend"' not in text
    again = s5jax.load(tmp_path)
    calls = dict(np.load(DATA / name / "calls.npz"))
    u, y = calls.pop("u"), calls.pop("y")
    assert_close(run(again, u, **calls), y)


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        ("s5_sequential", "sequential"),
        ("lru_associative", "associative"),
        ("s4_cauchy", "cauchy"),
        ("s4_chunked", "chunked"),
        ("s4d_chunked", "chunked"),
        ("s4d_sequential", "auto"),
        ("dlr_scan", "scan"),
        ("dlr_scan_sequential", "sequential"),
        ("dlr_associative", "auto"),
        ("hope_chunked", "chunked"),
    ],
)
def test_conv_and_backend_become_the_algorithm_that_ran(name, algorithm):
    assert s5jax.load(DATA / name).algorithm == algorithm
