import dataclasses

import numpy as np
import pytest
from flax import nnx

import s5jax
from experiments.cli.runs import parse_train
from experiments.config.models import HybridOptions, S5Options, read_layer
from experiments.errors import UsageError
from experiments.recipes import get_recipe
from experiments.recipes._recipe import adapt
from experiments.recipes.pendulum import PAPER
from experiments.tasks import get_task

LAYERS = ("s5:d_state=8,n_blocks=1,clip_eigs=True", "sgconv:kernel_dim=4,n_scales=None,decay_min=1")


def build(task, model):
    config = get_recipe(task, "hybrid", "smoke")
    return model.build(get_task(task)(config.data), rngs=nnx.Rngs(0))


def test_layers_have_the_options_that_follow_their_names():
    stack = {"n_layers": 4, "d_model": 8, "bidirectional": False}
    model = build("chars", HybridOptions(layers=LAYERS, **stack))
    s5, sgconv = model.layers[:2]
    assert (s5.d_state, s5.clip_eigs, s5.bidirectional) == (8, True, False)
    assert (sgconv.kernel_dim, sgconv.decay_min, sgconv.l_max) == (4, 1.0, 32)
    assert list(map(type, model.layers)) == 2 * [s5jax.S5, s5jax.SGConv]


def test_command_line():
    args = ["--task=chars", "--model=hybrid", "--preset=smoke", "--model.n_layers=4"]
    config = parse_train([*args, "--model.layers", *LAYERS]).config()
    assert (config.model.layers, config.run_name) == (LAYERS, "chars-hybrid-smoke-seed0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s5x", r"Unknown layer 's5x': choose from s5, .*Did you mean 's5'\?"),
        ("hybrid", "Unknown layer 'hybrid'"),
        ("gru:n_heads=2", "Unknown option of gru 'n_heads': choose from d_state"),
        ("s5:d_model=8", "Unknown option of s5 'd_model'"),
        ("s5:d_state=many", "`s5:d_state` must be int; got 'many'"),
        ("s5:d_state", "`s5:d_state` must be int; got ''"),
        ("s5:init=hipo", "`s5:init` must be 'hippo' | 'random'; got 'hipo'"),
    ],
)
def test_layers_that_do_not_exist_are_refused(text, message):
    with pytest.raises(UsageError, match=message.replace(" | ", r" \| ")):
        HybridOptions(layers=(text, "gru"))


@pytest.mark.parametrize("layers", [(), ("gru", "s5", "s5", "s5")])
def test_blocks_are_a_multiple_of_the_layers(layers):
    with pytest.raises(ValueError, match=f"got 6 blocks for {len(layers)} layers"):
        HybridOptions(layers=layers)


def test_step_lengths_need_all_layers_to_have_them():
    assert HybridOptions(layers=("s5", "s4d")).continuous_time
    assert not HybridOptions(layers=("s5", "lru")).continuous_time
    config = get_recipe("pendulum", "s5", "smoke")
    model = HybridOptions(layers=("s5:d_state=8,n_blocks=1", "gru"), bidirectional=False)
    with pytest.raises(ValueError, match="HybridOptions: layers in discrete time do not accept"):
        model.build(get_task("pendulum")(config.data), rngs=nnx.Rngs(0))


def test_derived_recipes_round_the_blocks_up():
    (donor,) = (row for row in PAPER if row.config.model.name == "s5")
    model = adapt(donor, HybridOptions, layers=("s5", "gru", "gru")).config.model
    assert (donor.config.model.n_layers, model.n_layers) == (4, 6)


def test_a_layer_alone_is_the_model_of_this_layer():
    plain = S5Options(n_layers=2, d_model=8, d_state=8, n_blocks=1)
    same = HybridOptions(n_layers=2, d_model=8, layers=("s5:d_state=8,n_blocks=1",))
    assert read_layer("s5:d_state=8,n_blocks=1", n_layers=2, d_model=8) == plain
    u = np.ones((1, 64, 1), np.float32)
    models = [build("digits", dataclasses.replace(m, norm="layer")) for m in (plain, same)]
    np.testing.assert_array_equal(*(model(u) for model in models))
