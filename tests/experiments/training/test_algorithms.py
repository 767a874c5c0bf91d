"""A run has the same losses by every algorithm of its layer."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from experiments.devices.mesh import make_mesh
from experiments.recipes import get_recipe
from experiments.training.setup import make_setup

STEPS = 20
ALGORITHMS = {
    "s5": ["sequential", "associative", "chunked", "block"],
    "s4d": ["fft", "chunked"],
    "s4": ["fft", "chunked"],
    "dlr": ["fft", "chunked", "scan"],
    "hope": ["fft", "chunked"],
}


def losses(model, algorithm):
    """The losses of 20 smoke steps on Path-X."""
    config = get_recipe("pathx", model, "smoke")
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, algorithm=algorithm),
        train=dataclasses.replace(config.train, log_every=1),
    )
    setup = make_setup(config, make_mesh("data=1", batch_size=config.train.batch_size))
    leaves, curve = setup.steps.initial, []
    for batch in itertools.islice(setup.on_device("train"), STEPS):
        leaves, meter = setup.steps.train(leaves, batch)
        curve.append(float(jax.device_get(meter.totals["loss"])))
    return np.array(curve)


@pytest.mark.slow
@pytest.mark.parametrize("model", ALGORITHMS)
def test_losses_do_not_depend_on_the_algorithm(model):
    first, *others = (losses(model, algorithm) for algorithm in ALGORITHMS[model])
    assert len(first) == STEPS
    assert len(set(first)) == STEPS
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-4)
