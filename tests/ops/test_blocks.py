import functools

import jax
import jax.numpy as jnp
import pytest
from helpers import assert_close, normal, tiers
from jax.test_util import check_grads

from s5jax.ops import block_scan, s5_scan_ref
from s5jax.ops._blocks import entering_states, power, steps_of_block


def system(P, H, *, batch=(2,), L=1):
    """Arguments of the scans: eigenvalues inside the unit circle, and everything else random."""
    z = normal(0, 4, P, H)
    radius, angle = jax.nn.sigmoid(z[0, :, 0]), 3 * z[1, :, 0]
    return {
        "Lambda_bar": radius * jnp.exp(1j * angle),
        "B_bar": jax.lax.complex(z[2], z[3]),
        "C": jax.lax.complex(normal(1, H, P), normal(2, H, P)),
        "u": normal(3, *batch, L, H),
        "x0": jax.lax.complex(normal(4, *batch, P), normal(5, *batch, P)),
        "D": normal(6, H),
    }


def values_and_gradients(scan, arguments, **options):
    def loss(arguments):
        out = scan(**arguments, **options)
        leaves = jax.tree.leaves(jax.tree.map(lambda x: jnp.stack([x.real, x.imag]), out))
        return sum(jnp.sum(x * jnp.cos(jnp.arange(x.size)).reshape(x.shape)) for x in leaves), out

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(arguments)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("L", "P", "H", "block"),
    tiers(
        [
            (1, 3, 2, None),
            (16, 3, 2, 4),
            (33, 2, 5, 4),
            (150, 5, 3, 2),
            (70, 1, 1, 1),
            (9, 4, 130, None),
        ],
        {(33, 2, 5, 4), (9, 4, 130, None)},
    ),
)
def test_values_and_gradients(L, P, H, block, reverse):
    arguments = system(P, H, L=L)
    actual = values_and_gradients(block_scan, arguments, reverse=reverse, block=block)
    expected = values_and_gradients(s5_scan_ref, arguments, reverse=reverse)
    assert_close(actual, expected, rtol=2e-5)


def test_what_may_be_left_out():
    arguments = {name: x for name, x in system(3, 2, L=10).items() if name not in ("x0", "D")}
    assert_close(jax.jit(block_scan)(**arguments), s5_scan_ref(**arguments))


@pytest.mark.parametrize(
    "batch",
    [
        pytest.param((), marks=pytest.mark.slow),
        pytest.param((0,), marks=pytest.mark.slow),
        (2, 3),
    ],
)
def test_batches(batch):
    arguments = system(3, 2, batch=batch, L=10)
    assert_close(jax.jit(block_scan)(**arguments), s5_scan_ref(**arguments))


@pytest.mark.parametrize("reverse", tiers([False, True], {True}))
@pytest.mark.parametrize("n", tiers([5, 70], {5}))
def test_derivatives_of_the_scan_over_blocks(n, reverse):
    """In all arguments and in each alone, in both modes, twice."""
    arguments = 0.5 * normal(0, 2, 3), normal(1, 2, n, 6), normal(2, 2, 6)
    scan = functools.partial(entering_states, reverse)
    check_grads(jax.jit(scan), arguments, order=2, modes=("fwd", "rev"), atol=2e-2, rtol=2e-2)
    for i, argument in enumerate(arguments):

        def alone(x, i=i):
            return scan(*arguments[:i], x, *arguments[i + 1 :])

        check_grads(
            jax.jit(alone), (argument,), order=1, modes=("fwd", "rev"), atol=2e-2, rtol=2e-2
        )


def test_vmap_over_systems():
    stacked = jax.tree.map(lambda *x: jnp.stack(x), system(3, 2, L=10), system(3, 2, L=10))
    both = jax.jit(jax.vmap(lambda arguments: block_scan(**arguments)))(stacked)
    assert_close(jax.tree.map(lambda x: x[1], both), s5_scan_ref(**system(3, 2, L=10)))


@pytest.mark.parametrize("n", [0, 1, 2, 13])
def test_powers(n):
    z = jnp.array([0.9 + 0.3j, -0.2 + 0.5j])
    assert_close(power(jnp.stack([z.real, z.imag]), n), jnp.stack([(z**n).real, (z**n).imag]))


def test_blocks_have_about_a_thousand_inputs():
    assert [steps_of_block(H) for H in (1, 64, 128, 256, 300, 4096)] == [16, 16, 8, 4, 2, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block": 0}, "block_scan: `block` must be"),
        ({"Lambda_bar": jnp.ones((2, 3), complex)}, r"block_scan: `Lambda_bar` must be constant"),
        ({"u": jnp.ones((2, 0, 2))}, r"block_scan: `u` must have shape"),
        ({"D": jnp.ones(3)}, r"block_scan: `D` must have shape \(2,\)"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        block_scan(**system(3, 2, L=4) | changes)
