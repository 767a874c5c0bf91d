"""What Flax offers for modules, applied to every layer and every model."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
from flax import nnx
from helpers import LAYERS, H, assert_close, normal, run, tiers

import s5jax
from s5jax import S5, SequenceClassifier

OPTIONS = {"d_model": 4, "n_layers": 2, "layer_options": {"d_state": 4}}


def model(kind, **options):
    return lambda seed=0: kind(S5, rngs=nnx.Rngs(seed), **OPTIONS, **options)


LABELS = {"d_input": H, "d_output": 2}
MODULES = {name: row.make for name, row in LAYERS.items() if not row.slow} | {
    "backbone": model(s5jax.SequenceBackbone, d_input=H, norm="layer", ffn_every=1),
    "classifier": model(SequenceClassifier, **LABELS),
    "classifier_remat": model(SequenceClassifier, **LABELS, remat=True, final_norm=True),
    "matcher": model(s5jax.DocumentMatcher, **LABELS),
    "labeler": model(s5jax.SequenceLabeler, **LABELS),
    "language": model(s5jax.LanguageModel, d_input=11),
    "language_adaptive": model(s5jax.LanguageModel, d_input=11, cutoffs=(3,), ffn_every=2),
    "image": model(s5jax.ImageRegressor, d_input=64, d_output=2, image_shape=(8, 8)),
}
FAST = {"s5", "gru", "classifier", "language"}
every = pytest.mark.parametrize("name", tiers(MODULES, FAST))


def make(name, seed=0):
    module = MODULES[name](seed)
    module.eval()
    return module


def make_stack(name):
    stack = nnx.vmap(MODULES[name])(jax.vmap(jax.random.key)(jnp.arange(3)))
    stack.eval()
    return stack


def inputs(name, L=6):
    if name.startswith("language"):
        return jnp.arange(2 * L).reshape(2, L) % 11
    return normal(1, 2, *([2] if name == "matcher" else []), L, 64 if name == "image" else H)


def loss(module, u):
    y = module(u)
    return (y * jnp.cos(jnp.arange(y.size)).reshape(y.shape)).sum()


def same(a, b, u):
    assert_close(nnx.state(a), nnx.state(b), rtol=0)
    assert_close(run(a, u), run(b, u), rtol=0)


@every
def test_tabulate(name):
    module = MODULES[name]()  # a model as it was made, in training mode
    table = nnx.tabulate(module, inputs(name), console_kwargs={"width": 200})
    assert type(module).__name__ in table
    assert "Total" in table
    for method in ("init_state", "coefficients", "parallel"):
        assert f"/{method} " not in table
    run(make(name), inputs(name))  # and Flax is as it was
    assert nnx.tabulate(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), jnp.ones((1, 2)))


def test_tabulate_counts_operations():
    table = nnx.tabulate(make("classifier"), inputs("classifier"), compute_flops=True)
    assert "flops" in table


@every
def test_display_and_repr(name, capsys):
    module = make(name)
    nnx.display(module)
    assert type(module).__name__ in capsys.readouterr().out
    assert type(module).__name__ in repr(module)


@every
def test_copies(name):
    module, u = make(name), inputs(name)
    same(nnx.clone(module), module, u)
    same(nnx.merge(*nnx.split(module)), module, u)
    same(copy.deepcopy(module), module, u)
    if name == "gru":
        # Nor can the cell of Flax.
        with pytest.raises(pickle.PicklingError, match="Can't pickle <function sigmoid"):
            pickle.dumps(nnx.GRUCell(2, 2, rngs=nnx.Rngs(0)))
    else:
        same(pickle.loads(pickle.dumps(module)), module, u)


@every
def test_orbax(name, tmp_path):
    module, other = make(name), make(name, seed=1)
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", nnx.state(module))
        checkpointer.wait_until_finished()
        graphdef, abstract = nnx.split(nnx.eval_shape(lambda: make(name)))
        restored = checkpointer.restore(tmp_path / "state", abstract)
    nnx.update(other, restored)
    same(other, module, inputs(name))
    same(nnx.merge(graphdef, restored), module, inputs(name))


@every
def test_iter_modules(name):
    modules = list(nnx.iter_modules(make(name)))
    kind = s5jax.SequenceLayer
    paths = [path for path, node in modules if isinstance(node, kind)]
    inside = [] if name == "backbone" else ["backbone"]
    in_blocks = [(*inside, "blocks", i, "layer") for i in range(2)]
    in_layer = [("ssm",), ()] if name == "hyena" else [()]
    assert paths == (in_layer if name in LAYERS else in_blocks)
    assert ((), type(make(name))) in [(path, type(node)) for path, node in modules]


@every
def test_jit_remat_and_cached_partial(name):
    module, u = make(name), inputs(name)
    expected = run(module, u)
    assert_close(nnx.jit(lambda m, u: m(u))(module, u), expected, rtol=1e-6)
    assert_close(nnx.cached_partial(nnx.jit(lambda m, u: m(u)), module)(u), expected, rtol=1e-6)
    plain = nnx.jit(nnx.grad(loss))(module, u)
    again = nnx.jit(nnx.grad(nnx.remat(loss)))(module, u)
    assert_close(nnx.to_pure_dict(again), nnx.to_pure_dict(plain))


@every
def test_gradients_of_some_parameters(name):
    module, u = make(name), inputs(name)
    everything = nnx.jit(nnx.grad(loss))(module, u)

    def is_slow(path, variable):
        return isinstance(variable, nnx.Param) and variable.get_metadata().get("group") == "ssm"

    some = nnx.jit(nnx.grad(loss, argnums=nnx.DiffState(0, is_slow)))(module, u)
    flat = dict(nnx.to_flat_state(everything))
    chosen = {path for path, variable in flat.items() if is_slow(path, variable)}
    assert {path for path, _ in nnx.to_flat_state(some)} == chosen
    for path, gradient in nnx.to_flat_state(some):
        assert_close(gradient[...], flat[path][...])


@every
def test_optimizer_and_metrics(name):
    module, u = MODULES[name](), inputs(name)
    optimizer = nnx.Optimizer(module, optax.adam(1e-2), wrt=nnx.Param)
    metrics = nnx.MultiMetric(loss=nnx.metrics.Average("loss"))

    @nnx.jit
    def train_step(module, optimizer, metrics, u):
        value, gradients = nnx.value_and_grad(loss)(module, u)
        optimizer.update(module, gradients)
        metrics.update(loss=value)

    for _ in range(3):
        train_step(module, optimizer, metrics, u)
    assert np.isfinite(metrics.compute()["loss"])
    before = nnx.state(MODULES[name](), nnx.Param)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), before, nnx.state(module, nnx.Param))
    assert any(jax.tree.leaves(changed))


@every
def test_vmap_over_a_stack(name):
    u = jnp.stack([inputs(name)] * 3)

    stack = make_stack(name)
    y = nnx.jit(nnx.vmap(lambda module, u: module(u)))(stack, u)
    for i in range(3):
        assert_close(y[i], run(make(name, i), u[i]))


SAME_WIDTH = [name for name in MODULES if name in LAYERS or name == "backbone"]


@pytest.mark.parametrize("name", tiers(SAME_WIDTH, FAST))
def test_scan_over_a_stack(name):
    stack = make_stack(name)

    @nnx.jit
    def call(stack, u):
        return nnx.scan(lambda u, module: module(u), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(
            u, stack
        )

    expected = inputs(name)
    for i in range(3):
        expected = run(make(name, i), expected)
    assert_close(call(stack, inputs(name)), expected)


@pytest.mark.parametrize("remat", [False, True])
def test_jax_transformations_ask_for_evaluation_mode(remat):
    fresh = SequenceClassifier(S5, rngs=nnx.Rngs(0), **OPTIONS, **LABELS, remat=remat)
    u = inputs("classifier")
    for transformed in (
        jax.jit(fresh),
        jax.jit(lambda u: fresh(u, lengths=jnp.array([3, 6]))),
        jax.grad(lambda u: fresh(u).sum()),
        jax.vmap(fresh),
    ):
        with pytest.raises(ValueError, match=r"Call model.eval\(\) first"):
            transformed(u)
    assert nnx.jit(lambda model, u: model(u))(fresh, u).shape == (2, 2)
    fresh.eval()
    assert jax.jit(fresh)(u).shape == (2, 2)
