"""Compiled geometry of the Pathfinder generator: the positions of the paddles of an image.

A paddle is a row `(y, x, o, pivot_y, pivot_x)`: the start of its line, its orientation, and its
pivot, from which the contour continues. The pivot is a point `margin` behind the start of a first
paddle, and `margin` before the start of any other.

Occupancy is stored in two byte maps, the exclusion map `M` and its dilation `Md`. They are flat and
consecutive, and padded so that no stamp needs a bounds test. Offsets in hot loops are unsigned,
because numba lets signed offsets count from the end, at a cost. Points are true image coordinates:
the reference takes `ceil(y + d)` of the sum in double precision, and where `d` is almost an integer
the result depends on `y`.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from experiments.data.jit import below, entry, hash_words, inline, uniform
from experiments.tasks.pathfinder.types import Scenes, Tables

N_DEGREES = 360  # orientations 0..359 are whole degrees from -180, the others are of the ring
LANES = 32  # bytes of one vector operation
PAIR_ATTEMPTS = 1_000_000  # the hardest published setting needs about 700
EXTENSION_DRAWS, SEED_DRAWS, DISTRACTOR_ATTEMPTS = 3, 3, 5
POSITION_DRAWS = 64  # random draws of a pixel before all free pixels are counted

OCCUPIED = 77  # the first byte above 0.3
NEGLIGIBLE = 255e-4  # sum of weights below which a contour cannot continue

# Counts of attempts: at a pair, with two first paddles, with half of a pair; at distractors.
PAIRS, SEEDED, HALVES, DISTRACTORS = range(4)


@entry
def choose_margins(seed: int, stream: int, n_margins: int, scenes: Scenes) -> None:
    """Sets `scenes.margin` to the rank of an example's hash in its group of `n_margins`."""
    for i in range(len(scenes.index)):
        index = scenes.index[i]
        own = hash_words(seed, stream, index)
        first = index - index % n_margins
        rank = 0
        for other in range(first, first + n_margins):
            rank += hash_words(seed, stream, other) < own
        scenes.margin[i] = rank


# --------------------------------------------------------------------------- vectors of LANES bytes

_VECTOR = ir.VectorType(ir.IntType(8), LANES)
_WIDTH = np.uint64(LANES)


def _lanes_operation(combine: Callable[..., Any], result: types.Type) -> Any:
    """Builds an intrinsic `f(to, i, source, j)` on `to[i : i + LANES]`, `source[j : j + LANES]`.

    It stores the result of `combine` in `to`, or returns it if it is boolean. It consists of LLVM
    instructions because a loop of this length is unrolled before it can be vectorised, which makes
    it slow.
    """

    def operation(typing_context, to, i, source, j):
        def generate(context, builder, signature, arguments):
            pointers = []
            for k in (0, 2):
                array = context.make_array(signature.args[k])(context, builder, arguments[k])
                element = builder.gep(array.data, [arguments[k + 1]])
                pointers.append(builder.bitcast(element, _VECTOR.as_pointer()))
            value = combine(builder, *(builder.load(pointer, align=1) for pointer in pointers))
            if result == types.boolean:
                return value
            builder.store(value, pointers[0], align=1)
            return context.get_dummy_value()

        return result(to, i, source, j), generate

    return intrinsic(operation)


def _any_above(builder: ir.IRBuilder, a: Any, b: Any) -> Any:
    bits = builder.bitcast(builder.icmp_unsigned(">", a, b), ir.IntType(LANES))
    return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))


_lanes_maximum = _lanes_operation(
    lambda builder, a, b: builder.select(builder.icmp_unsigned(">", a, b), a, b), types.void
)
_lanes_copy = _lanes_operation(lambda builder, a, b: b, types.void)
_lanes_any_above = _lanes_operation(_any_above, types.boolean)


@inline
def _flat(tables, y, x):
    return (y + tables.pad) * tables.stride + x + tables.pad


@inline
def _enter(tables, maps, paddle):
    """Enters a paddle into both maps, by elementwise maximum."""
    stamps, o, centre = tables.stamps, paddle[2], _flat(tables, paddle[0], paddle[1])
    for k in range(stamps.start[o], stamps.start[o + 1]):
        _lanes_maximum(maps, centre + stamps.at[k], stamps.lanes, k * _WIDTH)


@inline
def _clear(tables, maps):
    """Clears the maps in a loop, as an assignment to `maps[:]` would allocate."""
    for k in range(len(maps)):
        maps[k] = tables.empty[k]


