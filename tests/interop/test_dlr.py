import jax.numpy as jnp
import numpy as np
import pytest

from s5jax import DLR
from s5jax.interop import dlr_from_official

pytestmark = pytest.mark.slow

H, N = 3, 4


def official(channels=1):
    rng = np.random.default_rng(0)
    W = rng.normal(size=(channels, H, N)) + 1j * rng.normal(size=(channels, H, N))
    Lambda = -rng.exponential(size=N) + 1j * rng.normal(size=N)
    return {"Lambda": Lambda, "W": W, "log_dt": rng.normal(size=H), "D": rng.normal(size=(1, H))}


@pytest.mark.parametrize("version", ["dlr", "dss_exp", "dss_softmax"])
def test_options_and_parameters_reach_the_layer(version):
    arrays = official(2)
    layer = dlr_from_official(
        arrays, version=version, kernel_to_real="sum", bidirectional=True, l_kernel=5
    )
    assert isinstance(layer, DLR)
    assert (layer.version, layer.kernel_to_real, layer.l_kernel) == (version, "sum", 5)
    Lambda, Delta = layer._exponents()
    np.testing.assert_allclose(Lambda, arrays["Lambda"], rtol=1e-6)
    np.testing.assert_allclose(Delta, 1 if version == "dlr" else np.exp(arrays["log_dt"]), 1e-6)
    np.testing.assert_allclose(layer.D, arrays["D"][0], rtol=1e-6)
    assert layer(jnp.ones((9, H))).shape == (9, H)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"W": None}, {}, r"must contain 'W'"),
        ({"Lambda": None}, {}, "must contain 'Lambda'"),
        ({"log_dt": None}, {"version": "dss_exp"}, "must contain 'log_dt'"),
        ({"W": np.ones((H, N)) + 0j}, {}, r"'W' \(1, H, N\).*got \(4,\) and \(3, 4\)"),
        ({}, {"bidirectional": True}, r"'W' must have shape \(2, 3, 4, 2\)"),
        ({"Lambda": np.ones(5) - 2 + 0j}, {}, r"'W' must have shape \(1, 3, 5, 2\)"),
        ({"D": np.ones(5)}, {}, r"'D' must have shape \(3,\)"),
        ({"Lambda": np.ones(N) + 0j}, {}, r"must not be positive.*up to 1"),
        ({"Lambda": np.zeros(N) + 0j}, {"version": "dss_exp"}, "must be negative in 'dss_exp'"),
        ({}, {"kernel_to_real": "abs"}, "`kernel_to_real` must be one of"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, options, message):
    arrays = {name: x for name, x in (official() | change).items() if x is not None}
    with pytest.raises(ValueError, match=message):
        dlr_from_official(arrays, **options)
