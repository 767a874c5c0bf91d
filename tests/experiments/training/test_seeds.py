import dataclasses
from pathlib import Path

import pytest

from experiments import train
from experiments.errors import InterruptedRun, RunError, UsageError
from experiments.training.lock import lock_folder
from experiments.training.seeds import describe_spread, fit_seeds


def results(seed, accuracy):
    return {
        **{"task": "toy", "model": "s5", "preset": "smoke", "seed": seed, "metric": "accuracy"},
        "test": {"accuracy": accuracy, "loss": 1.0},
    }


def runs(toy, n):
    return {Path(f"seed{seed}"): dataclasses.replace(toy(), seed=seed) for seed in range(n)}


def test_mean_and_deviation_of_the_seeds():
    text = describe_spread([results(0, 0.5), results(1, 0.7), results(4, 0.6)])
    assert text == (
        "toy, s5, smoke: test accuracy 0.6000 ± 0.1000 of 0.5000 (seed 0), 0.7000 (seed 1), "
        "0.6000 (seed 4)."
    )
    assert "0.5000 of 0.5000 (seed 0)" in describe_spread([results(0, 0.5)])


def test_a_failed_run_keeps_no_other_from_training(toy, capsys):
    def fit(config, folder):
        if config.seed == 1:
            raise RunError("Not finite.")
        return results(config.seed, 0.5)

    with pytest.raises(RunError, match=r"1 of 3 runs failed \(seeds 1\); the same command tries"):
        fit_seeds(runs(toy, 3), fit)
    out = capsys.readouterr().out
    assert "Seed 1 has failed: Not finite." in out
    assert "0.5000 (seed 0), 0.5000 (seed 2)" in out


@pytest.mark.parametrize("error", [UsageError("No."), InterruptedRun(15, "runs/a")])
def test_what_concerns_every_run_ends_all(toy, error):
    seeds = []

    def fit(config, folder):
        seeds.append(config.seed)
        raise error

    with pytest.raises(type(error)) as raised:
        fit_seeds(runs(toy, 3), fit)
    assert "workdir" not in str(raised.value)
    assert seeds == [0]


def test_runs_of_another_process_are_left_to_it(toy, tmp_path, capsys):
    folders = {tmp_path / folder: config for folder, config in runs(toy, 3).items()}
    first, second, _ = folders

    def fit(config, folder):
        with lock_folder(folder):
            if folder == second:
                others.__exit__(None, None, None)  # the other process ends in the meantime
            return results(config.seed, 0.5)

    with lock_folder(first):
        others = lock_folder(tmp_path / "other")
        others.__enter__()
        assert [found["seed"] for found in fit_seeds(folders, fit)] == [1, 2]
    assert "Seed 0 is left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "folders"),
    [
        ([], ["runs/shift-s5-smoke-seed3"]),
        (["--seeds=2"], ["runs/shift-s5-smoke-seed3", "runs/shift-s5-smoke-seed4"]),
        (["--seeds=2", "--workdir=a"], ["a/seed3", "a/seed4"]),
        (["--workdir=a"], ["a"]),
    ],
)
def test_each_seed_has_its_folder(command, monkeypatch, flags, folders):
    trained = {}

    def fit(config, folder, **_):
        trained[str(folder)] = config.seed
        return results(config.seed, 0.5)

    monkeypatch.setattr(train, "fit", fit)
    code, out, err = command(train, "--task=shift", "--preset=smoke", "--seed=3", *flags)
    assert code == 0, err
    assert trained == dict(zip(folders, (3, 4), strict=False))
    assert ("(seed 4)." in out) == (len(folders) == 2)


@pytest.mark.parametrize("seeds", [0, -1])
def test_there_is_at_least_one_seed(command, seeds):
    code, _, err = command(train, "--task=shift", f"--seeds={seeds}")
    assert (code, err) == (2, f"--seeds must be at least 1; got {seeds}.\n")
