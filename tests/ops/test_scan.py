import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from s5jax.ops import _in_place as in_place
from s5jax.ops import (
    complex_to_pair,
    linear_scan,
    linear_scan_ref,
    pair_scan,
    pair_to_complex,
    scan_backend,
)

ANY_STEP = ("sequential", "associative")
BACKENDS = (*ANY_STEP, "chunked")


def problem(L, P, *, constant, kind, batch=(2,), seed=0):
    """Coefficients of modulus below one, inputs and a start."""
    a_shape = (P,) if constant else (*batch, L, P)
    keys = iter(jax.random.split(jax.random.key(seed), 8))
    a = jax.random.uniform(next(keys), a_shape, minval=0.3, maxval=0.99)
    b, x0 = (
        jax.random.normal(next(keys), (*batch, L, P)),
        jax.random.normal(next(keys), (*batch, P)),
    )
    if kind == "complex":
        a = a * jnp.exp(1j * jax.random.uniform(next(keys), a_shape, maxval=6.0))
        b, x0 = b + 1j * jax.random.normal(next(keys), b.shape), x0 * (1 - 0.5j)
    return a, b, x0


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize(
    ("backend", "constant", "with_resets"),
    [*itertools.product(ANY_STEP, (True, False), (False, True)), ("chunked", True, False)],
)
def test_values_and_gradients(backend, kind, constant, reverse, with_resets):
    L = 40 if backend == "chunked" else 13
    a, b, x0 = problem(L, 3, constant=constant, kind=kind)
    resets = None
    if with_resets:
        resets = jnp.zeros((2, 13), bool).at[0, jnp.array([0, 4, 5])].set(True).at[1, 12].set(True)

    def value_and_grads(scan, **options):
        def loss(a, b, x0):
            x = scan(a, b, x0, reverse=reverse, resets=resets, **options)
            return (jnp.abs(x) * jnp.cos(jnp.arange(x.size).reshape(x.shape))).sum(), x

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(a, b, x0)

    assert_close(value_and_grads(linear_scan, backend=backend), value_and_grads(linear_scan_ref))


@settings(max_examples=25, deadline=None, derandomize=True)
@pytest.mark.slow
@given(
    L=st.integers(1, 20),
    P=st.integers(1, 3),
    batch=st.sampled_from([(), (1,), (2, 3)]),
    cut=st.integers(0, 20),
    backend=st.sampled_from(BACKENDS),
    reverse=st.booleans(),
)
def test_whole_is_two_parts(L, P, batch, cut, backend, reverse):
    a, b, x0 = problem(L, P, constant=True, kind="real", batch=batch)
    scan = functools.partial(linear_scan, backend=backend, reverse=reverse)
    cut = min(cut, L)

    @jax.jit
    def three_ways(a, b, x0):
        whole, definition = scan(a, b, x0), linear_scan_ref(a, b, x0, reverse=reverse)
        if cut in (0, L):
            return whole, definition, whole
        first, second = (b[..., :cut, :], b[..., cut:, :])
        if reverse:
            tail = scan(a, second, x0)
            head = scan(a, first, tail[..., 0, :])
        else:
            head = scan(a, first, x0)
            tail = scan(a, second, head[..., -1, :])
        return whole, definition, jnp.concatenate([head, tail], -2)

    whole, *others = three_ways(a, b, x0)
    for other in others:
        assert_close(other, whole)


