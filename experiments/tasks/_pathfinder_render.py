"""Compiled picture of a Pathfinder scene."""

import math
from typing import NamedTuple

import numpy as np

from experiments.tasks._pathfinder_jit import entry, inline


class Ink(NamedTuple):
    """All that the picture of one margin depends on, besides the scene."""

    n_paddles: int
    target_contrast: float
    distractor_contrast: float
    lines: np.ndarray  # (O, S, S) uint8: a paddle of each orientation, start at the centre
    peaks: np.ndarray  # (O,) uint8: the brightest pixel of each
    disc_peak: int
    discs: np.ndarray  # (D, D, D, D) uint8: tiles that hold a mark at each of their pixels


@inline
def _stamp(image, stamp, levels, top, left):
    """Draws a stamp, by maximum, cropped at the edge of the image."""
    size, side = len(image), len(stamp)
    for r in range(max(0, -top), min(side, size - top)):
        for c in range(max(0, -left), min(side, size - left)):
            level = levels[stamp[r, c]]
            if level > image[top + r, left + c]:
                image[top + r, left + c] = level


@inline
def _set_levels(levels, contrast, brightest):
    """The picture's byte for each byte of a stamp."""
    for b in range(256):
        levels[b] = math.floor(255 * (b / 255 * contrast / brightest) + 0.5)


@entry
def render_scene(
    ink: Ink, paddles: np.ndarray, label: int, origin: int, levels: np.ndarray, image: np.ndarray
) -> None:
    """Draws the picture of a scene, scaled so that its brightest pixel is 255.

    Levels are found before anything is drawn: the background is 0, and the brightest pixel that of
    a mark or of a paddle, which never leaves the image.

    Args:
        ink: of the scene's margin.
        paddles: (n, 3) or wider: row, column, orientation.
        label: 1 if the marks lie on one contour.
        origin: the contour that carries the first mark.
        levels: scratch, (3, 256) uint8.
        image: zeros, (size, size) uint8; receives the picture.
    """
    n = ink.n_paddles
    brightest = ink.disc_peak / 255
    for i in range(len(paddles)):
        contrast = ink.target_contrast if i < 2 * n else ink.distractor_contrast
        brightest = max(brightest, ink.peaks[paddles[i, 2]] / 255 * contrast)
    _set_levels(levels[0], ink.target_contrast, brightest)
    _set_levels(levels[1], ink.distractor_contrast, brightest)
    _set_levels(levels[2], 1.0, brightest)
    half = ink.lines.shape[1] // 2
    for i in range(len(paddles)):
        y, x, o = paddles[i, 0], paddles[i, 1], paddles[i, 2]
        _stamp(image, ink.lines[o], levels[0 if i < 2 * n else 1], y - half, x - half)
    side = len(ink.discs)
    end = origin if label == 1 else 1 - origin
    for i in (origin * n, end * n + n - 1):
        y, x = paddles[i, 0], paddles[i, 1]
        top = min(max(y - side // 2, 0), len(image) - side)
        left = min(max(x - side // 2, 0), len(image) - side)
        _stamp(image, ink.discs[y - top, x - left], levels[2], top, left)
