"""Tables from which the compiled Pathfinder generator draws: stamps, rings, weights, displacements.

Everything a paddle does depends only on its orientation, and only 360 whole degrees (first
paddles) and a few dozen lattice directions (all others) ever occur. So each stamp is drawn once,
here, with Pillow's line primitive and its 8-bit Lanczos filter.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from experiments.tasks._pathfinder_core import LANES, N_DEGREES, OCCUPIED
from experiments.tasks._pathfinder_types import Fans, FloatInk, Ink, Pieces, Seeds, Tables

if TYPE_CHECKING:
    from experiments.tasks.pathfinder import PathfinderOptions

_COLLISION = 459  # 1.8 in bytes: the sum of two exclusion values that makes paddles overlap
_CORNERS = ((1, 1), (1, -1), (-1, 1), (-1, -1))


def build_tables(options: "PathfinderOptions", margin: int) -> tuple[Tables, np.ndarray]:
    """Builds what the geometry of one margin needs.

    Args:
        options: the generator's parameters.
        margin: distance kept around paddles, in pixels; one of ``options.margins``.

    Returns:
        What ``draw_scenes`` reads, and the orientations in radians.
    """
    reach = options.paddle_length + margin  # from a pivot to the heads around it
    radius = _radius(options, margin)
    pad = radius + margin + 3
    stride = options.size + 2 * pad

    ring, angles, canvases = _draw_paddles(options, margin)
    degrees = angles[:N_DEGREES]
    exclusion = _shrink(_dilate(canvases, options.supersampling * margin), 2 * radius + 1)
    halo = _dilate(np.pad(exclusion, ((0, 0), (margin, margin), (margin, margin))), margin)
    occupied = exclusion * (exclusion >= OCCUPIED)  # all that is asked of the exclusion map
    empty = _empty_maps(options, margin, pad)
    tolerated = np.minimum(_COLLISION - 1 - exclusion[N_DEGREES:].astype(int), 255).astype(np.uint8)
    tables = Tables(
        size=options.size,
        pad=pad,
        stride=stride,
        n_paddles=options.n_paddles,
        n_distractor_paddles=options.n_distractor_paddles,
        n_distractors=options.n_distractors,
        seed_distance=float(options.seed_distance),
        empty=empty.reshape(-1),
        stamps=_cut([(occupied, 0), (halo, empty.shape[1])], 0, stride),
        limits=_cut([(tolerated, 0)], 255, stride),
        seeds=_seeds(exclusion[:N_DEGREES], degrees, reach, stride, options),
        fans=_fans(angles, ring @ (stride, 1) + empty.shape[1], options.turn_sharpness),
        ring=ring,
        step=_displacement(angles, reach + margin),
    )
    return tables, angles


def build_ink(options: "PathfinderOptions", margin: int) -> Ink:
    """Builds what the pictures of one margin need: lines and marks resized in 8 bits."""
    _, _, canvases = _draw_paddles(options, margin)
    lines = _shrink(canvases, 2 * _radius(options, margin) + 1)
    discs = _shrink_discs(_draw_discs(options))
    return Ink(
        n_paddles=options.n_paddles,
        target_contrast=float(options.target_contrast),
        distractor_contrast=float(options.distractor_contrast),
        lines=lines,
        peaks=lines.max(axis=(1, 2)),
        disc_peak=int(discs.max()),
        discs=discs,
    )


def build_float_ink(options: "PathfinderOptions", margin: int) -> FloatInk:
    """Builds what segmented pictures of one margin need: lines and marks that overshoot."""
    _, _, canvases = _draw_paddles(options, margin)
    lines = _shrink(canvases.astype(np.float32) / 255, 2 * _radius(options, margin) + 1)
    discs = _shrink_discs(_draw_discs(options).astype(np.float32) / 255)
    return FloatInk(
        n_paddles=options.n_paddles,
        n_distractor_paddles=options.n_distractor_paddles,
        target_contrast=options.target_contrast,
        distractor_contrast=options.distractor_contrast,
        lines=lines,
        line_peaks=lines.max(axis=(1, 2)),
        discs=discs,
        disc_peaks=discs.max(axis=(2, 3)),
    )


def _radius(options: "PathfinderOptions", margin: int) -> int:
    """Pixels from the start of a paddle to the edge of its stamp."""
    return options.paddle_length + margin + math.ceil(options.paddle_thickness)


def _draw_paddles(
    options: "PathfinderOptions", margin: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directions of the ring, all orientations in radians, and a supersampled line for each.

    First paddles are drawn from the tail forwards, all others from the head backwards.
    """
    ring = _ring(options.paddle_length + margin)
    degrees = np.deg2rad(np.arange(N_DEGREES) - N_DEGREES // 2)
    others = np.arctan2(ring[:, 0], ring[:, 1])
    canvases = _draw_lines(np.r_[degrees, others + np.pi], _radius(options, margin), options)
    return ring, np.r_[degrees, others], canvases


def _displacement(angles: np.ndarray, distance: float) -> np.ndarray:
    """Exact double displacements (row, column); the caller takes the ceiling of the *sum*."""
    return distance * np.stack([np.sin(angles), np.cos(angles)], axis=-1)


def _ring(reach: int) -> np.ndarray:
    """Distinct integer offsets (row, column) around a pivot where a next paddle may start."""
    arc = np.arange(math.ceil(2 * np.pi * reach)) / reach
    points = np.floor(reach * np.stack([np.sin(arc), np.cos(arc)], axis=-1)).astype(np.int64)
    return np.unique(points, axis=0)


def _draw_lines(angles: np.ndarray, radius: int, options: "PathfinderOptions") -> np.ndarray:
    """Supersampled lines of value 255 from the centre of a square canvas, one per angle."""
    a = options.supersampling
    centre = a * radius
    width = round(options.paddle_thickness * a)
    canvases = []
    for row, col in np.ceil(centre + _displacement(angles, a * options.paddle_length)):
        canvas = Image.new("L", (2 * centre + 1, 2 * centre + 1))
        ends = [(centre, centre), (int(col), int(row))]
        ImageDraw.Draw(canvas).line(ends, fill=255, width=width)
        canvases.append(np.asarray(canvas))
    return np.stack(canvases)


def _shrink(canvases: np.ndarray, side: int) -> np.ndarray:
    """Resizes canvases with Pillow's antialiasing Lanczos filter; bytes are clipped to 0..255."""
    lanczos = Image.Resampling.LANCZOS
    return np.stack(
        [np.asarray(Image.fromarray(c).resize((side, side), lanczos)) for c in canvases]
    )


def _dilate(images: np.ndarray, radius: int) -> np.ndarray:
    """Running maximum over the disc ``dy^2 + dx^2 <= radius^2``; outside counts as zero.

    Row by row of the disc, from the outermost on: rows differ in their width only.
    """
    side = images.shape[-1]
    padded = np.pad(images, ((0, 0), (radius, radius), (radius, radius)))
    wide = padded[:, :, radius : radius + side].copy()  # maximum over |dx| <= half
    out, half = np.zeros_like(images), 0
    for dy in range(radius, -1, -1):
        while (half + 1) ** 2 + dy**2 <= radius**2:
            half += 1
            for start in (radius - half, radius + half):
                np.maximum(wide, padded[:, :, start : start + side], out=wide)
        for start in {radius - dy, radius + dy}:
            np.maximum(out, wide[:, start : start + side], out=out)
    return out


def _cut(layers: list[tuple[np.ndarray, int]], blank: int, stride: int) -> Pieces:
    """Cuts images into vectors, leaving out blank stretches.

    Args:
        layers: stacks of as many square images, and the offset of each stack's map.
        blank: value of pixels that have no effect.
        stride: length of a row of the maps.
    """
    at, lanes, start = [], [], [0]
    wide = [np.pad(x, ((0, 0), (0, 0), (0, LANES)), constant_values=blank) for x, _ in layers]
    for i in range(len(wide[0])):
        for images, (_, offset) in zip(wide, layers, strict=True):
            half = images.shape[1] // 2
            for row, values in enumerate(images[i]):
                filled = np.flatnonzero(values != blank)
                for col in range(filled[0], filled[-1] + 1, LANES) if len(filled) else ():
                    lanes.append(values[col : col + LANES])
                    at.append(offset + (row - half) * stride + col - half)
        start.append(len(at))
    return Pieces(np.array(start, np.uint64), np.array(at), np.concatenate(lanes))


def _empty_maps(options: "PathfinderOptions", margin: int, pad: int) -> np.ndarray:
    """Exclusion map and its dilation before anything is placed, padded, each one flat row."""
    maps = np.full((2, options.size + 2 * pad, options.size + 2 * pad), 255, np.uint8)
    for plane, frame in zip(maps, (options.border, options.border + margin), strict=True):
        plane[pad + frame : -pad - frame, pad + frame : -pad - frame] = 0
    return np.pad(maps.reshape(2, -1), ((0, 0), (0, LANES)), constant_values=255)


def _concatenate(lists: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Joins arrays, and returns where each starts (and the last one ends)."""
    return np.cumsum([0, *map(len, lists)]), np.concatenate(lists)


def _seeds(
    exclusion: np.ndarray,
    degrees: np.ndarray,
    reach: int,
    stride: int,
    options: "PathfinderOptions",
) -> Seeds:
    """What first paddles need.

    The probe set of an orientation holds the saturated pixels of its stamp, one pixel down-right
    of where it is drawn. The orientation is usable if no corner of the image hides the whole set.
    In the empty image the free positions of the very first paddle form a rectangle.
    """
    centre = exclusion.shape[-1] // 2
    frame = max(2 * options.seed_distance, options.border)
    box = np.zeros((N_DEGREES, 4), np.int64)
    usable = np.zeros(N_DEGREES, np.bool_)
    probes = []
    for o, stamp in enumerate(exclusion):
        k = np.argwhere(stamp == 255) - centre + 1
        k = k[(np.abs(k) <= reach).all(axis=1)]
        probes.append(k @ (stride, 1))
        usable[o] = all((k * corner >= 0).all(axis=1).any() for corner in _CORNERS)
        if len(k):
            box[o, 0::2] = frame - k.min(axis=0)
            box[o, 1::2] = np.maximum(options.size - 2 * frame - np.ptp(k, axis=0), 0)
    start, probe = _concatenate(probes)
    head = _displacement(degrees, options.paddle_length)
    return Seeds(head, _displacement(degrees + np.pi, reach), usable, box, start, probe)


def _fans(angles: np.ndarray, at: np.ndarray, sharpness: float) -> Fans:
    """For each orientation the directions of the ring with a positive weight."""
    turn = np.abs(angles[N_DEGREES:] - angles[:, None])
    bend = sharpness * np.minimum(turn, 2 * np.pi - turn)
    candidates = [np.flatnonzero(b < np.pi / 2) for b in bend]
    start, candidate = _concatenate(candidates)
    weight = np.concatenate([np.cos(b[c]) ** 2 for b, c in zip(bend, candidates, strict=True)])
    return Fans(start.astype(np.uint64), candidate, at[candidate].astype(np.uint64), weight)


def _draw_discs(options: "PathfinderOptions") -> np.ndarray:
    """Supersampled marks at each position in a tile, whose sides stand for the image's.

    A mark is a disc around a pixel *index*, so it sits up-left a little.
    """
    a, side = options.supersampling, 2 * disc_reach(options.disc_radius) + 1
    distance2 = np.square(np.arange(a * side) - a * np.arange(side)[:, None])
    inside = distance2[:, None, :, None] + distance2[:, None] <= (a * options.disc_radius) ** 2
    return 255 * inside.astype(np.uint8)


def _shrink_discs(tiles: np.ndarray) -> np.ndarray:
    """Resizes marks ``(D, D, a D, a D)`` to tiles ``(D, D, D, D)``."""
    side = len(tiles)
    return _shrink(tiles.reshape(side**2, *tiles.shape[2:]), side).reshape((side,) * 4)


def disc_reach(radius: float) -> int:
    """Pixels from a mark's centre to the last one that it may colour; the filter reaches three."""
    return math.ceil(radius) + 3
