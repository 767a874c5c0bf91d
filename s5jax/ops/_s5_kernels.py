r"""Pallas kernels of the fused scan of S5, for GPUs; `_s5_pallas` combines them.

A sequence is cut into chunks of `STEPS` steps, and each chunk of each sequence is a *row*. A
program keeps the states of a tile of rows in registers and advances all its rows together. At each
step it loads one input per row, multiplies the tile by B, advances the states elementwise and
multiplies them by C. Nothing is shifted along time, all products are matrix products over rows, and
a sequence occupies as many rows as it has chunks.

Complex numbers are pairs of reals: ``a`` is ``(2, P)``, states are ``(rows, 2, P)``, B is
``(2, P, H)``, and C is ``(2, H, P)`` with :math:`y = C_0 \operatorname{Re} x + C_1
\operatorname{Im} x`. The *start* of a row is a times the state before it, which is the
contribution of all earlier steps to its first state. P is a power of two and H a multiple of 16,
both at least 16.
"""

import dataclasses
import functools
from types import FunctionType
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.typing import DTypeLike
from jaxtyping import Array, Float

STEPS = 32
PROGRAMS = 132  # multiprocessors of an H100 or H200
GROUPS = 64  # partial sums of outer products

Pair = tuple[Array, Array]

_NT = (((1,), (1,)), ((), ()))  # x @ y.T
_TN = (((0,), (0,)), ((), ()))  # x.T @ y