@pytest.mark.parametrize("backend", ANY_STEP)
def test_nothing_crosses_a_reset(backend):
    a, b, x0 = problem(10, 2, constant=False, kind="complex")
    resets = jnp.zeros((2, 10), bool).at[:, 6].set(True)
    bad = b.at[:, 2].set(jnp.nan)

    @jax.jit
    @jax.value_and_grad
    def loss(b):
        return jnp.abs(linear_scan(a, b, x0, resets=resets, backend=backend)[:, 6:]).sum()

    (value, gradient), (_, expected) = loss(bad), loss(b)
    assert_close(gradient[:, 6:], expected[:, 6:], rtol=0)
    assert jnp.isfinite(value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_constant_coefficients_are_not_spread_over_time(backend):
    """No value of the program is L times as large as ``a`` except those that ``b`` needs."""
    a, b, _ = problem(64, 5, constant=True, kind="real", batch=())
    jaxpr = jax.make_jaxpr(lambda a: linear_scan(a, b, backend=backend))(a)
    dependent = jax.make_jaxpr(lambda a: linear_scan(a, jnp.zeros_like(b), backend=backend))(a)
    for program in (jaxpr, dependent):
        broadcasts = [
            e
            for e in program.jaxpr.eqns
            if e.primitive.name == "broadcast_in_dim" and e.invars[0].aval.shape == (5,)
        ]
        assert all(e.outvars[0].aval.shape[0] == 1 for e in broadcasts)


@pytest.mark.parametrize("backend", BACKENDS)
def test_narrow_inputs_recur_in_float32(backend):
    a, b, _ = problem(2000, 2, constant=True, kind="real", batch=())
    narrow = [v.astype(jnp.bfloat16) for v in (a, b)]
    scan = jax.jit(functools.partial(linear_scan, backend=backend))
    x = scan(*narrow)
    assert x.dtype == jnp.float32
    assert_close(x, scan(*[v.astype(jnp.float32) for v in narrow]))


@pytest.mark.parametrize(
    ("backend", "constant", "with_resets"),
    [*itertools.product(ANY_STEP, (True, False), (True,)), ("sequential", True, False)],
)
def test_forward_reverse_and_second_derivatives(backend, constant, with_resets):
    a, b, x0 = problem(5, 2, constant=constant, kind="real", batch=())
    resets = jnp.zeros(5, bool).at[2].set(True) if with_resets else None

    def scan(a, b, x0):
        return linear_scan(a, b, x0, resets=resets, reverse=True, backend=backend)

    check_grads(jax.jit(scan), (a, b, x0), order=2, modes=("fwd", "rev"), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("reverse", [False, True])
def test_derivatives_in_one_argument_and_then_another(which, reverse):
    """Second derivatives in all modes, where only one argument is differentiated at a time."""
    arguments = problem(5, 2, constant=True, kind="real", batch=(3,))

    def loss(scan, *arguments):
        return jnp.sin(scan(*arguments, reverse=reverse)).sum()

    def hessians(scan):
        f = functools.partial(loss, scan)
        return [
            outer(inner(f, which), i)(*arguments)
            for outer, inner in itertools.product((jax.jacfwd, jax.jacrev), repeat=2)
            for i in range(3)
        ]

    sequential = functools.partial(linear_scan, backend="sequential")
    assert_close(jax.jit(hessians, static_argnums=0)(sequential), hessians(linear_scan_ref))


@pytest.mark.parametrize("L", [16, 21])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_blocks_backward_in_time(L, reverse, kind, monkeypatch):
    """With and without a rest; the gradient goes backward where the scan goes forward."""
    monkeypatch.setattr(in_place, "_LONG", 8)
    monkeypatch.setattr(in_place, "_BLOCK", 4)
    monkeypatch.setattr(in_place, "_ROW_BYTES", range(1, 1000))
    arguments = problem(L, 3, constant=True, kind=kind)

    def value_and_grads(scan, **options):
        def loss(*arguments):
            x = scan(*arguments, reverse=reverse, **options)
            return (jnp.abs(x) * jnp.cos(jnp.arange(x.size).reshape(x.shape))).sum(), x

        return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)

    blocked = value_and_grads(linear_scan, backend="sequential")
    block = "f32[4,2,3]" if kind == "real" else "f32[4,2,2,3]"
    assert block in str(jax.make_jaxpr(blocked)(*arguments))
    got, expected = jax.jit(blocked)(*arguments), value_and_grads(linear_scan_ref)(*arguments)
    assert_close(got, expected)


@pytest.mark.parametrize(
    ("backend", "constant"), [*itertools.product(ANY_STEP, (True, False)), ("chunked", True)]
)
def test_pairs_are_complex_numbers(backend, constant):
    a, b, x0 = problem(40, 3, constant=constant, kind="complex")

    @jax.jit
    def both(a, b, x0):
        pairs = pair_scan(a, complex_to_pair(b, axis=-2), x0, reverse=True, backend=backend)
        return pair_to_complex(pairs, axis=-2), linear_scan(a, b, x0, reverse=True)

    pairs, expected = both(a, b, x0)
    assert_close(pairs, expected)
    narrow = pair_scan(a, complex_to_pair(b, axis=-2).astype(jnp.bfloat16), backend=backend)
    assert narrow.dtype == jnp.float32


def test_what_is_no_pair_is_refused():
    with pytest.raises(ValueError, match=r"^pair_scan: `b` must have shape.*got \(5, 3\)"):
        pair_scan(jnp.ones(3, complex), jnp.ones((5, 3)))
    a, b, resets = jnp.ones(3, complex), jnp.ones((5, 2, 3)), jnp.zeros(5, bool)
    with pytest.raises(ValueError, match=r"^pair_scan: `a` must be constant, of shape \(3,\)"):
        pair_scan(a[:2], b)
    with pytest.raises(ValueError, match=r"^pair_scan: `x0` must.*\(3,\); got \(2,\)"):
        pair_scan(a, b, a[:2])
    with pytest.raises(ValueError, match=r"^pair_scan: `resets` must.*\(5,\).*\(4,\)"):
        pair_scan(a, b, resets=resets[:4])
    with pytest.raises(ValueError, match=r"^pair_scan: `backend='chunked'` needs"):
        pair_scan(a, b, resets=resets, backend="chunked")


@pytest.mark.parametrize(
    ("backend", "tolerance"), [("sequential", 5e-6), ("associative", 5e-5), ("chunked", 5e-5)]
)
def test_accuracy_at_16k(backend, tolerance):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        a = (1 - np.geomspace(1e-4, 0.5, 16)) * np.exp(1j * np.linspace(0, 3, 16))
        a = jnp.asarray(a, jnp.complex64)
        b = jnp.asarray(rng.normal(size=(16384, 16)), jnp.float32)
        scan = jax.jit(functools.partial(linear_scan, backend=backend))
        exact, x = scan(a.astype(jnp.complex128), b.astype(jnp.float64)), scan(a, b)
        assert x.dtype == jnp.complex64
        assert float(jnp.abs(x - exact).max() / jnp.abs(exact).max()) < tolerance


def test_auto_names_its_choice():
    assert scan_backend() == ("sequential" if jax.default_backend() == "cpu" else "associative")
    assert scan_backend("sequential") == "sequential"
    with pytest.raises(
        ValueError, match=r"'auto', 'sequential', 'associative', 'chunked'.*mean 'seq"
    ):
        scan_backend("sequental")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"b": np.ones(3)}, r"`b` must have shape \(\*batch, L, P\), got \(3,\)"),
        ({"a": np.ones(4)}, r"constant, of shape \(3,\)"),
        ({"a": np.ones((4, 3))}, r"the shape of `b`, \(5, 3\); got \(4, 3\)"),
        ({"x0": np.ones((2, 3))}, r"`x0` must have the shape of `b` without its time axis, \(3,\)"),
        ({"resets": np.zeros((5, 3), bool)}, r"`resets` must be boolean with shape \(5,\)"),
        ({"resets": np.zeros(5)}, "got float32 with shape"),
        ({"backend": "parallel"}, "`backend` must be one of"),
        ({"backend": "chunked", "a": np.ones((5, 3))}, "needs coefficients that are the same at"),
        ({"backend": "chunked", "resets": np.zeros(5, bool)}, "without `resets`"),
    ],
)
def test_bad_arguments(arguments, message):
    arguments = {"a": np.ones(3), "b": np.ones((5, 3))} | arguments
    arguments = {k: v if isinstance(v, str) else jnp.asarray(v) for k, v in arguments.items()}
    with pytest.raises(ValueError, match=message):
        linear_scan(arguments.pop("a"), arguments.pop("b"), arguments.pop("x0", None), **arguments)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_keeps_only_the_states(backend):
    """Between forward and backward pass: the states, and nothing else of that size."""
    a, b, _ = problem(16384, 8, constant=True, kind="complex", batch=())
    scan = jax.jit(functools.partial(linear_scan, backend=backend))
    _, pull_back = jax.vjp(scan, a, b)
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(pull_back))
    assert b.nbytes <= kept <= 1.1 * b.nbytes
