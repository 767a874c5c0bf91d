"""CONTRIBUTING's table of layers, against the files."""

import re
from pathlib import Path

import pytest

import s5jax

ROOT = Path(__file__).parents[1]
LAYERS = ["S5", "S4", "S4D", "DLR", "SGConv", "HOPE", "LRU", "LinOSS", "Hyena", "Attention", "GRU"]


def rows() -> dict[str, list[list[str]]]:
    """The names in backquotes of every cell, by layer."""
    found = {}
    for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0] in LAYERS:
            found[cells[0]] = [re.findall("`([^`]+)`", cell) for cell in cells[1:]]
    return found


def test_every_layer_has_a_row():
    assert list(rows()) == LAYERS


@pytest.mark.parametrize("layer", LAYERS)
def test_row(layer):
    mathematics, module, recipes, tests, golden = rows()[layer]
    (path,) = module
    assert Path(getattr(s5jax, layer).__module__.replace(".", "/") + ".py") == Path("s5jax") / path
    source = (ROOT / "s5jax" / path).read_text()
    for name in mathematics:
        package = name.split("/")[0]
        assert (ROOT / "s5jax" / name).is_file(), name
        assert f"s5jax.{package}" in source, f"{path} imports nothing from {package}"
    with_recipe = {
        p.stem
        for p in (ROOT / "experiments/recipes").glob("[a-z]*.py")
        if re.search(rf"\b{layer}Options\b", p.read_text())
    }
    assert set(recipes) == with_recipe
    for name in tests:
        assert (ROOT / "tests" / name).is_file(), name
    prefixes = (layer.lower(), "dss") if layer == "DLR" else (layer.lower(),)
    folder = ROOT / "tests/golden"
    expected = {f"golden/{p}_*" for p in prefixes if list(folder.glob(f"{p}_*.npz"))}
    assert set(golden) == expected