@dataclasses.dataclass(frozen=True)
class Plan:
    """Constants of a compiled kernel."""

    length: int
    """Steps of a sequence."""
    tile: int
    """Rows of a program."""
    reverse: bool
    """Whether the kernel runs backward in time."""
    interpret: bool
    """Whether the kernel runs as plain JAX operations, on any device."""

    @property
    def chunks(self) -> int:
        """Chunks of a sequence."""
        return -(-self.length // STEPS)

    @property
    def tail(self) -> int:
        """Steps of a sequence's last chunk before its padding."""
        return self.length - (self.chunks - 1) * STEPS

    @property
    def adjoint(self) -> "Plan":
        """The plan for the other direction."""
        return dataclasses.replace(self, reverse=not self.reverse)


def tile_rows(rows: int, P: int, dtype: DTypeLike) -> int:
    """Rows of a tile: as many as fit, or fewer if that occupies more of the GPU.

    Shared memory and registers limit a tile. `_outputs_kernel` needs the most shared memory, for
    the states, a block of C and the blocks in flight. In float32, where each number is split into
    two TF32 numbers, these should take about ``2 P (8 tile + 16 width)`` bytes, at most 160 kB. An
    A100 has 163 kB and an H100 has 227 kB.
    """
    tile = min(64, 2**14 // (P * jnp.dtype(dtype).itemsize))
    while tile > 16 and rows < PROGRAMS * tile:
        tile //= 2
    return tile


def chunk_ends(
    plan: Plan, a: Float[Array, "2 P"], B: Float[Array, "2 P H"], u: Float[Array, "rows steps H"]
) -> Float[Array, "rows 2 P"]:
    """Last state of each row if it starts from zero."""
    grid, out = (u.shape[0] // plan.tile,), _float32(u.shape[0], *a.shape)
    return _call(plan, _chunk_ends_kernel, grid, out, a, B, u)


def outputs(
    plan: Plan,
    a: Float[Array, "2 P"],
    B: Float[Array, "2 P H"],
    C: Float[Array, "2 H P"],
    D: Float[Array, " H"],
    u: Float[Array, "rows steps H"],
    starts: Float[Array, "rows 2 P"],
) -> Float[Array, "rows steps H"]:
    """Outputs of all rows."""
    grid, out = (u.shape[0] // plan.tile,), jax.ShapeDtypeStruct(u.shape, u.dtype)
    return _call(plan, _outputs_kernel, grid, out, a, B, C, D, u, starts)


def outer_products(
    plan: Plan,
    a: Float[Array, "2 P"],
    B: Float[Array, "2 P H"],
    u: Float[Array, "rows steps H"],
    v: Float[Array, "rows steps H"],
    starts: Float[Array, "rows 2 P"],
) -> Float[Array, "2 P H"]:
    r"""Sum :math:`\sum_k x_k v_k^T` over all steps of all rows."""
    groups = min(u.shape[0] // plan.tile, GROUPS)
    grid, out = (B.shape[1] // _summed_states(B), groups), _float32(groups, *B.shape)
    return _call(plan, _outer_products_kernel, grid, out, a, B, u, v, starts).sum(0)


def slopes(
    plan: Plan,
    a: Float[Array, "2 P"],
    B: Float[Array, "2 P H"],
    CT: Float[Array, "2 P H"],
    u: Float[Array, "rows steps H"],
    dy: Float[Array, "rows steps H"],
    starts: Float[Array, "rows 2 P"],
    futures: Float[Array, "rows 2 P"],
) -> Float[Array, "2 P"]:
    """Gradient with respect to a, without the contribution of the starts.

    ``CT`` is C transposed and ``dy`` the cotangent of the outputs. ``futures`` are the cotangents
    of the rows' last states through all later steps, which are the starts of the adjoint scan.
    """
    P, tiles = a.shape[-1], u.shape[0] // plan.tile
    grid, out = (P // _sloped_states(P), tiles), _float32(tiles, 2, P)
    return _call(plan, _slopes_kernel, grid, out, a, B, CT, u, dy, starts, futures).sum(0)


def _float32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _call(
    plan: Plan, kernel: FunctionType, grid: tuple[int, ...], out: Any, *arguments: Array
) -> Array:
    a, B, *_ = arguments
    P = a.shape[-1]
    return pl.pallas_call(
        functools.partial(kernel, plan),
        out_shape=out,
        grid=grid,
        interpret=plan.interpret,
        compiler_params=triton.CompilerParams(
            num_warps=8 if plan.tile * P > 2048 else 4,
            num_stages=2 if P * B.dtype.itemsize <= 512 else 1,  # blocks of C in shared memory
        ),
        name="s5" + kernel.__name__.removesuffix("_kernel"),
    )(*arguments)


def _summed_states(B: Any) -> int:
    """States whose outer products with all features a program sums in registers."""
    return min(B.shape[1], 32 if B.shape[2] <= 256 else 16)


def _sloped_states(P: int) -> int:
    """States that a program keeps in registers together with their derivatives."""
    return min(P, 64)


@dataclasses.dataclass(frozen=True)
class _Walk:
    """A program that advances a tile of rows, for a block of the states."""

    plan: Plan
    tile: Array
    states: Any
    a_ref: Any
    B_ref: Any
    u_ref: Any

    @property
    def rows(self) -> Any:
        return pl.ds(self.tile * self.plan.tile, self.plan.tile)

    @property
    def width(self) -> int:
        """Number of features in a block of B or C; see `tile_rows`."""
        H, row_bytes = self.u_ref.shape[-1], self.states.size * self.u_ref.dtype.itemsize
        return min(H & -H, 64, max(16, 2**13 // row_bytes))

    @property
    def blocks(self) -> int:
        """Number of blocks of features."""
        return self.u_ref.shape[-1] // self.width

    def block(self, h: Any) -> Any:
        return pl.ds(h * self.width, self.width)

    def zeros(self) -> Pair:
        zero = jnp.zeros((self.plan.tile, self.states.size), jnp.float32)
        return zero, zero

    def load(self, ref: Any) -> Pair:
        return ref[self.rows, 0, self.states], ref[self.rows, 1, self.states]

    def time(self, i: Array) -> Array:
        """Step of a chunk that is processed at position ``i``."""
        return STEPS - 1 - i if self.plan.reverse else i

    def inside(self, i: Array) -> Array:
        """Mask ``(tile, 1)`` of rows that began before position ``i`` and are not in padding."""
        index = jax.lax.broadcasted_iota(jnp.int32, (self.plan.tile, 1), 0)
        row = self.tile * self.plan.tile + index
        is_last = row % self.plan.chunks == self.plan.chunks - 1
        steps = jnp.where(is_last, self.plan.tail, STEPS)
        return i > STEPS - steps if self.plan.reverse else (i > 0) & (i < steps)

    def times_a(self, x: Pair) -> Pair:
        (re, im), (a_re, a_im) = x, (self.a_ref[k, self.states][None] for k in (0, 1))
        return a_re * re - a_im * im, a_re * im + a_im * re

    def project(self, i: Array, v_ref: Any, W_ref: Any, x: Pair) -> Pair:
        """Adds W v to x."""
        j = self.time(i)

        def add(h: Array, x: Pair) -> Pair:
            v = v_ref[self.rows, j, self.block(h)]
            re, im = (self.dot(v, W_ref[k, self.states, self.block(h)], _NT) for k in (0, 1))
            return x[0] + re, x[1] + im

        return jax.lax.fori_loop(0, self.blocks, add, x)

    def advance(self, i: Array, x: Pair) -> Pair:
        """One step of the recurrence."""
        x = _select(self.inside(i), self.times_a(x), x)
        return self.project(i, self.u_ref, self.B_ref, x)

    def dot(self, x: Array, y: Array, axes: Any) -> Array:
        """Product accumulated in float32; a GPU multiplies float32 as three TF32 products."""
        precision: Any = None
        if x.dtype == jnp.float32:
            precision = jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3
            if self.plan.interpret:
                precision = jax.lax.Precision.HIGHEST
        return jax.lax.dot_general(
            x, y, axes, precision=precision, preferred_element_type=jnp.float32
        )


def _select(mask: Array, on_true: Pair, on_false: Pair) -> Pair:
    return jnp.where(mask, on_true[0], on_false[0]), jnp.where(mask, on_true[1], on_false[1])


def _chunk_ends_kernel(plan: Plan, a_ref: Any, B_ref: Any, u_ref: Any, ends_ref: Any) -> None:
    walk = _Walk(plan, pl.program_id(0), pl.ds(0, a_ref.shape[-1]), a_ref, B_ref, u_ref)
    x = jax.lax.fori_loop(0, STEPS, walk.advance, walk.zeros())
    for k in (0, 1):
        ends_ref[walk.rows, k, :] = x[k]


def _outputs_kernel(
    plan: Plan,
    a_ref: Any,
    B_ref: Any,
    C_ref: Any,
    D_ref: Any,
    u_ref: Any,
    starts_ref: Any,
    y_ref: Any,
) -> None:
    walk = _Walk(plan, pl.program_id(0), pl.ds(0, a_ref.shape[-1]), a_ref, B_ref, u_ref)

    def step(i: Array, x: Pair) -> Pair:
        x, j = walk.advance(i, x), walk.time(i)
        re, im = (part.astype(u_ref.dtype) for part in x)

        def readout(h: Array, _: None) -> None:
            block = walk.block(h)
            y = walk.dot(re, C_ref[0, block, :], _NT) + walk.dot(im, C_ref[1, block, :], _NT)
            y += D_ref[block][None] * u_ref[walk.rows, j, block]
            y_ref[walk.rows, j, block] = y.astype(y_ref.dtype)

        jax.lax.fori_loop(0, walk.blocks, readout, None)
        return x

    jax.lax.fori_loop(0, STEPS, step, walk.load(starts_ref))


def _outer_products_kernel(
    plan: Plan, a_ref: Any, B_ref: Any, u_ref: Any, v_ref: Any, starts_ref: Any, sums_ref: Any
) -> None:
    """Each program sums every n-th tile, where n is the number of groups."""
    size, groups, group = _summed_states(B_ref), sums_ref.shape[0], pl.program_id(1)
    tiles = u_ref.shape[0] // plan.tile
    states = pl.ds(pl.program_id(0) * size, size)
    first = _Walk(plan, group, states, a_ref, B_ref, u_ref)

    def add_tile(t: Array, sums: list[Pair]) -> list[Pair]:
        walk = dataclasses.replace(first, tile=group + t * groups)

        def step(i: Array, carry: tuple[Pair, list[Pair]]) -> tuple[Pair, list[Pair]]:
            x, sums = carry
            x, j = walk.advance(i, x), walk.time(i)
            re, im = (part.astype(v_ref.dtype) for part in x)

            def add(h: int, total: Pair) -> Pair:
                v = v_ref[walk.rows, j, walk.block(h)]
                return total[0] + walk.dot(re, v, _TN), total[1] + walk.dot(im, v, _TN)

            return x, [add(h, total) for h, total in enumerate(sums)]

        return jax.lax.fori_loop(0, STEPS, step, (walk.load(starts_ref), sums))[1]

    zero = jnp.zeros((size, first.width), jnp.float32)
    count = (tiles - group + groups - 1) // groups
    sums = jax.lax.fori_loop(0, count, add_tile, [(zero, zero)] * first.blocks)
    for h in range(first.blocks):
        for k in (0, 1):
            sums_ref[group, k, states, first.block(h)] = sums[h][k]


def _slopes_kernel(
    plan: Plan,
    a_ref: Any,
    B_ref: Any,
    CT_ref: Any,
    u_ref: Any,
    dy_ref: Any,
    starts_ref: Any,
    futures_ref: Any,
    slopes_ref: Any,
) -> None:
    """Advances x together with its derivative z with respect to a, from z = 0 in each row."""
    size = _sloped_states(a_ref.shape[-1])
    states = pl.ds(pl.program_id(0) * size, size)
    walk = _Walk(plan, pl.program_id(1), states, a_ref, B_ref, u_ref)

    def add(slope: Pair, w: Pair, z: Pair) -> Pair:
        """Adds w conj(z), the contribution of a cotangent w of the states."""
        return slope[0] + w[0] * z[0] + w[1] * z[1], slope[1] + w[1] * z[0] - w[0] * z[1]

    def step(i: Array, carry: tuple[Pair, Pair, Pair]) -> tuple[Pair, Pair, Pair]:
        x, z, slope = carry
        az = walk.times_a(z)
        z = _select(walk.inside(i), (az[0] + x[0], az[1] + x[1]), z)
        w = walk.project(i, dy_ref, CT_ref, walk.zeros())
        return walk.advance(i, x), z, add(slope, w, z)

    start = walk.load(starts_ref), walk.zeros(), walk.zeros()
    _, z, slope = jax.lax.fori_loop(0, STEPS, step, start)
    slope = add(slope, walk.load(futures_ref), z)
    for k in (0, 1):
        slopes_ref[walk.tile, k, states] = slope[k].sum(0)
