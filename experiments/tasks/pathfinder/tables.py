"""Tables of the compiled Pathfinder generator: stamps, rings, weights and displacements.

A paddle's effect depends only on its orientation. There are 360 orientations of first paddles, in
whole degrees, and a few dozen lattice directions of all others. Each stamp is therefore drawn only
once, with Pillow's line primitive and its 8-bit Lanczos filter.
"""

import math

import numpy as np
from PIL import Image, ImageDraw

from experiments.tasks.pathfinder.core import LANES, N_DEGREES, OCCUPIED
from experiments.tasks.pathfinder.options import PathfinderOptions, disc_reach
from experiments.tasks.pathfinder.types import Fans, FloatInk, Ink, Pieces, Seeds, Tables

_COLLISION = 459  # 1.8 in bytes: paddles overlap at this sum of exclusion values
_CORNERS = ((1, 1), (1, -1), (-1, 1), (-1, -1))


def build_tables(options: PathfinderOptions, margin: int) -> tuple[Tables, np.ndarray]:
    """Builds the tables for the geometry of one margin.

    Args:
        options: the generator's parameters.
        margin: distance around paddles, in pixels; one of ``options.margins``.

    Returns:
        The tables for ``draw_scenes``, and the orientations in radians.
    """
    reach = options.paddle_length + margin  # from a pivot to the heads around it
    radius = _radius(options, margin)
    pad = radius + margin + 3
    stride = options.size + 2 * pad

    ring, angles, canvases = _draw_paddles(options, margin)
    degrees = angles[:N_DEGREES]
    exclusion = _shrink(_dilate(canvases, options.supersampling * margin), 2 * radius + 1)
    halo = _dilate(np.pad(exclusion, ((0, 0), (margin, margin), (margin, margin))), margin)
    occupied = exclusion * (exclusion >= OCCUPIED)  # the part of the exclusion map that is read
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


def build_ink(options: PathfinderOptions, margin: int) -> Ink:
    """Builds the ink for images of one margin: lines and marks resized in 8 bits."""
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


def build_float_ink(options: PathfinderOptions, margin: int) -> FloatInk:
    """Builds the ink for segmented images of one margin: lines and marks that overshoot."""
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


def _radius(options: PathfinderOptions, margin: int) -> int:
    """Returns the distance from the start of a paddle to the edge of its stamp [pixels]."""
    return options.paddle_length + margin + math.ceil(options.paddle_thickness)


def _draw_paddles(
    options: PathfinderOptions, margin: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns directions of the ring, all orientations, and a supersampled line for each.

    First paddles are drawn from the tail forwards, all others from the head backwards.
    """
    ring = _ring(options.paddle_length + margin)
    degrees = np.deg2rad(np.arange(N_DEGREES) - N_DEGREES // 2)
    others = np.arctan2(ring[:, 0], ring[:, 1])
    canvases = _draw_lines(np.r_[degrees, others + np.pi], _radius(options, margin), options)
    return ring, np.r_[degrees, others], canvases


def _displacement(angles: np.ndarray, distance: float) -> np.ndarray:
    """Returns exact displacements (row, column); the caller takes the ceiling of the *sum*."""
    return distance * np.stack([np.sin(angles), np.cos(angles)], axis=-1)


def _ring(reach: int) -> np.ndarray:
    """Returns the distinct offsets (row, column) from a pivot at which a paddle may start."""
    arc = np.arange(math.ceil(2 * np.pi * reach)) / reach
    points = np.floor(reach * np.stack([np.sin(arc), np.cos(arc)], axis=-1)).astype(np.int64)
    return np.unique(points, axis=0)


def _draw_lines(angles: np.ndarray, radius: int, options: PathfinderOptions) -> np.ndarray:
    """Draws supersampled lines of value 255 from the centre of a canvas, one per angle."""
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
    """Computes the maximum over the disc ``dy^2 + dx^2 <= radius^2``; outside counts as zero.

    The rows of the disc differ only in their width. They are processed from the outermost inwards.
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
        layers: stacks of equally many square images, and the offset of each stack's map.
        blank: value of pixels without effect.
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


def _empty_maps(options: PathfinderOptions, margin: int, pad: int) -> np.ndarray:
    """Builds the empty exclusion map and its dilation, padded, each as one flat row."""
    maps = np.full((2, options.size + 2 * pad, options.size + 2 * pad), 255, np.uint8)
    for plane, frame in zip(maps, (options.border, options.border + margin), strict=True):
        plane[pad + frame : -pad - frame, pad + frame : -pad - frame] = 0
    return np.pad(maps.reshape(2, -1), ((0, 0), (0, LANES)), constant_values=255)


def _concatenate(lists: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Concatenates arrays; returns the start of each and the end of the last, and the array."""
    return np.cumsum([0, *map(len, lists)]), np.concatenate(lists)


def _seeds(
    exclusion: np.ndarray, degrees: np.ndarray, reach: int, stride: int, options: PathfinderOptions
) -> Seeds:
    """Builds the tables of first paddles.

    The probe set of an orientation consists of the saturated pixels of its stamp, shifted down and
    right by one pixel. The orientation is usable if no corner of the image hides the whole set. In
    the empty image the free positions of the very first paddle form a rectangle.
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
    """Returns for each orientation the directions of the ring with a positive weight."""
    angle = np.abs(angles[N_DEGREES:] - angles[:, None])
    bend = sharpness * np.minimum(angle, 2 * np.pi - angle)
    candidates = [np.flatnonzero(b < np.pi / 2) for b in bend]
    start, candidate = _concatenate(candidates)
    weight = np.concatenate([np.cos(b[c]) ** 2 for b, c in zip(bend, candidates, strict=True)])
    return Fans(start.astype(np.uint64), candidate, at[candidate].astype(np.uint64), weight)


def _draw_discs(options: PathfinderOptions) -> np.ndarray:
    """Draws supersampled marks at each position in a tile, whose sides represent the image's.

    A mark is a disc around a pixel *index*, so it is slightly shifted up and left.
    """
    a, side = options.supersampling, 2 * disc_reach(options.disc_radius) + 1
    distance2 = np.square(np.arange(a * side) - a * np.arange(side)[:, None])
    inside = distance2[:, None, :, None] + distance2[:, None] <= (a * options.disc_radius) ** 2
    return 255 * inside.astype(np.uint8)


def _shrink_discs(tiles: np.ndarray) -> np.ndarray:
    """Resizes marks ``(D, D, a D, a D)`` to tiles ``(D, D, D, D)``."""
    side = len(tiles)
    return _shrink(tiles.reshape(side**2, *tiles.shape[2:]), side).reshape((side,) * 4)
