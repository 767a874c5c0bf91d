"""The table of layers that the conformance suite runs over, and shared tools."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from s5jax import DLR, GRU, HOPE, LRU, S4, S4D, S5, Attention, DenseSSM, SequenceLayer, SGConv

H = 4


class Leaky(SequenceLayer):
    """The smallest family: one leaky integrator a feature, with the four methods and no more."""

    def __init__(self, d_model, *, bidirectional=False, dtype=None, param_dtype=jnp.float32, rngs):
        self.d_model, self.bidirectional = d_model, bidirectional
        self.dtype, self.param_dtype = dtype, param_dtype
        self.decay = nnx.Param(jax.random.uniform(rngs.params(), (2, d_model), param_dtype))

    def coefficients(self, dt=None, *, backward=False):
        return self.decay[int(backward)]

    def init_state(self, batch_shape=()):
        return jnp.zeros(
            (*batch_shape, self.d_model), jnp.promote_types(self.param_dtype, "float32")
        )

    def advance(self, coefficients, state, u):
        state = coefficients * state + u
        return state.astype(u.dtype), state

    def parallel(self, coefficients, state, u):
        x, y = jax.lax.scan(
            lambda x, u_k: self.advance(coefficients, x, u_k)[::-1], state, jnp.moveaxis(u, -2, 0)
        )
        return jnp.moveaxis(y, 0, -2), x


class LaggingLeaky(Leaky):
    """Its backward map starts with the next step."""

    backward_delay = 1


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer of the table; traits say which parts of the contract apply."""

    layer: Callable[..., SequenceLayer]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
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
    "s5_associative": Row(S5, {"d_state": 8, "backend": "associative"}, exact_hold=True, slow=True),
    "lru": Row(LRU, {"d_state": 8}, slow=True),
    "lru_ring": Row(
        LRU, {"d_state": 5, "r_min": 0.9, "r_max": 0.999, "backend": "associative"}, slow=True
    ),
    "lru_bidirectional": Row(
        LRU, {"d_state": 8, "max_phase": 0.3, "bidirectional": True}, slow=True
    ),
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
    "s4_cauchy": Row(S4, {"d_state": 8, "backend": "cauchy"}, transform_noise=1e-7, slow=True),
    "s4_fourier": Row(S4, {"d_state": 8, "init": "fourier"}, transform_noise=1e-7, slow=True),
    "s4_bidirectional": Row(S4, {"d_state": 8, "bidirectional": True}, slow=True),
    "s4_chunked": Row(S4, {"d_state": 8, "conv": "chunked"}),
    "s4d_chunked": Row(S4D, {"d_state": 8, "conv": "chunked"}, exact_hold=True, slow=True),
    "hope_chunked": Row(HOPE, {"d_state": 5, "conv": "chunked", "bidirectional": True}, slow=True),
    "s4d": Row(S4D, {"d_state": 8}, exact_hold=True, transform_noise=1e-7, slow=True),
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
    "s4d_bidirectional": Row(S4D, {"d_state": 8, "init": "inv", "bidirectional": True}, slow=True),
    "dlr": Row(DLR, {"d_state": 8}, transform_noise=1e-7, slow=True),
    "dlr_scan_sum": Row(
        DLR, {"d_state": 6, "conv": "scan", "kernel_to_real": "sum", "dt_min": 0.1}, slow=True
    ),
    "dlr_prod": Row(DLR, {"d_state": 3, "kernel_to_real": "prod"}, transform_noise=1e-7, slow=True),
    "dlr_bidirectional": Row(
        DLR, {"d_state": 8, "kernel_to_real": "imag", "bidirectional": True}, slow=True
    ),
    "dlr_scan_bidirectional": Row(
        DLR, {"d_state": 5, "conv": "scan", "dt_min": 0.1, "bidirectional": True}, slow=True
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
    "dense_ssm_multi_input": Row(DenseSSM, {"d_state": 5, "multi_input": True}, slow=True),
    "leaky": Row(Leaky, slow=True),
    "leaky_bidirectional": Row(Leaky, {"bidirectional": True}, slow=True),
    "leaky_lagging": Row(LaggingLeaky, {"bidirectional": True}),
}


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def run(module: nnx.Module, u: Any, *, return_state: bool = False, **arguments: Any) -> Any:
    """Calls a layer or model under `jax.jit`; tests with equal shapes share the compilation."""
    graphdef, parameters = nnx.split(module)
    return _run(graphdef, parameters, u, arguments, return_state)


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
