"""Arguments and results of the compiled Pathfinder generator."""

from typing import NamedTuple

import numpy as np


class Pieces(NamedTuple):
    """Images cut into vectors: image `i` is the pieces `start[i]` to `start[i + 1]`."""

    start: np.ndarray  # uint64
    at: np.ndarray  # offset of a piece from the image's centre in the flat maps
    lanes: np.ndarray  # flat uint8, `LANES` bytes a piece


class Fans(NamedTuple):
    """The possible successors of orientation `o`: the entries `start[o]` to `start[o + 1]`."""

    start: np.ndarray  # uint64
    candidate: np.ndarray  # index into the ring
    at: np.ndarray  # uint64: offset from the pivot in the dilated map
    weight: np.ndarray  # cos^2 of the sharpened angle


class Seeds(NamedTuple):
    """The start of a contour, for each of the whole degrees."""

    head: np.ndarray  # (360, 2): displacement from tail to head
    pivot: np.ndarray  # (360, 2): displacement from head to pivot
    usable: np.ndarray  # (360,): whether the orientation is allowed
    box: np.ndarray  # (360, 4): row, rows, column, columns at which a pair may start
    probe_start: np.ndarray  # (361,)
    probe: np.ndarray  # offsets in the exclusion map that must be free


class Tables(NamedTuple):
    """Tables for the geometry of one margin; see `build_tables`."""

    size: int
    pad: int
    stride: int
    n_paddles: int
    n_distractor_paddles: int
    n_distractors: int
    seed_distance: float
    empty: np.ndarray  # both maps of an empty image, flat
    stamps: Pieces  # by orientation: the entries of a paddle in the maps
    limits: Pieces  # by ring direction: the largest values that a new paddle tolerates
    seeds: Seeds
    fans: Fans
    ring: np.ndarray  # (J, 2): displacements from a pivot to the heads around it
    step: np.ndarray  # (O, 2): displacement from a pivot to the next


class Ink(NamedTuple):
    """Tables for the rendering of one margin."""

    n_paddles: int
    target_contrast: float
    distractor_contrast: float
    lines: np.ndarray  # (O, S, S) uint8: a paddle of each orientation, from the centre
    peaks: np.ndarray  # (O,) uint8: the brightest pixel of each
    disc_peak: int
    discs: np.ndarray  # (D, D, D, D) uint8: tiles with a mark at each of their pixels


class FloatInk(NamedTuple):
    """Tables for the rendering of one margin with segmentation."""

    n_paddles: int
    n_distractor_paddles: int
    target_contrast: float
    distractor_contrast: float
    lines: np.ndarray  # (O, S, S) float32: a paddle of each orientation, from the centre
    line_peaks: np.ndarray  # (O,) float32: the brightest pixel of each
    discs: np.ndarray  # (D, D, D, D) float32: tiles with a mark at each of their pixels
    disc_peaks: np.ndarray  # (D, D) float32: the brightest pixel of each


class Scenes(NamedTuple):
    """The geometry of B images."""

    index: np.ndarray  # (B,)
    margin: np.ndarray  # (B,): index of the margin
    label: np.ndarray  # (B,): 1 if both marks are on one target
    origin: np.ndarray  # (B,): the target that carries the first mark
    n_paddles: np.ndarray  # (B,)
    paddles: np.ndarray  # (B, P, 5): first target, second target, distractors
    attempts: np.ndarray  # (B, 4): counts, initially zero