@inline
def _restore(tables, maps, origin, paddle):
    """Copies the area of a paddle from `origin` to `maps`."""
    stamps, o, centre = tables.stamps, paddle[2], _flat(tables, paddle[0], paddle[1])
    for k in range(stamps.start[o], stamps.start[o + 1]):
        at = centre + stamps.at[k]
        _lanes_copy(maps, at, origin, at)


@inline
def _overlaps(tables, maps, j, y, x):
    limits, centre = tables.limits, _flat(tables, y, x)
    for k in range(limits.start[j], limits.start[j + 1]):
        if _lanes_any_above(maps, centre + limits.at[k], limits.lanes, k * _WIDTH):
            return True
    return False


@inline
def _set_seed(tables, o, y, x, paddle):
    """Stores a first paddle; returns False if its head or its pivot is outside the image."""
    head, pivot = tables.seeds.head, tables.seeds.pivot
    head_y, head_x = math.ceil(y + head[o, 0]), math.ceil(x + head[o, 1])
    pivot_y, pivot_x = math.ceil(head_y + pivot[o, 0]), math.ceil(head_x + pivot[o, 1])
    paddle[0], paddle[1], paddle[2], paddle[3], paddle[4] = y, x, o, pivot_y, pivot_x
    inside = min(head_y, head_x, pivot_y, pivot_x) >= 0
    return inside and max(head_y, head_x, pivot_y, pivot_x) < tables.size


@inline
def _seed_pair(tables, rng, first, second):
    """Draws the first paddles of both targets; the second is tested against the edge only."""
    o = below(rng, N_DEGREES)
    box = tables.seeds.box[o]
    if not tables.seeds.usable[o] or box[1] * box[3] == 0:
        return False
    y, x = box[0] + below(rng, box[1]), box[2] + below(rng, box[3])
    if not _set_seed(tables, o, y, x, first):
        return False
    for _ in range(SEED_DRAWS):
        o = below(rng, N_DEGREES)
        phi = below(rng, N_DEGREES) * (math.pi / 180)
        y2 = np.int64(np.rint(y + tables.seed_distance * math.sin(phi)))
        x2 = np.int64(np.rint(x + tables.seed_distance * math.cos(phi)))
        if _set_seed(tables, o, y2, x2, second):
            return True
    return False


