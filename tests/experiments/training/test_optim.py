import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments.config import OptimOptions
from experiments.config.models import S4Options
from experiments.training.optim import (
    constant,
    cosine,
    group_labels,
    make_optimizer,
    make_schedule,
    s5_cosine,
)
from experiments.training.setup import count_parameters, make_setup

SCHEDULES = {
    # 10 steps of which 4 warm up, at rates of a peak of 1, by hand.
    cosine: [0, 0.25, 0.5, 0.75, 1, 0.9330127, 0.75, 0.5, 0.25, 0.0669873, 0],
    s5_cosine: [0.25, 0.5, 0.75, 1, 0.25, 0.0669873, 0, 0, 0, 0, 0],
    constant: [0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1],
}


@pytest.mark.parametrize(("build", "expected"), SCHEDULES.items())
def test_schedule_follows_the_table(build, expected):
    schedule = build(1.0, warmup_steps=4, steps=10)
    np.testing.assert_allclose([schedule(k) for k in range(11)], expected, atol=1e-6)


@pytest.mark.parametrize("build", [cosine, s5_cosine])
def test_schedule_without_warmup_starts_at_its_peak(build):
    assert float(build(0.3, warmup_steps=0, steps=10)(0)) == pytest.approx(0.3)


def test_s5_cosine_starts_below_its_peak_and_ends_with_an_epoch_at_zero():
    schedule = s5_cosine(1.0, warmup_steps=5_000, steps=375_000)
    assert float(schedule(4_999)) == 1
    assert 0.999 < float(schedule(5_000)) < 1
    assert float(schedule(370_000)) == pytest.approx(0, abs=1e-12)


GROUPS = {
    # opt_config, dt_group: groups of B, C, D, Lambda_re, log_step; everything else is regular.
    ("standard", "ssm"): ("ssm", "regular", "regular", "ssm", "ssm"),
    ("standard", "regular"): ("ssm", "regular", "regular", "ssm", "regular"),
    ("BandCdecay", "ssm"): ("ssm_decay", "regular", "regular", "ssm", "ssm"),
    ("BandCdecay", "regular"): ("ssm_decay", "regular", "regular", "ssm", "regular"),
    ("BfastandCdecay", "ssm"): ("regular", "regular", "regular", "ssm", "ssm"),
    ("BfastandCdecay", "regular"): ("regular", "regular", "regular", "ssm", "regular"),
    ("noBCdecay", "ssm"): ("ssm", "ssm", "ssm", "ssm", "ssm"),
    ("noBCdecay", "regular"): ("ssm", "ssm", "ssm", "ssm", "regular"),
}


@pytest.mark.parametrize(("options", "expected"), GROUPS.items())
def test_groups_are_those_of_the_published_code(toy, options, expected):
    model = toy().model.build(_ToyShape, rngs=nnx.Rngs(0))
    labels = group_labels(model, OptimOptions(opt_config=options[0], dt_group=options[1]))
    layer = labels["backbone"]["blocks"][0]["layer"]
    assert tuple(layer[n] for n in ("B", "C", "D", "Lambda_re", "log_step")) == expected
    assert layer["Lambda_im"] == "ssm"
    others = {**labels, "backbone": {**labels["backbone"], "blocks": None}}
    others["block"] = {k: v for k, v in labels["backbone"]["blocks"][0].items() if k != "layer"}
    assert set(jax.tree.leaves(others)) == {"regular"}


def test_parameters_without_decay_are_those_of_the_published_s4():
    options = S4Options(n_layers=1, d_model=4, d_state=4, prenorm=True)
    model = options.build(_ToyShape, rngs=nnx.Rngs(0))
    chosen = OptimOptions(opt_config="slow_C", dt_group="frozen", decay_all=False)
    labels = group_labels(model, chosen)
    layer, block = labels["backbone"]["blocks"][0]["layer"], labels["backbone"]["blocks"][0]
    assert layer["C"] == "ssm_decay"
    assert layer["raw_step"] == "frozen"
    assert layer["D"] == "regular"
    assert {layer[name] for name in ("P", "B", "raw_decay", "Lambda_im")} == {"ssm"}
    assert (block["norm"]["scale"], block["norm"]["bias"]) == ("no_decay", "no_decay")
    assert labels["backbone"]["encode"] == {"kernel": "regular", "bias": "no_decay"}


def test_a_group_of_parameters_that_the_model_lacks_is_refused(toy):
    model = toy().model.build(_ToyShape, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="'h'"):
        group_labels(model, OptimOptions(opt_config="slow_h_decay"))


FROZEN = {
    "encoder": {"backbone/encode"},
    "blocks": {"backbone/blocks"},
    "head": {"decode"},
}


@pytest.mark.parametrize(("part", "expected"), FROZEN.items())
def test_a_part_is_frozen(toy, part, expected):
    model = toy().model.build(_ToyShape, rngs=nnx.Rngs(0))
    labels = group_labels(model, OptimOptions(freeze=(part,)))
    assert _frozen(labels) == expected


