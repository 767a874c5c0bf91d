import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, tiers
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from programs import equations

from s5jax.ops import _in_place as in_place
from s5jax.ops import (
    complex_to_pair,
    linear_scan,
    linear_scan_ref,
    pair_scan,
    pair_to_complex,
    scan_algorithm,
)

ANY_STEP = ("sequential", "associative")
ALGORITHMS = (*ANY_STEP, "chunked")


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
    ("algorithm", "constant", "with_resets"),
    [*itertools.product(ANY_STEP, (True, False), (False, True)), ("chunked", True, False)],
)
def test_values_and_gradients(algorithm, kind, constant, reverse, with_resets):
    L = 40 if algorithm == "chunked" else 13
    a, b, x0 = problem(L, 3, constant=constant, kind=kind)
    resets = None
    if with_resets:
        resets = jnp.zeros((2, 13), bool).at[0, jnp.array([0, 4, 5])].set(True).at[1, 12].set(True)

    def value_and_grads(scan, **options):
        def loss(a, b, x0):
            x = scan(a, b, x0, reverse=reverse, resets=resets, **options)
            return (jnp.abs(x) * jnp.cos(jnp.arange(x.size).reshape(x.shape))).sum(), x

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(a, b, x0)

    assert_close(
        value_and_grads(linear_scan, algorithm=algorithm), value_and_grads(linear_scan_ref)
    )


@settings(max_examples=25, deadline=None, derandomize=True)
@pytest.mark.slow
@given(
    L=st.integers(1, 20),
    P=st.integers(1, 3),
    batch=st.sampled_from([(), (1,), (2, 3)]),
    cut=st.integers(0, 20),
    algorithm=st.sampled_from(ALGORITHMS),
    reverse=st.booleans(),
)
def test_whole_is_two_parts(L, P, batch, cut, algorithm, reverse):
    a, b, x0 = problem(L, P, constant=True, kind="real", batch=batch)
    scan = functools.partial(linear_scan, algorithm=algorithm, reverse=reverse)
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


@pytest.mark.parametrize("algorithm", ANY_STEP)
def test_nothing_crosses_a_reset(algorithm):
    a, b, x0 = problem(10, 2, constant=False, kind="complex")
    resets = jnp.zeros((2, 10), bool).at[:, 6].set(True)
    bad = b.at[:, 2].set(jnp.nan)

    @jax.jit
    @jax.value_and_grad
    def loss(b):
        return jnp.abs(linear_scan(a, b, x0, resets=resets, algorithm=algorithm)[:, 6:]).sum()

    (value, gradient), (_, expected) = loss(bad), loss(b)
    assert_close(gradient[:, 6:], expected[:, 6:], rtol=0)
    assert jnp.isfinite(value)


N, L, P = 7, 4096, 5


def spread_over_time(scan):
    """Equations of a scan of N sequences that make half of L times P numbers from ``a`` alone.

    What comes from ``b`` has a multiple of N elements, and nothing else has; the tables of the
    chunked algorithm do not grow with L.
    """
    a, b, x0 = problem(L, P, constant=True, kind="real", batch=(N,))

    def apart(avals):
        return [v for v in avals if jnp.issubdtype(v.dtype, jnp.inexact) and v.size % N]

    found = []
    for equation in equations(scan, a, b, x0):
        given = [v.aval for v in equation.invars]
        made = [v.aval for v in equation.outvars]
        from_a = any(P in v.shape for v in apart(given)) and not any(
            v.size and v.size % N == 0 for v in given
        )
        made = made if from_a else apart(made)
        found += [equation] * any(P in v.shape and v.size >= L * P / 2 for v in made)
    return found


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_constant_coefficients_are_not_spread_over_time(algorithm):
    assert not spread_over_time(functools.partial(linear_scan, algorithm=algorithm))


def in_a_branch(scan):
    return lambda a, b, x0: jax.lax.cond(a[0] > 0, scan, lambda a, b, x0: b, a, b, x0)


def in_a_loop(scan):
    return lambda a, b, x0: jax.lax.fori_loop(0, 2, lambda _, x: scan(a, x, x0), b)


def with_rules(scan):
    f = jax.custom_jvp(scan)
    f.defjvp(lambda primals, tangents: (scan(*primals), tangents[1]))
    return f


def with_reverse_rules(scan):
    f = jax.custom_vjp(scan)
    f.defvjp(lambda *primals: (scan(*primals), None), lambda _, g: (g[0, 0], g, g[:, 0]))
    return f


@pytest.mark.parametrize(
    "inside", [jax.jit, jax.checkpoint, with_rules, with_reverse_rules, in_a_branch, in_a_loop]
)
def test_coefficients_that_are_spread_are_found(inside):
    """Wherever a program hides it; by a copy for each step, or by a scan that puts them out."""

    def copied(a, b, x0):
        steps = jnp.broadcast_to(a, (L, P))
        return linear_scan(jnp.broadcast_to(steps, b.shape), b, x0)

    def put_out(a, b, x0):
        _, powers = jax.lax.scan(lambda x, _: (a * x, a * x), jnp.ones(P), length=L)
        return b * powers + x0[:, None]

    def put_out_beside(a, b, x0):
        def step(x, b_k):
            return a[None] * x + b_k, (x, a)

        x, steps = jax.lax.scan(step, x0, jnp.moveaxis(b, 1, 0))[1]
        return jnp.moveaxis(x, 0, 1) + steps

    for spread in (copied, put_out, put_out_beside):
        assert spread_over_time(inside(spread))
    assert not spread_over_time(inside(functools.partial(linear_scan, algorithm="sequential")))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_narrow_inputs_recur_in_float32(algorithm):
    a, b, _ = problem(2000, 2, constant=True, kind="real", batch=())
    narrow = [v.astype(jnp.bfloat16) for v in (a, b)]
    scan = jax.jit(functools.partial(linear_scan, algorithm=algorithm))
    x = scan(*narrow)
    assert x.dtype == jnp.float32
    assert_close(x, scan(*[v.astype(jnp.float32) for v in narrow]))


