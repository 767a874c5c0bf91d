import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from s5jax.ops import _convolution, fft_conv, fft_conv_ref, segment_conv, segment_conv_ref
from s5jax.ops._convolution import _fft_length

FFT_CONV = jax.jit(fft_conv)


def draw(L, Lk, Lr=0, H=2, batch=(3,), seed=0, dtype="float64"):
    rng = np.random.default_rng(seed)
    u, k, k_reverse = (
        jnp.asarray(rng.normal(size=s), dtype) for s in ((*batch, L, H), (Lk, H), (Lr, H))
    )
    return u, k, k_reverse if Lr else None


def fft_conv_by_definition(u, k, k_reverse):
    """The definition, one output at a time."""
    u, k = np.asarray(u), np.asarray(k)
    k_reverse = np.zeros((0, 1)) if k_reverse is None else np.asarray(k_reverse)
    L, y = u.shape[-2], np.zeros(u.shape)
    for t in range(L):
        for j in range(min(len(k), t + 1)):
            y[..., t, :] += k[j] * u[..., t - j, :]
        for j in range(min(len(k_reverse), L - 1 - t)):
            y[..., t, :] += k_reverse[j] * u[..., t + 1 + j, :]
    return y


@pytest.mark.parametrize(
    ("L", "Lk", "Lr"), [(1, 1, 0), (1, 3, 4), (7, 3, 0), (6, 6, 5), (5, 9, 11)]
)
@jax.enable_x64(True)
def test_reference_is_the_definition(L, Lk, Lr):
    u, k, k_reverse = draw(L, Lk, Lr)
    expected = fft_conv_by_definition(u, k, k_reverse)
    np.testing.assert_allclose(fft_conv_ref(u, k, k_reverse=k_reverse), expected, atol=1e-13)


@settings(deadline=None, derandomize=True, max_examples=12)
@given(L=st.integers(1, 40), Lk=st.integers(1, 60), Lr=st.integers(0, 60), seed=st.integers(0, 99))
def test_any_lengths(L, Lk, Lr, seed):
    with jax.enable_x64(True):
        u, k, k_reverse = draw(L, Lk, Lr, seed=seed)
        expected = fft_conv_by_definition(u, k, k_reverse)
        np.testing.assert_allclose(FFT_CONV(u, k, k_reverse=k_reverse), expected, atol=1e-12)


@pytest.mark.parametrize(("L", "Lk", "Lr"), [(1, 3, 4), (12, 5, 0), (9, 9, 8), (7, 20, 15)])
@jax.enable_x64(True)
def test_gradients_agree_with_the_reference(L, Lk, Lr):
    arguments = draw(L, Lk, Lr)
    weights = jnp.cos(jnp.arange(arguments[0].size)).reshape(arguments[0].shape)

    def loss(conv, arguments):
        u, k, k_reverse = arguments
        return jnp.sum(weights * conv(u, k, k_reverse=k_reverse))

    gradient = jax.jit(jax.grad(loss, 1), static_argnums=0)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-12),
        gradient(fft_conv, arguments),
        gradient(fft_conv_ref, arguments),
    )


@jax.enable_x64(True)
def test_gradients_by_finite_differences():
    u, k, k_reverse = draw(9, 5, 4, batch=())
    check_grads(lambda *a: FFT_CONV(*a[:2], k_reverse=a[2]), (u, k, k_reverse), order=1)


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=12)
@given(
    L=st.integers(1, 90),
    Lk=st.integers(1, 99),
    parts=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_parts_of_any_lengths(L, Lk, parts, seed):
    """Long sequences are taken in parts; here short ones are."""
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(_convolution, "_LONG", 1)
        patch.setattr(_convolution, "_PARTS", parts)
        u, k, _ = draw(L, Lk, seed=seed)
        y = jax.jit(lambda u, k: fft_conv(u, k))(u, k)
        np.testing.assert_allclose(y, fft_conv_ref(u, k), atol=1e-12)


@pytest.mark.parametrize("L", [16_384, 20_001])
def test_parts_agree_with_the_whole(L, monkeypatch):
    u, k, _ = draw(L, L, batch=(2,), dtype="float32")

    def values_and_gradients(u, k):
        y, pull = jax.vjp(fft_conv, u, k / np.sqrt(L).astype(k.dtype))
        return y, pull(jnp.cos(y))

    parts = jax.jit(values_and_gradients)(u, k)
    monkeypatch.setattr(_convolution, "_LONG", 10 * L)
    whole = jax.jit(lambda *a: values_and_gradients(*a))(u, k)
    for x, y in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5 * np.abs(y).max())


def test_long_float32_sequence_stays_accurate():
    u, k, k_reverse = draw(4001, 5000, 3000, batch=(), H=3, dtype="float32")
    k, k_reverse = (x / jnp.sqrt(len(x)) for x in (k, k_reverse))
    got = fft_conv(u, k, k_reverse=k_reverse)
    u, k, k_reverse = (np.asarray(x, "float64") for x in (u, k, k_reverse))
    expected = np.stack(
        [
            np.convolve(u[:, h], np.concatenate([k_reverse[::-1, h], k[:, h]]))[3000 : 3000 + 4001]
            for h in range(3)
        ],
        axis=-1,
    )
    assert np.max(np.abs(got - expected)) / np.max(np.abs(expected)) < 2e-6


