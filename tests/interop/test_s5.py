import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from s5jax import S5, ResidualBlock
from s5jax.interop import s5_block_from_official, s5_from_official

P, H = 4, 3


def official(columns=P):
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=P) for name in ("Lambda_im", "log_step")}
    arrays["Lambda_re"] = -rng.exponential(size=P)
    for name, shape in (("B_tilde", (P, H)), ("C_tilde", (H, columns))):
        arrays[name] = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    return arrays | {"D": rng.normal(size=H)}


@pytest.mark.parametrize("conj_sym", [True, False])
def test_options_reach_the_layer(conj_sym):
    layer = s5_from_official(
        official(2 * P),
        conj_sym=conj_sym,
        bidirectional=True,
        clip_eigs=True,
        discretization="bilinear",
    )
    assert isinstance(layer, S5)
    assert layer.d_state == (2 * P if conj_sym else P)
    assert (layer.bidirectional, layer.clip_eigs, layer.discretization) == (True, True, "bilinear")
    assert layer(jnp.ones((5, H))).shape == (5, H)


def test_matrices_may_be_stored_as_pairs():
    arrays = official()
    pairs = {name: np.stack([x.real, x.imag], -1) for name, x in arrays.items() if x.ndim == 2}
    u = jnp.ones((5, H))
    np.testing.assert_array_equal(s5_from_official(arrays)(u), s5_from_official(arrays | pairs)(u))


def test_block_is_in_evaluation_mode():
    norm = {name: np.ones(H) for name in ("norm_scale", "norm_bias", "bn_mean", "bn_var")}
    block = s5_block_from_official(official() | norm, activation="gelu", prenorm=True)
    assert isinstance(block, ResidualBlock)
    assert isinstance(block.norm, nnx.BatchNorm)
    assert block.norm.use_running_average


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"B_tilde": None}, {}, r"must contain 'B_tilde'; got only \['C_tilde', 'D'"),
        ({"Lambda_re": None}, {}, "must contain 'Lambda_re'"),
        ({"D": np.ones(5)}, {}, r"'B_tilde' must have shape \(4, 5, 2\)"),
        ({}, {"bidirectional": True}, r"'C_tilde' must have shape \(3, 8, 2\).*`bidirectional`"),
        ({}, {"discretization": "zho"}, r"`discretization` must be one of.*'zoh'\?"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, options, message):
    arrays = {name: x for name, x in (official() | change).items() if x is not None}
    with pytest.raises(ValueError, match=message):
        s5_from_official(arrays, **options)


def test_block_names_the_missing_array():
    norm = {name: np.ones(H) for name in ("norm_scale", "norm_bias")}
    with pytest.raises(
        ValueError, match="s5_block_from_official: `arrays` must contain 'out2_kernel'"
    ):
        s5_block_from_official(official() | norm, activation="half_glu1", prenorm=True)
