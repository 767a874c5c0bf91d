import jax.numpy as jnp
import numpy as np
import pytest

from s5jax.interop import s4_from_official, s4d_from_official

pytestmark = pytest.mark.slow

H, M = 4, 3


def official(copies=1):
    rng = np.random.default_rng(0)
    A = -rng.uniform(0.2, 1, (H // copies, M)) + 1j * rng.normal(size=(H // copies, M))
    B, P, C = (rng.normal(size=s) + 1j * rng.normal(size=s) for s in (A.shape, A.shape, (1, H, M)))
    shared = {"A": A, "B": B, "P": P}
    arrays = {name: np.tile(v, (copies, 1)) for name, v in shared.items()}
    return arrays | {"P": arrays["P"][None], "C": C, "dt": np.full(H, 0.1)}


@pytest.mark.parametrize("build", [s4_from_official, s4d_from_official])
def test_options_reach_the_layer(build):
    layer = build(official(2), n_ssm=2, dt_transform="softplus", real_transform="softplus")
    assert (layer.d_model, layer.d_state, layer.n_ssm) == (H, 2 * M, 2)
    assert layer.raw_decay.shape == (2, M)
    u = jnp.ones((5, H))
    np.testing.assert_allclose(layer(u), build(official(2))(u), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", [s4_from_official, s4d_from_official])
@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"A": None}, {}, "must contain 'A'"),
        ({"A": np.ones(3)}, {}, r"'A' must have shape \(H, N / 2\); got \(3,\)"),
        ({"dt": np.zeros(H)}, {}, "'dt' must be positive"),
        ({"D": np.ones(5)}, {}, r"'D' must have shape \(4,\).*got \(5,\)"),
        ({}, {"bidirectional": True}, r"'C' must have shape \(2, 4, 3, 2\).*`bidirectional`"),
        ({}, {"n_ssm": 2}, "with `n_ssm` 2 the features h and h \\+ 2 share a system.*'A'"),
        ({}, {"dt_transform": "relu"}, "`dt_transform` must be one of 'exp', 'softplus'"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(build, change, options, message):
    arrays = {name: x for name, x in (official() | change).items() if x is not None}
    with pytest.raises(ValueError, match=message):
        build(arrays, **options)


def test_rank_and_missing_output_vectors():
    arrays = official()
    with pytest.raises(ValueError, match=r"'P' must have shape \(1 or 2, H, N / 2\)"):
        s4_from_official(arrays | {"P": arrays["P"][0]})
    with pytest.raises(ValueError, match="must contain 'C_tilde'"):
        s4_from_official({name: x for name, x in arrays.items() if name != "C"})
