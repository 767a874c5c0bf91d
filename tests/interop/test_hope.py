import jax.numpy as jnp
import numpy as np
import pytest

from s5jax.interop import hope_block_from_official, hope_from_official

pytestmark = pytest.mark.slow

H, N = 3, 4


def official():
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)

    minimal = {"Hankel": draw(2 * H, N), "log_dt": rng.normal(size=2 * H), "D": rng.normal(size=H)}
    block = {"Han": draw(2, H, N), "inv_dt": rng.normal(size=(H, 1)), "D": rng.normal(size=(2, H))}
    return minimal, block


def test_options_and_parameters_reach_the_layer():
    minimal, block = official()
    layer = hope_from_official(minimal)
    assert (layer.form, layer.d_model, layer.d_state) == ("circular", H, N)
    np.testing.assert_allclose(layer._system()[0].reshape(2 * H, N), minimal["Hankel"], 1e-6)
    layer = hope_block_from_official(block, decay_exp=-0.5, dt_transform="softplus")
    assert (layer.form, layer.decay_exp, layer.dt_transform) == ("mirrored", -0.5, "softplus")
    np.testing.assert_allclose(layer._system()[1], np.log1p(np.exp(block["inv_dt"][:, 0])), 1e-6)
    assert layer(jnp.ones((8, H))).shape == (8, 2 * H)


@pytest.mark.parametrize(
    ("build", "change", "message"),
    [
        (hope_from_official, {"Hankel": None}, "must contain 'Hankel'"),
        (hope_from_official, {"Hankel": np.ones(4)}, r"'Hankel' must have shape \(2 H, n\)"),
        (hope_from_official, {"log_dt": np.ones(4)}, r"and 'log_dt' \(2 H,\); got .*\(4,\)"),
        (hope_from_official, {"D": np.ones((2, H))}, r"'D' must have shape \(3,\)"),
        (hope_block_from_official, {"inv_dt": None}, "must contain 'inv_dt'"),
        (hope_block_from_official, {"Han": np.ones((3, 4))}, r"'Han' must have shape \(2, H, n\)"),
        (hope_block_from_official, {"D": np.ones(H)}, r"'D' must have shape \(2, 3\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(build, change, message):
    arrays = official()[build is hope_block_from_official] | change
    with pytest.raises(ValueError, match=message):
        build({name: x for name, x in arrays.items() if x is not None})
