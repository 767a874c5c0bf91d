import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s5jax.ops import complex_to_pair, pair_to_complex


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@jax.enable_x64(True)
def test_round_trip_is_exact(dtype):
    rng = np.random.default_rng(0)
    z = jnp.asarray(rng.normal(size=(3, 4)) + 1j * rng.normal(size=(3, 4)), dtype)
    pair = complex_to_pair(z)
    assert pair.shape == (3, 4, 2)
    assert pair_to_complex(pair).dtype == dtype
    np.testing.assert_array_equal(pair_to_complex(pair), z)
    rows = complex_to_pair(z, axis=-2)
    assert rows.shape == (3, 2, 4)
    np.testing.assert_array_equal(pair_to_complex(rows, axis=-2), z)


def test_short_floats_are_widened():
    assert pair_to_complex(jnp.ones((3, 2), jnp.bfloat16)).dtype == jnp.complex64


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_a_last_axis_that_is_no_pair_is_refused(shape):
    with pytest.raises(ValueError, match=r"pair_to_complex: .*length 2; got shape \("):
        pair_to_complex(jnp.zeros(shape))
