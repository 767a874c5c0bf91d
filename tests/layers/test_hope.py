"""What only HOPE promises; the contract of all layers is in `test_conformance`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close, loss_and_grads, normal, run

from s5jax import HOPE, ResidualBlock, load, param_labels, save
from s5jax.ops import fft_conv_ref, hope_kernel_ref, hope_transfer_function_ref, pair_to_complex

pytestmark = pytest.mark.slow

H, N, L = 3, 5, 12
PUBLISHED = ("circular", "mirrored")


def make(form="causal", **options):
    return HOPE(H, N, form=form, rngs=nnx.Rngs(0), **{"bidirectional": form != "causal"} | options)


def weigh(y):
    return jnp.sum(jnp.cos(jnp.arange(y.size)).reshape(y.shape) * y)


def transform(layer):
    return jnp.exp if layer.dt_transform == "exp" else jax.nn.softplus


def published(layer, u):
    """The published code's steps: all samples, complex transforms, the real part at the end."""
    h = pair_to_complex(layer.h[...]) * jnp.arange(1, N + 1) ** layer.decay_exp
    Delta, D = transform(layer)(layer.raw_step[...]), layer.D[...]
    mirrored = layer.form == "mirrored"
    v = jnp.concatenate([u, jnp.flip(u, -2)], -2) if mirrored else u
    half = v.shape[-2] // 2
    samples = hope_transfer_function_ref(h, Delta, 2 * jnp.pi * jnp.arange(half) / half)
    G = jnp.concatenate([samples[0], jnp.flip(samples[1], 0)])
    y = jnp.fft.ifft(G * jnp.fft.fft(v, axis=-2), axis=-2).real
    if not mirrored:
        return y + D * u
    return jnp.concatenate(
        [y[..., :half, :] + D[0] * u, jnp.flip(y[..., half:, :], -2) + D[1] * u], -1
    )


def causal(layer, u):
    h = layer.h[...] * jnp.arange(1, N + 1) ** layer.decay_exp
    K = hope_kernel_ref(h, transform(layer)(layer.raw_step[...]), u.shape[-2])
    return fft_conv_ref(u, K[0], k_reverse=K[1]) + layer.D[...] * u


@pytest.mark.parametrize(
    ("form", "dt_transform"),
    [("causal", "softplus"), ("circular", "exp"), ("mirrored", "softplus")],
)
@jax.enable_x64(True)
def test_forms_are_their_definitions(form, dt_transform):
    """Values, and gradients of all parameters and the input; warps on both sides of 1."""
    layer = make(
        form,
        bidirectional=True,
        dt_transform=dt_transform,
        dt_min=0.2,
        dt_max=5.0,
        decay_exp=-0.5,
        param_dtype="float64",
    )
    u, definition = normal(0, 2, L, H).astype("float64"), causal if form == "causal" else published
    got = loss_and_grads(layer, lambda m, u: weigh(m(u)), u)
    expected = loss_and_grads(layer, lambda m, u: weigh(definition(m, u)), u)
    assert_close(got, expected, rtol=1e-9)


@jax.enable_x64(True)
def test_a_warp_of_one_is_a_plain_filter():
    """Then the Markov parameters are the taps from lag 1 on."""
    layer = make(dt_min=1.0, dt_max=1.0, param_dtype="float64")
    K = np.zeros((L, H))
    K[0], K[1 : N + 1] = layer.D[...], layer.h[0].T
    assert_close(layer.kernel(L), K, rtol=1e-12)
    A, B, C, D = layer.to_ssm()
    response = [C @ np.linalg.matrix_power(A, t) @ B for t in range(L)]
    assert_close(jnp.stack(response).at[0].add(D).sum(1), K, rtol=1e-12)


@pytest.mark.parametrize("L", [1, 7])
def test_mirrored_form_takes_any_length(L):
    layer = make("mirrored")
    y = run(layer, normal(0, 2, L, H))
    assert y.shape == (2, L, layer.d_output) == (2, L, 2 * H)


