r"""Long convolutions by matrix products over chunks of time, with the state handed on between them.

A system with N states a feature sees a chunk of T inputs and puts out

.. math:: y = \mathrm{Toep}(K_0, \dots, K_{T-1})\, u + L s, \qquad s' = \bar A^T s + E u

where s is the state before the chunk: no kernel of the whole length, no transform, and only
L / T states in memory.
"""

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from s5jax._errors import check_choice
from s5jax._promotion import default_promotion
from s5jax.ops._complex import complex_to_pair, pair_to_complex
from s5jax.ops._in_place import recur, table
from s5jax.ops._scan import linear_scan, scan_backend
from s5jax.ops._tables import doubled, highest, lower_toeplitz
from s5jax.ops._vandermonde import _check, _exponentials

Conv = Literal["auto", "fft", "chunked"]

CHUNK = 64
"""Steps of a chunk; 32 to 128 take about the same time with 64 states."""

_GROUP = 64
"""Chunks of which the gradient keeps no more than the inputs and one state."""


class ChunkTables(NamedTuple):
    """What happens in T steps; see `vandermonde_chunks`, `dplr_chunks` and `hope_chunks`.

    N counts real states. Those of a diagonal system are the real parts of its complex ones, and
    then the imaginary parts.
    """

    taps: Float[Array, "H T"]
    """Impulse response."""
    enter: Float[Array, "H N T"] | Float[Array, "N T"]
    """What each input adds to the state after the chunk."""
    leave: Float[Array, "H T N"]
    """What the state before the chunk adds to each output."""
    carry: Float[Array, "H N N"] | Complex[Array, "H N/2"]
    """What T steps without input add to the state; or, diagonal, what they multiply it with."""


def conv_backend(
    conv: str, L: int, d_state: int, *, batch: int = 1, two_sided: bool = False
) -> str:
    """Names the algorithm by which a layer convolves when asked for ``conv``.

    ``"auto"`` is ``"chunked"`` on a CPU for one direction (the transform serves both at once) and
    few states a feature: up to 64 real ones from 4,096 steps for each sequence in the batch on (a
    kernel costs the same for any batch, and chunks need none), up to 128 from 16,384; else
    ``"fft"``. On two CPU cores, with 128 features and one sequence (32 for 262,144 steps), chunks
    took these shares of the FFT's time, forward, and forward and backward; another run differed by
    up to 0.2:

    =====  ===========  ==========  ==========  ==========  ==========
    layer  real states  4,096       16,384      65,536      262,144
    =====  ===========  ==========  ==========  ==========  ==========
    S4D    64           0.68, 0.82  0.67, 0.84  0.46, 0.68  0.35, 0.49
    S4     64           0.86, 0.77  0.78, 0.82  0.67, 0.90  0.50, 0.75
    HOPE   64           0.97, 1.03  0.68, 0.94  0.58, 0.84  0.45, 0.69
    DLR    128          0.96, 1.29  0.75, 1.03  0.54, 0.88  0.39, 0.61
    =====  ===========  ==========  ==========  ==========  ==========

    From 65,536 steps on chunks take half of the memory or less. With eight sequences of 4,096 steps
    they took 1.3 to 1.8 of the time forward, and 1.8 to 2.7 with gradients. Nothing was measured on
    a GPU.

    Args:
        conv: ``"auto"``, or one of the two.
        L: length of the sequences.
        d_state: number of real states a feature.
        batch: number of sequences.
        two_sided: whether there is a second kernel, backward in time.

    Returns:
        ``"fft"`` or ``"chunked"``.

    Raises:
        ValueError: if ``conv`` is unknown.

    Example:
        >>> from s5jax.ops import conv_backend
        >>> conv_backend("chunked", 100, 64), conv_backend("auto", 65536, 2048)
        ('chunked', 'fft')
    """
    check_choice("conv_backend", "conv", conv, get_args(Conv))
    if conv != "auto":
        return conv
    shortest = 4096 if d_state <= 64 else 16_384
    known = isinstance(L, int) and isinstance(batch, int)  # and not a symbol of jax.export
    pays = known and L >= shortest * batch and d_state <= 128 and not two_sided
    return "chunked" if pays and jax.default_backend() == "cpu" else "fft"


