"""What tests must not leave out."""

import ast
import contextlib
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

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


@contextlib.contextmanager
def cached_in(folder):
    """Keeps compiled programs in another folder."""
    before = jax.config.values["jax_compilation_cache_dir"]
    _use_cache(str(folder))
    try:
        yield
    finally:
        _use_cache(before)


def _use_cache(folder):
    jax.config.update("jax_compilation_cache_dir", folder)
    compilation_cache.reset_cache()
    jax.clear_caches()


def test_an_entry_of_the_cache_that_is_not_yet_complete(tmp_path):
    """Another worker may be writing it: the program compiles, and no test fails."""
    f = lambda x: 3 * x + 1  # noqa: E731, the same program twice
    x = jnp.arange(3.0)
    with cached_in(tmp_path):
        expected = jax.jit(f)(x)
        entries = list(tmp_path.glob("jit__lambda*-cache"))
        assert len(entries) == 1
        entries[0].write_bytes(entries[0].read_bytes()[:20])
        jax.clear_caches()
        assert (jax.jit(f)(x) == expected).all()
