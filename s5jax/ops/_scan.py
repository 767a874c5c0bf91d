"""First-order linear recurrences, the core of every diagonal state-space layer."""

import functools
import math
from typing import Any, Literal, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Inexact

from s5jax._errors import check_choice
from s5jax._promotion import default_promotion, with_axes
from s5jax.ops._complex import complex_to_pair, pair_to_complex
from s5jax.ops._in_place import real_factor, recur
from s5jax.ops._platform import target_platform
from s5jax.ops._tables import highest

ScanAlgorithm = Literal["auto", "sequential", "associative", "chunked"]


def scan_algorithm(algorithm: str = "auto") -> ScanAlgorithm:
    """Returns the name of the algorithm that `linear_scan` runs.

    ``"auto"`` is ``"sequential"`` on a CPU, where it is the fastest, and ``"associative"``
    elsewhere. ``docs/performance.md`` has measurements on a CPU.

    Args:
        algorithm: ``"auto"``, or an algorithm of `linear_scan`.

    Returns:
        ``"sequential"``, ``"associative"`` or ``"chunked"``.

    Raises:
        ValueError: if ``algorithm`` is unknown.

    Example:
        >>> from s5jax.ops import scan_algorithm
        >>> scan_algorithm("associative")
        'associative'
    """
    check_choice("linear_scan", "algorithm", algorithm, get_args(ScanAlgorithm))
    if algorithm != "auto":
        return cast(ScanAlgorithm, algorithm)
    return "sequential" if target_platform() == "cpu" else "associative"


@default_promotion
def linear_scan(
    a: Inexact[Array, " P"] | Inexact[Array, "*batch L P"],
    b: Inexact[Array, "*batch L P"],
    x0: Inexact[Array, "*batch P"] | None = None,
    *,
    reverse: bool = False,
    resets: Bool[Array, "*batch L"] | None = None,
    algorithm: ScanAlgorithm = "auto",
) -> Inexact[Array, "*batch L P"]:
    r"""Solves a diagonal linear recurrence over time, for real or complex numbers.

    .. math:: x_k = a_k x_{k-1} + b_k, \quad x_{-1} = x_0 \qquad
       \text{or, with } \mathtt{reverse}, \quad x_k = a_k x_{k+1} + b_k, \quad x_L = x_0 .

    A constant ``a`` is never broadcast over time. The recurrence runs in float32 or wider, whatever
    the dtypes of its arguments are. At a reset a select drops the old state, so not even a NaN
    crosses it. In both directions ``resets`` marks the first step of a segment. With ``reverse``,
    a reset at step k therefore cuts the flow from step k to step k - 1.

    Args:
        a: coefficients, ``(P,)`` if constant or ``(*batch, L, P)`` if given per step.
        b: inputs, ``(*batch, L, P)``.
        x0: state before the first step (after the last one with ``reverse``), ``(*batch, P)``;
            zero if omitted.
        reverse: run backward in time.
        resets: ``(*batch, L)``, True at the first step of a new segment.
        algorithm: ``"sequential"`` (step by step; work :math:`L`, depth :math:`L`),
            ``"associative"`` (parallel prefix; depth :math:`\log L`), ``"chunked"`` (matrices of
            32 steps, for a constant ``a`` without resets; work :math:`32 L`, depth :math:`L / 32`)
            or ``"auto"``; see `scan_algorithm`.

    Returns:
        All states ``x``, ``(*batch, L, P)``.

    Raises:
        ValueError: if the shapes do not fit, ``algorithm`` is unknown, or it is ``"chunked"`` with
            ``resets`` or with coefficients per step.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import linear_scan
        >>> print(linear_scan(jnp.array([0.5]), jnp.ones((4, 1)))[:, 0])
        [1.    1.5   1.75  1.875]

    References:
        Blelloch, "Prefix Sums and Their Applications", 1990.
        Smith et al., "Simplified State Space Layers" (S5), 2023, https://arxiv.org/abs/2208.04933.
    """
    if b.ndim < 2:
        raise ValueError(f"linear_scan: `b` must have shape (*batch, L, P), got {b.shape}.")
    chosen = scan_algorithm(algorithm)
    _check("linear_scan", chosen, "`b`", b.shape, a, x0, resets)
    dtype = jnp.result_type(a, b, b if x0 is None else x0, jnp.float32)
    a, b = a.astype(dtype), b.astype(dtype)
    x0 = jnp.zeros(b.shape[:-2] + b.shape[-1:], dtype) if x0 is None else x0.astype(dtype)
    if chosen == "sequential" and a.ndim == 1 and resets is None:
        if not jnp.iscomplexobj(b):
            return _constant(a, b, x0, reverse, time=-2)
        b, x0 = complex_to_pair(b, axis=-2), complex_to_pair(x0, axis=-2)
        return pair_to_complex(_constant(a, b, x0, reverse, time=-3), axis=-2)
    a, b = (jnp.moveaxis(v, -2, 0) if v.ndim > 1 else v for v in (a, b))
    cut = None if resets is None else _cuts(jnp.moveaxis(resets, -1, 0), reverse)
    return jnp.moveaxis(_recurrence(chosen, reverse, a, b, x0, cut), 0, -2)