@default_promotion
def chunked_conv(u: Float[Array, "*batch L H"], tables: ChunkTables) -> Float[Array, "*batch L H"]:
    r"""Convolves sequences with the kernels of state spaces, chunk by chunk.

    .. math:: y_t = \sum_{j \ge 0} K_j u_{t-j}

    The same as `fft_conv` with the kernel, in :math:`O(L (T + N))`, the faster way for long
    sequences and few states (`conv_backend`). Its gradient recomputes what happens inside groups
    of chunks instead of keeping it, so that it needs memory for inputs and outputs and little more.

    Args:
        u: inputs, ``(*batch, L, H)``.
        tables: of the systems, for chunks of any length T.

    Returns:
        Outputs, ``(*batch, L, H)``, in the dtype of ``u``.

    Raises:
        ValueError: if ``u`` does not have as many features as there are systems.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import chunked_conv, vandermonde_chunks
        >>> z = jnp.log(jnp.array([[0.5 + 0.0j]]))
        >>> tables = vandermonde_chunks(jnp.ones((1, 1), complex), z, 2)
        >>> print(chunked_conv(jnp.ones((4, 1)), tables)[:, 0])
        [1.    1.5   1.75  1.875]

    References:
        Dao and Gu, "Transformers are SSMs", 2024, https://arxiv.org/abs/2405.21060, section 6, for
        the same idea in a selective model.
    """
    H, T = tables.taps.shape
    if u.ndim < 2 or u.shape[-1] != H or u.shape[-2] < 1:
        raise ValueError(
            f"chunked_conv: `u` must have shape (*batch, L, {H}) with L >= 1, because there are "
            f"tables of {H} systems; got {u.shape}."
        )
    L, dtype = u.shape[-2], tables.taps.dtype
    batch = () if math.prod(u.shape[:-2]) == 1 else u.shape[:-2]  # XLA copies around axes of 1
    groups = -(-L // (T * _GROUP))
    chunks = -(-L // (T * groups))
    x = u.astype(dtype).reshape(*batch, L, H)
    x = jnp.pad(x, [(0, 0)] * len(batch) + [(0, groups * chunks * T - L), (0, 0)])
    x = jnp.moveaxis(x.reshape(*batch, groups, chunks * T, H), (-3, -1), (0, 1))
    x = x.reshape(groups, H, *batch, chunks, T)
    full = tables._replace(taps=lower_toeplitz(tables.taps))
    start = jnp.zeros((*batch, H, tables.leave.shape[-1]), dtype)
    if groups == 1:
        y = _group(full, start, x[0])[1][None]
    else:
        _, y = jax.lax.scan(jax.checkpoint(lambda s, x: _group(full, s, x)), start, x)
    y = jnp.moveaxis(y.reshape(groups, H, *batch, chunks * T), (0, 1), (-3, -1))
    y = y.reshape(*batch, groups * chunks * T, H)[..., :L, :]
    return y.reshape(u.shape).astype(u.dtype)


@default_promotion
def vandermonde_chunks(
    c: Complex[Array, "H N"], z: Complex[Array, "H N"] | Complex[Array, " N"], T: int
) -> ChunkTables:
    """Tables for the kernel that `vandermonde` forms.

    Args:
        c: weights, ``(H, N)``.
        z: exponents, ``(H, N)``, or ``(N,)`` if all features share them.
        T: length of a chunk.

    Returns:
        The tables, of N complex states, which are 2 N real ones.

    Raises:
        ValueError: if the shapes do not fit or ``T`` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import vandermonde_chunks
        >>> z = jnp.log(jnp.array([[0.5 + 0.0j]]))
        >>> print(vandermonde_chunks(jnp.ones((1, 1), complex), z, 4).taps)
        [[1.    0.5   0.25  0.125]]
    """
    _check("vandermonde_chunks", c, z, T=T)
    powers = _exponentials(z, 1, T + 1)
    weighted = c[..., None] * powers
    enter, leave = _rows(powers), _rows(weighted.conj())
    return ChunkTables(
        leave[..., : c.shape[-1], :T].sum(-2),
        jnp.flip(enter[..., :T], -1),
        jnp.moveaxis(leave[..., 1:], -1, -2),
        jnp.broadcast_to(powers[..., T], c.shape),
    )


def dense_chunks(
    where: str,
    powers: Iterator[Float[Array, "H N N"]],
    B: Float[Array, "H N"],
    C: Float[Array, "H N"],
    first: Float[Array, " H"],
    T: int,
) -> ChunkTables:
    r"""Tables for :math:`K_0 = d` and :math:`K_l = C A^{l-1} B`.

    Args:
        where: the function that is called, for errors.
        powers: :math:`A^{2^k} - I` for :math:`k = 0, 1, \dots`.
        B: input vectors, ``(H, N)``.
        C: output vectors, ``(H, N)``.
        first: lag zero, ``(H,)``.
        T: length of a chunk, a power of two.

    Returns:
        The tables.
    """
    if T < 1 or T & (T - 1):
        raise ValueError(f"{where}: `T` must be a power of two; got {T}.")
    right, left = B[..., None], C[..., None, :]
    while right.shape[-1] < T:
        M = next(powers)
        right = doubled(right, highest("hij,hjb->hib", M, right), -1)
        left = doubled(left, highest("hai,hij->haj", left, M), -2)
    later = highest("hn,hnb->hb", C, right[..., :-1])
    taps = jnp.concatenate([first[:, None], later], -1)
    return ChunkTables(taps, jnp.flip(right, -1), left, next(powers))


def _rows(v: Complex[Array, "*batch N T"]) -> Float[Array, "*batch 2N T"]:
    """Rows of real parts, then of imaginary ones.

    They are written one after the other, into zeros: XLA would merge a concatenation with what made
    the numbers, and compute them one by one, seven times as long.
    """
    *batch, N, T = v.shape
    rows = jnp.zeros((*batch, 2 * N, T), v.real.dtype)
    rows = jax.lax.dynamic_update_slice_in_dim(rows, v.real, 0, -2)
    return jax.lax.dynamic_update_slice_in_dim(rows, v.imag, N, -2)


def _group(
    tables: ChunkTables, s: Float[Array, "*batch H N"], x: Float[Array, "H *batch n T"]
) -> tuple[Float[Array, "*batch H N"], Float[Array, "H *batch n T"]]:
    """The state after some chunks, and their outputs.

    A product takes rows of T inputs or of N states of one feature after the other. With other
    orders of the axes than x and ``before`` have, products of float32 took twice as long.
    """
    enter = "h...nt,hit->h...ni" if tables.enter.ndim == 3 else "h...nt,it->h...ni"
    states = _diagonal_states if jnp.iscomplexobj(tables.carry) else _dense_states
    driven = jnp.moveaxis(highest(enter, x, tables.enter), (-2, 0), (0, -2))
    before, after = states(tables.carry, driven, s)
    before = jnp.moveaxis(before, (0, -2), (-2, 0))
    y = highest("h...ni,hti->h...nt", before, tables.leave)
    return after, y + highest("h...ns,hts->h...nt", x, tables.taps)


def _diagonal_states(
    carry: Complex[Array, "H M"],
    driven: Float[Array, "n *batch H 2*M"],
    s: Float[Array, "*batch H 2*M"],
) -> tuple[Float[Array, "n *batch H 2*M"], Float[Array, "*batch H 2*M"]]:
    """States before each of n chunks, which lead, and after the last."""
    b, x0 = (v.reshape(*v.shape[:-1], 2, carry.shape[-1]) for v in (driven, s))
    if scan_backend() == "sequential":
        x = recur(False, table(carry), b, x0)
    else:
        z, z0 = (pair_to_complex(v, axis=-2) for v in (b, x0))
        z, z0 = (v.reshape(*v.shape[:-2], -1) for v in (jnp.moveaxis(z, 0, -3), z0))
        x = jnp.moveaxis(linear_scan(carry.reshape(-1), z, z0), -2, 0)
        x = complex_to_pair(x.reshape(*x.shape[:-1], *carry.shape), axis=-2)
    x = x.reshape(driven.shape)
    return jnp.concatenate([s[None], x[:-1]]), x[-1]


@jax.custom_jvp
def _dense_states(
    carry: Float[Array, "H N N"],
    driven: Float[Array, "n *batch H N"],
    s: Float[Array, "*batch H N"],
) -> tuple[Float[Array, "n *batch H N"], Float[Array, "*batch H N"]]:
    """The same for full matrices.

    The derivative of the states obeys the same recurrence. Written as such, the gradient of the
    matrices is one product of all chunks, where a loop would add to them in each.
    """

    def advance(s: Array, driven: Array) -> tuple[Array, Array]:
        return s + highest("hij,...hj->...hi", carry, s) + driven, s

    after, before = jax.lax.scan(advance, s, driven)
    return before, after


@_dense_states.defjvp
@default_promotion
def _dense_states_jvp(
    primals: tuple[Array, ...], tangents: tuple[Array, ...]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    carry, driven, s = primals
    carry_dot, driven_dot, s_dot = tangents
    before, after = _dense_states(carry, driven, s)
    driven_dot = driven_dot + highest("hij,...hj->...hi", carry_dot, before)
    return (before, after), _dense_states(carry, driven_dot, s_dot)
