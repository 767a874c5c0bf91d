import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from helpers import assert_close, normal

from s5jax import GRU, S4D, S5, LanguageModel, SequenceClassifier, load, save


def classifier(**options):
    sizes = {"d_input": 2, "d_output": 3, "d_model": 4, "n_layers": 1}
    return SequenceClassifier(GRU, layer_options={"d_state": 3}, **sizes, **options)


def language_model(**options):
    sizes = {"d_input": 7, "d_model": 4, "n_layers": 2, "ffn_every": 1, "norm": "layer"}
    return LanguageModel(S5, layer_options={"d_state": 4}, **sizes, **options)


def step(model, u, **arguments):
    """Loss, gradients and statistics after a training step."""
    model.train()
    graph, params, stats = nnx.split(model, nnx.Param, ...)
    params, stats = nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

    @jax.jit
    def compute(params):
        def loss(params):
            merged = nnx.merge(graph, params, stats)
            y = merged(u, rngs=nnx.Rngs(dropout=3), **arguments)
            return (jnp.sin(y) ** 2).sum(), nnx.to_pure_dict(nnx.state(merged, nnx.BatchStat))

        return jax.value_and_grad(loss, has_aux=True)(params)

    return compute(params)


LENGTHS = jnp.array([9, 5])
TOKENS = jax.random.randint(jax.random.key(1), (2, 9), 0, 7)


@pytest.mark.parametrize(
    ("make", "u", "arguments"),
    [
        (classifier, normal(0, 2, 9, 2), {"lengths": LENGTHS}),
        pytest.param(
            language_model,
            TOKENS,
            {"lengths": LENGTHS, "resets": normal(1, 2, 9) > 1, "dt": 0.5},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_recomputation_changes_nothing(make, u, arguments):
    plain, remat = (
        step(make(remat=remat, dropout=0.4, rngs=nnx.Rngs(0)), u, **arguments)
        for remat in (False, True)
    )
    assert_close(jax.tree.leaves(remat), jax.tree.leaves(plain), rtol=1e-5)


def test_states_are_those_without(tmp_path):
    plain, remat = (classifier(remat=remat, rngs=nnx.Rngs(0)) for remat in (False, True))
    plain.eval()
    save(remat, tmp_path)
    remat = load(tmp_path)
    assert remat.backbone.remat
    u = normal(0, 2, 6, 2)
    expected, state = jax.jit(lambda u: plain(u, return_state=True))(u)
    y, their_state = jax.jit(lambda u: remat(u, return_state=True))(u)
    assert_close((y, their_state), (expected, state))


@pytest.mark.slow
def test_temporary_memory_falls():
    def temporary(remat):
        model = SequenceClassifier(
            S4D,
            layer_options={"d_state": 32, "bidirectional": True},
            **{"d_input": 1, "d_output": 2, "d_model": 32, "n_layers": 6},
            remat=remat,
            rngs=nnx.Rngs(0),
        )
        model.eval()
        graph, params, stats = nnx.split(model, nnx.Param, ...)

        def loss(params, u):
            return (nnx.merge(graph, params, stats)(u) ** 2).sum()

        lowered = jax.jit(jax.grad(loss)).lower(params, jnp.ones((4, 4096, 1)))
        program = lowered.compile({"xla_disable_hlo_passes": "cse_barrier_expander"})
        return program.memory_analysis().temp_size_in_bytes

    assert temporary(True) < 0.5 * temporary(False)
