"""The table of layers that the conformance suite runs over, and shared tools."""

import dataclasses
import functools
import re
from collections.abc import Callable, Container, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from s5jax import (
    DLR,
    GRU,
    HOPE,
    LRU,
    S4,
    S4D,
    S5,
    Attention,
    DenseSSM,
    Hyena,
    LinOSS,
    SequenceLayer,
    SGConv,
)

H = 4


def code_of(page: str, *, containing: str) -> str:
    """The block of Python on a page of the repository that contains a text."""
    text = (Path(__file__).parents[1] / page).read_text()
    (block,) = (b for b in re.findall("```python\n(.*?)```", text, re.DOTALL) if containing in b)
    return block


page: dict[str, Any] = {"__name__": __name__}
exec(code_of("CONTRIBUTING.md", containing="class Leaky"), page)
Leaky = page["Leaky"]
"""The smallest layer: three methods and no more, as CONTRIBUTING shows it."""


class LaggingLeaky(Leaky):
    """Its backward map starts with the next step."""

    backward_delay = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traits:
    """What a layer promises. The table states it, and the suite holds the class to it."""

    linear: bool
    """Outputs are linear in the inputs, so that there is an impulse response."""

    has_ssm: bool
    """`to_ssm` gives matrices, if the layer is causal."""

    continuous_time: bool
    """There is a step length, and hence a ``dt``."""

    mixes_features: bool
    """An output feature depends on other input features."""

    fast_edits: bool
    """Resets and lengths do not make it run `advance` step by step."""

    backward_delay: int
    """Steps by which the backward map of a bidirectional layer lags."""


