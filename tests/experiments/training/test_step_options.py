"""Options of the step: precision, recomputation, parts, moving average, clipping, data, cache."""

import dataclasses
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import tiers
from toys import ToySource, ToyTask

from experiments import plan
from experiments.cli.process import cache_programs
from experiments.config import Config, OptimOptions, TrainOptions
from experiments.config.models import MODELS
from experiments.config.strict import LATER
from experiments.data.sources import ArraySource
from experiments.devices.mesh import make_mesh
from experiments.errors import UsageError
from experiments.recipes import RECIPES, get_recipe
from experiments.records import read_results
from experiments.tasks import TASKS
from experiments.training.evaluation import evaluate
from experiments.training.finished import load_trained
from experiments.training.loop import fit
from experiments.training.metrics import summarize
from experiments.training.optim import make_optimizer
from experiments.training.setup import make_setup

ROOT = Path(__file__).parents[3]
LAYER_NORM = {"norm": "layer"}


def take_steps(config, mesh, n):
    """The setup, the named arrays after each of ``n`` steps, and the measures of each."""
    setup = make_setup(config, mesh)
    leaves, states, rows = setup.steps.initial, [], []
    for _, batch in zip(range(n), setup.on_device("train"), strict=False):
        leaves, meter = setup.steps.train(leaves, batch)
        states.append(dict(zip(setup.steps.names, map(np.array, leaves), strict=True)))
        rows.append(summarize(meter, setup.task)[0])
    return setup, leaves, states, rows


def assert_same(a, b, rtol, prefix="params"):
    """Arrays of the same name agree to ``rtol`` of their largest entry."""
    for name in filter(lambda name: name.startswith(prefix), a):
        scale = max(np.abs(b[name]).max(), 1e-3)
        np.testing.assert_allclose(a[name], b[name], rtol=0, atol=rtol * scale, err_msg=name)


def test_a_configuration_of_an_older_run_has_the_defaults(toy):
    old = get_recipe("pathx", "s5", "smoke").to_dict()
    for option in LATER:
        section, name = option.split(".")
        (old if section == "config" else old[section]).pop(name, None)
    assert Config.from_dict(json.loads(json.dumps(old))) == get_recipe("pathx", "s5", "smoke")
    chosen = toy(optim={"ema": 0.5, "clip_norm": 2.0}, train={"accumulate": 4, "remat": True})
    values = json.loads(chosen.to_json())
    assert (values["optim"]["ema"], values["train"]["accumulate"]) == (0.5, 4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (lambda: OptimOptions(clip_norm=0.0), ["`clip_norm`", "positive"]),
        (lambda: OptimOptions(ema=1.0), ["`ema`", "[0, 1)"]),
        (lambda: TrainOptions(accumulate=0), ["`accumulate`", "positive"]),
        (lambda: TrainOptions(batch_size=8, accumulate=3), ["`accumulate`", "3", "8"]),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(ValueError, match="Options: ") as error:
        options()
    assert all(word in str(error.value) for word in words)


def test_parts_must_divide_among_the_devices():
    assert make_mesh("data=4", batch_size=8, parts=2).size == 4
    with pytest.raises(UsageError, match=r"8 examples in 2 parts.*8 devices.*--train\.accumulate"):
        make_mesh("data=8", batch_size=8, parts=2)


def test_published_settings_of_attention_to_words():
    config = get_recipe("wikitext103", "attention", "paper")
    assert (config.optim.clip_norm, config.train.accumulate) == (0.25, 2)
    assert {
        recipe.key[:2] for recipe in RECIPES.values() if recipe.config.optim.clip_norm is not None
    } == {("wikitext103", "attention"), ("wikitext103", "hybrid")}


def test_gradients_are_clipped_to_a_global_norm_without_the_frozen_ones(toy):
    options = {"warmup_steps": 0, "schedule": "constant", "weight_decay": 0.0}
    labels = {"a": "regular", "b": "ssm", "c": "frozen"}
    grads = {"a": jnp.array([3.0]), "b": jnp.array([4.0]), "c": jnp.array([100.0])}
    params = dict.fromkeys(labels, jnp.array([2.0]))

    def moments(clip_norm):
        optimizer = make_optimizer(toy(optim={**options, "clip_norm": clip_norm}), labels)
        updates, state = optimizer.update(grads, optimizer.init(params), params)
        assert updates["c"] == 0
        means = optax.tree.get_all_with_path(state, "mu")
        return sorted(leaf.item() for leaf in jax.tree.leaves([value for _, value in means]))

    for clip_norm, expected in [(None, [0.3, 0.4]), (10.0, [0.3, 0.4]), (0.5, [0.03, 0.04])]:
        np.testing.assert_allclose(moments(clip_norm), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "options", [{"accumulate": 4}, pytest.param({"remat": True}, marks=pytest.mark.slow)]
)
def test_what_takes_less_memory_gives_the_same_step(options, toy, one_device):
    _, _, states, rows = take_steps(toy(model=LAYER_NORM), one_device, 3)
    _, _, frugal, their_rows = take_steps(toy(model=LAYER_NORM, train=options), one_device, 3)
    assert_same(frugal[-1], states[-1], rtol=1e-4)
    for a, b in zip(their_rows, rows, strict=True):
        assert a["accuracy"] == b["accuracy"]
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-5)
        np.testing.assert_allclose(a["grad_norm"], b["grad_norm"], rtol=1e-5)


