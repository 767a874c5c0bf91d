import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiers

from s5jax.ops import _attention, rotary, window_attention, window_attention_ref


def draw(L, P=0, n=2, d=4, batch=(3,), dtype="float64"):
    rng = np.random.default_rng(0)
    shapes = [(*batch, L, n, d), (*batch, P + L, n, d), (*batch, P + L, n, d)]
    return tuple(jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)


def attention_by_definition(q, k, v, window, segments, bidirectional):
    """One sequence and one head: the definition, one pair of steps at a time."""
    (L, d), P = q.shape, len(k) - len(q)
    theta = 1e4 ** (-2 * np.arange(d // 2) / d)
    q, k = (x[:, : d // 2] + 1j * x[:, d // 2 :] for x in (q, k))
    y = np.zeros((L, d))
    for t in range(L):
        seen = [
            s
            for s in range(P + L)
            if segments[s] == segments[P + t]
            and (0 <= P + t - s < window or (bidirectional and 0 < s - P - t < window))
        ]
        scores = [
            (q[t] * np.conj(k[s]) * np.exp(1j * (P + t - s) * theta)).real.sum() for s in seen
        ]
        weights = np.exp(scores) / np.exp(scores).sum()
        y[t] = weights @ v[seen]
    return y


@pytest.mark.parametrize("bidirectional", [False, True])
@jax.enable_x64(True)
def test_reference_is_the_definition(bidirectional):
    q, k, v = draw(7, P=0 if bidirectional else 2, n=1, batch=())
    segments = np.array([4, 4, 4, 4, 4, 1, 1, 1, 1][: len(k)])
    y = window_attention_ref(
        q, k, v, 4, segments=jnp.asarray(segments), bidirectional=bidirectional
    )
    expected = attention_by_definition(
        *(np.asarray(x)[:, 0] for x in (q, k, v)), 4, segments, bidirectional
    )
    np.testing.assert_allclose(y[:, 0], expected, atol=1e-13)


@pytest.mark.parametrize(
    ("L", "P", "window", "bidirectional"),
    [(1, 0, 1, False), (3, 4, 5, False), (13, 3, 4, False), (12, 4, 4, False), (9, 0, 2, True)],
)
@pytest.mark.parametrize("segmented", [False, True])
@pytest.mark.parametrize("max_scores", tiers([2**25, 30, 1], {30}))
@jax.enable_x64(True)
def test_blocks_are_the_reference(L, P, window, bidirectional, segmented, max_scores, monkeypatch):
    monkeypatch.setattr(_attention, "MAX_SCORES", max_scores)
    arrays = draw(L, P)
    starts = np.random.default_rng(1).random((3, P + L)) < 0.2
    segments = jnp.asarray(np.cumsum(starts, -1)) if segmented else None
    weights = jnp.cos(jnp.arange(arrays[0].size)).reshape(arrays[0].shape)

    def loss(attention, arrays):
        y = attention(*arrays, window, segments=segments, bidirectional=bidirectional)
        return jnp.sum(weights * y), y

    value = jax.jit(jax.value_and_grad(loss, 1, has_aux=True), static_argnums=0)
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, atol=1e-12),
        value(window_attention, arrays),
        value(window_attention_ref, arrays),
    )


def test_only_differences_of_positions_matter():
    q, k, _ = draw(5, dtype="float32")
    near, far = (
        jnp.einsum("btnd,bsnd->bnts", *(rotary(x, np.arange(5) + start) for x in (q, k)))
        for start in (0, 10**7)
    )
    np.testing.assert_allclose(far, near, atol=2e-6)


def test_memory_grows_with_the_window():
    shapes = [jax.ShapeDtypeStruct((4096, 1, 4), "float32")] * 3

    def temporary(attention):
        lowered = jax.jit(attention, static_argnums=3).lower(*shapes, 64)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporary(window_attention) < 4096 * 4096 < temporary(window_attention_ref)


def test_bfloat16_scores_are_float32():
    q, k, v = draw(9, dtype="bfloat16")
    y = window_attention(q, k, v, 4)
    assert y.dtype == jnp.float32
    wide = window_attention(*(x.astype("float32") for x in (q, k, v)), 4)
    np.testing.assert_allclose(y, wide, atol=5e-2)


def test_bad_arguments():
    q, k, v = draw(5, P=3, dtype="float32")
    for arguments, message in [
        ((q, k, v[:, 1:], 4), "`k` and `v` must have one shape"),
        ((q, k, v, 2), "after at most `window` others"),
        ((k, q, q, 4), "with the steps of `q`"),
        ((*(x[..., :3] for x in (q, k, v)), 4), "`d` must be even, .* got 3"),
    ]:
        with pytest.raises(ValueError, match=message):
            window_attention(*arguments)
