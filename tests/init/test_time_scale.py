import jax
import numpy as np
import pytest

from s5jax.init import log_uniform_step

KEY = jax.random.key(0)


def test_steps_are_equally_likely_at_every_scale():
    log_step = np.asarray(log_uniform_step(KEY, (20_000,), 1e-4, 1e-1))
    counts, _ = np.histogram(log_step, bins=3, range=(np.log(1e-4), np.log(1e-1)))
    assert counts.sum() == log_step.size
    np.testing.assert_allclose(counts / log_step.size, 1 / 3, atol=0.02)


def test_equal_bounds_give_one_step():
    np.testing.assert_allclose(np.exp(log_uniform_step(KEY, (5,), 0.01, 0.01)), 0.01, rtol=1e-6)


@pytest.mark.parametrize(
    ("dt_min", "dt_max"), [(0, 0.1), (-1, 0.1), (0.1, 0.01), (0.1, float("nan"))]
)
def test_bad_step_bounds_are_refused(dt_min, dt_max):
    with pytest.raises(ValueError, match="log_uniform_step: needs 0 < `dt_min` <= `dt_max`; got"):
        log_uniform_step(KEY, (5,), dt_min, dt_max)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@jax.enable_x64(True)
def test_dtypes(dtype):
    assert log_uniform_step(KEY, (2,), 0.1, 0.2, dtype=dtype).dtype == dtype
