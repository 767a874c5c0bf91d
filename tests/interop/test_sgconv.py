import jax.numpy as jnp
import numpy as np
import pytest

from s5jax import SGConv
from s5jax.interop import sgconv_from_official

pytestmark = pytest.mark.slow

H, d = 3, 4


def official(channels=1):
    rng = np.random.default_rng(0)
    arrays = {f"w{i}": rng.normal(size=(channels, H, d)) for i in range(3)}
    return arrays | {
        "kernel_norm": rng.uniform(1, 2, size=(channels, H, 1)),
        "multiplier": rng.uniform(1, 2, size=(1, H, 1)),
        "decay": rng.uniform(1, 2, size=H),
        "D": rng.normal(size=(1, H)),
    }


@pytest.mark.parametrize("decay", ["scale", "power", "learnable"])
def test_options_and_parameters_reach_the_layer(decay):
    arrays = official(2)
    layer = sgconv_from_official(arrays, l_max=30, init_scale=1, bidirectional=True, decay=decay)
    assert isinstance(layer, SGConv)
    assert (layer.n_taps, layer.decay, layer.init_scale) == (32, decay, 1)
    np.testing.assert_allclose(layer.w[:, 1], arrays["w1"], rtol=1e-6)
    alpha = arrays["multiplier" if decay == "scale" else "decay"]
    np.testing.assert_allclose(layer.alpha, alpha.ravel(), rtol=1e-6)
    np.testing.assert_allclose(layer.kernel_norm, arrays["kernel_norm"][..., 0], rtol=1e-6)
    assert layer(jnp.ones((9, H))).shape == (9, H)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"w0": None}, {}, "must contain 'w0'"),
        ({"kernel_norm": None}, {}, "must contain 'kernel_norm'"),
        ({"decay": None}, {"decay": "power"}, "must contain 'decay'"),
        ({"w1": np.ones((1, H, 5))}, {}, "must all have one shape"),
        ({}, {"bidirectional": True}, r"'w0, w1, ...' must have shape \(2, 3, 3, 4\)"),
        ({"D": np.ones(5)}, {}, r"'D' must have shape \(3,\)"),
        ({}, {"l_max": 17}, "3 scales of 4 reach 16 lags"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, options, message):
    arrays = {name: x for name, x in (official() | change).items() if x is not None}
    with pytest.raises(ValueError, match=message):
        sgconv_from_official(arrays, **({"l_max": 16} | options))
