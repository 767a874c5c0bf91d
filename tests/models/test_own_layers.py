"""A layer of the user's own, with the three required methods, in models and files."""

import json

import jax
import pytest
from flax import nnx
from helpers import Leaky, assert_close, normal, run

import s5jax
from s5jax import SequenceClassifier, load, save

OPTIONS = {"d_input": 3, "d_output": 2, "d_model": 4, "n_layers": 2, "norm": "layer"}


class Decaying(Leaky):
    """With an option of its own."""

    def __init__(self, d_model, *, power=1, **options):
        super().__init__(d_model, **options)
        self.power = power

    def coefficients(self, dt=None, *, backward=False):
        return super().coefficients(dt, backward=backward) ** self.power


def make(layer, **layer_options):
    model = SequenceClassifier(layer, layer_options=layer_options, rngs=nnx.Rngs(0), **OPTIONS)
    model.eval()
    return model


@pytest.fixture
def classifier():
    return make(Decaying, power=3)


def test_three_methods_are_enough(tmp_path):
    model = make(Leaky)
    save(model, tmp_path)
    loaded = load(tmp_path, layers=[Leaky])
    assert nnx.graphdef(loaded) == nnx.graphdef(model)
    assert_close(nnx.state(loaded), nnx.state(model), rtol=0)


def test_it_streams_and_learns_in_a_model(classifier):
    u = normal(0, 2, 7, 3)
    whole, last = run(classifier, u, return_state=True)
    _, state = run(classifier, u[:, :3], return_state=True)
    logits, state = run(classifier, u[:, 3:], state=state, return_state=True)
    assert_close((logits, state), (whole, last))
    gradients = nnx.grad(lambda model: (model(u) ** 2).sum())(classifier)
    assert all((g != 0).any() for g in jax.tree.leaves(gradients["backbone"]["blocks"]))


@pytest.mark.parametrize("whole", [True, False], ids=["model", "layer"])
def test_it_is_saved_by_name_and_loaded_from_the_list_that_the_caller_passes(
    whole, classifier, tmp_path
):
    module = classifier if whole else classifier.layers[0]
    save(module, tmp_path)
    loaded = load(tmp_path, layers=[Decaying])
    u = normal(1, 2, 5, 3 if whole else 4)
    assert_close(run(loaded, u), run(module, u), rtol=0)
    with pytest.raises(ValueError, match=r"model.json: .*'Decaying'.* layers=\[Decaying\]"):
        load(tmp_path)
    with pytest.raises(ValueError, match=r"layers=\[Decaying\]"):
        load(tmp_path, layers=[Leaky])


def test_only_the_name_is_written(classifier, tmp_path):
    save(classifier, tmp_path)
    config = json.loads((tmp_path / "model.json").read_text())
    assert config["arguments"]["layer"] == {"class": "Decaying"}
    assert config["arguments"]["layer_options"] == [["power", 3]]
    assert {path.name for path in tmp_path.iterdir()} == {"model.json", "parameters.safetensors"}


def test_lists_of_other_things_are_refused(classifier, tmp_path):
    save(classifier, tmp_path)
    for wrong in (dict, SequenceClassifier, "Decaying", Decaying(4, rngs=nnx.Rngs(0))):
        with pytest.raises(ValueError, match="`layers` must be classes derived from SequenceLayer"):
            load(tmp_path, layers=[wrong])
    namesake = type("S5", (Decaying,), {})
    with pytest.raises(ValueError, match="two classes with the name S5"):
        load(tmp_path, layers=[namesake])
    with pytest.raises(ValueError, match="two classes with the name S5"):
        save(namesake(4, rngs=nnx.Rngs(0)), tmp_path)


def test_arguments_must_be_kept(tmp_path):
    class Forgetful(Leaky):
        def __init__(self, d_model, *, gain=1.0, rngs):
            super().__init__(d_model, rngs=rngs)

    with pytest.raises(ValueError, match=r"Forgetful must keep the argument `gain`"):
        save(Forgetful(4, rngs=nnx.Rngs(0)), tmp_path)

    class Functional(Leaky):
        def __init__(self, d_model, *, gate=jax.nn.sigmoid, rngs):
            super().__init__(d_model, rngs=rngs)
            self.gate = gate

    with pytest.raises(ValueError, match=r"must be numbers, strings, dtypes, classes"):
        save(Functional(4, rngs=nnx.Rngs(0)), tmp_path)


def test_steps_are_refused_with_the_name_of_the_model(classifier):
    with pytest.raises(ValueError, match=r"SequenceClassifier: `dt` .* Decaying has no step"):
        classifier(normal(0, 5, 3), dt=2.0)
    with pytest.raises(ValueError, match=r"SequenceClassifier: `dt` .* Decaying has no step"):
        classifier.step(normal(0, 3), classifier.init_state(), 2.0)
    assert issubclass(SequenceClassifier, s5jax.models.SequenceModel)
