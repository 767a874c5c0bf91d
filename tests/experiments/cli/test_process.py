"""What the commands set for their process."""

import os
import sys
import types

import jax
import pytest

from experiments.cli.process import cache_programs, report_unless_late


@pytest.mark.parametrize("has_home", [True, False])
def test_a_cache_that_cannot_be_written_is_said_once(monkeypatch, tmp_path, capsys, has_home):
    before = jax.config.values["jax_compilation_cache_dir"]
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    try:
        jax.config.update("jax_compilation_cache_dir", "file" if has_home else None)
        if not has_home:
            monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
            monkeypatch.setattr(os.path, "expanduser", lambda path: path)
        cache_programs()
        assert jax.config.values["jax_compilation_cache_dir"] == ""
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    err = capsys.readouterr().err
    assert f"{'file' if has_home else '~/.cache/s5jax'} cannot be written to" in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_late_ends_of_writes_are_not_printed(monkeypatch):
    printed = []
    monkeypatch.setattr(sys, "__unraisablehook__", lambda event: printed.append(event))

    def event(text, origin):
        return types.SimpleNamespace(
            exc_type=RuntimeError, exc_value=RuntimeError(text), object=origin
        )

    late = event("Event loop is closed", None)
    others = [event("something else", None), event("Event loop is closed", len)]
    for each in (late, *others):
        report_unless_late(each)
    assert printed == others