@inline
def _is_free(tables, maps, o, pixel):
    seeds, centre = tables.seeds, _flat(tables, pixel // tables.size, pixel % tables.size)
    for k in range(seeds.probe_start[o], seeds.probe_start[o + 1]):
        if maps[centre + seeds.probe[k]] >= OCCUPIED:
            return False
    return True


@inline
def _free_pixel(tables, rng, maps, o):
    """Draws uniformly among the pixels where a first paddle fits; returns -1 if there are none."""
    n_pixels = tables.size**2
    for _ in range(POSITION_DRAWS):
        pixel = below(rng, n_pixels)
        if _is_free(tables, maps, o, pixel):
            return pixel
    n_free = 0
    for pixel in range(n_pixels):
        n_free += _is_free(tables, maps, o, pixel)
    rank = below(rng, n_free)
    for pixel in range(n_pixels if n_free else 0):
        if _is_free(tables, maps, o, pixel):
            if rank == 0:
                return pixel
            rank -= 1
    return -1


@inline
def _seed_distractor(tables, rng, maps, paddle):
    for _ in range(SEED_DRAWS):
        o = below(rng, N_DEGREES)
        if not tables.seeds.usable[o]:
            return False
        pixel = _free_pixel(tables, rng, maps, o)
        if pixel < 0:
            return False
        if _set_seed(tables, o, pixel // tables.size, pixel % tables.size, paddle):
            return True
    return False


@inline
def _weigh(tables, maps, o, pivot, sums):
    """Sums the weights of a fan times the free space of each candidate; returns the total."""
    fans, total = tables.fans, 0.0
    start = fans.start[o]
    for k in range(fans.start[o + 1] - start):
        total += fans.weight[start + k] * (255 - maps[pivot + fans.at[start + k]])
        sums[k] = total
    return total


@inline
def _choose(tables, rng, o, sums, total):
    """Draws a candidate of a fan with probability proportional to its increment of the sums."""
    fans = tables.fans
    start = fans.start[o]
    u = uniform(rng) * total
    rank = 0
    for k in range(fans.start[o + 1] - start):
        rank += (sums[k] <= u) & (sums[k] < total)
    return fans.candidate[np.int64(start) + rank]


@inline
def _extend(tables, rng, sums, maps, latest, new):
    """Draws the paddle after `latest`, and enters `latest` into the maps.

    Returns False, and leaves the maps unchanged, if the contour cannot continue.
    """
    ring, o = tables.ring, latest[2]
    y, x = math.ceil(latest[3] + tables.step[o, 0]), math.ceil(latest[4] + tables.step[o, 1])
    total = _weigh(tables, maps, o, np.uint64(_flat(tables, y, x)), sums)
    if total < NEGLIGIBLE:
        return False
    for _ in range(EXTENSION_DRAWS):
        j = _choose(tables, rng, o, sums, total)
        head_y, head_x = y + ring[j, 0], x + ring[j, 1]
        if not _overlaps(tables, maps, j, head_y, head_x):
            new[0], new[1], new[2], new[3], new[4] = head_y, head_x, N_DEGREES + j, y, x
            _enter(tables, maps, latest)
            return True
    return False


@inline
def _draw_pair(tables, rng, sums, maps, paddles, tally):
    """Draws two contours, which grow alternately; every failure restarts both.

    Extension `k` belongs to contour `k % 2`. The last paddle of contour 0 never enters the maps.
    """
    n = tables.n_paddles
    for _ in range(PAIR_ATTEMPTS):
        tally[PAIRS] += 1
        if not _seed_pair(tables, rng, paddles[0], paddles[n]):
            continue
        tally[SEEDED] += 1
        placed = 0
        while placed < 2 * (n - 1):
            i = placed % 2 * n + placed // 2
            if not _extend(tables, rng, sums, maps, paddles[i], paddles[i + 1]):
                break
            placed += 1
        tally[HALVES] += placed >= n - 1
        if placed == 2 * (n - 1):
            _enter(tables, maps, paddles[2 * n - 1])
            return True
        for k in range(placed):
            _restore(tables, maps, tables.empty, paddles[k % 2 * n + k // 2])
    return False


@inline
def _has_room(tables, maps):
    """Returns whether at least one per cent of the image is free."""
    n_free = 0
    for y in range(tables.size):
        for x in range(tables.size):
            n_free += maps[_flat(tables, y, x)] < OCCUPIED
        if 100 * n_free >= tables.size**2:
            return True
    return False


@inline
def _draw_distractor(tables, rng, sums, maps, committed, paddles):
    """Tries to draw a distractor on `maps`, and enters it into `committed` if that succeeds."""
    if not _seed_distractor(tables, rng, committed, paddles[0]):
        return False
    n, placed = tables.n_distractor_paddles, 1
    while placed < n and _extend(tables, rng, sums, maps, paddles[placed - 1], paddles[placed]):
        placed += 1
    if placed == n:
        _enter(tables, maps, paddles[n - 1])
        for k in range(n):
            _enter(tables, committed, paddles[k])
        return True
    for k in range(placed - 1):
        _restore(tables, maps, committed, paddles[k])
    return False


@inline
def _draw_distractors(tables, rng, sums, maps, committed, paddles, tally):
    """Draws distractors beside a pair that is in `maps`; returns the number of all paddles."""
    n = 2 * tables.n_paddles
    for k in range(n):
        if k != tables.n_paddles - 1:
            _enter(tables, committed, paddles[k])
    for _ in range(tables.n_distractors):
        if not _has_room(tables, committed):
            break
        for _ in range(DISTRACTOR_ATTEMPTS):
            tally[DISTRACTORS] += 1
            if _draw_distractor(tables, rng, sums, maps, committed, paddles[n:]):
                n += tables.n_distractor_paddles
                break
    return n


@entry
def draw_scenes(
    tables: Tables,
    seed: int,
    stream: int,
    margin: int,
    scenes: Scenes,
    rng: np.ndarray,
    sums: np.ndarray,
    maps: np.ndarray,
    committed: np.ndarray,
) -> int:
    """Draws the geometry of the examples with one margin.

    Each is a function of `(seed, stream, index)` alone. Scratch: `rng` (1,) uint64, `sums` with one
    float per direction of the ring, `maps` and `committed`, each as long as `tables.empty`. Returns
    -1, or the first example for which no pair of targets fits; the others are not drawn then.
    """
    for i in range(len(scenes.index)):
        if scenes.margin[i] != margin:
            continue
        paddles, attempts = scenes.paddles[i], scenes.attempts[i]
        rng[0] = hash_words(seed, stream, scenes.index[i])
        scenes.label[i], scenes.origin[i] = below(rng, 2), below(rng, 2)
        _clear(tables, maps)
        if not _draw_pair(tables, rng, sums, maps, paddles, attempts):
            return i
        _clear(tables, committed)
        scenes.n_paddles[i] = _draw_distractors(
            tables, rng, sums, maps, committed, paddles, attempts
        )
    return -1
