r"""Long convolutions by matrix products over chunks of time, with the state handed on between them.

A system with N states a feature sees a chunk of T inputs and puts out

.. math:: y = \mathrm{Toep}(K_0, \dots, K_{T-1})\, u + L s, \qquad s' = \bar A^T s + E u

where s is the state before the chunk: no kernel of the whole length, no transform, and only
L / T states in memory.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Inexact

from s5jax._errors import check_choice
from s5jax.ops._scan import linear_scan
from s5jax.ops._tables import doubled, highest, lower_toeplitz
from s5jax.ops._vandermonde import _check, _exponentials

Conv = Literal["auto", "fft", "chunked"]

CHUNK = 64
"""Steps of a chunk; 32 to 128 take about the same time with 64 states."""

_GROUP = 64
"""Chunks of which the gradient keeps no more than the inputs and one state."""


class ChunkTables(NamedTuple):
    """What happens in T steps; see `vandermonde_chunks`, `dplr_chunks` and `hope_chunks`."""

    taps: Float[Array, "H T"]
    """Impulse response."""
    enter: Inexact[Array, "H N T"] | Complex[Array, "N T"]
    """What each input adds to the state after the chunk."""
    leave: Inexact[Array, "H T N"]
    """What the state before the chunk adds to each output, as a real part."""
    carry: Float[Array, "H N N"] | Complex[Array, "H N"]
    """What T steps without input add to the state; or, diagonal, what they multiply it with."""


def conv_backend(
    conv: str, L: int, d_state: int, *, batch: int = 1, two_sided: bool = False
) -> str:
    """Names the algorithm by which a layer convolves when asked for ``conv``.

    ``"auto"`` is ``"chunked"`` on a CPU for one direction (the transform serves both at once) and
    few states a feature: up to 64 real ones from 4,096 steps for each sequence in the batch on (a
    kernel costs the same for any batch, and chunks need none), up to 128 from 65,536; else
    ``"fft"``. On two CPU cores, with 128 features and one sequence (32 for 262,144 steps), chunks
    took these shares of the FFT's time in one run, forward, and forward and backward; the same
    program twice differed by up to 1.2:

    =====  ===========  ==========  ==========  ==========  ==========
    layer  real states  4,096       16,384      65,536      262,144
    =====  ===========  ==========  ==========  ==========  ==========
    S4D    64           0.83, 0.97  0.77, 0.90  0.61, 0.83  0.59, 0.82
    S4     64           0.79, 0.82  0.88, 0.89  0.75, 1.00  0.72, 0.89
    HOPE   64           0.83, 0.96  0.86, 1.05  0.69, 1.00  0.66, 0.85
    DLR    128          1.03, 1.31  0.91, 1.69  0.67, 1.22  0.63, 1.00
    =====  ===========  ==========  ==========  ==========  ==========

    From 65,536 steps on chunks take half of the memory or less. With eight sequences of 4,096 steps
    they lost. Nothing was measured on a GPU.

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
    shortest = 4096 if d_state <= 64 else 65_536
    pays = L >= shortest * batch and d_state <= 128 and not two_sided
    return "chunked" if pays and jax.default_backend() == "cpu" else "fft"


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
    *batch, L, _ = u.shape
    dtype = tables.taps.dtype
    groups = -(-L // (T * _GROUP))
    chunks = -(-L // (T * groups))
    x = u.astype(dtype).reshape(-1, L, H)
    x = jnp.pad(x, [(0, 0), (0, groups * chunks * T - L), (0, 0)])
    x = x.reshape(len(x), groups, chunks, T, H).transpose(1, 4, 3, 2, 0)
    full = tables._replace(taps=lower_toeplitz(tables.taps))
    start = jnp.zeros((x.shape[-1], H, tables.leave.shape[-1]), tables.leave.dtype)
    if groups == 1:
        y = _group(full, start, x[0])[1][None]
    else:
        _, y = jax.lax.scan(jax.checkpoint(lambda s, x: _group(full, s, x)), start, x)
    y = y.transpose(4, 0, 3, 2, 1).reshape(x.shape[-1], groups * chunks * T, H)[:, :L]
    return y.reshape(*batch, L, H).astype(u.dtype)


def vandermonde_chunks(
    c: Complex[Array, "H N"], z: Complex[Array, "H N"] | Complex[Array, " N"], T: int
) -> ChunkTables:
    """Tables for the kernel that `vandermonde` forms.

    Args:
        c: weights, ``(H, N)``.
        z: exponents, ``(H, N)``, or ``(N,)`` if all features share them.
        T: length of a chunk.

    Returns:
        The tables, of N complex states.

    Raises:
        ValueError: if the shapes do not fit or ``T`` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import vandermonde_chunks
        >>> z = jnp.log(jnp.array([[0.5 + 0.0j]]))
        >>> print(vandermonde_chunks(jnp.ones((1, 1), complex), z, 4).taps)
        [[1.    0.5   0.25  0.125]]
    """
    _check("vandermonde_chunks", c, z, T)
    powers = _exponentials(z, 1, T + 1)
    weighted = c[..., None] * powers
    return ChunkTables(
        weighted[..., :T].real.sum(-2),
        jnp.flip(powers[..., :T], -1),
        jnp.moveaxis(weighted[..., 1:], -1, -2),
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


def _group(
    tables: ChunkTables, s: Inexact[Array, "b H N"], x: Float[Array, "H T n b"]
) -> tuple[Inexact[Array, "b H N"], Float[Array, "H T n b"]]:
    """The state after some chunks, and their outputs."""
    enter = "hit,htnb->bnhi" if tables.enter.ndim == 3 else "it,htnb->bnhi"
    if not jnp.iscomplexobj(s):
        driven = highest(enter, tables.enter, x)
        before, after = _dense_states(tables.carry, driven, s)
        y = highest("hti,bnhi->htnb", tables.leave, before)
    else:
        re, im = (highest(enter, part, x) for part in (tables.enter.real, tables.enter.imag))
        before, after = _diagonal_states(tables.carry, jax.lax.complex(re, im), s)
        y = highest("hti,bnhi->htnb", tables.leave.real, before.real)
        y -= highest("hti,bnhi->htnb", tables.leave.imag, before.imag)
    return after, y + highest("hts,hsnb->htnb", tables.taps, x)


def _dense_states(
    carry: Float[Array, "H N N"], driven: Float[Array, "b n H N"], s: Float[Array, "b H N"]
) -> tuple[Float[Array, "b n H N"], Float[Array, "b H N"]]:
    """States before each of n chunks, and after the last."""
    before, after = _dense_scan(carry, jnp.moveaxis(driven, 1, 0), s)
    return jnp.moveaxis(before, 0, 1), after


@jax.custom_jvp
def _dense_scan(carry: Array, driven: Array, s: Array) -> tuple[Array, Array]:
    """As `_dense_states`, with the chunks leading.

    The derivative of the states obeys the same recurrence. Written as such, the gradient of the
    matrices is one product of all chunks, where a loop would add to them in each.
    """

    def advance(s: Array, driven: Array) -> tuple[Array, Array]:
        return s + highest("hij,bhj->bhi", carry, s) + driven, s

    after, before = jax.lax.scan(advance, s, driven)
    return before, after


@_dense_scan.defjvp
def _dense_scan_jvp(
    primals: tuple[Array, ...], tangents: tuple[Array, ...]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    carry, driven, s = primals
    carry_dot, driven_dot, s_dot = tangents
    before, after = _dense_scan(carry, driven, s)
    driven_dot = driven_dot + highest("hij,nbhj->nbhi", carry_dot, before)
    return (before, after), _dense_scan(carry, driven_dot, s_dot)


def _diagonal_states(
    carry: Complex[Array, "H N"], driven: Complex[Array, "b n H N"], s: Complex[Array, "b H N"]
) -> tuple[Complex[Array, "b n H N"], Complex[Array, "b H N"]]:
    """As `_dense_states`."""
    flat = carry.size
    b, x0 = driven.reshape(*driven.shape[:2], flat), s.reshape(len(s), flat)
    x = linear_scan(carry.reshape(flat), b, x0).reshape(driven.shape)
    return jnp.concatenate([s[:, None], x[:, :-1]], 1), x[:, -1]
