import jax
import jax.numpy as jnp
import pytest
from helpers import assert_close, normal, tiers
from jax.test_util import check_grads

from s5jax.ops._parallel_chunks import convolve_chunks

T, N, H = 3, 4, 2


def matrix(carry):
    """Random but for the part between states, which complex numbers may give."""
    if jnp.iscomplexobj(carry):
        carry = jax.vmap(lambda a: jnp.block([[a.real, -a.imag], [a.imag, a.real]]))(
            jax.vmap(jnp.diag)(carry)
        )
    return normal(0, H, T + N, T + N).astype(carry.dtype).at[:, T:, T:].set(carry)


def carry(diagonal):
    if diagonal:
        return jax.lax.complex(*normal(1, 2, H, N // 2)) / 2
    return normal(1, H, N, N) / 4


def one_by_one(diagonal, M, u):
    """Chunk after chunk."""
    A = M if diagonal else M.at[:, T:, T:].add(jnp.eye(N))

    def advance(s, u):
        out = jnp.einsum("hmn,...hn->...hm", A, jnp.concatenate([u, s], -1), precision="highest")
        return out[..., T:], out[..., :T]

    chunks = jnp.moveaxis(jnp.swapaxes(u, -1, -2), -3, 0)
    y = jax.lax.scan(advance, jnp.zeros((*chunks.shape[1:-1], N)), chunks)[1]
    return jnp.swapaxes(jnp.moveaxis(y, 0, -3), -1, -2)


@pytest.mark.parametrize("n", [1, 8, 9])
@pytest.mark.parametrize("diagonal", [False, True])
def test_values(diagonal, n):
    M, u = matrix(carry(diagonal)), normal(2, 2, n, T, H)
    y = jax.jit(convolve_chunks, static_argnums=0)(diagonal, M, u)
    assert_close(y, one_by_one(diagonal, M, u), rtol=1e-5)


@pytest.mark.parametrize("diagonal", tiers([False, True], {True}))
def test_derivatives(diagonal):
    """In both arguments and in each alone, in both modes, twice."""
    a, u = carry(diagonal) / 2, normal(2, 10, T, H)
    run = jax.jit(lambda a, u: convolve_chunks(diagonal, matrix(a) / 4, u))
    close = {"modes": ("fwd", "rev"), "atol": 2e-2, "rtol": 2e-2}
    check_grads(run, (a, u), order=2, **close)
    check_grads(lambda a: run(a, u), (a,), order=1, **close)
    check_grads(lambda u: run(a, u), (u,), order=1, **close)


def test_vmap():
    M, u = matrix(carry(False)), normal(2, 2, 9, T, H)
    both = jax.jit(jax.vmap(lambda u: convolve_chunks(False, M, u)))(u)
    assert_close(both, convolve_chunks(False, M, u), rtol=1e-5)
