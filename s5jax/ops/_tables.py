r"""Responses and states of linear systems from two small tables, with powers by squaring.

With :math:`l = a T + b` a power factors, :math:`A^l = A^{a T} A^b`, so L outputs
:math:`C A^l x` are the product of a table with :math:`L / T` rows and a table with T columns. Both
tables grow by doubling. They are built from :math:`A^{2^k} - I`, because rounding
:math:`A^{2^k}` itself would cost a slow mode its digits.
"""

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from s5jax._promotion import default_promotion
from s5jax.ops._platform import target_platform

LONGEST_BY_STEPS = 2048
"""Lags up to which a CPU builds the tables of a kernel step by step; see `by_steps`."""


def by_steps(L: int) -> bool:
    """Returns whether the tables of a kernel of L lags grow step by step instead of by doubling.

    Steps need no squares of matrices, and their gradients are short. They are many small operations
    one after another, which suits a CPU. Over more lags they round more often and gain less.
    """
    return target_platform() == "cpu" and L <= LONGEST_BY_STEPS


def block_length(n: int) -> int:
    """Smallest power of two that is at least the square root of n."""
    return 1 << math.ceil(math.log2(n) / 2)


def free_response(
    powers: Iterator[Float[Array, "H N N"]],
    C: Float[Array, "*#batch H N"],
    x: Float[Array, "*#batch H N"],
    L: int,
) -> Float[Array, "*batch L H"]:
    r"""Outputs :math:`C A^l x` for :math:`l = 0, \ldots, L - 1`.

    Args:
        powers: :math:`A^{2^k} - I` for :math:`k = 0, 1, \ldots`; only those used are computed.
        C: output vectors, ``(*batch, H, N)``.
        x: first states, ``(*batch, H, N)``; their leading axes broadcast with ``C``.
        L: number of outputs.

    Returns:
        Outputs, ``(*batch, L, H)``.
    """
    T, right, left = block_length(L), x[..., None], C[..., None, :]
    while right.shape[-1] < T:
        change = highest("hij,...hjb->...hib", next(powers), right)
        right = doubled(right, change, -1)
    while left.shape[-2] * T < L:
        change = highest("...hai,hij->...haj", left, next(powers))
        left = doubled(left, change, -2)
    y = highest("...han,...hnb->...hab", left[..., : -(-L // T), :], right)
    return jnp.moveaxis(y.reshape(*y.shape[:-2], math.prod(y.shape[-2:]))[..., :L], -1, -2)


def last_state(
    powers: Iterator[Float[Array, "H N N"]],
    B: Float[Array, "H N"],
    u: Float[Array, "*batch L H"],
    x0: Float[Array, "*batch H N"],
) -> Float[Array, "*batch H N"]:
    r"""Last state :math:`A^L x_0 + \sum_{l=0}^{L-1} A^{L-1-l} B u_l`.

    Blocks of about :math:`\sqrt L` inputs are multiplied by a table of :math:`A^b B`. A scan runs
    over the blocks.

    Args:
        powers: :math:`A^{2^k} - I` for :math:`k = 0, 1, \ldots`; only those used are computed.
        B: input vectors, ``(H, N)``.
        u: inputs, ``(*batch, L, H)``.
        x0: state before the first input, ``(*batch, H, N)``.

    Returns:
        States, ``(*batch, H, N)``.
    """
    *batch, L, H = u.shape
    T, x, table = block_length(L), x0, B[..., None]
    # The first block has L modulo T steps.
    first = L % T
    while table.shape[-1] < T:
        M = next(powers)
        if first & table.shape[-1]:
            x = x + highest("hij,...hj->...hi", M, x)
        table = doubled(table, highest("hij,hjb->hib", M, table), -1)
    table, M = jnp.flip(table, -1), next(powers)
    x = x + highest("...bh,hnb->...hn", u[..., :first, :], table[..., T - first :])
    blocks = u[..., first:, :].reshape(*batch, L // T, T, H)
    driven = jnp.moveaxis(highest("...abh,hnb->...ahn", blocks, table), -3, 0)

    def advance(x: Array, driven: Array) -> tuple[Array, None]:
        return x + highest("hij,...hj->...hi", M, x) + driven, None

    return jax.lax.scan(advance, x, driven)[0]


def response_by_blocks(
    table: Float[Array, "H N T"],
    M: Float[Array, "H N N"],
    C: Float[Array, "*batch H N"],
    L: int,
) -> Float[Array, "*batch L H"]:
    r"""`free_response` from a table of :math:`A^b x` for b < T and from :math:`A^T - I`.

    The output vectors :math:`C A^{a T}` follow one after another.
    """
    T = table.shape[-1]
    none = jnp.zeros((-(-L // T), *C.shape), C.dtype)
    left = dense_states(jnp.swapaxes(M, -1, -2), none, C)[0]
    y = highest("a...hn,hnb->...hab", left, table)
    return jnp.moveaxis(y.reshape(*y.shape[:-2], math.prod(y.shape[-2:]))[..., :L], -1, -2)


def doubled(
    table: Float[Array, "*shape"], change: Float[Array, "*shape"], axis: int
) -> Float[Array, "*twice"]:
    """A table, followed by the same table plus a change.

    The barrier keeps XLA from fusing each doubling with all earlier ones, so S4 and HOPE compile
    faster.
    """
    return jax.lax.optimization_barrier(jnp.concatenate([table, table + change], axis))


def highest(subscripts: str, *operands: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    """`jnp.einsum` with full-precision products."""
    return jnp.einsum(subscripts, *operands, precision="highest")


def lower_toeplitz(p: Float[Array, "H n"]) -> Float[Array, "H n n"]:
    """Lower triangular Toeplitz matrices with the entries p[i - j].

    Repeating a row of 2 n numbers, and reading rows of length 2 n - 1, shifts each row by one.
    """
    H, n = p.shape
    row = jnp.concatenate([p[:, :1], jnp.zeros_like(p), jnp.flip(p[:, 1:], -1)], -1)
    return jnp.tile(row, n)[:, : n * (2 * n - 1)].reshape(H, n, -1)[..., :n]


@jax.custom_jvp
def dense_states(
    carry: Float[Array, "H N N"],
    driven: Float[Array, "n *batch H N"],
    s: Float[Array, "*batch H N"],
) -> tuple[Float[Array, "n *batch H N"], Float[Array, "*batch H N"]]:
    """The states before each of n steps, and the state after the last step.

    The derivative of the states obeys the same recurrence. In this form the gradient of the
    matrices is one product over all chunks. A differentiated loop would accumulate it step by step.
    """

    def advance(s: Array, driven: Array) -> tuple[Array, Array]:
        return s + highest("hij,...hj->...hi", carry, s) + driven, s

    after, before = jax.lax.scan(advance, s, driven)
    return before, after


@dense_states.defjvp
@default_promotion
def dense_states_jvp(
    primals: tuple[Array, ...], tangents: tuple[Array, ...]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    carry, driven, s = primals
    carry_dot, driven_dot, s_dot = tangents
    before, after = dense_states(carry, driven, s)
    driven_dot = driven_dot + highest("hij,...hj->...hi", carry_dot, before)
    return (before, after), dense_states(carry, driven_dot, s_dot)
