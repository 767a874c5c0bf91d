"""The estimate of a run's time, by a clock that the test sets and by a real run."""

import dataclasses
import time
import types

import numpy as np
import pytest

from experiments.config import TrainOptions
from experiments.recipes import get_recipe
from experiments.training import loop, plan, speed
from experiments.training.loop import fit
from experiments.training.plan import describe_time
from experiments.training.speed import Speed, measure_speed


class Machine:
    """A run whose steps take as long as the test says, by a clock of its own."""

    def __init__(self, monkeypatch, *, first, next_, steps=10_000, batch_s=0.5, start_s=2.0):
        self.now, self.steps, self.batch_s = 0.0, 0, batch_s
        self.first, self.next, self.start_s = first, next_, start_s
        self.config = types.SimpleNamespace(train=TrainOptions(steps=steps))
        monkeypatch.setattr(speed, "time", types.SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(speed, "_processor_times", lambda: np.array([self.now, 0.0, 0.0]))
        monkeypatch.setattr(speed, "from_main", lambda value: value)

    @property
    def setup(self):
        evaluating = types.SimpleNamespace(evaluate=self.evaluate)
        return types.SimpleNamespace(config=self.config, steps=evaluating, on_device=self.on_device)

    def train_step(self, state, batch):
        self.now += self.first if self.steps == 0 else self.next
        self.steps += 1
        return state, None

    def evaluate(self, leaves, batch):
        self.now += self.batch_s
        return {}

    def on_device(self, split):
        assert split == "validation"
        self.now += self.start_s
        return iter([{}] * 10)

    def measure(self):
        return measure_speed(self.setup, self.train_step, [np.zeros(2)], iter([{}] * 10_000))


def test_the_first_step_does_not_count(monkeypatch):
    machine = Machine(monkeypatch, first=3.0, next_=0.125)
    assert machine.measure().step_s == 0.125
    assert machine.steps == 1 + 1 + 32


@pytest.mark.parametrize(("steps", "taken"), [(20, 3), (1_000, 3), (10_000, 3)])
def test_slow_steps_are_measured_too(monkeypatch, steps, taken):
    machine = Machine(monkeypatch, first=60.0, next_=10.0, steps=steps)
    assert machine.measure().step_s == 10.0
    assert machine.steps == taken


def test_a_short_run_is_not_longer_in_the_trial(monkeypatch):
    machine = Machine(monkeypatch, first=0.01, next_=0.001, steps=100)
    machine.measure()
    assert machine.steps == 1 + 5 + 5


def test_evaluations_include_their_input_pipeline(monkeypatch):
    machine = Machine(monkeypatch, first=1.0, next_=1.0)
    measured = machine.measure()
    assert measured.first_batch_s == 2.5
    assert measured.batch_s == 0.5
    assert measured.evaluation_s(1) == 2.5
    assert measured.evaluation_s(7) == 5.5


def test_the_parts_of_the_time(toy):
    config = toy(train={"steps": 1_000, "eval_every": 100, "checkpoint_every": 150})
    measured = Speed(step_s=0.5, first_batch_s=2.0, batch_s=0.25, busy_cores=0.0)
    # 10 evaluations of 3 batches and a test of 2; 10 + 7 checkpoints, of which 4 are the same.
    text = describe_time(config, measured, 0, 20.0)
    assert text == (
        "0.5 s per step, 9 min 11 s in total: 20 s to compile and try the step, 8 min 20 s to "
        "train, 27 s to evaluate, 4 s to save"
    )
    text = describe_time(config, measured, 900, 20.0)
    assert text.startswith("0.5 s per step, 1 min 16 s in total")
    assert text.endswith("50 s to train, 5 s to evaluate, 2 s to save")


def test_a_busy_machine_is_mentioned(toy, monkeypatch):
    monkeypatch.setattr(plan.os, "cpu_count", lambda: 2)
    text = describe_time(toy(), Speed(0.1, 0.1, 0.1, 1.5), 0, 1.0)
    assert text.endswith("; less on an idle machine: other programs now use 1.5 of 2 cores")
    assert "idle" not in describe_time(toy(), Speed(0.1, 0.1, 0.1, 0.1), 0, 1.0)


@pytest.mark.slow
@pytest.mark.alone
def test_the_plan_of_a_real_run(one_device, tmp_path, monkeypatch):
    """In processor time, which other programs hardly change."""
    clock = types.SimpleNamespace(monotonic=time.process_time)
    for module in (loop, plan, speed):
        monkeypatch.setattr(module, "time", clock)
    planned = []

    def describe_time(config, measured, step, compiling_s):
        seconds = plan.estimate_time(config, measured, step)
        planned.append(compiling_s + sum(seconds.values()))
        return ""

    monkeypatch.setattr(plan, "describe_time", describe_time)
    config = get_recipe("digits", "s5", "cpu")
    train = dataclasses.replace(config.train, steps=400)
    results = fit(dataclasses.replace(config, train=train), tmp_path / "run", mesh=one_device)
    assert planned[0] == pytest.approx(results["wall_s"], rel=1 / 3)
