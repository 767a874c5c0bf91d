"""What only SGConv promises; the contract of all layers is in `test_conformance`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close, normal, run

from s5jax import SGConv, load, param_labels, save

H = 3


def make(**options):
    return SGConv(**({"d_model": H, "l_max": 20, "kernel_dim": 3} | options), rngs=nnx.Rngs(0))


def sgconv_ref(layer, u):
    """The published equations in NumPy."""
    w, alpha, D = (np.asarray(v[...], np.float64) for v in (layer.w, layer.alpha, layer.D))
    kernels = []
    for w_c in w:
        S, _, d = w_c.shape
        pieces = []
        for i, w_i in enumerate(w_c):
            s = 2 ** (max(0, i - 1) + layer.init_scale)
            x = (np.arange(d * s) + 0.5) / s - 0.5  # np.interp holds its ends
            piece = np.stack([np.interp(x, np.arange(d), row) for row in w_i])
            if layer.decay == "scale":
                piece *= alpha[:, None] ** (S - 1 - i)
            pieces.append(piece)
        k = np.concatenate(pieces, -1)
        if layer.decay != "scale":
            k *= (np.arange(k.shape[-1]) + 1) ** -alpha[:, None]
        kernels.append(k / np.linalg.norm(k, axis=-1, keepdims=True))
    y = D * np.asarray(u, np.float64)
    for t in range(len(u)):
        for l, k_l in enumerate(kernels[0].T):
            if t - l >= 0:
                y[t] += k_l * u[t - l]
        for l, k_l in enumerate(kernels[1].T if len(kernels) > 1 else []):
            if t + 1 + l < len(u):
                y[t] += k_l * u[t + 1 + l]
    return y


@pytest.mark.parametrize(
    "options",
    [
        {"decay_min": 1.0, "decay_max": 3.0},
        {"decay": "power", "decay_min": 0.5, "decay_max": 1.0, "bidirectional": True},
        {"decay": "learnable", "init": "cosine", "init_scale": 1},
    ],
)
@pytest.mark.parametrize("L", [9, 50])
def test_layer_is_the_published_convolution(options, L):
    layer, u = make(**options), normal(1, L, H)
    assert_close(run(layer, u), sgconv_ref(layer, u))


def test_number_of_scales_is_the_published_one():
    for l_max, d, a in [(2048, 1, 0), (4096, 2, 0), (1024, 32, 0), (1000, 64, 0), (16384, 64, 1)]:
        layer = nnx.eval_shape(
            lambda o=(l_max, d, a): make(l_max=o[0], kernel_dim=o[1], init_scale=o[2])
        )
        assert layer.w.shape[1] == 1 + int(np.ceil(np.log2(l_max / d))) - a
        assert l_max <= layer.n_taps < 2 * l_max


def test_a_long_sequence_sees_its_last_taps_alone():
    layer, u = make(), normal(2, 60, H)
    T = layer.n_taps
    assert T == 24
    other = u.at[: 60 - T].add(1.0)
    y = [run(layer, x)[-1] for x in (u, other, u.at[60 - T].add(1.0))]
    np.testing.assert_allclose(y[0], y[1], atol=1e-6)
    assert jnp.abs(y[2] - y[0]).max() > 1e-4
    assert_close(run(layer, u)[:7], run(layer, u[:7]))


@pytest.mark.slow
def test_norm_is_saved_and_not_trained(tmp_path):
    layer = make(decay="power")
    norm = jnp.linalg.norm(layer.kernel(24).at[0].add(-layer.D[...]), axis=0)
    np.testing.assert_allclose(norm, jnp.ones(H), rtol=1e-6)
    u, scale = normal(3, 30, H), layer.kernel_norm[...] + 0
    layer.w[...] = 3 * layer.w[...]
    assert_close(layer.kernel_norm[...], scale, rtol=0)
    save(layer, tmp_path)
    assert_close(run(load(tmp_path), u), run(layer, u), rtol=0)
    grads = nnx.grad(lambda m: jnp.sum(m(u) ** 2))(layer)
    assert set(nnx.to_pure_dict(grads)) == {"w", "D"}
    grads = nnx.grad(lambda m: jnp.sum(m(u) ** 2), argnums=nnx.DiffState(0, nnx.Variable))(layer)
    for name in ("kernel_norm", "alpha"):
        assert not grads[name][...].any()
    assert grads["w"][...].any()


def test_optimiser_groups():
    groups = {"w": "ssm_decay", "D": "regular"}
    assert param_labels(make()) == groups
    assert param_labels(make(decay="learnable")) == groups | {"alpha": "ssm_decay"}


def test_fast_steps_are_the_layer():
    layer, u = make(decay_min=1.0), normal(4, 2, 60, H)
    step = jax.jit(lambda m, x, s: m.step(x, s))
    state, outputs = layer.init_multiscale_state((2,)), []
    for t in range(60):
        y, state = step(layer, u[:, t], state)
        outputs.append(y)
    assert_close(jnp.stack(outputs, 1), run(layer, u))


def test_fast_steps_need_straight_lines():
    with pytest.raises(ValueError, match=r"needs straight lines .* has 'power'. Use `init_state`"):
        make(decay="power").init_multiscale_state()
    with pytest.raises(ValueError, match="needs a causal layer"):
        make(bidirectional=True).init_multiscale_state()
    layer = make()
    with pytest.raises(ValueError, match="`state` must have the structure"):
        layer(jnp.ones((5, H)), state=layer.init_multiscale_state())


def test_one_tap():
    layer, u = make(l_max=1, kernel_dim=1), normal(5, 2, 6, H)
    y, state = run(layer, u, return_state=True)
    assert state.shape == (2, 0, H)
    assert_close(y, (layer.kernel(1)[0]) * u)
    assert_close(run(layer, u, resets=jnp.ones((2, 6), bool)), y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_model": 0}, "SGConv: `d_model` must be a positive integer"),
        ({"l_max": 0}, "`l_max` must be a positive integer"),
        ({"kernel_dim": 21}, "`kernel_dim` must be at most `l_max`; got 21 and 20"),
        ({"n_scales": 2}, "2 scales of 3 reach 6 lags, fewer than .* Use `n_scales=4`"),
        ({"n_scales": 0}, "`n_scales` must be a positive integer"),
        ({"init_scale": -1}, "`init_scale` must be an integer that is not negative; got -1"),
        ({"init": "randm"}, "`init` must be one of 'random', 'cosine'.*Did you mean 'random'"),
        ({"decay": "fixed"}, "`decay` must be one of 'scale', 'power', 'learnable'"),
        ({"decay_min": 3.0}, "`decay_min` must be at most `decay_max`; got 3.0 and 2.0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