@pytest.mark.parametrize(
    ("algorithm", "constant", "with_resets"),
    [*itertools.product(ANY_STEP, (True, False), (True,)), ("sequential", True, False)],
)
def test_forward_reverse_and_second_derivatives(algorithm, constant, with_resets):
    a, b, x0 = problem(5, 2, constant=constant, kind="real", batch=())
    resets = jnp.zeros(5, bool).at[2].set(True) if with_resets else None

    def scan(a, b, x0):
        return linear_scan(a, b, x0, resets=resets, reverse=True, algorithm=algorithm)

    check_grads(jax.jit(scan), (a, b, x0), order=2, modes=("fwd", "rev"), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("which", tiers(range(3), {1}))
@pytest.mark.parametrize("reverse", tiers([False, True], {True}))
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

    sequential = functools.partial(linear_scan, algorithm="sequential")
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

    def has_blocks(f):
        block = (4, 2, 3) if kind == "real" else (4, 2, 2, 3)
        made = (v.aval for equation in equations(f, *arguments) for v in equation.outvars)
        return any(getattr(v, "shape", None) == block for v in made)

    blocked = value_and_grads(linear_scan, algorithm="sequential")
    assert has_blocks(blocked)
    with monkeypatch.context() as rows:
        rows.setattr(in_place, "_LONG", 1000)
        assert not has_blocks(value_and_grads(linear_scan, algorithm="sequential"))
    got, expected = jax.jit(blocked)(*arguments), value_and_grads(linear_scan_ref)(*arguments)
    assert_close(got, expected)


@pytest.mark.parametrize(
    ("algorithm", "constant"), [*itertools.product(ANY_STEP, (True, False)), ("chunked", True)]
)
def test_pairs_are_complex_numbers(algorithm, constant):
    a, b, x0 = problem(40, 3, constant=constant, kind="complex")

    @jax.jit
    def both(a, b, x0):
        pairs = pair_scan(a, complex_to_pair(b, axis=-2), x0, reverse=True, algorithm=algorithm)
        return pair_to_complex(pairs, axis=-2), linear_scan(a, b, x0, reverse=True)

    pairs, expected = both(a, b, x0)
    assert_close(pairs, expected)
    narrow = pair_scan(a, complex_to_pair(b, axis=-2).astype(jnp.bfloat16), algorithm=algorithm)
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
    with pytest.raises(ValueError, match=r"^pair_scan: `algorithm='chunked'` needs"):
        pair_scan(a, b, resets=resets, algorithm="chunked")


@pytest.mark.parametrize(
    ("algorithm", "tolerance"), [("sequential", 5e-6), ("associative", 5e-5), ("chunked", 5e-5)]
)
def test_accuracy_at_16k(algorithm, tolerance):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        a = (1 - np.geomspace(1e-4, 0.5, 16)) * np.exp(1j * np.linspace(0, 3, 16))
        a = jnp.asarray(a, jnp.complex64)
        b = jnp.asarray(rng.normal(size=(16384, 16)), jnp.float32)
        scan = jax.jit(functools.partial(linear_scan, algorithm=algorithm))
        exact, x = scan(a.astype(jnp.complex128), b.astype(jnp.float64)), scan(a, b)
        assert x.dtype == jnp.complex64
        assert float(jnp.abs(x - exact).max() / jnp.abs(exact).max()) < tolerance


def test_auto_names_its_choice():
    assert scan_algorithm() == ("sequential" if jax.default_backend() == "cpu" else "associative")
    assert scan_algorithm("sequential") == "sequential"
    with pytest.raises(
        ValueError, match=r"'auto', 'sequential', 'associative', 'chunked'.*mean 'seq"
    ):
        scan_algorithm("sequental")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"b": np.ones(3)}, r"`b` must have shape \(\*batch, L, P\), got \(3,\)"),
        ({"a": np.ones(4)}, r"constant, of shape \(3,\)"),
        ({"a": np.ones((4, 3))}, r"the shape of `b`, \(5, 3\); got \(4, 3\)"),
        ({"x0": np.ones((2, 3))}, r"`x0` must have the shape of `b` without its time axis, \(3,\)"),
        ({"resets": np.zeros((5, 3), bool)}, r"`resets` must be boolean with shape \(5,\)"),
        ({"resets": np.zeros(5)}, "got float32 with shape"),
        ({"algorithm": "parallel"}, "`algorithm` must be one of"),
        ({"algorithm": "chunked", "a": np.ones((5, 3))}, "needs coefficients that are the same at"),
        ({"algorithm": "chunked", "resets": np.zeros(5, bool)}, "without `resets`"),
    ],
)
def test_bad_arguments(arguments, message):
    arguments = {"a": np.ones(3), "b": np.ones((5, 3))} | arguments
    arguments = {k: v if isinstance(v, str) else jnp.asarray(v) for k, v in arguments.items()}
    with pytest.raises(ValueError, match=message):
        linear_scan(arguments.pop("a"), arguments.pop("b"), arguments.pop("x0", None), **arguments)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_gradient_keeps_only_the_states(algorithm):
    """Between forward and backward pass: the states, and nothing else of that size."""
    a, b, _ = problem(16384, 8, constant=True, kind="complex", batch=())
    scan = jax.jit(functools.partial(linear_scan, algorithm=algorithm))
    _, pull_back = jax.vjp(scan, a, b)
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(pull_back))
    assert b.nbytes <= kept <= 1.1 * b.nbytes