@default_promotion
def pair_scan(
    a: Complex[Array, " P"] | Complex[Array, "*batch L P"],
    b: Float[Array, "*batch L 2 P"],
    x0: Complex[Array, "*batch P"] | None = None,
    *,
    reverse: bool = False,
    resets: Bool[Array, "*batch L"] | None = None,
    algorithm: ScanAlgorithm = "auto",
) -> Float[Array, "*batch L 2 P"]:
    r"""`linear_scan` of complex numbers that are stored as ``[re, im]``.

    .. math:: x_k = a_k x_{k-1} + b_k

    A real matrix product over features writes both parts of ``b`` in this layout, and another one
    reads both parts of ``x`` in it. The sequential algorithm then never forms a complex array of
    length L.

    Args:
        a: coefficients, ``(P,)`` if constant or ``(*batch, L, P)`` if given per step.
        b: inputs, ``(*batch, L, 2, P)``.
        x0: state before the first step, ``(*batch, P)``; see `linear_scan`.
        reverse: run backward in time.
        resets: ``(*batch, L)``, True at the first step of a new segment.
        algorithm: see `linear_scan`.

    Returns:
        All states, ``(*batch, L, 2, P)``.

    Raises:
        ValueError: as in `linear_scan`, or if axis -2 of ``b`` does not have length 2.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import pair_scan
        >>> b = jnp.array([[[1.0], [0.0]]] * 3)
        >>> print(pair_scan(jnp.array([0.5j]), b)[..., 0])
        [[1.   0.  ]
         [1.   0.5 ]
         [0.75 0.5 ]]

    References:
        Smith et al., "Simplified State Space Layers" (S5), 2023, https://arxiv.org/abs/2208.04933.
    """
    if b.ndim < 3 or b.shape[-2] != 2:
        raise ValueError(
            f"pair_scan: `b` must have shape (*batch, L, 2, P), of real and imaginary parts; got "
            f"{b.shape}. Use `complex_to_pair` with `axis=-2` to make such an array."
        )
    chosen = scan_algorithm(algorithm)
    shape = (*b.shape[:-2], b.shape[-1])
    _check("pair_scan", chosen, "`b` as complex numbers", shape, a, x0, resets)
    if not (chosen == "sequential" and a.ndim == 1 and resets is None):
        b = pair_to_complex(b, axis=-2)
        x = linear_scan(a, b, x0, reverse=reverse, resets=resets, algorithm=algorithm)
        return complex_to_pair(x, axis=-2)
    dtype = jnp.result_type(a, b, b if x0 is None else x0, jnp.complex64)
    x0 = jnp.zeros(b.shape[:-3] + b.shape[-1:], dtype) if x0 is None else x0.astype(dtype)
    b = b.astype(jnp.finfo(dtype).dtype)
    return _constant(a.astype(dtype), b, complex_to_pair(x0, axis=-2), reverse, time=-3)


@default_promotion
def linear_scan_ref(
    a: Inexact[Array, " P"] | Inexact[Array, "*batch L P"],
    b: Inexact[Array, "*batch L P"],
    x0: Inexact[Array, "*batch P"] | None = None,
    *,
    reverse: bool = False,
    resets: Bool[Array, "*batch L"] | None = None,
) -> Inexact[Array, "*batch L P"]:
    """`linear_scan` by its definition, in a Python loop; for tests.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import linear_scan_ref
        >>> print(linear_scan_ref(jnp.array([0.5]), jnp.ones((3, 1)), reverse=True)[:, 0])
        [1.75 1.5  1.  ]
    """
    L = b.shape[-2]
    a = jnp.broadcast_to(a, b.shape)
    x = jnp.zeros(b.shape[:-2] + b.shape[-1:], jnp.result_type(a, b)) if x0 is None else x0
    states = {}
    for k in reversed(range(L)) if reverse else range(L):
        first = k + 1 if reverse else k
        if resets is not None and first < L:
            x = jnp.where(resets[..., first, None], 0, x)
        x = states[k] = a[..., k, :] * x + b[..., k, :]
    return jnp.stack([states[k] for k in range(L)], axis=-2)


