"""What only the dense state space promises; the contract is in `test_conformance`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close, run

from s5jax import DenseSSM, param_labels

H, N = 3, 4


@pytest.mark.parametrize("multi_input", [False, True])
@jax.enable_x64(True)
def test_layer_is_the_recurrence(multi_input):
    """The output is read before the input enters the state."""
    layer = DenseSSM(H, N, multi_input=multi_input, param_dtype="float64", rngs=nnx.Rngs(0))
    A, B, C, D = (np.asarray(getattr(layer, name)[...]) for name in "ABCD")
    u = np.random.default_rng(0).normal(size=(20, H))
    y = np.zeros_like(u)
    for g in range(len(A)):
        own = slice(None) if multi_input else slice(g, g + 1)
        x = np.zeros(N)
        for k, u_k in enumerate(u):
            y[k, own] = C[g] @ x + D[g] @ u_k[own]
            x = A[g] @ x + B[g] @ u_k[own]
    assert_close(run(layer, jnp.asarray(u)), y, rtol=1e-12)


def test_fresh_matrices_are_stable():
    A = DenseSSM(8, 6, rngs=nnx.Rngs(0)).A[...]
    assert_close(np.linalg.svd(A, compute_uv=False), np.full((8, 6), 0.95), rtol=1e-5)


def test_optimiser_groups():
    labels = param_labels(DenseSSM(H, N, rngs=nnx.Rngs(0)))
    assert labels == {"A": "ssm", "B": "ssm", "C": "regular", "D": "regular"}


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="DenseSSM: `d_state` must be a positive integer; got 0"):
        DenseSSM(H, 0, rngs=nnx.Rngs(0))