def test_the_average_of_the_parameters_is_evaluated_and_kept(toy, one_device):
    setup, leaves, states, _ = take_steps(toy(optim={"ema": 0.75}), one_device, 3)
    first = dict(zip(setup.steps.names, make_setup(toy(), one_device).steps.initial, strict=False))
    names = [name for name in states[0] if name.startswith("params/")]
    for name in names:
        average = np.asarray(first[name])
        for state in states:
            average = 0.75 * average + 0.25 * state[name]
        kept = states[-1][name.replace("params", "ema", 1)]
        np.testing.assert_allclose(kept, average, rtol=0, atol=1e-6, err_msg=name)
        assert not np.array_equal(kept, states[-1][name])
    kernel = setup.steps.model(leaves).backbone.encode.kernel[...]
    np.testing.assert_array_equal(kernel, states[-1]["ema/backbone/encode/kernel"])
    by_name = dict(zip(setup.steps.names, leaves, strict=True))
    averaged = {name: by_name[name.replace("params", "ema", 1)] for name in names}
    swapped = [averaged.get(name, leaf) for name, leaf in by_name.items()]
    assert evaluate(setup, swapped, "test") == evaluate(setup, leaves, "test")


@pytest.mark.parametrize("name", tiers(["toy", *MODELS], {"toy"}))
def test_two_steps_in_bfloat16_are_close_to_float32(name, toy, one_device):
    config = toy() if name == "toy" else get_recipe("pathx", name, "smoke")
    train = dataclasses.replace(config.train, precision="bfloat16")
    _, _, _, expected = take_steps(config, one_device, 2)
    narrow = dataclasses.replace(config, train=train)
    setup, leaves, states, rows = take_steps(narrow, one_device, 2)
    assert all(x.dtype != jnp.bfloat16 for x in states[-1].values())
    for row, wide in zip(rows, expected, strict=True):
        np.testing.assert_allclose(row["loss"], wide["loss"], rtol=0.02)
    model = setup.steps.model(leaves)
    features = jax.eval_shape(model.backbone.encode, jnp.ones((1, 8, 1)))
    assert jax.eval_shape(model.backbone.blocks[0], features).dtype == jnp.bfloat16
    assert jax.eval_shape(model, jnp.ones((1, 8, 1))).dtype == jnp.float32


class ArrayTask(ToyTask):
    """The same examples, as rows of arrays."""

    def source(self, split, *, seed):
        examples = ToySource(self.options, split, seed)
        return ArraySource(**examples.batch(np.arange(len(examples)), epoch=0))


def test_examples_on_the_device_are_those_of_the_host(toy, one_device, monkeypatch):
    with pytest.raises(UsageError, match=r"--train\.data=device needs .* toy draws"):
        make_setup(toy(train={"data": "device"}), one_device)
    monkeypatch.setitem(TASKS, "toy", ArrayTask)
    setup, _, states, rows = take_steps(toy(train={"data": "device"}), one_device, 9)
    _, _, host_states, host_rows = take_steps(toy(), one_device, 9)
    assert rows == host_rows
    assert_same(states[-1], host_states[-1], rtol=0, prefix="")
    assert set(setup.batches("train")[3]) == {"index", "epoch"}


