import itertools

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from helpers import assert_close, normal
from programs import equations

from s5jax import GRU, S4D, S5, Attention, LanguageModel, SequenceClassifier
from s5jax.models import _depth

U = normal(0, 2, 9, 3)
EDITS = {
    "lengths": jnp.array([9, 5]),
    "resets": normal(1, 2, 9) > 1,
}
STACK = {
    "layer": [(S5, {"d_state": 4}), (Attention, {"n_heads": 2, "l_max": 3})],
    "layer_options": {},
}


def classifier(layer=S5, **options):
    sizes = {"d_input": 3, "d_output": 2, "d_model": 4, "n_layers": 4}
    layer_options = {"n_heads": 2, "l_max": 9} if layer is Attention else {"d_state": 4}
    options = sizes | {"layer_options": layer_options, "dropout": 0.4} | options
    return SequenceClassifier(layer, rngs=nnx.Rngs(0), **options)


@pytest.fixture
def platform(monkeypatch):
    """Sets for which platform the depth of a model is compiled; layers stay as on a CPU."""
    return lambda name: monkeypatch.setattr(_depth, "target_platform", lambda: name)


def on_both(platform, run):
    results = []
    for name in ("cpu", "tpu"):
        platform(name)
        results.append(run())
    return results


def step(model, u=U, **arguments):
    """Output, gradients, and all variables and keys after a training step."""
    model.train()

    @nnx.jit
    def compute(model, rngs):
        def loss(model, rngs):
            return (jnp.sin(model(u, rngs=rngs, **arguments)) ** 2).sum()

        return nnx.value_and_grad(loss)(model, rngs)

    rngs = nnx.Rngs(dropout=3)
    return compute(model, rngs), nnx.state(model), jax.random.key_data(rngs.dropout())


def products(model, u=U, **arguments):
    """Number of matrix products and recurrences in the text of a gradient."""
    model.eval()
    graph, variables = nnx.split(model)

    def loss(variables):
        return nnx.merge(graph, variables)(u, **arguments).sum()

    names = [equation.primitive.name for equation in equations(jax.grad(loss), variables)]
    return sum(name in ("dot_general", "fft", "while") for name in names)


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        pytest.param({}, EDITS, marks=pytest.mark.slow),
        ({"norm": "layer", "ffn_every": 1, "prenorm": True}, {"dt": 0.5}),
        pytest.param({"ffn_every": 2, "n_layers": 7, "remat": True}, {}, marks=pytest.mark.slow),
        pytest.param({"layer": S4D}, EDITS, marks=pytest.mark.slow),
        pytest.param({"layer": GRU}, EDITS, marks=pytest.mark.slow),
        pytest.param({"layer": Attention}, EDITS, marks=pytest.mark.slow),
        pytest.param({**STACK, "ffn_every": 3, "n_layers": 20}, EDITS, marks=pytest.mark.slow),
        pytest.param(
            {"layer_options": {"d_state": 4, "algorithm": "block"}}, {}, marks=pytest.mark.slow
        ),
    ],
)
def test_a_loop_changes_nothing(platform, options, arguments):
    plain, scanned = on_both(platform, lambda: step(classifier(**options), **arguments))
    assert_close(jax.tree.leaves(scanned), jax.tree.leaves(plain), rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"remat": True}, marks=pytest.mark.slow),
        pytest.param({"ffn_every": 1}, marks=pytest.mark.slow),
    ],
)
def test_depth_adds_nothing_to_the_program(platform, options):
    platform("tpu")
    few, many = (products(classifier(n_layers=n, **options)) for n in (3, 6))
    assert few == many
    platform("cpu")
    assert products(classifier(n_layers=3, **options)) < products(classifier(n_layers=6, **options))


def test_stacks_are_scanned_by_periods(platform):
    platform("tpu")
    one, few, many = (products(classifier(n_layers=n, **STACK)) for n in (2, 6, 10))
    assert one < few == many


def test_states_pass_through_the_loop(platform):
    def run():
        model = LanguageModel(
            S5, d_input=5, d_model=4, n_layers=3, norm="layer", layer_options={"d_state": 4},
            rngs=nnx.Rngs(0),
        )  # fmt: skip
        model.eval()
        call = jax.jit(lambda u, state: model(u, state=state, return_state=True))
        y, state = call(jnp.array([[1, 2, 3]]), None)
        return y, state, call(jnp.array([[4, 0]]), state), model.step(jnp.array([1]), state)

    plain, scanned = on_both(platform, run)
    assert_close(jax.tree.leaves(scanned), jax.tree.leaves(plain), rtol=1e-4)


def test_only_equal_blocks_are_scanned(platform):
    """A block that differs, and those after it, follow the loop."""
    platform("tpu")
    model = classifier(n_layers=6)
    alike = products(model)
    model.backbone.blocks[3].layer = S5(4, 8, rngs=nnx.Rngs(1))
    assert products(model) > alike
    plain, scanned = on_both(platform, lambda: jax.jit(model)(U))
    assert_close(scanned, plain, rtol=1e-4)


class Sowing(S5):
    """Stores a value in a variable that it did not have."""

    def run(self, state, u, edits, *, reverse=False):
        self.sow(nnx.Intermediate, "largest", jnp.abs(u).max())
        return super().run(state, u, edits, reverse=reverse)


def test_blocks_that_gain_variables_run_one_by_one(platform):
    platform("tpu")
    model = classifier(Sowing)
    model.eval()
    run = nnx.jit(lambda model, u: nnx.capture(model, nnx.Intermediate)(u))
    _, stored = run(model, U)
    assert len(set(map(float, jax.tree.leaves(stored)))) == 4


@pytest.mark.slow
def test_outside_of_a_program_nothing_is_scanned(platform, monkeypatch):
    platform("tpu")
    monkeypatch.setattr(jax.lax, "scan", lambda *_, **__: pytest.fail("scanned"))
    model = classifier(dropout=0.0, layer_options={"d_state": 4, "algorithm": "associative"})
    model.eval()
    model(U)
    nnx.grad(lambda model: model(U).sum())(model)


@pytest.mark.parametrize("platform_and_fewest", _depth.FEWEST.items())
def test_few_blocks_are_not_scanned(platform, platform_and_fewest):
    name, fewest = platform_and_fewest
    platform(name)
    counts = [products(classifier(n_layers=n)) for n in (fewest - 1, fewest)]
    assert counts[0] > counts[1]


def test_running_statistics_are_not_lost(platform):
    """A transformation that cannot return them says so, with and without a loop."""
    for name in ("cpu", "tpu"):
        platform(name)
        model = classifier(dropout=0.0)
        model.train()
        with pytest.raises(ValueError, match=r"running statistics.*model.eval\(\)"):
            jax.jit(lambda u, model=model: model(u))(U)


def test_two_keys_are_two_masks(platform):
    platform("tpu")
    model = classifier(n_layers=5, dropout=0.5, norm="layer")
    model.train()
    seen = [
        jax.jit(lambda u, seed=seed: model(u, rngs=nnx.Rngs(dropout=seed)))(U) for seed in range(3)
    ]
    assert all((a != b).any() for a, b in itertools.combinations(seen, 2))