@pytest.mark.parametrize(("L", "Lk"), [(1, 1), (17, 4), (16, 40)])
def test_a_unit_impulse_is_the_identity(L, Lk):
    u, _, _ = draw(L, Lk, dtype="float32")
    delta = jnp.zeros((Lk, 2)).at[0].set(1)
    np.testing.assert_allclose(fft_conv(u, delta), u, atol=3e-6)
    ahead = fft_conv(u, 0 * delta, k_reverse=delta)
    np.testing.assert_allclose(ahead[..., :-1, :], u[..., 1:, :], atol=3e-6)
    np.testing.assert_allclose(ahead[..., -1, :], 0, atol=3e-6)


@jax.enable_x64(True)
def test_without_a_reverse_kernel_nothing_depends_on_the_future():
    u, k, k_reverse = draw(12, 30, 8, batch=(), H=1)

    def jacobian(**options):
        return jax.jacobian(lambda u: FFT_CONV(u[:, None], k, **options)[:, 0])(u[:, 0])

    np.testing.assert_allclose(np.triu(jacobian(), 1), 0, atol=1e-14)
    assert np.abs(np.triu(jacobian(k_reverse=k_reverse), 1)).max() > 0.1


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_any_leading_axes(batch):
    u, k, k_reverse = draw(8, 5, 5, batch=batch, dtype="float32")
    got = fft_conv(u, k, k_reverse=k_reverse)
    assert got.shape == u.shape
    np.testing.assert_allclose(got, fft_conv_ref(u, k, k_reverse=k_reverse), atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@jax.enable_x64(True)
def test_output_has_the_dtype_of_the_input(dtype):
    u, k, _ = draw(64, 64)
    got = fft_conv(u.astype(dtype), k.astype("float32"))
    assert got.dtype == dtype
    expected = fft_conv_ref(u.astype(dtype).astype("float32"), k.astype("float32"))
    tolerance = {"bfloat16": 1e-2, "float16": 1e-3}.get(dtype, 1e-5)
    np.testing.assert_allclose(got.astype("float32"), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("conv", [fft_conv, fft_conv_ref])
@pytest.mark.parametrize(
    ("u", "k", "k_reverse", "message"),
    [
        ((5,), (3, 2), None, r"`u` must be .*\(\*batch, L, H\).*shape \(5,\)"),
        ((0, 2), (3, 2), None, r"`u` must be .*shape \(0, 2\)"),
        ((5, 2), (3,), None, r"`k` must have shape \(length >= 1, 2\).*got \(3,\)"),
        ((5, 2), (3, 4), None, r"`k` must have .*\(5, 2\); got \(3, 4\)"),
        ((5, 2), (0, 2), None, r"`k` must have .*got \(0, 2\)"),
        ((5, 2), (3, 2), (3, 1), r"`k_reverse` must have .*got \(3, 1\)"),
    ],
)
def test_wrong_shapes_are_refused(conv, u, k, k_reverse, message):
    k_reverse = None if k_reverse is None else jnp.ones(k_reverse)
    with pytest.raises(ValueError, match=conv.__name__ + ": " + message):
        conv(jnp.ones(u), jnp.ones(k), k_reverse=k_reverse)


def test_numbers_that_are_not_real_floats_are_refused():
    with pytest.raises(ValueError, match=r"`u` must be real floating point.*complex64"):
        fft_conv(jnp.ones((5, 2), "complex64"), jnp.ones((3, 2)))
    with pytest.raises(ValueError, match="`k` must be real floating point; got int32"):
        fft_conv(jnp.ones((5, 2)), jnp.ones((3, 2), int))


def test_fft_length_is_the_next_smooth_number():
    smooth = sorted(2**a * 3**b * 5**c for a in range(12) for b in range(8) for c in range(6))
    for n in range(1, 2049):
        assert _fft_length(n) == next(m for m in smooth if m >= n)


SEGMENTS = np.cumsum(np.isin(np.arange(100), [3, 16, 17, 40, 64, 90]))


@pytest.mark.parametrize(("L", "Lk"), [(5, 9), (17, 40), (100, 20)])
@jax.enable_x64(True)
def test_segments_are_convolved_apart(L, Lk):
    u, k, _ = draw(L, Lk, batch=(2,))
    segments = jnp.stack([jnp.asarray(SEGMENTS[:L]), jnp.zeros(L, int)])
    weights = jnp.cos(jnp.arange(u.size)).reshape(u.shape)

    def loss(conv, u, k):
        y = conv(u, k, segments)
        return jnp.sum(weights * y), y

    def both(conv):
        return jax.jit(jax.grad(lambda u, k: loss(conv, u, k), (0, 1), has_aux=True))(u, k)

    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-12),
        both(segment_conv),
        both(segment_conv_ref),
    )


def test_not_even_rounding_crosses_segments():
    u, k, _ = draw(100, 100, batch=(), dtype="float32")
    loud = u.at[:40].multiply(1e20)
    got, expected = (jax.jit(segment_conv)(x, k, jnp.asarray(SEGMENTS)) for x in (loud, u))
    np.testing.assert_array_equal(got[40:], expected[40:])


@pytest.mark.parametrize("conv", [segment_conv, segment_conv_ref])
def test_bad_segments_are_refused(conv):
    u, k, _ = draw(8, 4, batch=(2,), dtype="float32")
    for segments in (jnp.zeros((2, 7), int), jnp.zeros((2, 8))):
        with pytest.raises(ValueError, match=r"`segments` must be integers of shape \(2, 8\)"):
            conv(u, k, segments)
