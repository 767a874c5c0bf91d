"""Convolution and pooling as one product, against XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s5jax.ops import pooled_conv, pooled_conv_ref

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding"),
    [
        ((5, 24, 24, 1), (5, 5, 1, 12), 1, 2),
        ((5, 12, 12, 12), (3, 3, 12, 12), 2, 1),
        ((2, 8, 12, 2), (3, 3, 2, 3), 1, 1),
        ((2, 8, 4, 3), (1, 1, 3, 2), 2, 0),
        ((2, 6, 6, 1), (3, 3, 1, 1), 1, 1),
        ((1, 12, 18, 2), (4, 4, 2, 5), 3, 1),
    ],
)
def test_values_and_gradients_are_those_of_xla(shape, kernel, stride, padding):
    x, W = (jnp.asarray(RNG.normal(size=s), jnp.float32) for s in (shape, kernel))
    weights = jnp.asarray(
        RNG.normal(size=pooled_conv_ref(x, W, stride=stride, padding=padding).shape), jnp.float32
    )

    def compute(conv):
        def f(x, W):
            return (weights * conv(x, W, stride=stride, padding=padding)).sum()

        return conv(x, W, stride=stride, padding=padding), jax.grad(f, (0, 1))(x, W)

    for got, expected in zip(
        *(
            jax.tree.leaves(jax.jit(compute, static_argnums=0)(f))
            for f in (pooled_conv, pooled_conv_ref)
        ),
        strict=True,
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ((1, 6, 5, 1), {"padding": 1}, r"multiples of 2.*got \(1, 6, 5, 1\)"),
        ((1, 6, 6, 2), {"padding": 1}, r"`W` shape \(k, k, c, o\)"),
        ((1, 8, 8, 1), {"padding": 0}, "2 \\* padding must be between 2 and 2; got 0"),
        ((1, 8, 8, 1), {"stride": 0}, "`stride` must be a positive integer; got 0"),
    ],
)
def test_what_does_not_fit(shape, options, words):
    with pytest.raises(ValueError, match=words):
        pooled_conv(jnp.zeros(shape), jnp.zeros((3, 3, 1, 1)), **options)


def test_no_image():
    assert pooled_conv(jnp.zeros((0, 4, 4, 1)), jnp.ones((3, 3, 1, 2)), padding=1).shape == (
        0,
        2,
        2,
        2,
    )
