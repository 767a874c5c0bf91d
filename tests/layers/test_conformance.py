"""One suite for every layer: the contract of `s5jax.SequenceLayer`."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import LAYERS, H, assert_close, by_definition, each, loss_and_grads, normal, run, weigh
from jax.test_util import check_grads

from s5jax import GRU, LRU, S5, SequenceBackbone, load, save

CAUSAL = {name: row for name, row in LAYERS.items() if not row.bidirectional}
TWO_SIDED = {name: row for name, row in LAYERS.items() if row.bidirectional}
LINEAR = {name: row for name, row in LAYERS.items() if row.traits.linear}
ONE_MAP = ("attention_bidirectional",)
"""One softmax over both sides, which is no sum of two maps."""


def outputs_and_grads(module, u, form):
    """Outputs, last state, and the gradients of a loss on the outputs, of one way to compute."""

    def loss(module, u):
        y, state = form(module, u)
        return weigh(y), (y, state)

    (_, outputs), grads = loss_and_grads(module, loss, u, has_aux=True)
    return outputs, grads


def at_once(layer, u):
    return layer(u, return_state=True)


def by_chunks(layer, u):
    """Three chunks, one after the other."""

    def body(state, chunk):
        return layer(chunk, state=state, return_state=True)[::-1]

    chunks = jnp.stack(jnp.split(u, 3, -2))
    state, y = jax.lax.scan(body, layer.init_state(u.shape[:-2]), chunks)
    return jnp.concatenate(list(y), -2), state


def by_steps(layer, u):
    def body(state, u_t):
        return layer.step(u_t, state)[::-1]

    state, y = jax.lax.scan(body, layer.init_state(u.shape[:-2]), jnp.moveaxis(u, -2, 0))
    return jnp.moveaxis(y, 0, -2), state


@each(LAYERS)
def test_shapes_dtypes_and_finite_gradients(row):
    layer = row.make()
    for shape in [(1, H), (2, 3, 5, H)]:
        y = run(layer, normal(1, *shape))
        assert y.shape == shape
        assert y.dtype == jnp.float32
    for leaf in jax.tree.leaves(nnx.state(layer, nnx.Param)):
        assert leaf.dtype == jnp.float32
    _, grads = loss_and_grads(layer, lambda m, u: weigh(m(u)), normal(1, 2, 37, H))
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(grads))


@each(CAUSAL)
def test_causal_by_gradient(row):
    layer = row.make()
    jacobian = jax.jit(jax.jacrev(lambda u: layer(u).sum(-1)))(normal(0, 11, H))
    size = jnp.abs(jacobian).sum(-1)
    assert jnp.triu(size, 1).max() <= row.transform_noise * size.max()
    assert size.max() > 0


@each(TWO_SIDED)
def test_bidirectional_sees_both_sides(row):
    layer = row.make()
    jacobian = jnp.abs(jax.jacrev(lambda u: layer(u).sum(-1))(normal(0, 5, H))).sum(-1)
    assert (jacobian > 0).all()


@each(CAUSAL)
def test_whole_is_chunks_is_steps(row):
    layer, u = row.make(), normal(2, 2, 39, H)
    whole = outputs_and_grads(layer, u, at_once)
    for form in (by_chunks, by_steps):
        assert_close(outputs_and_grads(layer, u, form), whole)
    assert_close(run(layer, u), whole[0][0])


@each(CAUSAL)
def test_sequence_of_one_is_a_step(row):
    layer, u = row.make(), normal(2, 2, 3, H)
    state = run(layer, u[:, :2], return_state=True)[1]
    y, expected = jax.jit(lambda u, state: layer.step(u, state))(u[:, 2], state)
    assert_close(run(layer, u[:, 2:], state=state, return_state=True), (y[:, None], expected))


@each(LAYERS)
def test_padding_never_leaks(row):
    layer, L, lengths = row.make(), 11, jnp.array([11, 4, 0])
    u = normal(3, 3, L, H)
    valid = (jnp.arange(L) < lengths[:, None])[..., None]

    def loss(m, u):
        return weigh(m(u, lengths=lengths))

    clean = loss_and_grads(layer, loss, jnp.where(valid, u, 0.0))
    dirty = loss_and_grads(layer, loss, jnp.where(valid, u, jnp.nan))
    assert_close(dirty, clean, rtol=0)
    y = run(layer, jnp.where(valid, u, jnp.nan), lengths=lengths)
    assert (jnp.where(valid, 0.0, y) == 0).all()
    for i, n in enumerate(lengths.tolist()):
        if n:
            assert_close(y[i, :n], run(layer, u[i, :n]))


@each(CAUSAL)
def test_state_after_lengths(row):
    layer, lengths = row.make(), jnp.array([9, 4, 0])
    u, start = normal(4, 3, 9, H), run(layer, normal(5, 3, 6, H), return_state=True)[1]
    y, state = run(layer, u, state=start, lengths=lengths, return_state=True)
    for i, n in enumerate(lengths.tolist()):
        own = jax.tree.map(lambda x, i=i: x[i], start)
        alone = run(layer, u[i, :n], state=own, return_state=True) if n else (y[i, :0], own)
        assert_close((y[i, :n], jax.tree.map(lambda x, i=i: x[i], state)), alone)


RESETS = np.zeros((3, 12), bool)
RESETS[0, [4, 5, 9]] = RESETS[1, [0, 11]] = True


@each(LAYERS)
def test_resets_separate_segments(row):
    layer, u = row.make(), normal(6, 3, 12, H)
    y = run(layer, u, resets=RESETS)
    for i, marks in enumerate(RESETS):
        bounds = [0, *np.flatnonzero(marks), 12]
        for a, b in itertools.pairwise(bounds):
            if a < b:
                assert_close(y[i, a:b], run(layer, u[i, a:b]))


@each(LAYERS)
def test_nan_stays_in_its_segment(row):
    layer = row.make()
    u = normal(6, 3, 12, H)
    keep = np.ones((3, 12, 1), bool)
    keep[0, 4:5] = keep[2] = False
    bad = u.at[0, 4, 1].set(jnp.nan).at[2, 7, 0].set(jnp.inf)

    def loss(m, u):
        return weigh(jnp.where(keep, m(u, resets=RESETS), 0.0))

    value, (params, inputs) = loss_and_grads(layer, loss, bad)
    clean_value, (clean_params, clean_inputs) = loss_and_grads(
        layer, loss, jnp.where(jnp.isfinite(bad), bad, 0.0)
    )
    assert_close((value, params), (clean_value, clean_params), rtol=1e-6)
    assert_close(inputs[:2], clean_inputs[:2], rtol=1e-6)
    y = np.isnan(run(layer, bad, resets=RESETS)).all(-1)
    poisoned = np.zeros_like(y)
    poisoned[0, 4] = True
    poisoned[2, 0 if row.bidirectional else 7 :] = True
    np.testing.assert_array_equal(y, poisoned)


@each(CAUSAL)
def test_nan_and_earlier_outputs(row):
    """What the docstring of the call says."""
    layer, u = row.make(), normal(6, 2, 12, H)
    clean = run(layer, u)
    for value in (jnp.nan, jnp.inf):
        bad = u.at[0, 7, 1].set(value)
        y = run(layer, bad)
        assert_close(y[1], clean[1])
        assert not jnp.isfinite(y[0, 7]).all() or (isinstance(layer, GRU) and value == jnp.inf)
        if isinstance(layer, (S5, LRU, GRU)) and row.options.get("algorithm") != "block":
            assert_close(y[0, :7], clean[0, :7])
        kept = run(layer, bad, resets=np.zeros((2, 12), bool))
        assert_close((kept[0, :7], kept[1]), (clean[0, :7], clean[1]))
        assert jnp.isnan(kept[0, 7:]).all()


@each(CAUSAL)
def test_reset_drops_a_nan_state(row):
    layer, u = row.make(), normal(7, 2, 6, H)
    state = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), layer.init_state((2,)))
    resets = jnp.zeros((2, 6), bool).at[0, 0].set(True).at[1, 3].set(True)
    y, last = run(layer, u, state=state, resets=resets, return_state=True)
    assert_close((y[0], y[1, 3:]), (run(layer, u[0]), run(layer, u[1, 3:])))
    assert jnp.isnan(y[1, :3]).all()
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(last))


@each(CAUSAL)
def test_resets_and_lengths_with_state(row):
    layer, u = row.make(), normal(8, 2, 12, H)
    start = run(layer, normal(9, 2, 3, H), return_state=True)[1]
    resets = jnp.zeros((2, 12), bool).at[0, 5].set(True).at[1, 9].set(True)
    y, state = run(
        layer, u, state=start, resets=resets, lengths=jnp.array([12, 8]), return_state=True
    )
    first = jax.tree.map(lambda x: x[0], start)
    second = jax.tree.map(lambda x: x[1], start)
    assert_close(y[0, :5], run(layer, u[0, :5], state=first))
    tail, last = run(layer, u[0, 5:], return_state=True)
    assert_close((y[0, 5:], jax.tree.map(lambda x: x[0], state)), (tail, last))
    head, last = run(layer, u[1, :8], state=second, return_state=True)
    assert_close((y[1, :8], jax.tree.map(lambda x: x[1], state)), (head, last))


@each({name: row for name, row in LAYERS.items() if name not in ONE_MAP})
def test_fast_edits_are_the_generic_scan(row):
    """Values and gradients of sequences in which every step may differ."""
    layer, u, lengths = row.make(), normal(10, 3, 12, H), jnp.array([12, 7, 1])
    valid = jnp.arange(12) < lengths[:, None]
    resets = jnp.asarray(RESETS) & valid
    dt = jax.random.uniform(jax.random.key(1), (3, 12), minval=0.2, maxval=3.0)
    edits = {"dt": dt} if row.traits.continuous_time else {}

    def generic(m, u):
        y, last = by_definition(m, u, resets=resets, valid=valid, **edits)
        return weigh(y), None if row.bidirectional else last

    def fast(m, u):
        if row.bidirectional:
            return weigh(m(u, resets=resets, lengths=lengths, **edits)), None
        y, last = m(u, resets=resets, lengths=lengths, return_state=True, **edits)
        return weigh(y), last

    expected = loss_and_grads(layer, generic, u, has_aux=True)
    assert_close(loss_and_grads(layer, fast, u, has_aux=True), expected)


@each(LAYERS)
def test_fast_edits_do_not_step(row, monkeypatch):
    layer, steps = row.make(), []
    advance = row.layer.advance

    def noticed(self, *arguments):
        steps.append(1)
        return advance(self, *arguments)

    monkeypatch.setattr(row.layer, "advance", noticed)
    edits = {"resets": RESETS, "lengths": np.array([12, 7, 1])}
    jax.eval_shape(lambda u: layer(u, **edits), normal(10, 3, 12, H))
    assert (not steps) == row.traits.fast_edits


@each(LAYERS)
def test_traits_are_those_of_the_table(row):
    layer, traits = row.make(), row.traits
    assert layer.bidirectional == row.bidirectional
    for name in ("linear", "continuous_time", "mixes_features", "backward_delay"):
        assert getattr(layer, name) == getattr(traits, name), name


@each(LAYERS)
def test_features_meet_where_the_table_says(row):
    layer = row.make()
    jacobian = jax.jit(jax.jacrev(lambda u: layer(u).sum(0)))(normal(0, 7, H))
    size = np.abs(jacobian).sum(1)
    apart = np.abs(size[~np.eye(H, dtype=bool)])
    assert (size.diagonal() > 0).all()
    if row.traits.mixes_features:
        assert (apart > 0).any()
    else:
        assert (apart == 0).all()


@each(LAYERS)
def test_dt(row):
    layer, u = row.make(), normal(11, 2, 9, H)
    if row.traits.continuous_time:
        assert_close(run(layer, u, dt=1.0), run(layer, u), rtol=1e-6)
        assert_close(run(layer, u, dt=jnp.full((2, 9), 2.0)), run(layer, u, dt=2.0))
        assert jnp.abs(run(layer, u, dt=2.0) - run(layer, u)).max() > 1e-3
    else:
        with pytest.raises(ValueError, match="`dt` needs a continuous-time layer"):
            layer(u, dt=2.0)


@each({name: row for name, row in CAUSAL.items() if row.exact_hold})
def test_irregular_samples_are_a_held_fine_grid(row):
    layer, u, gaps = row.make(), normal(12, 5, H), np.array([1, 3, 2, 1, 4])
    y, state = run(layer, u, dt=jnp.asarray(gaps, jnp.float32), return_state=True)
    fine, fine_state = run(layer, jnp.repeat(u, gaps, axis=0), return_state=True)
    assert_close((y, state), (fine[np.cumsum(gaps) - 1], fine_state))
    stepped = layer.init_state()
    for u_t, gap in zip(u, gaps, strict=True):
        _, stepped = layer.step(u_t, stepped, float(gap))
    assert_close(stepped, fine_state)


@each(LAYERS)
def test_linear(row):
    layer, u, v = row.make(), normal(13, 2, 17, H), normal(14, 2, 17, H)
    together = run(layer, 2.0 * u - 0.5 * v)
    apart = 2.0 * run(layer, u) - 0.5 * run(layer, v)
    if row.traits.linear:
        assert_close(together, apart)
    else:
        assert jnp.abs(together - apart).max() > 1e-2 * jnp.abs(apart).max()


@each({name: row for name, row in LAYERS.items() if name not in LINEAR})
def test_nonlinear_has_no_kernel(row):
    with pytest.raises(ValueError, match="not linear in its inputs"):
        row.make().kernel(4)


@each(LINEAR)
def test_kernel_is_the_impulse_response(row):
    layer, u, L = row.make(), np.asarray(normal(15, 9, H)), 9
    product = "ij,j->i" if row.traits.mixes_features else "i,i->i"
    kernel = jax.jit(lambda: layer.kernel(L))

    def convolve(K, u):
        return np.stack(
            [sum(np.einsum(product, K[t - j], u[j]) for j in range(t + 1)) for t in range(L)]
        )

    if row.bidirectional:
        forward, backward = map(np.asarray, kernel())
        lag, padding = row.traits.backward_delay, np.zeros((row.traits.backward_delay, H))
        reverse = np.flip(convolve(backward, np.flip(u, 0)), 0)
        y = convolve(forward, u) + np.concatenate([reverse[lag:], padding])
    else:
        y = convolve(np.asarray(kernel()), u)
    assert_close(y, run(layer, u))
    with pytest.raises(ValueError, match="`L` must be at least 1"):
        layer.kernel(0)


@each({name: row for name, row in CAUSAL.items() if row.traits.has_ssm})
def test_to_ssm_is_the_layer(row):
    layer, u = row.make(), normal(16, 15, H)
    A, B, C, D = map(np.asarray, jax.jit(lambda: layer.to_ssm())())
    x, outputs = np.zeros(A.shape[0]), []
    for u_t in np.asarray(u):
        x = A @ x + B @ u_t
        outputs.append(C @ x + D @ u_t)
    assert_close(np.stack(outputs), run(layer, u))


@each({name: row for name, row in LAYERS.items() if row.bidirectional or not row.traits.has_ssm})
def test_without_an_ssm_that_is_said(row):
    message = "needs a causal layer" if row.traits.has_ssm else "not a finite state space"
    with pytest.raises(ValueError, match=message):
        row.make().to_ssm()


@each(TWO_SIDED)
def test_bidirectional_has_no_state(row):
    layer, u = row.make(), normal(17, 2, 5, H)
    for call in [
        lambda: layer.step(u[:, 0], layer.init_state((2,))),
        lambda: layer(u, return_state=True),
        lambda: layer(u, state=layer.init_state((2,))),
    ]:
        with pytest.raises(ValueError, match=r"needs a causal layer.*bidirectional=False"):
            call()


@each(LAYERS)
def test_bad_arguments(row):
    layer, u = row.make(), normal(18, 2, 5, H)
    for arguments, message in [
        ({"u": u[..., :3]}, r"`u` must have shape \(\*batch, L, 4\)"),
        ({"u": u[0, 0]}, r"got \(4,\)"),
        ({"u": u[:, :0]}, r"L >= 1; got \(2, 0, 4\)"),
        ({"u": u, "lengths": jnp.array([5, 6])}, "between 0 and the padded length 5"),
        ({"u": u, "lengths": jnp.array([5, -1])}, "got values from -1 to 5"),
        ({"u": u, "lengths": jnp.array([5.0, 1.0])}, "`lengths` must be integers"),
        ({"u": u, "lengths": jnp.array([5])}, r"shape \(2,\), one per sequence"),
        ({"u": u, "resets": jnp.zeros((2, 5))}, "`resets` must be boolean"),
        ({"u": u, "resets": jnp.zeros((2, 4), bool)}, r"with shape \(2, 5\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            layer(**arguments)
    if not row.bidirectional:
        with pytest.raises(ValueError, match="`state` must have the structure and shapes"):
            layer(u, state=layer.init_state((3,)))
        with pytest.raises(ValueError, match=r"step: `u` must have shape \(\*batch, 4\)"):
            layer.step(u[:, 0, :3], layer.init_state((2,)))
    if row.traits.continuous_time:
        with pytest.raises(ValueError, match="`dt` must be positive"):
            layer(u, dt=0.0)
        with pytest.raises(ValueError, match="`dt` must be one number or have shape"):
            layer(u, dt=jnp.ones(5))


@each(LAYERS)
@pytest.mark.parametrize("batch", [(0,), (2, 0)])
def test_empty_batch(row, batch):
    layer, L = row.make(), 40
    u, lengths, resets = (
        jnp.zeros((*batch, L, H)),
        jnp.zeros(batch, int),
        jnp.zeros((*batch, L), bool),
    )

    @jax.jit
    def call(u):
        edits = {"lengths": lengths, "resets": resets}
        outputs = [layer(u), layer(u, lengths=lengths), layer(u, **edits)]
        outputs += [jax.grad(lambda u: layer(u).sum() + layer(u, **edits).sum())(u)]
        if row.traits.continuous_time:
            outputs += [layer(u, dt=2.0), layer(u, dt=jnp.ones(resets.shape), **edits)]
        if row.bidirectional:
            return outputs, None, None
        y, state = layer(u, state=layer.init_state(batch), return_state=True, **edits)
        y_next, state = layer.step(u[..., 0, :], state)
        return [*outputs, y], y_next, state

    outputs, y_next, state = call(u)
    assert {y.shape for y in outputs} == {(*batch, L, H)}
    if not row.bidirectional:
        assert y_next.shape == (*batch, H)
        assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, layer.init_state(batch))
    _, (grads, _) = loss_and_grads(layer, lambda m, u: m(u).sum(), u)
    assert all((g == 0).all() for g in jax.tree.leaves(nnx.state(grads, nnx.Param)))


@each(LAYERS)
def test_float32_against_float64_at_16k(row):
    with jax.enable_x64(True):
        narrow = row.make()
        wide = row.make(param_dtype=jnp.float64)
        values = jax.tree.map(lambda x: x.astype(jnp.float64), nnx.state(narrow))
        nnx.update(wide, values)
        u = np.random.default_rng(0).normal(size=(16384, H)).astype(np.float32)
        exact = np.asarray(jax.jit(lambda u: wide(u))(jnp.asarray(u, jnp.float64)))
        assert exact.dtype == np.float64
        y = np.asarray(jax.jit(lambda u: narrow(u))(jnp.asarray(u)))
        assert y.dtype == np.float32
    assert np.abs(y - exact).max() <= row.tolerance_16k * np.abs(exact).max()


@each(LAYERS)
def test_bfloat16(row):
    u = normal(19, 2, 33, H)
    expected = run(row.make(), u)
    layer = row.make(dtype=jnp.bfloat16)
    y = run(layer, u.astype(jnp.bfloat16))
    assert_close(y.astype(jnp.float32), expected, rtol=3e-2)
    for leaf in jax.tree.leaves(layer.init_state((2,))):
        assert jnp.finfo(leaf.dtype).bits >= 32
    assert run(row.make(), u.astype(jnp.bfloat16)).dtype in (jnp.float32, jnp.bfloat16)


@each(LAYERS)
def test_jit_traces_once_and_equals_eager(row):
    layer, traces = row.make(), []
    graphdef, state = nnx.split(layer)

    @jax.jit
    def call(state, u):
        traces.append(1)
        return nnx.merge(graphdef, state)(u)

    u = normal(20, 2, 16, H)
    assert_close(call(state, u), layer(u))
    call(state, u + 1)
    assert len(traces) == 1


@each(LAYERS)
def test_transformations(row):
    layer, u = row.make(), normal(21, 3, 10, H)
    call = jax.jit(lambda u: layer(u))
    assert_close(jax.jit(jax.vmap(call))(u), call(u))
    plain = jax.jit(jax.grad(lambda u: weigh(call(u))))(u)
    assert_close(jax.jit(jax.grad(lambda u: weigh(jax.checkpoint(call)(u))))(u), plain)
    check_grads(call, (u,), order=1, atol=3e-3, rtol=3e-3, eps=1e-2)  # 1e-4 drowns in float32


@each(LAYERS)
def test_same_seed_same_parameters(row):
    same, other = nnx.state(row.make()), nnx.state(row.make(seed=1))
    assert_close(nnx.state(row.make()), same, rtol=0)
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (same, other)), strict=True))


@each({name: row for name, row in LAYERS.items() if row.layer.__module__.startswith("s5jax")})
def test_save_and_load(row, tmp_path):
    layer, u = row.make(), normal(2, 2, 5, H)
    save(layer, tmp_path / "layer")
    again = load(tmp_path / "layer")
    assert_close(nnx.state(again), nnx.state(layer), rtol=0)
    assert_close(run(again, u), run(layer, u), rtol=0)


@pytest.mark.slow
@each(CAUSAL)
def test_six_layers_stream(row):
    """Over 16 features: layer norms of four multiply rounding errors by a hundred and more."""
    model = SequenceBackbone(
        row.layer,
        d_input=H,
        d_model=16,
        n_layers=6,
        layer_options=row.options,
        norm="layer",
        final_norm=True,
        rngs=nnx.Rngs(0),
    )
    u = normal(24, 2, 39, H)

    def stacked(form):
        """One leaf for all six: the gradient of a single scalar can cancel to near nothing."""
        outputs, (grads, u_grad) = outputs_and_grads(model, u, form)
        blocks = jax.tree.map(lambda *leaves: jnp.stack(leaves), *grads.pop("blocks").values())
        return outputs, blocks, grads, u_grad

    whole = stacked(at_once)
    for form in (by_chunks, by_steps):
        assert_close(stacked(form), whole, rtol=5e-5)


@each(LAYERS)
def test_eight_shards_equal_one(row):
    layer, u = row.make(), normal(23, 8, 10, H)
    mesh = jax.make_mesh((8,), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    assert_close(jax.jit(lambda u: layer(u))(jax.device_put(u, sharding)), run(layer, u), rtol=1e-6)