def test_layers_and_their_recurrences_are_frozen(toy):
    model = toy().model.build(_ToyShape, rngs=nnx.Rngs(0))
    block = group_labels(model, OptimOptions(freeze=("layers",)))["backbone"]["blocks"][0]
    assert {name for name in block if "frozen" in jax.tree.leaves(block[name])} == {"layer"}
    layer = group_labels(model, OptimOptions(freeze=("ssm",)))["backbone"]["blocks"][0]["layer"]
    frozen = {name for name, group in layer.items() if group == "frozen"}
    assert frozen == {"B", "Lambda_re", "Lambda_im", "log_step"}


def test_what_cannot_be_frozen(toy):
    model = toy().model.build(_ToyShape, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"`freeze` must leave parameters to train; got encoder"):
        group_labels(model, OptimOptions(freeze=("encoder", "blocks", "head")))
    linear = nnx.Dict(decode=nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"parts with parameters; .* none in encoder, ssm\."):
        group_labels(linear, OptimOptions(freeze=("ssm", "encoder")))


def _frozen(labels):
    """The parts of a model in which every parameter is frozen; in no other part is any."""
    parts = {f"backbone/{name}": part for name, part in labels["backbone"].items()}
    parts |= {name: part for name, part in labels.items() if name != "backbone"}
    groups = {name: {g == "frozen" for g in jax.tree.leaves(part)} for name, part in parts.items()}
    assert all(len(found) == 1 for found in groups.values())
    return {name for name, found in groups.items() if found == {True}}


class _ToyShape:
    d_input, d_output, encoder, head = 1, 2, "linear", "classify"
    causal = irregular = False


def test_frozen_parameters_stay_and_undecayed_ones_do_not_shrink(toy):
    config = toy(optim={"weight_decay": 0.5, "warmup_steps": 0, "schedule": "constant"})
    labels = {"a": "frozen", "b": "no_decay"}
    params = dict.fromkeys(labels, jnp.array([2.0]))
    optimizer = make_optimizer(config, labels)
    grads = {"a": jnp.array([1.0]), "b": jnp.array([0.0])}
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    assert updates == {"a": 0, "b": 0}


def test_schedule_by_epoch_changes_at_its_start_and_returns_after_its_period(toy):
    # 64 examples in batches of 8: 8 steps an epoch, a warm-up of 2 epochs, a period of 6.
    options = {"by_epoch": True, "warmup_steps": 16, "period_steps": 48}
    config = toy(optim=options, train={"steps": 100})
    rate = make_schedule(config, 1.0)
    assert [float(rate(k)) for k in (0, 7, 8, 15, 16)] == [0, 0, 0.5, 0.5, 1]
    assert float(rate(48)) == pytest.approx(0, abs=1e-6)
    assert float(rate(80)) == pytest.approx(1)


def test_first_update_is_adam_at_each_group_s_rate_plus_decay(toy):
    optim = {"lr": 0.1, "ssm_lr": 0.01, "weight_decay": 0.5, "opt_config": "BandCdecay"}
    config = toy(optim={**optim, "warmup_steps": 0, "schedule": "constant"})
    labels = {"a": "regular", "b": "ssm", "c": "ssm_decay"}
    params = dict.fromkeys(labels, jnp.array([2.0, -3.0]))
    grads = dict.fromkeys(labels, jnp.array([0.7, -0.2]))
    optimizer = make_optimizer(config, labels)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    sign, p = np.array([1.0, -1.0]), np.array([2.0, -3.0])
    expected = {"a": -0.1 * (sign + 0.5 * p), "b": -0.01 * sign, "c": -0.01 * (sign + 0.5 * p)}
    for name, value in expected.items():
        np.testing.assert_allclose(updates[name], value, rtol=1e-4)


def test_second_update_follows_adam_s_moments(toy):
    config = toy(optim={"lr": 0.1, "weight_decay": 0.5, "warmup_steps": 0, "schedule": "constant"})
    optimizer = make_optimizer(config, {"a": "regular"})
    params, gradients = {"a": jnp.array(2.0)}, [0.7, -0.2]
    state, p, m, v = optimizer.init(params), 2.0, 0.0, 0.0
    for k, g in enumerate(gradients, start=1):
        updates, state = optimizer.update({"a": jnp.array(g)}, state, params)
        params = optax.apply_updates(params, updates)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        adam = m / (1 - 0.9**k) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)
        p -= 0.1 * (adam + 0.5 * p)
        assert float(params["a"]) == pytest.approx(p, rel=1e-4)


def test_every_parameter_is_counted_once(toy, one_device):
    setup = make_setup(toy(optim={"opt_config": "BandCdecay"}), one_device)
    counts = count_parameters(setup)
    model = setup.steps.model(setup.steps.initial)
    total = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert set(counts) == {"regular", "ssm", "ssm_decay"}
    assert sum(counts.values()) == total
