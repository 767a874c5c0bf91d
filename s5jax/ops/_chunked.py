r"""Long convolutions by matrix products over chunks of time, with a state carried between them.

A system with N states per feature maps a chunk of T inputs u to the outputs

.. math:: y = \mathrm{Toep}(K_0, \ldots, K_{T-1})\, u + L s, \qquad s' = \bar A^T s + E u

where s is the state before the chunk. Neither a kernel of the whole length nor a transform is
needed, and only L / T states are in memory.
"""

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from s5jax._errors import check_choice
from s5jax._promotion import default_promotion, with_axes
from s5jax.ops._complex import complex_to_pair, pair_to_complex
from s5jax.ops._in_place import real_factor, recur
from s5jax.ops._parallel_chunks import convolve_chunks
from s5jax.ops._platform import target_platform
from s5jax.ops._scan import linear_scan, scan_algorithm
from s5jax.ops._tables import dense_states, doubled, highest, lower_toeplitz
from s5jax.ops._vandermonde import _check, _exponentials

ConvAlgorithm = Literal["auto", "fft", "chunked"]


_GROUP = 64
"""Chunks in a group. The gradient stores the inputs and one state of each group."""


class ChunkTables(NamedTuple):
    """Systems over T steps; see `vandermonde_chunks`, `dplr_chunks` and `hope_chunks`.

    N counts real states. The complex states of a diagonal system are stored as all real parts
    followed by all imaginary parts.
    """

    taps: Float[Array, "H T"]
    """Impulse response."""
    enter: Float[Array, "H N T"] | Float[Array, "N T"]
    """Contribution of each input to the state after the chunk."""
    leave: Float[Array, "H T N"]
    """Contribution of the state before the chunk to each output."""
    carry: Float[Array, "H N N"] | Complex[Array, "H N/2"]
    """Change of the state in T steps without input; for a diagonal system, its factor."""


def conv_algorithm(
    algorithm: str, L: int, d_state: int, *, batch: int = 1, bidirectional: bool = False
) -> str:
    """Returns the name of the algorithm that convolves sequences.

    On a CPU ``"auto"`` chooses ``"chunked"`` where it is faster: in one direction, with few states
    and long sequences. With up to 64 real states per feature, L must be at least 4,096 times the
    number of sequences; with up to 128, at least 16,384 times. The batch counts because the FFT
    needs a kernel, which costs the same for any batch. In two directions it is ``"fft"``, because
    one transform serves both. The measurements behind these limits are in ``docs/performance.md``.

    On a TPU ``"auto"`` is ``"chunked"``, as XLA takes minutes to compile a transform there. On a
    GPU it is ``"chunked"``, too, where that moves fewer bytes: with up to 128 real states per
    feature, from 32,768 steps of all sequences together; neither has been timed.

    Args:
        algorithm: ``"auto"``, ``"fft"`` or ``"chunked"``.
        L: length of the sequences.
        d_state: number of real states per feature.
        batch: number of sequences.
        bidirectional: whether there is a second kernel, backward in time.

    Returns:
        ``"fft"`` or ``"chunked"``.

    Raises:
        ValueError: if ``algorithm`` is unknown.

    Example:
        >>> from s5jax.ops import conv_algorithm
        >>> conv_algorithm("chunked", 100, 64), conv_algorithm("auto", 65536, 2048)
        ('chunked', 'fft')
    """
    check_choice("conv_algorithm", "algorithm", algorithm, get_args(ConvAlgorithm))
    if algorithm != "auto":
        return algorithm
    platform = target_platform()
    if platform == "tpu":
        return "chunked"
    known = isinstance(L, int) and isinstance(batch, int)  # and not a symbol of jax.export
    if not known or d_state > 128:
        return "fft"
    if platform == "gpu":
        return "chunked" if L * batch >= 32_768 else "fft"
    shortest = 4096 if d_state <= 64 else 16_384
    return "chunked" if L >= shortest * batch and not bidirectional else "fft"


