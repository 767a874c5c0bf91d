import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s5jax.init import lru_ring

KEY = jax.random.key(0)


@pytest.mark.parametrize(("r_min", "r_max"), [(0.0, 1.0), (0.5, 0.9), (0.9, 1.0), (0.999, 0.9999)])
def test_eigenvalues_are_uniform_over_the_ring(r_min, r_max):
    nu_log, theta_log, gamma_log = map(
        np.float64, lru_ring(KEY, 20_000, r_min=r_min, r_max=r_max, max_phase=3.0)
    )
    squared, phase = np.exp(-2 * np.exp(nu_log)), np.exp(theta_log)
    for sample, low, high in [(squared, r_min**2, r_max**2), (phase, 0.0, 3.0)]:
        counts, _ = np.histogram(sample, bins=4, range=(low - 1e-7, high + 1e-7))
        assert counts.sum() == sample.size
        np.testing.assert_allclose(counts / sample.size, 1 / 4, atol=0.02)
    np.testing.assert_allclose(np.exp(gamma_log) ** 2, 1 - squared, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@jax.enable_x64(True)
def test_every_draw_is_finite_in_its_dtype(dtype):
    for values in lru_ring(KEY, 20_000, dtype=dtype):
        assert values.dtype == dtype
        assert jnp.isfinite(values).all()


@pytest.mark.parametrize("ring", [(-0.1, 1.0), (0.5, 0.5), (0.9, 0.1), (0.0, 1.1)])
def test_a_ring_that_is_none_is_refused(ring):
    with pytest.raises(ValueError, match=r"lru_ring: needs 0 <= `r_min` < `r_max` <= 1; got"):
        lru_ring(KEY, 5, r_min=ring[0], r_max=ring[1])


def test_phases_must_be_positive():
    with pytest.raises(ValueError, match=r"lru_ring: `max_phase` must be positive; got 0"):
        lru_ring(KEY, 5, max_phase=0)
