"""Compiled rendering of Pathfinder scenes, for the classification and the segmentation tasks."""

import math

import numpy as np

from experiments.data.jit import entry, inline
from experiments.tasks.pathfinder.types import FloatInk, Ink, Scenes


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
def _tile(image, discs, y, x):
    """Returns the corner of the tile for a mark at `y` and `x`, which is inside the image."""
    side = len(discs)
    top = min(max(y - side // 2, 0), len(image) - side)
    return top, min(max(x - side // 2, 0), len(image) - side)


@inline
def _set_levels(levels, contrast, brightest):
    """Computes the byte in the image for each byte of a stamp."""
    for b in range(256):
        levels[b] = math.floor(255 * (b / 255 * contrast / brightest) + 0.5)


@inline
def _render(ink, paddles, label, origin, levels, image):
    """Renders a scene; the peaks of marks and paddles, which are in the image, set the levels."""
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
    end = origin if label == 1 else 1 - origin
    for i in (origin * n, end * n + n - 1):
        y, x = paddles[i, 0], paddles[i, 1]
        top, left = _tile(image, ink.discs, y, x)
        _stamp(image, ink.discs[y - top, x - left], levels[2], top, left)


@entry
def render_scenes(
    ink: Ink, margin: int, scenes: Scenes, levels: np.ndarray, images: np.ndarray
) -> None:
    """Renders the scenes with one margin; the brightest pixel of an image is 255.

    Args:
        ink: the ink of the margin.
        margin: the index of the margin.
        scenes: B scenes.
        levels: scratch, (3, 256) uint8.
        images: zeros, (B, size, size) uint8; receives the images.
    """
    for i in range(len(scenes.index)):
        if scenes.margin[i] == margin:
            paddles = scenes.paddles[i, : scenes.n_paddles[i]]
            _render(ink, paddles, scenes.label[i], scenes.origin[i], levels, images[i])


@inline
def _stamp_floats(canvas, stamp, contrast, top, left):
    """Draws a stamp, by maximum, cropped at the edge of the canvas."""
    size, side = len(canvas), len(stamp)
    for r in range(max(0, -top), min(side, size - top)):
        for c in range(max(0, -left), min(side, size - left)):
            value = stamp[r, c] * contrast
            canvas[top + r, left + c] = max(canvas[top + r, left + c], value)


@inline
def _stamp_contour(contour, stamp, threshold, top, left):
    """Sets the pixels where a stamp exceeds a threshold."""
    size, side = len(contour), len(stamp)
    for r in range(max(0, -top), min(side, size - top)):
        for c in range(max(0, -left), min(side, size - left)):
            contour[top + r, left + c] |= stamp[r, c] > threshold


@inline
def _draw_canvas(ink, paddles, label, origin, canvas):
    """Draws all paddles and marks; returns the brightest pixel, which is never cropped."""
    n, half = ink.n_paddles, ink.lines.shape[1] // 2
    end = origin if label == 1 else 1 - origin
    brightest, full = np.float32(0), np.float32(1)
    for i in range(len(paddles)):
        contrast = np.float32(ink.target_contrast if i < 2 * n else ink.distractor_contrast)
        y, x, o = paddles[i, 0], paddles[i, 1], paddles[i, 2]
        _stamp_floats(canvas, ink.lines[o], contrast, y - half, x - half)
        brightest = max(brightest, ink.line_peaks[o] * contrast)
        is_first = i >= 2 * n and (i - 2 * n) % ink.n_distractor_paddles == 0
        if is_first:
            y, x = paddles[i, 3], paddles[i, 4]
        if is_first or i == origin * n or i == end * n + n - 1:
            top, left = _tile(canvas, ink.discs, y, x)
            _stamp_floats(canvas, ink.discs[y - top, x - left], full, top, left)
            brightest = max(brightest, ink.disc_peaks[y - top, x - left])
    return brightest


@entry
def render_segmented_scenes(
    ink: FloatInk,
    margin: int,
    scenes: Scenes,
    canvas: np.ndarray,
    images: np.ndarray,
    contours: np.ndarray,
) -> None:
    """Renders the scenes with one margin, and the pixels of their targets.

    Distractors carry marks, too, at the pivots of their first paddles. A pixel belongs to a target
    if its byte would not be zero in an image of that target alone.

    Args:
        ink: the ink of the margin.
        margin: the index of the margin.
        scenes: B scenes.
        canvas: scratch, (size, size) float32.
        images: (B, size, size) uint8; receives the images.
        contours: False, (B, 2, size, size) bool; receives the targets.
    """
    n, half = ink.n_paddles, ink.lines.shape[1] // 2
    for i in range(len(scenes.index)):
        if scenes.margin[i] != margin:
            continue
        paddles, image = scenes.paddles[i, : scenes.n_paddles[i]], images[i]
        canvas.fill(0)
        brightest = _draw_canvas(ink, paddles, scenes.label[i], scenes.origin[i], canvas)
        scale = np.float32(255) / brightest
        for y in range(len(canvas)):
            for x in range(len(canvas)):
                image[y, x] = np.uint8(np.rint(canvas[y, x] * scale))
        threshold = np.float32(0.5 / (scale * ink.target_contrast))
        for k in range(2 * n):
            y, x, stamp = paddles[k, 0] - half, paddles[k, 1] - half, ink.lines[paddles[k, 2]]
            _stamp_contour(contours[i, k // n], stamp, threshold, y, x)