@pytest.mark.slow
def test_evaluation_of_examples_on_eight_devices_is_that_of_the_host(toy, monkeypatch):
    monkeypatch.setitem(TASKS, "toy", ArrayTask)
    mesh = make_mesh("data=8", batch_size=8)
    setup, host = (make_setup(toy(train={"data": data}), mesh) for data in ("device", "host"))
    for split in ("validation", "test"):
        figures = evaluate(setup, setup.steps.initial, split)
        assert figures == evaluate(host, setup.steps.initial, split)


def test_compiled_programs_are_kept_where_the_user_says(monkeypatch, tmp_path):
    before = jax.config.values["jax_compilation_cache_dir"]
    cache_programs()
    assert jax.config.values["jax_compilation_cache_dir"] == before
    try:
        for home, expected in [("XDG_CACHE_HOME", "s5jax"), ("HOME", ".cache/s5jax")]:
            monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
            monkeypatch.setenv(home, str(tmp_path))
            jax.config.update("jax_compilation_cache_dir", None)
            cache_programs()
            assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / expected)
        jax.config.update("jax_compilation_cache_dir", "")
        cache_programs()
        assert jax.config.values["jax_compilation_cache_dir"] == ""
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.parametrize(("chosen", "expected"), [(None, 0), ("2.5", 2.5)])
def test_small_programs_are_kept_unless_the_user_says_otherwise(monkeypatch, chosen, expected):
    variable, option = (
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
        "jax_persistent_cache_min_compile_time_secs",
    )
    before = jax.config.values[option]
    monkeypatch.delenv(variable)
    if chosen:
        monkeypatch.setenv(variable, chosen)
    try:
        jax.config.update(option, 2.5)
        cache_programs()
        assert jax.config.values[option] == expected
    finally:
        jax.config.update(option, before)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="sets the GNU C library")
@pytest.mark.parametrize(("tunables", "kept"), [("", True), ("glibc.malloc.mmap_max=65536", False)])
def test_freed_memory_stays_with_the_process_unless_the_user_says(tunables, kept):
    program = """
import pathlib, re, numpy
from experiments.cli.process import set_up_process

def resident_kb():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search("VmRSS: *\\t* *([0-9]+)", status)[1])

set_up_process()
before = resident_kb()
x = numpy.ones(64_000_000, numpy.uint8)
del x
print(resident_kb() - before)
"""
    environment = os.environ | {"GLIBC_TUNABLES": tunables, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", program]
    output = subprocess.run(command, check=True, cwd=ROOT, env=environment, capture_output=True)
    assert (int(output.stdout) > 60_000) == kept


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [None, ""])
def test_a_command_keeps_what_it_compiled(tmp_path, chosen):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    environment |= {} if chosen is None else {"JAX_COMPILATION_CACHE_DIR": chosen}
    command = [sys.executable, "-m", "experiments.plan", "--task=pathx", "--preset=smoke"]
    subprocess.run(command, check=True, cwd=ROOT, env=environment, capture_output=True)
    assert bool(list(tmp_path.glob("s5jax/jit_train_step-*"))) == (chosen is None)


@pytest.mark.slow
def test_parts_on_eight_devices_move_no_example(toy):
    config = toy(model={"dropout": 0.3}, train={"batch_size": 32, "accumulate": 2})
    _, _, one, rows = take_steps(config, make_mesh("data=1", batch_size=32, parts=2), 5)
    mesh = make_mesh("data=8", batch_size=32, parts=2)
    setup, _, eight, their_rows = take_steps(config, mesh, 5)
    for a, b in zip(their_rows, rows, strict=True):
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-5)
    assert_same(eight[-1], one[-1], rtol=1e-3)
    batch = next(setup.on_device("train"))
    program = setup.steps.train.lower(setup.steps.initial, batch).compile().as_text()
    assert "all-reduce" in program
    assert not re.search("all-to-all|all-gather|collective-permute", program)


