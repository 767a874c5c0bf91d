import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s5jax.ops import linear_scan_ref, real_state_space


def draw(P=3, H=2):
    a, b, c, d = jax.random.split(jax.random.key(0), 4)
    radius, angle = jax.random.uniform(a, (2, P))
    return (
        radius * jnp.exp(6j * angle),
        jax.random.normal(b, (P, H), complex),
        jax.random.normal(c, (H, P), complex),
        jax.random.normal(d, (H,)),
    )


@pytest.mark.parametrize("real_input", [False, True])
@jax.enable_x64(True)
def test_real_states_are_the_complex_recurrence(real_input):
    Lambda_bar, B_bar, C, D = draw()
    B_bar = B_bar.real if real_input else B_bar
    u = jax.random.normal(jax.random.key(1), (9, 2))
    x = linear_scan_ref(Lambda_bar, u @ B_bar.T.astype(complex))
    expected = (x @ C.T).real + D * u
    ssm = real_state_space(Lambda_bar, B_bar, C, D)
    assert [v.shape for v in ssm] == [(6, 6), (6, 2), (2, 6), (2, 2)]
    state, y = np.zeros(6), []
    for u_k in np.asarray(u):
        state = ssm.A @ state + ssm.B @ u_k
        y.append(ssm.C @ state + ssm.D @ u_k)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("wrong", range(4))
def test_shapes_must_fit(wrong):
    arguments = list(draw())
    arguments[wrong] = arguments[wrong][:1]
    with pytest.raises(
        ValueError, match=r"real_state_space: .*must have the shapes \(P,\), \(P, H\)"
    ):
        real_state_space(*arguments)