@pytest.mark.parametrize("form", PUBLISHED)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_published_forms_keep_the_dtype(form, dtype):
    layer, u = make(form, dtype=dtype), normal(0, 2, L, H)
    y = run(layer, u.astype(dtype))
    assert y.dtype == dtype
    assert_close(y.astype(jnp.float32), run(make(form), u), rtol=3e-2)


@pytest.mark.parametrize("form", PUBLISHED)
def test_published_forms_are_for_whole_sequences(form):
    layer, u = make(form), normal(0, 2, L, H)
    state = layer.init_state((2,))
    for call in [
        lambda: layer.step(u[:, 0], state),
        lambda: layer(u, return_state=True),
        lambda: layer(u, state=state),
        layer.to_ssm,
    ]:
        with pytest.raises(ValueError, match=rf"needs a causal layer.*{form}.*`form='causal'`"):
            call()
    with pytest.raises(ValueError, match=rf"HOPE.kernel: form '{form}' has no impulse response"):
        layer.kernel(L)
    for edits in ({"lengths": jnp.array([L, 4])}, {"resets": jnp.zeros((2, L), bool)}):
        with pytest.raises(ValueError, match=rf"'{form}' depends on the length.*`lengths`"):
            layer(u, **edits)
    with pytest.raises(ValueError, match="`dt` needs a continuous-time layer"):
        layer(u, dt=2.0)


def test_circular_form_needs_an_even_length():
    with pytest.raises(ValueError, match=r"form 'circular' needs an even length.*got 7"):
        make("circular")(normal(0, 7, H))


def test_mirrored_form_in_a_block():
    rngs = nnx.Rngs(0)
    block = ResidualBlock(make("mirrored"), norm="layer", activation="glu", rngs=rngs)
    assert run(block, normal(0, 2, L, H)).shape == (2, L, H)
    assert block.out2.kernel.shape == (2 * H, 2 * H)
    for activation in ("gelu", "full_glu", "half_glu1", "half_glu2"):
        with pytest.raises(
            ValueError, match=r"`activation` must be 'glu' for a layer that maps 3 features to 6"
        ):
            ResidualBlock(make("mirrored"), activation=activation, rngs=rngs)


@pytest.mark.parametrize("form", ["causal", *PUBLISHED])
def test_initial_parameters(form):
    options = {"bidirectional": form != "causal", "scale_factor": 3.0, "dt_max": 10.0}
    layer = HOPE(64, 128, form=form, rngs=nnx.Rngs(0), **options)
    h = layer.h[...] if form == "causal" else pair_to_complex(layer.h[...])
    assert float(jnp.mean(jnp.abs(h) ** 2)) == pytest.approx(1 / (128 * 9), rel=0.05)
    Delta = layer._system()[1]
    assert Delta.shape == ((2, 64) if form == "circular" else (64,))
    assert 1e-3 <= Delta.min() < 1e-2 < 1 < Delta.max() <= 10


@pytest.mark.parametrize("form", ["causal", *PUBLISHED])
def test_groups_and_save_and_load(form, tmp_path):
    layer = make(form, decay_exp=-1.0, dt_transform="softplus")
    assert param_labels(layer) == {"h": "ssm", "raw_step": "ssm", "D": "regular"}
    save(layer, tmp_path)
    assert_close(load(tmp_path)(normal(0, L, H)), layer(normal(0, L, H)), rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 0}, "HOPE: `d_state` must be a positive integer"),
        ({"form": "circle"}, r"`form` must be one of.*Did you mean 'circular'\?"),
        ({"dt_transform": "log"}, "`dt_transform` must be one of 'exp', 'softplus'"),
        ({"scale_factor": 0.0}, "`scale_factor` must be positive; got 0.0"),
        ({"form": "mirrored"}, "'mirrored' an output depends on all inputs.*`bidirectional=True`"),
        ({"dt_min": 1.0, "dt_max": 0.1}, "`dt_min` <= `dt_max`"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        HOPE(**({"d_model": H, "d_state": N} | options), rngs=nnx.Rngs(0))