def chunk_length(L: int, batch: int = 1) -> int:
    """Returns the number of steps of a chunk, a power of two.

    On a GPU longer chunks have fewer states to move and longer tables, which pay for themselves
    with many steps of all sequences together. Elsewhere lengths from 32 to 128 are about equally
    fast with 64 states.

    Args:
        L: length of the sequences.
        batch: number of sequences.

    Returns:
        64 or, on a GPU, up to 256.

    Example:
        >>> from s5jax.ops import chunk_length
        >>> 64 <= chunk_length(16_384, batch=8) <= 256
        True
    """
    if target_platform() != "gpu":
        return 64
    steps = L * batch if isinstance(batch, int) else L
    return 256 if steps >= 131_072 else 128 if steps >= 32_768 else 64


@default_promotion
def chunked_conv(u: Float[Array, "*batch L H"], tables: ChunkTables) -> Float[Array, "*batch L H"]:
    r"""Convolves sequences with the kernels of state spaces, chunk by chunk.

    .. math:: y_t = \sum_{j \ge 0} K_j u_{t-j}

    The result equals `fft_conv` with the kernel K. The cost is :math:`O(L (T + N))`, which is less
    for long sequences and few states; see `conv_algorithm`. On a GPU all chunks run together. On
    other devices groups of chunks follow each other, and the gradient recomputes the intermediate
    values of each group instead of storing them, so it needs little memory beyond the inputs and
    outputs.

    Args:
        u: inputs, ``(*batch, L, H)``.
        tables: tables of H systems, for chunks of any length T.

    Returns:
        Outputs, ``(*batch, L, H)``, in the dtype of ``u``.

    Raises:
        ValueError: if ``u`` does not have one feature for each system.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import chunked_conv, vandermonde_chunks
        >>> z = jnp.log(jnp.array([[0.5 + 0.0j]]))
        >>> tables = vandermonde_chunks(jnp.ones((1, 1), complex), z, 2)
        >>> print(chunked_conv(jnp.ones((4, 1)), tables)[:, 0])
        [1.    1.5   1.75  1.875]

    References:
        Dao and Gu, "Transformers are SSMs", 2024, https://arxiv.org/abs/2405.21060, section 6
        (the same idea in a selective model).
    """
    H, T = tables.taps.shape
    if u.ndim < 2 or u.shape[-1] != H or u.shape[-2] < 1:
        raise ValueError(
            f"chunked_conv: `u` must have shape (*batch, L, {H}) with L >= 1, because "
            f"`tables` describes {H} systems; got {u.shape}."
        )
    L, dtype = u.shape[-2], tables.taps.dtype
    if target_platform() == "gpu":
        return _together(u.astype(dtype), tables).astype(u.dtype)
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
    """Builds the tables of `chunked_conv` for the kernel of `vandermonde`.

    Args:
        c: weights, ``(H, N)``.
        z: exponents, ``(H, N)``, or ``(N,)`` if all features share them.
        T: length of a chunk.

    Returns:
        The tables. The N complex states count as 2 N real states.

    Raises:
        ValueError: if the shapes do not fit or ``T`` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import vandermonde_chunks
        >>> z = jnp.log(jnp.array([[0.5 + 0.0j]]))
        >>> print(vandermonde_chunks(jnp.ones((1, 1), complex), z, 4).taps)
        [[1.    0.5   0.25  0.125]]

    References:
        Gu et al., "Diagonal State Space Models" (S4D), 2022, https://arxiv.org/abs/2206.11893.
    """
    _check("vandermonde_chunks", c, z, T=T)
    powers = _exponentials(z, 1, T + 1)
    weighted = c[..., None] * with_axes(powers, c[..., None])
    enter, leave = _real_rows(powers), _real_rows(weighted.conj())
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
    r"""Builds the tables for the kernel :math:`K_0 = d`, :math:`K_l = C A^{l-1} B`.

    Args:
        where: name of the calling function, for error messages.
        powers: :math:`A^{2^k} - I` for :math:`k = 0, 1, \ldots`.
        B: input vectors, ``(H, N)``.
        C: output vectors, ``(H, N)``.
        first: lag zero, d, ``(H,)``.
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


def _real_rows(v: Complex[Array, "*batch N T"]) -> Float[Array, "*batch 2*N T"]:
    """All real parts, followed by all imaginary parts.

    The parts are written into an array of zeros. XLA would fuse a concatenation with the
    computation of its operands and then evaluate them one number at a time, which is much slower.
    """
    *batch, N, T = v.shape
    rows = jnp.zeros((*batch, 2 * N, T), v.real.dtype)
    rows = jax.lax.dynamic_update_slice_in_dim(rows, v.real, 0, -2)
    return jax.lax.dynamic_update_slice_in_dim(rows, v.imag, N, -2)


def _group(
    tables: ChunkTables, s: Float[Array, "*batch H N"], x: Float[Array, "H *batch n T"]
) -> tuple[Float[Array, "*batch H N"], Float[Array, "H *batch n T"]]:
    """The state after a group of n chunks, and the outputs of the group.

    The axes of ``x`` and ``before`` are in the order in which the products read them, one feature
    after another. XLA's float32 products on a CPU are slower in any other order.
    """
    enter = "h...nt,hit->h...ni" if tables.enter.ndim == 3 else "h...nt,it->h...ni"
    states = _diagonal_states if jnp.iscomplexobj(tables.carry) else dense_states
    driven = jnp.moveaxis(highest(enter, x, tables.enter), (-2, 0), (0, -2))
    before, after = states(tables.carry, driven, s)
    before = jnp.moveaxis(before, (0, -2), (-2, 0))
    y = highest("h...ni,hti->h...nt", before, tables.leave)
    return after, y + highest("h...ns,hts->h...nt", x, tables.taps)


def _together(u: Float[Array, "*batch L H"], tables: ChunkTables) -> Float[Array, "*batch L H"]:
    """All chunks together. The barrier makes one matrix of the tables for all of their products."""
    *batch, L, H = u.shape
    T = tables.taps.shape[-1]
    n = -(-L // T)
    x = jnp.pad(u, [(0, 0)] * len(batch) + [(0, n * T - L), (0, 0)]).reshape(*batch, n, T, H)
    diagonal = jnp.iscomplexobj(tables.carry)
    y = convolve_chunks(diagonal, jax.lax.optimization_barrier(_matrix(tables)), x)
    return y.reshape(*batch, n * T, H)[..., :L, :]


def _matrix(tables: ChunkTables) -> Float[Array, "H TN TN"]:
    """The matrix of `convolve_chunks`."""
    H, T, N = tables.leave.shape
    carry = tables.carry
    if jnp.iscomplexobj(carry):
        I = jnp.eye(carry.shape[-1], dtype=carry.real.dtype)[None]
        re, im = carry.real[..., None] * I, carry.imag[..., None] * I
        carry = jnp.concatenate([jnp.concatenate([re, -im], -1), jnp.concatenate([im, re], -1)], -2)
    outputs = jnp.concatenate([lower_toeplitz(tables.taps), tables.leave], -1)
    states = jnp.concatenate([jnp.broadcast_to(tables.enter, (H, N, T)), carry], -1)
    return jnp.concatenate([outputs, states], -2)


def _diagonal_states(
    carry: Complex[Array, "H M"],
    driven: Float[Array, "n *batch H 2*M"],
    s: Float[Array, "*batch H 2*M"],
) -> tuple[Float[Array, "n *batch H 2*M"], Float[Array, "*batch H 2*M"]]:
    """The states before each of n chunks, and the state after the last chunk."""
    b, x0 = (v.reshape(*v.shape[:-1], 2, carry.shape[-1]) for v in (driven, s))
    if scan_algorithm() == "sequential":
        x = recur(False, real_factor(carry), b, x0)
    else:
        z, z0 = (pair_to_complex(v, axis=-2) for v in (b, x0))
        z, z0 = (v.reshape(*v.shape[:-2], -1) for v in (jnp.moveaxis(z, 0, -3), z0))
        x = jnp.moveaxis(linear_scan(carry.reshape(-1), z, z0), -2, 0)
        x = complex_to_pair(x.reshape(*x.shape[:-1], *carry.shape), axis=-2)
    x = x.reshape(driven.shape)
    return jnp.concatenate([s[None], x[:-1]]), x[-1]
