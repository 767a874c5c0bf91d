"""Profiles of a run: files that a browser can open."""

import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from experiments import train
from experiments.errors import UsageError
from experiments.training import loop
from experiments.training.loop import fit
from experiments.training.profile import WARM_UP_STEPS, Profile


def read_trace(folder):
    """The names of the events in a profile."""
    (path,) = folder.rglob("perfetto_trace.json.gz")
    with gzip.open(path, "rt") as file:
        return [event["name"] for event in json.load(file)["traceEvents"] if event.get("ph") == "X"]


def test_a_run_traces_as_many_steps_as_it_should(toy, one_device, tmp_path, capsys):
    fit(toy(), tmp_path / "run", mesh=one_device, profile=2)
    names = read_trace(tmp_path / "run" / "profile")
    assert names.count("train") == 2
    assert any(name.startswith("PjRt") or "Execut" in name for name in names)
    (line,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith("Profile of"))
    assert line.startswith("Profile of 2 steps: open ")
    path = line.removeprefix("Profile of 2 steps: open ").partition(" at https://ui.perfetto.dev")[
        0
    ]
    assert path.endswith("perfetto_trace.json.gz")
    assert line.endswith(f"or run xprof --logdir={tmp_path / 'run' / 'profile'}.")


def test_a_run_that_ends_in_the_profile_writes_it(tmp_path):
    said = []
    with Profile(50, steps=60, folder=tmp_path, report=said.append) as profile:
        assert not any(profile.advance([jnp.ones(2)]) for _ in range(WARM_UP_STEPS + 2))
    assert said[0].startswith("Profile of 2 steps")
    assert len(read_trace(tmp_path)) > 0
    jax.profiler.start_trace(tmp_path / "next")  # the profiler is free again
    jax.profiler.stop_trace()


def test_without_the_option_nothing_is_traced(finished, tmp_path, monkeypatch):
    assert not (finished / "profile").exists()
    monkeypatch.setattr("experiments.training.profile.is_main", lambda: False)
    with Profile(2, steps=20, folder=tmp_path, report=pytest.fail) as profile:
        for _ in range(20):
            profile.advance([])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n", [0, -1, 10, 1_000])
def test_a_profile_needs_that_many_steps(toy, one_device, tmp_path, monkeypatch, n):
    monkeypatch.setattr(loop._Run, "train", pytest.fail)
    rule = f"--profile must be between 1 and 9: it traces that many steps of the run's 12, .* {n}"
    with pytest.raises(UsageError, match=rule):
        fit(toy(), tmp_path / "run", mesh=one_device, profile=n)


def test_the_flag(command, monkeypatch):
    calls = []
    monkeypatch.setattr(train, "fit", lambda *args, **options: calls.append(options["profile"]))
    for args in (["--profile=10"], ["--profile", "10"], []):
        code, _, err = command(train, "--task=digits", "--preset=smoke", *args)
        assert code == 0, err
    assert calls == [10, 10, None]
    code, _, err = command(train, "--task=digits", "--preset=smoke", "--profile=ten")
    assert code == 2
    assert "ten" in err