@pytest.mark.slow
def test_parts_have_dropout_of_their_own(toy, one_device):
    config = toy(model={"dropout": 0.5, **LAYER_NORM}, data={"n_train": 8})
    alike = dataclasses.replace(config, train=dataclasses.replace(config.train, accumulate=2))
    whole, parts = (take_steps(c, one_device, 1)[3][0] for c in (config, alike))
    assert whole["loss"] != pytest.approx(parts["loss"], rel=1e-4)


@pytest.mark.slow
def test_parts_that_are_alike_differ_by_their_dropout_only(toy, one_device, monkeypatch):
    losses = []

    class Twins(ToyTask):
        """Eight times the same example."""

        def source(self, split, *, seed):
            example = ToySource(self.options, split, seed)[0]
            return ArraySource(**{name: np.stack([value] * 8) for name, value in example.items()})

        def measure(self, outputs, batch):
            measures = super().measure(outputs, batch)
            jax.debug.callback(lambda loss: losses.append(float(loss.mean())), measures["loss"])
            return measures

    monkeypatch.setitem(TASKS, "toy", Twins)
    for dropout, alike in [(0.0, True), (0.5, False)]:
        losses.clear()
        config = toy(
            model={"dropout": dropout, **LAYER_NORM},
            data={"n_train": 8},
            train={"accumulate": 2},
        )
        take_steps(config, one_device, 1)
        jax.effects_barrier()
        first, second = losses[:2]
        assert (first == pytest.approx(second, rel=1e-6)) == alike


@pytest.mark.slow
def test_running_statistics_see_each_part(toy, one_device):
    config = toy(model={"prenorm": False, "norm_momentum": 0.0}, train={"accumulate": 4})
    setup = make_setup(config, one_device)
    batch = next(setup.on_device("train"))
    leaves, _ = setup.steps.train([jnp.copy(x) for x in setup.steps.initial], batch)
    kept = dict(zip(setup.steps.names, leaves, strict=True))["stats/backbone/blocks/0/norm/mean"]
    model = setup.steps.model(setup.steps.initial)
    model.train()
    model(batch["x"][3::4])
    np.testing.assert_allclose(kept, model.backbone.blocks[0].norm.mean[...], rtol=1e-4, atol=1e-6)


EVERYTHING = {
    "optim": {"ema": 0.9, "clip_norm": 0.5},
    "train": {"precision": "bfloat16", "accumulate": 2, "remat": True, "data": "device"},
    "model": {"dropout": 0.3},
}


@pytest.mark.slow
def test_a_run_with_every_option_resumes_bit_for_bit(toy, one_device, tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "toy", ArrayTask)
    results = fit(toy(**EVERYTHING), tmp_path, mesh=one_device)
    rows = (tmp_path / "metrics.jsonl").read_text()
    shutil.rmtree(tmp_path / "checkpoints" / "12")
    (tmp_path / "results.json").unlink()
    resumed = fit(toy(**EVERYTHING), tmp_path, mesh=one_device)
    assert (tmp_path / "metrics.jsonl").read_text() == rows
    times = {"wall_s": 0, "samples_per_s": 0}
    assert {**resumed, **times} == {**results, **times}


@pytest.mark.slow
def test_the_saved_model_is_the_average_in_its_precision(toy, one_device, tmp_path):
    config = toy(optim={"ema": 0.9}, train={"precision": "bfloat16", "remat": True})
    fit(config, tmp_path, mesh=one_device)
    trained = load_trained(tmp_path)
    model = trained.model
    assert (model.backbone.dtype, model.backbone.remat) == (jnp.bfloat16, True)
    setup = make_setup(config, one_device, trained)
    assert evaluate(setup, setup.steps.initial, "test") == read_results(tmp_path)["test"]
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(nnx.state(model)))


@pytest.mark.slow
def test_plan_knows_the_options(command):
    args = ["--task=pathx", "--preset=smoke", "--optim.ema=0.9", "--train.accumulate=2"]
    code, out, _ = command(plan, *args, "--mesh=data=4")
    assert code == 0
    assert "20 of 8 examples in 2 parts" in out
    assert "train.accumulate 1 -> 2" in out
    code, _, err = command(plan, *args, "--mesh=data=8")
    assert code == 2
    assert "8 examples in 2 parts cannot be divided among 8 devices" in err
