"""What tests must not leave out."""

import ast
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


def silent(program: str) -> list[int]:
    """Lines that expect an error, or a warning, whatever it says."""
    tree = ast.parse(program)
    named = {
        id(item.context_expr)
        for node in ast.walk(tree)
        if isinstance(node, ast.With)
        for item in node.items
        if item.optional_vars is not None
    }
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("pytest.raises", "pytest.warns", "raises", "warns")
        and id(node) not in named
        and "match" not in (keyword.arg for keyword in node.keywords)
    ]


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=str(p.relative_to(FOLDER))) for p in FOLDER.rglob("test_*.py")]
)
def test_errors_are_expected_with_their_sentence(path):
    assert silent(path.read_text()) == []


def test_errors_without_a_sentence_are_found():
    program = """
with pytest.raises(ValueError):
    f()
with a(), pytest.raises(TypeError), b():
    f()
with pytest.raises(ValueError, match="words"):
    f()
with pytest.raises(ValueError) as error:
    f()
pytest.raises(ValueError, f)
"""
    assert sorted(silent(program)) == [2, 4, 10]