TRAITS = {
    S5: Traits(
        linear=True,
        has_ssm=True,
        continuous_time=True,
        mixes_features=True,
        fast_edits=True,
        backward_delay=0,
    ),
    LRU: Traits(
        linear=True,
        has_ssm=True,
        continuous_time=False,
        mixes_features=True,
        fast_edits=True,
        backward_delay=0,
    ),
    LinOSS: Traits(
        linear=True,
        has_ssm=True,
        continuous_time=True,
        mixes_features=True,
        fast_edits=True,
        backward_delay=0,
    ),
    S4: Traits(
        linear=True,
        has_ssm=True,
        continuous_time=True,
        mixes_features=False,
        fast_edits=False,
        backward_delay=1,
    ),
    S4D: Traits(
        linear=True,
        has_ssm=True,
        continuous_time=True,
        mixes_features=False,
        fast_edits=False,  # on a CPU, where steps are faster than a parallel scan
        backward_delay=1,
    ),
    DLR: Traits(
        linear=True,
        has_ssm=True,
        continuous_time=False,
        mixes_features=False,
        fast_edits=False,  # as S4D
        backward_delay=1,
    ),
    HOPE: Traits(
        linear=True,
        has_ssm=True,
        continuous_time=False,
        mixes_features=False,
        fast_edits=False,
        backward_delay=1,
    ),
    Attention: Traits(
        linear=False,
        has_ssm=False,
        continuous_time=False,
        mixes_features=True,
        fast_edits=True,
        backward_delay=0,
    ),
    GRU: Traits(
        linear=False,
        has_ssm=False,
        continuous_time=False,
        mixes_features=True,
        fast_edits=False,
        backward_delay=0,
    ),
    Hyena: Traits(
        linear=False,
        has_ssm=False,
        continuous_time=True,
        mixes_features=True,
        fast_edits=True,
        backward_delay=0,
    ),
    SGConv: Traits(
        linear=True,
        has_ssm=True,
        continuous_time=False,
        mixes_features=False,
        fast_edits=True,
        backward_delay=1,
    ),
    DenseSSM: Traits(
        linear=True,
        has_ssm=True,
        continuous_time=False,
        mixes_features=False,
        fast_edits=False,
        backward_delay=0,
    ),
    Leaky: Traits(
        linear=True,
        has_ssm=True,
        continuous_time=False,
        mixes_features=False,
        fast_edits=False,
        backward_delay=0,
    ),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer of the table; traits say which parts of the contract apply."""

    layer: Callable[..., SequenceLayer]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    differs: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Traits in which the row differs from its family."""

    exact_hold: bool = False
    """A step of length n equals n unit steps on a held input."""

    tolerance_16k: float = 2e-5
    """float32 against float64 at L = 16,384, relative to the largest output."""

    transform_noise: float = 0.0
    """Largest gradient in an input to come, relative: the rounding of a Fourier transform."""

    slow: bool = False
    """A variant of another row, left to `make test-all`."""

    def make(self, seed: int = 0, **overrides: Any) -> SequenceLayer:
        return self.layer(d_model=H, rngs=nnx.Rngs(seed), **(self.options | overrides))

    @property
    def bidirectional(self) -> bool:
        return self.options.get("bidirectional", False)

    @property
    def traits(self) -> Traits:
        family = Leaky if self.layer is LaggingLeaky else self.layer
        return dataclasses.replace(TRAITS[family], **self.differs)


LAYERS = {
    "s5": Row(S5, {"d_state": 8}, exact_hold=True),
    "s5_blocks_full": Row(
        S5,
        {
            "d_state": 6,
            "n_blocks": 2,
            "conj_sym": False,
            "discretization": "bilinear",
            "clip_eigs": True,
            "C_init": "lecun_normal",
        },
        slow=True,
    ),
    "s5_bidirectional": Row(S5, {"d_state": 8, "bidirectional": True, "C_init": "complex_normal"}),
    "s5_associative": Row(
        S5, {"d_state": 8, "algorithm": "associative"}, exact_hold=True, slow=True
    ),
    "s5_block": Row(S5, {"d_state": 8, "algorithm": "block"}, exact_hold=True, slow=True),
    "s5_block_bidirectional": Row(
        S5, {"d_state": 8, "bidirectional": True, "algorithm": "block"}, slow=True
    ),
    "lru": Row(LRU, {"d_state": 8}, slow=True),
    "lru_block": Row(LRU, {"d_state": 8, "algorithm": "block"}, slow=True),
    "lru_ring": Row(
        LRU, {"d_state": 5, "r_min": 0.9, "r_max": 0.999, "algorithm": "associative"}, slow=True
    ),
    "lru_bidirectional": Row(
        LRU, {"d_state": 8, "max_phase": 0.3, "bidirectional": True}, slow=True
    ),
    "hyena": Row(Hyena, {"d_state": 8}),
    "hyena_bidirectional": Row(
        Hyena, {"d_state": 8, "n_blocks": 2, "filter_length": 4, "bidirectional": True}, slow=True
    ),
    "hyena_no_filter": Row(Hyena, {"d_state": 8, "filter_length": 1}, slow=True),
    "linoss": Row(LinOSS, {"d_state": 8}),
    "linoss_block": Row(LinOSS, {"d_state": 5, "algorithm": "block"}, slow=True),
    "linoss_bidirectional": Row(LinOSS, {"d_state": 8, "bidirectional": True}, slow=True),
    "s4": Row(S4, {"d_state": 8}, transform_noise=1e-7, slow=True),
    "s4_shared_rank2": Row(
        S4,
        {
            "d_state": 6,
            "n_ssm": 2,
            "init": "legt",
            "dt_transform": "softplus",
            "real_transform": "softplus",
        },
        transform_noise=1e-7,
        slow=True,
    ),
    "s4_cauchy": Row(S4, {"d_state": 8, "algorithm": "cauchy"}, transform_noise=1e-7, slow=True),
    "s4_fourier": Row(S4, {"d_state": 8, "init": "fourier"}, transform_noise=1e-7, slow=True),
    "s4_bidirectional": Row(S4, {"d_state": 8, "bidirectional": True}, slow=True),
    "s4_chunked": Row(S4, {"d_state": 8, "algorithm": "chunked"}),
    "s4d_chunked": Row(S4D, {"d_state": 8, "algorithm": "chunked"}, exact_hold=True, slow=True),
    "hope_chunked": Row(
        HOPE, {"d_state": 5, "algorithm": "chunked", "bidirectional": True}, slow=True
    ),
    "s4d": Row(S4D, {"d_state": 8}, exact_hold=True, transform_noise=1e-7, slow=True),
    "s4d_associative": Row(
        S4D,
        {"d_state": 4, "algorithm": "associative"},
        {"fast_edits": True},
        exact_hold=True,
        transform_noise=1e-7,
        slow=True,
    ),
    "s4d_shared_bilinear": Row(
        S4D,
        {
            "d_state": 6,
            "n_ssm": 2,
            "init": "lin",
            "discretization": "bilinear",
            "dt_transform": "softplus",
            "real_transform": "softplus",
        },
        transform_noise=1e-7,
        slow=True,
    ),
    "s4d_dfout": Row(
        S4D,
        {"d_state": 6, "n_ssm": 2, "init": "dfout"},
        exact_hold=True,
        transform_noise=1e-7,
        slow=True,
    ),
    "s4d_bidirectional": Row(S4D, {"d_state": 8, "init": "inv", "bidirectional": True}, slow=True),
    "dlr": Row(DLR, {"d_state": 8}, transform_noise=1e-7, slow=True),
    "dlr_scan_sum": Row(
        DLR, {"d_state": 6, "algorithm": "scan", "kernel_to_real": "sum", "dt_min": 0.1}, slow=True
    ),
    "dlr_prod": Row(DLR, {"d_state": 3, "kernel_to_real": "prod"}, transform_noise=1e-7, slow=True),
    "dlr_bidirectional": Row(
        DLR, {"d_state": 8, "kernel_to_real": "imag", "bidirectional": True}, slow=True
    ),
    "dlr_scan_bidirectional": Row(
        DLR, {"d_state": 5, "algorithm": "scan", "dt_min": 0.1, "bidirectional": True}, slow=True
    ),
    "dss_exp": Row(DLR, {"d_state": 8, "version": "dss_exp"}, transform_noise=1e-7, slow=True),
    "hope": Row(HOPE, {"d_state": 8}, transform_noise=1e-7, slow=True),
    "hope_bidirectional": Row(
        HOPE,
        {"d_state": 5, "dt_max": 10.0, "decay_exp": -0.5, "bidirectional": True},
        slow=True,
    ),
    "attention": Row(Attention, {"n_heads": 2, "l_max": 8}),
    "attention_bidirectional": Row(
        Attention, {"n_heads": 1, "l_max": 9, "bidirectional": True}, slow=True
    ),
    "gru": Row(GRU, {"d_state": 5}),
    "gru_bidirectional": Row(GRU, {"d_state": 3, "bidirectional": True}, slow=True),
    "sgconv": Row(SGConv, {"l_max": 21, "kernel_dim": 3}, transform_noise=1e-7),
    "sgconv_learnable_cosine": Row(
        SGConv,
        {"l_max": 8, "kernel_dim": 2, "init_scale": 1, "init": "cosine", "decay": "learnable"},
        transform_noise=1e-7,
        slow=True,
    ),
    "sgconv_bidirectional": Row(
        SGConv, {"l_max": 30, "kernel_dim": 4, "decay_min": 1.0, "bidirectional": True}, slow=True
    ),
    "dense_ssm": Row(DenseSSM, {"d_state": 5}, slow=True),
    "dense_ssm_multi_input": Row(
        DenseSSM, {"d_state": 5, "multi_input": True}, {"mixes_features": True}, slow=True
    ),
    "leaky": Row(Leaky, slow=True),
    "leaky_bidirectional": Row(Leaky, {"bidirectional": True}, slow=True),
    "leaky_lagging": Row(LaggingLeaky, {"bidirectional": True}, {"backward_delay": 1}),
}


def each(rows: dict[str, Row], fast: Container[str] | None = None):
    """The rows that the fast tier takes are those of the table, unless they are named."""

    def is_slow(name: str, row: Row) -> bool:
        return row.slow if fast is None else name not in fast

    return pytest.mark.parametrize(
        "row",
        [
            pytest.param(row, id=name, marks=[pytest.mark.slow] * is_slow(name, row))
            for name, row in rows.items()
        ],
    )


def tiers(names: Iterable[Any], fast: Container[Any]) -> list[Any]:
    """Parameters of a test, of which the fast tier takes those in ``fast``; a tuple is several."""
    return [
        pytest.param(
            *(name if isinstance(name, tuple) else (name,)),
            marks=[] if name in fast else [pytest.mark.slow],
        )
        for name in names
    ]


def make_for_devices(row: Row) -> SequenceLayer:
    """The row's layer; attention gets a head for each device."""
    if row.layer is not Attention:
        return row.make()
    return Attention(8, rngs=nnx.Rngs(0), **{**row.options, "n_heads": 4})


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def run(module: nnx.Module, u: Any, *, return_state: bool = False, **arguments: Any) -> Any:
    """Calls a layer or model under `jax.jit`; tests with equal shapes share the compilation."""
    graphdef, parameters = nnx.split(module)
    return _run(graphdef, parameters, u, arguments, return_state)


def shaken(model: nnx.Module) -> nnx.Module:
    """The model in evaluation mode, with norms that do something."""
    keys = iter(jax.random.split(jax.random.key(7), 100))

    def shake(x: jax.Array) -> jax.Array:
        return x + 0.3 * jax.random.uniform(next(keys), x.shape)

    nnx.update(model, jax.tree.map(shake, nnx.state(model)))
    model.eval()
    return model


@functools.partial(jax.jit, static_argnums=(0, 4))
def _run(graphdef, parameters, u, arguments, return_state):
    options = {"return_state": True} if return_state else {}
    return nnx.merge(graphdef, parameters)(u, **arguments, **options)


def loss_and_grads(
    layer: nnx.Module, loss: Callable[[Any, Any], Any], u: Any, *, has_aux: bool = False
) -> Any:
    """Value of ``loss(layer, u)`` and its gradients in the parameters and in ``u``."""
    graphdef, parameters = nnx.split(layer)
    return _loss_and_grads(graphdef, loss, has_aux, parameters, u)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _loss_and_grads(graphdef, loss, has_aux, parameters, u):
    def value(parameters, u):
        return loss(nnx.merge(graphdef, parameters), u)

    return jax.value_and_grad(value, argnums=(0, 1), has_aux=has_aux)(parameters, u)


def weigh(tree: Any) -> jax.Array:
    """A scalar that depends on every number in its own way."""
    total = jnp.zeros(())
    for x in jax.tree.leaves(tree):
        weights = jnp.cos(jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape)
        total += jnp.sum(weights * (jnp.tanh(x.real) + jnp.tanh(x.imag)))
    return total


def by_definition(
    layer: SequenceLayer,
    u: jax.Array,
    *,
    dt: jax.Array | None = None,
    resets: jax.Array,
    valid: jax.Array,
) -> tuple[jax.Array, Any]:
    """Outputs and last state by the three methods that define a layer, one step after the other.

    For a batch of sequences; what is given may differ from step to step.
    """
    batch, L = u.shape[:-2], u.shape[-2]
    start = layer.init_state(batch)

    def select(mask: jax.Array, on_true: Any, on_false: Any) -> Any:
        def one(x: jax.Array, y: jax.Array) -> jax.Array:
            return jnp.where(mask.reshape(*batch, *(1,) * (x.ndim - len(batch))), x, y)

        return jax.tree.map(one, on_true, on_false)

    def scan(*, backward: bool) -> tuple[jax.Array, Any]:
        # In its own direction a segment starts at its reset, or after its last step.
        first = resets
        if backward:
            first = jnp.concatenate([resets[..., 1:], jnp.ones_like(resets[..., :1])], -1)

        def body(state: Any, k: jax.Array) -> tuple[Any, jax.Array]:
            coefficients = layer.coefficients(None if dt is None else dt[..., k], backward=backward)
            state = select(first[..., k], start, state)
            y, after = layer.advance(coefficients, state, jnp.take(u, k, axis=-2))
            return select(valid[..., k], after, state), y

        last, y = jax.lax.scan(body, start, jnp.arange(L), reverse=backward)
        return jnp.moveaxis(y, 0, -2), last

    y, last = scan(backward=False)
    if layer.bidirectional:
        ahead, _ = scan(backward=True)
        for _ in range(layer.backward_delay):
            ahead = jnp.where((valid & ~resets)[..., None], ahead, 0.0)
            ahead = jnp.concatenate([ahead[..., 1:, :], jnp.zeros_like(ahead[..., :1, :])], -2)
        y = y + ahead
    return jnp.where(valid[..., None], y, 0.0), last


def values_and_gradients(f: Callable[..., jax.Array], *arguments: Any) -> Any:
    """``f(*arguments)`` and the gradients of a weighted sum of it, under one `jax.jit`."""

    def loss(arguments):
        y = f(*arguments)
        weights = jnp.cos(jnp.arange(y.size)).reshape(y.shape)
        return jnp.sum(weights * y.real) + jnp.sum(weights**2 * y.imag), y

    gradients, y = jax.jit(jax.grad(loss, has_aux=True))(arguments)
    return y, gradients


def assert_close(actual: Any, expected: Any, rtol: float = 1e-5) -> None:
    """Every leaf agrees to ``rtol`` of the largest expected entry of that leaf."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        a, e = np.asarray(a), np.asarray(e)
        scale = max(np.abs(e).max(initial=0.0), 1e-3)
        np.testing.assert_allclose(a, e, rtol=0, atol=rtol * scale)
