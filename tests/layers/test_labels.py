"""`param_labels` in every form in which Optax and Flax take labels."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import assert_close

from s5jax import S5, SequenceClassifier, param_labels

RATES = {"ssm": optax.sgd(1e-4), "regular": optax.sgd(1e-2)}


def make() -> SequenceClassifier:
    return SequenceClassifier(
        S5,
        d_input=3,
        d_output=2,
        d_model=4,
        n_layers=2,
        layer_options={"d_state": 4},
        rngs=nnx.Rngs(0),
    )


def loss(model):
    return (model(jnp.sin(jnp.arange(30.0)).reshape(2, 5, 3)) ** 2).sum() * 1e3


def rates(before, after, gradients):
    """The learning rate that each parameter saw, from its largest change."""
    found = {}
    for path, gradient in nnx.to_flat_state(gradients):
        change, size = np.abs(before[path] - after[path]).max(), np.abs(gradient[...]).max()
        if size > 1:
            found[path] = float(change / size)
    return found


def values(model):
    return {path: np.asarray(p[...]) for path, p in nnx.to_flat_state(nnx.state(model, nnx.Param))}


def by_flax(model, labels, gradients):
    optimizer = nnx.Optimizer(model, optax.multi_transform(RATES, labels), wrt=nnx.Param)
    optimizer.update(model, gradients)


def by_optax_over_state(model, labels, gradients):
    optimizer, parameters = optax.multi_transform(RATES, labels), nnx.state(model, nnx.Param)
    updates, _ = optimizer.update(gradients, optimizer.init(parameters), parameters)
    nnx.update(model, optax.apply_updates(parameters, updates))


def by_optax_over_dictionaries(model, labels, gradients):
    optimizer = optax.multi_transform(RATES, labels)
    parameters, gradients = map(nnx.to_pure_dict, (nnx.state(model, nnx.Param), gradients))
    updates, _ = jax.jit(optimizer.update)(gradients, optimizer.init(parameters), parameters)
    state = nnx.state(model, nnx.Param)
    nnx.replace_by_pure_dict(state, optax.apply_updates(parameters, updates))
    nnx.update(model, state)


@pytest.mark.parametrize(
    ("update", "form"),
    [
        (by_flax, lambda labels: labels),
        pytest.param(by_optax_over_state, lambda labels: labels, marks=pytest.mark.slow),
        pytest.param(by_optax_over_dictionaries, lambda labels: labels, marks=pytest.mark.slow),
        pytest.param(by_flax, nnx.State, marks=pytest.mark.slow),
        (by_optax_over_state, nnx.State),
    ],
)
def test_groups_train_at_their_rates(update, form):
    model = make()
    gradients, before = nnx.grad(loss)(model), values(model)
    update(model, form(param_labels(model)), gradients)
    found = rates(before, values(model), gradients)
    assert len(found) > 8
    for path, rate in found.items():
        slow = path[-1] in ("Lambda_re", "Lambda_im", "log_step", "B")
        assert rate == pytest.approx(1e-4 if slow else 1e-2, rel=0.1), path


def test_masks_and_nested_transformations():
    model = make()
    labels = param_labels(model)

    def is_regular(parameters):
        return jax.tree.map(lambda label: label == "regular", labels(parameters))

    tx = optax.chain(
        optax.masked(optax.set_to_zero(), is_regular), optax.multi_transform(RATES, labels)
    )
    gradients, before = nnx.grad(loss)(model), values(model)
    nnx.Optimizer(model, tx, wrt=nnx.Param).update(model, gradients)
    after = values(model)
    assert_close(after[("decode", "kernel")], before[("decode", "kernel")], rtol=0)
    assert (
        after[("backbone", "blocks", 0, "layer", "B")]
        != before[("backbone", "blocks", 0, "layer", "B")]
    ).any()


def test_labels_are_dictionaries():
    labels = param_labels(S5(d_model=4, d_state=8, rngs=nnx.Rngs(0)), {"log_step": "none"})
    assert labels == {
        "Lambda_re": "ssm",
        "Lambda_im": "ssm",
        "log_step": "none",
        "B": "ssm",
        "C": "regular",
        "D": "regular",
    }
    assert type(jax.tree.map(str.upper, labels)) is dict