def _check(
    where: str,
    algorithm: str,
    inputs: str,
    shape: tuple[int, ...],
    a: Array,
    x0: Array | None,
    resets: Array | None,
) -> None:
    """Raises a ValueError unless the arguments fit the inputs, given by their name and shape."""
    if a.shape not in (shape[-1:], shape):
        raise ValueError(
            f"{where}: `a` must be constant, of shape {shape[-1:]}, or given per step "
            f"with the shape of {inputs}, {shape}; got {a.shape}."
        )
    state_shape = shape[:-2] + shape[-1:]
    if x0 is not None and x0.shape != state_shape:
        raise ValueError(
            f"{where}: `x0` must have the shape of {inputs} without its time axis, {state_shape}; "
            f"got {x0.shape}."
        )
    if resets is not None and (resets.shape != shape[:-1] or resets.dtype != bool):
        raise ValueError(
            f"{where}: `resets` must be boolean with shape {shape[:-1]}; got {resets.dtype} with "
            f"shape {resets.shape}."
        )
    if algorithm == "chunked" and not (a.ndim == 1 and resets is None):
        raise ValueError(
            f"{where}: `algorithm='chunked'` needs coefficients that are the same at every step, "
            "without `resets` or a step length per step. Use 'auto', 'sequential' or 'associative'."
        )


def _constant(a: Array, b: Array, x0: Array, reverse: bool, *, time: int) -> Array:
    """The recurrence with constant coefficients, on real numbers or pairs, step by step.

    Batch axes of length 1 are removed, because XLA copies arrays to move an axis past them.
    """
    n = b.ndim + time
    if math.prod(b.shape[:n]) == 1:
        x = recur(reverse, real_factor(a), b.reshape(b.shape[n:]), x0.reshape(x0.shape[n:]))
        return x.reshape(b.shape)
    return jnp.moveaxis(recur(reverse, real_factor(a), jnp.moveaxis(b, time, 0), x0), 0, time)


def _cuts(resets: Array, reverse: bool) -> Array:
    """Steps at which the incoming state is dropped; time leads."""
    if not reverse:
        return resets
    return jnp.concatenate([resets[1:], jnp.zeros_like(resets[:1])])


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _recurrence(
    algorithm: str, reverse: bool, a: Array, b: Array, x0: Array, cut: Array | None
) -> Array:
    r"""Solves the recurrence by the named algorithm; time leads.

    The derivative of the states obeys the same recurrence, driven by :math:`\dot b_k + \dot a_k
    x_{k-1}`. In this form, with every shift applied to the linear :math:`\dot a`, the gradient
    stores the states and nothing else. Differentiating the algorithm would store copies of them.
    The same rule serves forward and reverse mode.
    """
    return _ALGORITHMS[algorithm](a, b, x0, cut, reverse)


@_recurrence.defjvp
@default_promotion
def _recurrence_jvp(
    algorithm: str,
    reverse: bool,
    primals: tuple[Array, Array, Array, Array | None],
    tangents: tuple[Array, Array, Array, Array | None],
) -> tuple[Array, Array]:
    a, b, x0, cut = primals
    a_dot, b_dot, x0_dot, _ = tangents
    x = _recurrence(algorithm, reverse, a, b, x0, cut)
    # Row k of `a_next` is a_dot of the step that reads x_k. No step reads the last state.
    first, others = (slice(-1, None), slice(0, -1)) if reverse else (slice(0, 1), slice(1, None))
    a_dot = jnp.broadcast_to(a_dot, b.shape) if a.ndim == 1 else a_dot
    if cut is not None:
        a_dot = jnp.where(cut[..., None], 0, a_dot)
    zero = jnp.zeros_like(a_dot[:1])
    a_next = [zero, a_dot[others]] if reverse else [a_dot[others], zero]
    driven = jnp.concatenate(a_next) * x
    start = a_dot[first] * x0[None]
    driven = [driven[1:], start] if reverse else [start, driven[:-1]]
    return x, _ALGORITHMS[algorithm](a, b_dot + jnp.concatenate(driven), x0_dot, cut, reverse)


def _sequential(a: Array, b: Array, x0: Array, cut: Array | None, reverse: bool) -> Array:
    """One step after another, with coefficients per step or resets.

    Complex arrays of length L enter and leave the loop as real and imaginary parts. Real matrix
    products before and after it then need no interleaved copy.
    """

    def step(x: Array, inputs: tuple[Any, Any, Array | None]) -> tuple[Array, Any]:
        a_k, b_k, cut_k = inputs
        if cut_k is not None:
            x = jnp.where(cut_k[..., None], 0, x)
        x = (with_axes(a, x) if a_k is None else _join(a_k)) * x + _join(b_k)
        return x, _parts(x)

    per_step = (None if a.ndim == 1 else _parts(a), _parts(b), cut)
    return _join(jax.lax.scan(step, x0, per_step, reverse=reverse)[1])


