"""Stacks of different layers."""

import json

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from helpers import Leaky, assert_close, normal, run

from s5jax import S4D, S5, Attention, SequenceBackbone, SequenceClassifier, load, save

RECURRENT, LOCAL = (S5, {"d_state": 4}), (Attention, {"n_heads": 2, "l_max": 3})
SIZES = {"d_input": 3, "d_model": 4, "n_layers": 3, "norm": "layer"}


def backbone(layer, **options):
    model = SequenceBackbone(layer, rngs=nnx.Rngs(0), **SIZES | options)
    model.eval()
    return model


def test_blocks_repeat_the_list():
    model = backbone([RECURRENT, (S5, {"d_state": 6}), LOCAL], n_layers=6)
    kinds = [(type(layer), getattr(layer, "d_state", None)) for layer in model.layers]
    assert kinds == 2 * [(S5, 4), (S5, 6), (Attention, None)]


def test_a_list_of_one_is_the_layer():
    one, plain = backbone([RECURRENT]), backbone(S5, layer_options=RECURRENT[1])
    assert_close(nnx.state(one), nnx.state(plain), rtol=0)


def test_resets_separate_segments():
    model, u = backbone([RECURRENT, LOCAL, RECURRENT]), normal(0, 2, 9, 3)
    resets = jnp.zeros((2, 9), bool).at[0, 4].set(True)
    poisoned = u.at[0, 2].set(jnp.nan)
    y = run(model, poisoned, resets=resets)
    assert_close(y[0, 4:], run(model, u[:, 4:])[0])
    assert_close(y[1], run(model, u)[1])
    assert jnp.isnan(y[0, 2:4]).all()


def test_a_stack_is_saved_with_its_own_layers(tmp_path):
    model = backbone([(Leaky, {}), LOCAL, (S4D, {"d_state": 4})])
    save(model, tmp_path)
    loaded = load(tmp_path, layers=[Leaky])
    assert nnx.graphdef(loaded) == nnx.graphdef(model)
    assert_close(nnx.state(loaded), nnx.state(model), rtol=0)
    with pytest.raises(ValueError, match=r"layers=\[Leaky\]"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([{"class": "S5"}, [["d_state", 10**9]]], "`d_state` is 1000000000, and the parameters"),
        ([{"class": "dict"}, []], "`class` must be one of .*got 'dict'"),
        ([{"class": "S5"}, [["d_stat", 4]]], "does not describe a model of this version"),
    ],
)
def test_changed_files_are_refused(change, message, tmp_path):
    save(backbone([RECURRENT, LOCAL, RECURRENT]), tmp_path)
    path = tmp_path / "model.json"
    values = json.loads(path.read_text())
    values["arguments"]["layer"][0] = change
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


@pytest.mark.parametrize(
    ("layer", "options", "message"),
    [
        ([RECURRENT, LOCAL], {}, "`n_layers` must be a multiple .* got 3 blocks for 2 layers"),
        ([], {}, "got 3 blocks for 0 layers"),
        ([S5, Attention, S5], {}, r"must hold pairs of a class and its options, .*; got <class"),
        ([("s5", {})], {}, r"must hold pairs of a class and its options, .*; got \('s5', {}\)"),
        ([(S5, 4)], {}, "must hold pairs of a class and its options"),
        (
            [RECURRENT],
            {"layer_options": {"d_state": 4}},
            "`layer_options` must be left out beside a list of layers; got {'d_state': 4}",
        ),
    ],
)
def test_lists_that_do_not_fit_are_refused(layer, options, message):
    with pytest.raises(ValueError, match=f"SequenceBackbone: .*{message}"):
        backbone(layer, **options)


def test_one_layer_that_cannot_step_is_enough_to_refuse():
    both = (S5, {"d_state": 4, "bidirectional": True})
    model = SequenceClassifier([RECURRENT, both, LOCAL], d_output=2, rngs=nnx.Rngs(0), **SIZES)
    with pytest.raises(ValueError, match=r"S5.*needs a causal layer"):
        model.step(normal(0, 3), model.init_state())
    with pytest.raises(ValueError, match=r"`dt` .* Attention has no step"):
        jax.eval_shape(lambda u: model(u, dt=2.0), normal(0, 5, 3))
