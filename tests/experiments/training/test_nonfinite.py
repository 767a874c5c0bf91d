"""Where values stop being finite, and what a run does then."""

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import tiers
from toys import ToyTask

import s5jax
from experiments.devices.mesh import make_mesh
from experiments.errors import InterruptedRun, RunError
from experiments.records import read_results
from experiments.tasks import TASKS, get_task
from experiments.tasks._task import measure_classification
from experiments.training import loop
from experiments.training import setup as training_setup
from experiments.training.checkpoint import Checkpoints
from experiments.training.loop import MAX_ROLLBACKS, fit
from experiments.training.metrics import BadSteps, read_rows
from experiments.training.nonfinite import explain, investigate, name
from experiments.training.pipeline import make_batches
from experiments.training.setup import make_setup
from experiments.training.watch import summarize_step, watch

LAYERS = {
    "s5": (s5jax.S5, {"d_state": 4}),
    "s4": (s5jax.S4, {"d_state": 4}),
    "s4d": (s5jax.S4D, {"d_state": 4}),
    "dlr": (s5jax.DLR, {"d_state": 4}),
    "sgconv": (s5jax.SGConv, {"l_max": 6, "kernel_dim": 2}),
    "hope": (s5jax.HOPE, {"d_state": 4}),
    "lru": (s5jax.LRU, {"d_state": 4}),
    "linoss": (s5jax.LinOSS, {"d_state": 4}),
    "hyena": (s5jax.Hyena, {"d_state": 4}),
    "gru": (s5jax.GRU, {"d_state": 3}),
    "attention": (s5jax.Attention, {"n_heads": 2, "l_max": 6}),
}


class Fault(nnx.Variable):
    """Two ones; a zero makes the outputs infinite, or their gradient undefined."""


def add_faults(model, modules):
    """Makes some modules compute ``y / a + sqrt(b y^2 + 1)``, without the 1 if b is 0."""
    for module in modules:
        kind = type(module)

        def call(self, *args, kind=kind, **kwargs):
            y, (a, b) = kind.__call__(self, *args, **kwargs), self.fault[...]
            return y / a + jnp.sqrt(b * y * y + (b == 1))

        object.__setattr__(module, "__class__", type(kind.__name__, (kind,), {"__call__": call}))
        module.fault = Fault(jnp.ones(2))


class Patient:
    """A small classifier whose every part can be made ill, compiled once."""

    def __init__(self, layer, options):
        model = s5jax.SequenceClassifier(
            layer,
            d_input=2,
            d_output=3,
            d_model=4,
            n_layers=2,
            layer_options=options,
            rngs=nnx.Rngs(0),
        )
        blocks = [("backbone", "blocks", i) for i in range(2)]
        parts = [("backbone", "encode"), ("decode",), *blocks]
        parts += [(*block, part) for block in blocks for part in ("norm", "layer", "out2")]
        at = dict(nnx.iter_modules(model))
        add_faults(model, [at[path] for path in parts])
        self.parts = {path: type(at[path]).__name__ for path in parts}
        graph, *states = nnx.split(model, nnx.Param, Fault, ...)
        self.params, self.faults, stats = map(nnx.to_pure_dict, states)
        self.x = jax.random.normal(jax.random.key(1), (2, 6, 2))

        @jax.jit
        def probe(params, faults, x):
            model = nnx.merge(graph, params, faults, stats)
            calls = watch(model)
            watched, *states = nnx.split(model, nnx.Param, ...)
            inner, rest = map(nnx.to_pure_dict, states)

            def loss(inner):
                y = nnx.merge(watched, inner, rest)(x)
                return jnp.mean(y**4)

            value, grads = jax.value_and_grad(loss)(inner)
            batch = {"index": jnp.array([7, 9]), "x": x}
            return summarize_step(batch, {"u": x}, 2, params, grads, {"loss": value}, calls)

        self._probe = probe

    def explain(self, params=None, faults=None, x=None):
        chosen = (params or self.params, faults or self.faults, self.x if x is None else x)
        return " ".join(explain(jax.device_get(self._probe(*chosen))))

    def paths(self):
        return [
            tuple(key.key for key in path) for path, _ in jax.tree.flatten_with_path(self.params)[0]
        ]

    def with_parameter(self, path, value):
        """The parameters with all entries of one replaced."""

        def change(keys, x):
            return np.full_like(x, value) if tuple(k.key for k in keys) == path else x

        return jax.tree.map_with_path(change, self.params)

    def with_fault(self, path, which):
        """The faults with that of one part in the forward (0) or backward pass (1) active."""

        def change(keys, x):
            ill = tuple(k.key for k in keys) == (*path, "fault")
            return x.at[which].set(0) if ill else x

        return jax.tree.map_with_path(change, self.faults)