def _parts(z: Array) -> tuple[Array, ...]:
    return (z.real, z.imag) if jnp.iscomplexobj(z) else (z,)


def _join(parts: tuple[Array, ...]) -> Array:
    return jax.lax.complex(*parts) if len(parts) == 2 else parts[0]


def _associative(a: Array, b: Array, x0: Array, cut: Array | None, reverse: bool) -> Array:
    if reverse:
        flipped = a if a.ndim == 1 else jnp.flip(a, 0)
        cut = None if cut is None else jnp.flip(cut, 0)
        return jnp.flip(_associative(flipped, jnp.flip(b, 0), x0, cut, False), 0)
    if cut is None:
        b = b.at[0].add((with_axes(a, x0) if a.ndim == 1 else a[0]) * x0)
        if a.ndim == 1:
            return _odd_even(with_axes(a, b), b)
        return jax.lax.associative_scan(lambda p, q: (q[0] * p[0], q[0] * p[1] + q[1]), (a, b))[1]
    a = jnp.broadcast_to(a, b.shape)
    cut = jnp.broadcast_to(cut[..., None], b.shape)
    b = b.at[0].add(a[0] * jnp.where(cut[0], 0, x0))
    return jax.lax.associative_scan(_gated, (a, b, cut))[1]


def _gated(p: tuple[Array, ...], q: tuple[Array, ...]) -> tuple[Array, ...]:
    """Composes step ``q`` after step ``p``; a step with its flag set ignores what came before.

    The select stands before the product: after it, a NaN in ``p`` would reach the gradient of
    ``q``'s coefficient as 0 * NaN.
    """
    (a_p, b_p, cut_p), (a_q, b_q, cut_q) = p, q
    return a_q * a_p, a_q * jnp.where(cut_q, 0, b_p) + b_q, cut_p | cut_q


def _odd_even(a: Array, b: Array) -> Array:
    """Parallel prefix for a constant ``a``: odd steps obey the same recurrence with a squared."""
    L = b.shape[0]
    if L == 1:
        return b
    odd = _odd_even(a * a, a * b[0 : L - 1 : 2] + b[1::2])
    even = jnp.concatenate([b[:1], a * odd[: (L - 1) // 2] + b[2::2]])
    tail = even[L // 2 :]
    pairs = jnp.stack([even[: L // 2], odd], axis=1).reshape(L - L % 2, *b.shape[1:])
    return jnp.concatenate([pairs, tail])


_CHUNK = 32
"""Steps of a chunk."""


def _chunked(a: Array, b: Array, x0: Array, cut: Array | None, reverse: bool) -> Array:
    """Multiplies each chunk by the matrix of a's powers, and scans over the chunks."""
    del cut  # `_check` refuses resets
    if reverse:
        return jnp.flip(_chunked(a, jnp.flip(b, 0), x0, None, False), 0)
    L, T = len(b), min(_CHUNK, len(b))
    powers = jnp.cumprod(jnp.concatenate([jnp.ones_like(a)[None], jnp.tile(a, (T, 1))]), 0)
    lag = np.subtract.outer(np.arange(T), np.arange(T))
    triangle = jnp.where((lag < 0)[..., None], 0, powers[np.maximum(lag, 0)])
    b = jnp.pad(b, [(0, -L % T)] + [(0, 0)] * (b.ndim - 1))
    b = b.reshape(-1, T, *b.shape[1:])
    x = _join(tuple(_products(_parts(triangle), _parts(b))))
    last = jnp.moveaxis(
        linear_scan(powers[T], jnp.moveaxis(x[:, -1], 0, -2), x0, algorithm="sequential"), -2, 0
    )
    before = jnp.concatenate([x0[None], last[:-1]])
    x = x + powers[1:].reshape(1, T, *(1,) * (b.ndim - 3), -1) * before[:, None]
    return x.reshape(-1, *x.shape[2:])[:L]


def _products(a: tuple[Array, ...], b: tuple[Array, ...]) -> list[Array]:
    """Products over time of real matrices, or of complex ones as real and imaginary parts."""
    product = functools.partial(highest, "tsp,ns...p->nt...p")
    if len(a) == 1:
        return [product(a[0], b[0])]
    re, im = product(a[0], b[0]) - product(a[1], b[1]), product(a[0], b[1]) + product(a[1], b[0])
    return [re, im]


_ALGORITHMS = {"sequential": _sequential, "associative": _associative, "chunked": _chunked}
