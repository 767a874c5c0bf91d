r"""Diagonal state spaces with dense input and output maps, by matrix products over blocks of time.

With the inputs of R steps side by side in U, and :math:`s` the states before each block,

.. math::
    S_{j+1} = \bar\Lambda^R \odot S_j + U_j W, \qquad Y_j = U_j T + \operatorname{Re}(S_j V)

where T is the block Toeplitz matrix of the first R matrices of the impulse response. No array with
a state for every step exists, so an accelerator moves a third of the bytes of a scan over steps. It
multiplies about three times as much, which its matrix units have to spare. Real and imaginary parts
are joined on the last axis, real parts first, and every product is real.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Complex, Float, Integer

from s5jax._errors import check_positive
from s5jax._keep import keep
from s5jax._promotion import default_promotion, with_axes
from s5jax.ops._complex import Parts, complex_to_pair, halves, times
from s5jax.ops._s5_scan import check_system
from s5jax.ops._tables import highest

_RADIX = 8
"""Blocks whose states one pass of the scan over blocks finds from the first of them."""

_ROW = 1024
"""Inputs that a block should have; more make the Toeplitz products dominate."""


class BlockTables(NamedTuple):
    """One direction of a system over blocks of R steps."""

    taps: Float[Array, "RH RH"]
    """From the inputs of a block to its outputs."""
    enter: Float[Array, "RH N"]
    """From the inputs of a block to the state at its end."""
    leave: Float[Array, "N RH"]
    """From the state at the beginning of a block to its outputs."""
    powers: Float[Array, "powers 2 P"]
    r"""Real and imaginary parts of :math:`\bar\Lambda^0, \ldots, \bar\Lambda^R`."""


def steps_of_block(H: int) -> int:
    """Returns the number of steps of a block, a power of two from 2 to 16."""
    return next(R for R in (16, 8, 4, 2) if R == 2 or R * H <= _ROW)


def block_tables(
    Lambda_bar: Complex[Array, " P"],
    B_bar: Complex[Array, "P H"],
    C: Complex[Array, "H P"],
    R: int,
    *,
    D: Float[Array, " H"] | None = None,
    reverse: bool = False,
) -> BlockTables:
    """Builds the tables of one direction for blocks of R steps."""
    H, P = C.shape
    powers = [jnp.ones_like(Lambda_bar)]
    for _ in range(R):
        powers.append(powers[-1] * Lambda_bar)
    stacked = jnp.stack(powers)
    left = C[None] * stacked[:R, None, :]
    K = highest("lhp,pg->lgh", left.real, B_bar.real) - highest(
        "lhp,pg->lgh", left.imag, B_bar.imag
    )
    if D is not None:
        K = K.at[0].add(jnp.diag(D))
    rows = [jnp.pad(K[: R - i], [(i, 0), (0, 0), (0, 0)]) for i in range(R)]
    if reverse:
        rows = [jnp.flip(row, 0) for row in reversed(rows)]
    taps = jnp.stack(rows).transpose(0, 2, 1, 3).reshape(R * H, R * H)
    entering = stacked[:R] if reverse else jnp.flip(stacked[:R], 0)
    leaving = jnp.flip(stacked[1:], 0) if reverse else stacked[1:]
    W = entering[:, None, :] * B_bar.T[None]
    V = leaving.T[:, :, None] * C.T[:, None, :]
    enter = jnp.concatenate([W.real, W.imag], -1).reshape(R * H, 2 * P)
    leave = jnp.concatenate([V.real, -V.imag]).reshape(2 * P, R * H)
    return BlockTables(taps, enter, leave, complex_to_pair(stacked, axis=-2))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def entering_states(
    reverse: bool,
    a: Float[Array, "2 P"],
    e: Float[Array, "*batch n N"],
    x0: Float[Array, "*batch N"],
) -> tuple[Float[Array, "*batch n N"], Float[Array, "*batch N"]]:
    r"""States before each block, :math:`s_{j+1} = a s_j + e_j`, and the one after the last.

    With ``reverse``, :math:`s_{j-1} = a s_j + e_j` from the last block to the first. Derivatives of
    any order run the same function.
    """
    states, last = _enter(reverse, (a[0], a[1]), halves(e), halves(x0))
    return jnp.concatenate(states, -1), jnp.concatenate(last, -1)


@default_promotion
def _entering_states_jvp(
    reverse: bool, primals: tuple[Array, ...], tangents: tuple[Any, ...]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    a, e, x0 = primals
    a_dot, e_dot, x0_dot = tangents
    states, last = entering_states(reverse, a, e, x0)
    states = keep(states)
    driven = [e_dot] if not isinstance(e_dot, SymbolicZero) else []
    if not isinstance(a_dot, SymbolicZero):
        driven.append(_pair_times(a_dot, states))
    if not driven:
        driven = [_nothing(jnp.broadcast_to(x0_dot[..., None, :], e.shape))]
    right = functools.reduce(jnp.add, driven)
    if isinstance(x0_dot, SymbolicZero):
        x0_dot = _nothing(right[..., 0, :])
    return (states, last), _entering_linear(reverse, a, right, x0_dot)


entering_states.defjvp(_entering_states_jvp, symbolic_zeros=True)


def _nothing(x: Array) -> Array:
    """Zero, as a linear function of x: `jax.lax.custom_linear_solve` takes no constants."""
    return jnp.where(jnp.zeros(x.shape, bool), x, 0)


def _entering_linear(reverse: bool, a: Array, e: Array, x0: Array) -> tuple[Array, Array]:
    """`entering_states` as a linear function of the inputs.

    Its transpose is the same function of the conjugate of a, in the other direction.
    """

    @jax.checkpoint
    def matvec(found: tuple[Array, Array]) -> tuple[Array, Array]:
        states, last = found
        if reverse:
            after = jnp.concatenate([last[..., None, :], states[..., :-1, :]], -2)
        else:
            after = jnp.concatenate([states[..., 1:, :], last[..., None, :]], -2)
        return after - _pair_times(a, states), states[..., -1 if reverse else 0, :]

    def solve(_: object, right: tuple[Array, Array]) -> tuple[Array, Array]:
        return entering_states(reverse, a, *right)

    def transpose_solve(_: object, right: tuple[Array, Array]) -> tuple[Array, Array]:
        return entering_states(not reverse, jnp.stack([a[0], -a[1]]), *right)

    return jax.lax.custom_linear_solve(matvec, (e, x0), solve, transpose_solve)


def _enter(reverse: bool, a: Parts, e: Parts, x0: Parts) -> tuple[Parts, Parts]:
    """States before each block and after the last, by way of those before every eighth block.

    The barriers keep XLA from computing the states of one level again for every level above it.
    """
    n = e[0].shape[-2]
    if n <= _RADIX:
        return _unrolled(reverse, a, e, x0)
    rest = [(-n % _RADIX, 0) if reverse else (0, -n % _RADIX), (0, 0)]
    groups = [jnp.pad(v, [(0, 0)] * (v.ndim - 2) + rest) for v in e]
    groups = [v.reshape(*v.shape[:-2], -(-n // _RADIX), _RADIX, v.shape[-1]) for v in groups]
    grouped = groups[0], groups[1]
    zero = jnp.zeros_like(grouped[0][..., 0, :])
    ends = jax.lax.optimization_barrier(_unrolled(reverse, a, grouped, (zero, zero))[1])
    power = functools.reduce(times, [a] * _RADIX)
    firsts, last = jax.lax.optimization_barrier(_enter(reverse, power, ends, x0))
    states, _ = _unrolled(reverse, a, grouped, firsts)
    cut = slice(-n, None) if reverse else slice(n)
    flat = [v.reshape(*v.shape[:-3], -(-n // _RADIX) * _RADIX, v.shape[-1]) for v in states]
    flat = [v[..., cut, :] for v in flat]
    if n % _RADIX:
        end = 0 if reverse else -1
        before = flat[0][..., end, :], flat[1][..., end, :]
        last = _step(a, before, (e[0][..., end, :], e[1][..., end, :]))
    return (flat[0], flat[1]), last


def _unrolled(reverse: bool, a: Parts, e: Parts, x: Parts) -> tuple[Parts, Parts]:
    """States before each of a few blocks and after the last, one after another."""
    n = e[0].shape[-2]
    states: list[Parts] = []
    for j in reversed(range(n)) if reverse else range(n):
        states.append(x)
        x = _step(a, x, (e[0][..., j, :], e[1][..., j, :]))
    if reverse:
        states.reverse()
    return (jnp.stack([s[0] for s in states], -2), jnp.stack([s[1] for s in states], -2)), x


def _step(a: Parts, x: Parts, e: Parts) -> Parts:
    re, im = times(a, x)
    return re + e[0], im + e[1]


def power(a: Float[Array, "2 P"], n: int) -> Float[Array, "2 P"]:
    """Returns the n-th power of complex numbers, by squaring."""
    result, square = (jnp.ones_like(a[0]), jnp.zeros_like(a[0])), (a[0], a[1])
    for digit in reversed(f"{n:b}"):
        if digit == "1":
            result = times(result, square)
        square = times(square, square)
    return jnp.stack(result)


def _pair_times(a: Array, x: Array) -> Array:
    return jnp.concatenate(times((a[0], a[1]), halves(x)), -1)


Enter = Callable[[bool, Array, Array, Array], tuple[Array, Array]]
"""`entering_states`, or a function that also finds what enters from other devices."""


def run_blocks(
    forward: BlockTables,
    u: Float[Array, "*batch L H"],
    x0: Float[Array, "*batch N"],
    backward: BlockTables | None = None,
    enter: Enter = entering_states,
) -> tuple[Float[Array, "*batch L H"], Float[Array, "*batch n N"], Float[Array, "*batch N"]]:
    """Runs whole sequences, the backward direction from zero.

    Both directions share the products with the inputs, which give outputs and states at once.

    Returns:
        Outputs, and the forward states before each block and after the last one.
    """
    L, H = u.shape[-2:]
    both = [forward] if backward is None else [forward, backward]
    R, dtype = len(forward.powers) - 1, u.dtype
    wide = jnp.promote_types(dtype, jnp.float32)
    taps = functools.reduce(jnp.add, [tables.taps for tables in both])
    entries = jnp.concatenate([tables.enter for tables in both], -1)
    out_of = jnp.concatenate([tables.leave for tables in both]).astype(dtype)
    rest = [(0, 0)] * (u.ndim - 2) + [(0, -L % R), (0, 0)]
    n = -(-L // R)
    # Reshaped in two steps, as arrays under a mesh with explicit axes have to be.
    U = jnp.pad(u, rest).reshape(*u.shape[:-2], n, R, H).reshape(*u.shape[:-2], n, R * H)
    if dtype == wide:
        into = jnp.concatenate([taps, entries], -1)
        own, driven = jnp.split(jnp.matmul(U, into), [R * H], axis=-1)
    else:
        own = jnp.matmul(U, taps.astype(dtype))
        driven = jnp.matmul(U, entries.astype(dtype), preferred_element_type=wide)
    ends = jnp.split(driven, len(both), axis=-1)
    states, last = enter(False, forward.powers[R], ends[0], x0)
    entering = [states]
    if backward is not None:
        entering.append(enter(True, backward.powers[R], ends[1], jnp.zeros_like(x0))[0])
    S = jnp.concatenate(entering, -1).astype(dtype)
    y = own + jnp.matmul(S, out_of)
    y = y.astype(dtype).reshape(*u.shape[:-2], n, R, H).reshape(*u.shape[:-2], n * R, H)
    return y[..., :L, :], states, last


def state_after(
    tables: BlockTables,
    u: Float[Array, "*batch L H"],
    states: Float[Array, "*batch n N"],
    steps: Integer[Array, "*batch"],
) -> Float[Array, "*batch N"]:
    """Returns the state after some steps of each sequence, from the one before their last block."""
    R, H = len(tables.powers) - 1, u.shape[-1]
    block = jnp.maximum(-(-steps // R) - 1, 0)
    before = jnp.take_along_axis(states, block[..., None, None], -2)[..., 0, :]
    inside = steps - R * block
    back = jnp.arange(R) - R
    row = steps[..., None] + with_axes(back, steps[..., None])
    inputs = jnp.take_along_axis(u, jnp.maximum(row, 0)[..., None], -2)
    inputs = jnp.where((row >= R * block[..., None])[..., None], inputs, 0)
    entered = jnp.matmul(
        inputs.reshape(*u.shape[:-2], R * H),
        tables.enter.astype(u.dtype),
        preferred_element_type=states.dtype,
    )
    power = tables.powers[inside]
    decayed = times((power[..., 0, :], power[..., 1, :]), halves(before))
    return jnp.concatenate(decayed, -1) + entered


@default_promotion
def block_scan(
    Lambda_bar: Complex[Array, " P"],
    B_bar: Complex[Array, "P H"],
    C: Complex[Array, "H P"],
    u: Float[Array, "*batch L H"],
    x0: Complex[Array, "*batch P"] | None = None,
    *,
    D: Float[Array, " H"] | None = None,
    reverse: bool = False,
    block: int | None = None,
) -> tuple[Float[Array, "*batch L H"], Complex[Array, "*batch P"]]:
    r"""Runs S5 on whole sequences by matrix products over blocks of time, on any device.

    .. math:: x_k = \bar\Lambda x_{k-1} + \bar B u_k, \qquad
       y_k = \operatorname{Re}(C x_k) + D \odot u_k

    or, with ``reverse``, :math:`x_k = \bar\Lambda x_{k+1} + \bar B u_k`. Over the inputs U of a
    block of R steps this is

    .. math:: s_{j+1} = \bar\Lambda^R s_j + W U_j, \qquad Y_j = T U_j + \operatorname{Re}(V s_j)

    with T the block Toeplitz matrix of the impulse response. A scan finds the L / R states between
    blocks; no others are formed, nor kept for the gradient. The cost is
    :math:`O(L (R H^2 + P H))`. The products are in the dtype of ``u`` and in JAX's default
    precision (`jax.default_matmul_precision`), and accumulate in float32 or wider. The tables and
    the scan have full precision.

    Args:
        Lambda_bar: discrete eigenvalues, ``(P,)``.
        B_bar: discrete input matrix, ``(P, H)``.
        C: output matrix, ``(H, P)``, including the factor 2 if only one state of each conjugate
            pair is kept.
        u: inputs, ``(*batch, L, H)``.
        x0: state before the first step (after the last one with ``reverse``), ``(*batch, P)``;
            zero if omitted.
        D: skip connection, ``(H,)``; none if omitted.
        reverse: run backward in time.
        block: number of steps R; by default 1,024 / H, from 2 to 16.

    Returns:
        Outputs ``(*batch, L, H)`` in the dtype of ``u``, and the state after the last step (before
        the first one with ``reverse``), ``(*batch, P)``.

    Raises:
        ValueError: if the shapes do not fit, or ``block`` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import block_scan
        >>> half, one = jnp.array([0.5 + 0j]), jnp.ones((1, 1), "complex64")
        >>> y, last = block_scan(half, one, one, jnp.ones((4, 1)), block=3)
        >>> print(y[:, 0], last)
        [1.    1.5   1.75  1.875] [1.875+0.j]

    References:
        Smith et al., "Simplified State Space Layers" (S5), 2023, https://arxiv.org/abs/2208.04933.
    """
    check_system("block_scan", Lambda_bar, B_bar, C, u, x0, D)
    R = steps_of_block(u.shape[-1])
    if block is not None:
        (R,) = check_positive("block_scan", block=block)
    tables = block_tables(Lambda_bar, B_bar, C, R, D=D)
    dtype = jnp.result_type(Lambda_bar, jnp.complex64)
    x0 = jnp.zeros((*u.shape[:-2], *Lambda_bar.shape), dtype) if x0 is None else x0.astype(dtype)
    u = jnp.flip(u, -2) if reverse else u
    y, states, last = run_blocks(tables, u, jnp.concatenate([x0.real, x0.imag], -1))
    L = u.shape[-2]
    if L % R:
        last = state_after(tables, u, states, jnp.full(u.shape[:-2], L))
    last = jax.lax.complex(*jnp.split(last, 2, axis=-1))
    return jnp.flip(y, -2) if reverse else y, last