@pytest.mark.parametrize("layer", tiers(LAYERS, {"s5"}))
def test_what_is_not_finite_is_located_in_every_part(layer):
    patient = Patient(*LAYERS[layer])
    assert patient.explain().startswith("Repeated now, the step is finite")
    for path in patient.paths():
        text = patient.explain(patient.with_parameter(path, np.nan))
        assert f"First bad parameter: {name(path)}, not finite before the step." in text
        assert f"First bad layer: {name(path[: 3 if 'blocks' in path else -1])}" in text
    for path, kind in patient.parts.items():
        text = patient.explain(faults=patient.with_fault(path, 0))
        assert f"First bad layer: {name(path)} ({kind}), whose inputs are finite" in text
        text = patient.explain(faults=patient.with_fault(path, 1))
        assert f"First bad layer in the backward pass: {name(path)} ({kind})." in text
        assert f"First bad parameter: {name(path)}" in text
    text = patient.explain(
        patient.with_parameter(("backbone", "blocks", 1, "out2", "kernel"), 3e38)
    )
    assert "First bad layer: backbone.blocks[1].out2 (Linear)" in text
    assert (
        "Its parameters are finite; the largest is backbone.blocks[1].out2.kernel, up to 3e+38."
        in text
    )
    text = patient.explain(patient.with_parameter(("decode", "kernel"), 1e7))
    assert "is the largest, up to" in text
    text = patient.explain(patient.with_parameter(("decode", "kernel"), 1e15))
    assert "the loss that the task computes is not" in text
    text = patient.explain(x=patient.x.at[1, 2, 0].set(np.inf).at[0, 5, 1].set(np.nan))
    assert text == "The data are not finite: x of example 7 at [5, 1], and in 1 others."


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A run in a folder, and what must not depend on interruptions."""

    config: Any
    mesh: Any
    workdir: Path

    def fit(self, on_nan):
        return fit(self.config, self.workdir, mesh=self.mesh, on_nan=on_nan)

    def record(self):
        results = read_results(self.workdir)
        del results["wall_s"], results["samples_per_s"], results["commit"]
        return (self.workdir / "metrics.jsonl").read_text(), results

    def checkpoints(self):
        return sorted(int(path.name) for path in (self.workdir / "checkpoints").iterdir())


BAD_STEP, BAD_EXAMPLE = 7, 3


@pytest.fixture(scope="module")
def ill(toy, one_device):
    """Makes runs with a row each 5 steps and a checkpoint each 4, whose step 7 is not finite."""
    options = {"log_every": 5, "checkpoint_every": 4, "eval_every": 12}
    config = toy(train=options, data={"n_train": 256})
    order = make_batches(get_task("toy")(config.data), "train", seed=0, batch_size=8)
    bad_index = int(order[BAD_STEP - 1]["index"][BAD_EXAMPLE])
    ill_config = toy(train=options, data={"n_train": 256, "bad_index": bad_index})
    return lambda workdir: Fitted(ill_config, one_device, workdir)


@pytest.fixture(scope="module")
def rolled_back(ill, tmp_path_factory):
    """A finished run that has gone back once, and the starts of its readings of the data."""
    run, starts = ill(tmp_path_factory.mktemp("runs") / "run"), []
    on_device = training_setup.on_device

    def noting(*args, start, **options):
        starts.append(start)
        return on_device(*args, start=start, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_setup, "on_device", noting)
        run.fit("rollback")
    return run, starts


def test_a_run_stops_before_a_checkpoint_is_spoilt_and_can_leave_the_step_out(
    ill, tmp_path, capsys
):
    run = ill(tmp_path / "run")
    with pytest.raises(RunError, match=f"^Step {BAD_STEP}: the loss is nan") as error:
        run.fit("stop")
    index = run.config.data.bad_index
    assert f"The data are not finite: x of example {index} at [0, 0]." in str(error.value)
    assert "--on-nan=skip" in str(error.value)
    assert run.checkpoints() == [4]
    assert [row["step"] for row in read_rows(run.workdir)] == [5]
    assert run.fit("skip")["steps"] == 12
    rows = [row for row in read_rows(run.workdir) if "loss" in row]
    assert [row["step"] for row in rows] == [5, 10, 12]
    assert np.isfinite([row["loss"] for row in rows]).all()
    out = capsys.readouterr().out
    assert "Skipped: 1 of the last steps." in out
    assert f"x of example {index}" in out


class Words(ToyTask):
    """The toy in tokens of 0 and 1; the infinite example has the token 2 or -1, or that label."""

    encoder = "tokens"
    d_input = 2
    token: int | None = None
    label: int | None = None

    def inputs(self, batch):
        x = batch["x"][..., 0]
        u = (x > 0).astype(jnp.int32)
        return {"u": u if self.token is None else jnp.where(jnp.isfinite(x), u, self.token)}

    def measure(self, outputs, batch):
        label = batch["label"]
        if self.label is not None:
            label = jnp.where(jnp.isfinite(batch["x"]).all((1, 2)), label, self.label)
        return measure_classification(outputs, label)


@pytest.mark.parametrize("encoder", tiers(["embedding", "one_hot"], {"embedding"}))
@pytest.mark.parametrize(
    ("name", "value"),
    tiers(
        [("token", 2), ("token", -1), ("label", 2), ("label", -100)],
        {("token", -1), ("label", 2)},
    ),
)
def test_tokens_and_labels_that_do_not_exist_end_the_run(
    name, value, encoder, ill, monkeypatch, tmp_path
):
    monkeypatch.setattr(Words, name, value)
    monkeypatch.setitem(TASKS, "toy", Words)
    run = ill(tmp_path / "run")
    model = dataclasses.replace(run.config.model, token_encoder=encoder)
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, model=model))
    with pytest.raises(RunError, match=f"^Step {BAD_STEP}: the loss is nan") as error:
        run.fit("stop")
    reason = {
        "token": "The data have tokens outside the model's vocabulary: "
        f"{value} in example {run.config.data.bad_index} at [0].",
        "label": "the loss that the task computes is not",
    }[name]
    assert reason in str(error.value)
    assert run.checkpoints() == [4]


def test_a_run_goes_back_and_on_with_later_batches(rolled_back):
    run, starts = rolled_back
    results = read_results(run.workdir)
    assert results["rollbacks"] == [{"step": 7, "back_to": 4}]
    assert starts[:3] == [0, 0, 0]  # the plan, with an evaluation that compiles and a timed one
    assert starts[3:6] == [0, 6, 7]  # the run, the look at step 7, step 5 with the batch of step 8
    assert results["steps"] == 12
    assert [row["step"] for row in read_rows(run.workdir) if "loss" in row] == [5, 10, 12]


@pytest.mark.parametrize(
    "moment",
    [
        "killed after going back",
        *(
            pytest.param(moment, marks=pytest.mark.slow)
            for moment in (
                "signal before the bad step",
                "signal at the bad step",
                "signal after going back",
                "killed at the next checkpoint",
            )
        ),
    ],
)
def test_a_run_that_goes_back_is_resumed_exactly(moment, ill, rolled_back, tmp_path, monkeypatch):
    run, advance, calls = ill(tmp_path / "run"), loop.Display.advance, []
    at = {"before": 6, "the bad": 7, "next": 13, "after": 9}
    n = next(n for words, n in at.items() if words in moment)

    def interrupted(display):
        calls.append(None)
        if len(calls) == n and "killed" in moment:
            raise MemoryError("as if killed")
        if len(calls) == n:
            os.kill(os.getpid(), signal.SIGTERM)
        advance(display)

    monkeypatch.setattr(loop.Display, "advance", interrupted)
    end, words = InterruptedRun, r"--workdir=.* resumes from here"
    if "killed" in moment:
        end, words = MemoryError, r"^as if killed$"
    with pytest.raises(end, match=words):
        run.fit("rollback")
    assert run.checkpoints()[-1] == {6: 6, 7: 4, 9: 5 if "signal" in moment else 4, 13: 8}[n]
    run.fit("rollback")
    assert run.record() == rolled_back[0].record()


def test_going_back_again_and_again_ends(ill, toy, tmp_path, capsys):
    one_batch = toy(data={"n_train": 8, "bad_index": 0}).data
    run = ill(tmp_path / "run")
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, data=one_batch))
    with pytest.raises(RunError, match="has returned to step 0 3 times, with other batches"):
        run.fit("rollback")
    assert capsys.readouterr().out.count("Returned to step 0; batches skipped: 1.") == MAX_ROLLBACKS
    assert run.checkpoints() == [0]


def test_the_checkpoint_to_go_back_to_outlives_those_of_signals(tmp_path):
    def on_disk():
        return sorted(int(path.name) for path in tmp_path.iterdir())

    with Checkpoints(tmp_path, ["x"], [jnp.zeros(2)]) as checkpoints:
        checkpoints.progress.due = 4
        for step in (4, 5, 6, 7):
            checkpoints.save(step, [jnp.full(2, 1.0 * step)])
        checkpoints.wait()
        assert on_disk() == [4, 6, 7]
        step, leaves = checkpoints.restore_newest(print, until=4)
        assert (step, leaves[0].tolist(), on_disk()) == (4, [4, 4], [4])
        checkpoints.save(5, leaves)
        checkpoints.wait()
        assert on_disk() == [4, 5]


@pytest.mark.slow
def test_a_damaged_checkpoint_to_go_back_to_ends_the_run(ill, tmp_path, monkeypatch):
    run, save = ill(tmp_path / "run"), loop.Checkpoints.save

    def spoil(checkpoints, step, leaves):
        save(checkpoints, step, leaves)
        checkpoints.wait()
        (run.workdir / "checkpoints" / str(step) / "checksums.json").unlink()

    monkeypatch.setattr(loop.Checkpoints, "save", spoil)
    with pytest.raises(RunError, match="There is no intact checkpoint to return to"):
        run.fit("rollback")


def spoil_parameter(setup, path, value=np.nan):
    """The first state with a parameter that is not finite."""
    return [
        jax.device_put(jnp.full_like(leaf, value), leaf.sharding) if name == path else leaf
        for name, leaf in zip(setup.steps.names, setup.steps.initial, strict=True)
    ]


@pytest.mark.slow
def test_no_step_can_be_left_out_if_parameters_are_not_finite(ill, tmp_path, monkeypatch):
    def spoilt(*args, **options):
        setup = make_setup(*args, **options)
        initial = spoil_parameter(setup, "params/backbone/blocks/0/layer/D")
        return setup._replace(steps=dataclasses.replace(setup.steps, initial=initial))

    monkeypatch.setattr(loop, "make_setup", spoilt)
    with pytest.raises(RunError, match=r"blocks\[0\]\.layer\.D, not finite.*No later step can"):
        ill(tmp_path / "run").fit("skip")


@pytest.mark.slow
@pytest.mark.parametrize("freeze", [True, False])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_frozen_state_waits_for_the_next_look(freeze, clip_norm, ill, one_device, tmp_path):
    config = ill(tmp_path).config
    optim = dataclasses.replace(config.optim, clip_norm=clip_norm)
    config = dataclasses.replace(config, optim=optim)
    setup = make_setup(config, one_device, freeze=freeze)
    leaves, states = setup.steps.initial, []
    for _, batch in zip(range(11), setup.on_device("train"), strict=False):
        leaves, meter = setup.steps.train(leaves, batch)
        states.append([np.array(leaf) for leaf in leaves])
    of_parameters = [n for n, name in enumerate(setup.steps.names) if name.startswith("params")]

    def equal(a, b):
        return all(np.array_equal(states[a - 1][n], states[b - 1][n]) for n in of_parameters)

    assert equal(6, 7)
    assert equal(7, 10) == freeze
    assert not equal(10, 11)
    meter = setup.steps.names.index("meter/finite")
    assert states[9][meter] == (1 if freeze else 4)
    forgotten = setup.steps.forget_bad(states_as_arrays(setup, states[9]))
    assert forgotten[setup.steps.names.index("meter/bad")] == 0


def states_as_arrays(setup, leaves):
    return [
        jax.device_put(leaf, like.sharding)
        for leaf, like in zip(leaves, setup.steps.initial, strict=True)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"accumulate": 2}, {"remat": True}, {"precision": "bfloat16"}, {"data": "host"}],
    ids=str,
)
def test_layers_are_named_whatever_the_step(options, toy):
    config = toy(train=options, model={"n_layers": 2, "dropout": 0.1}, optim={"ema": 0.9})
    setup = make_setup(config, make_mesh("data=2", batch_size=8, parts=config.train.accumulate))
    bad = BadSteps(1, 2, np.nan, np.nan)
    for part, spoilt in [
        ("backbone/blocks/1/layer", "log_step"),
        ("backbone/blocks/0/norm", "scale"),
        ("backbone/encode", "kernel"),
    ]:
        leaves = spoil_parameter(setup, f"params/{part}/{spoilt}")
        report = investigate(setup, leaves, bad, position=2)
        where = name(tuple(int(key) if key.isdigit() else key for key in part.split("/")))
        assert report.lasting
        assert f"First bad parameter: {where}.{spoilt}, not finite" in report.text
        assert f"First bad layer: {where} (" in report.text
    leaves = spoil_parameter(setup, "params/backbone/blocks/0/out2/kernel", 3e38)
    report = investigate(setup, leaves, bad, position=2)
    assert "First bad layer: backbone.blocks[0].out2 (Linear)" in report.text
    assert not report.lasting
