"""What the compiled Pathfinder generator reads and fills."""

from typing import NamedTuple

import numpy as np


class Pieces(NamedTuple):
    """Images cut into vectors: image `i` is the pieces `start[i]` to `start[i + 1]`."""

    start: np.ndarray  # uint64
    at: np.ndarray  # offset of a piece from the image's centre in the flat maps
    lanes: np.ndarray  # flat uint8, `LANES` bytes a piece


class Fans(NamedTuple):
    """For orientation `o` the entries `start[o]` to `start[o + 1]`: what may follow it."""

    start: np.ndarray  # uint64
    candidate: np.ndarray  # index into the ring
    at: np.ndarray  # uint64: offset from the pivot in the dilated map
    weight: np.ndarray  # cos^2 of the sharpened turn


class Seeds(NamedTuple):
    """How a contour starts, for each of the whole degrees."""

    head: np.ndarray  # (360, 2): displacement from tail to head
    pivot: np.ndarray  # (360, 2): displacement from head to pivot
    usable: np.ndarray  # (360,): whether the orientation is allowed
    box: np.ndarray  # (360, 4): row, rows, column, columns where a pair may start
    probe_start: np.ndarray  # (361,)
    probe: np.ndarray  # offsets in the exclusion map that must be free


class Tables(NamedTuple):
    """All that the geometry of one margin depends on; see `build_tables`."""

    size: int
    pad: int
    stride: int
    n_paddles: int
    n_distractor_paddles: int
    n_distractors: int
    seed_distance: float
    empty: np.ndarray  # both maps before anything is placed, flat
    stamps: Pieces  # by orientation: what a paddle leaves in the maps
    limits: Pieces  # by ring direction: the largest values that a new paddle tolerates
    seeds: Seeds
    fans: Fans
    ring: np.ndarray  # (J, 2): displacements from a pivot to the heads around it
    step: np.ndarray  # (O, 2): displacement from a pivot to the next


class Ink(NamedTuple):
    """All that the picture of one margin depends on, besides the scene."""

    n_paddles: int
    target_contrast: float
    distractor_contrast: float
    lines: np.ndarray  # (O, S, S) uint8: a paddle of each orientation, start at the centre
    peaks: np.ndarray  # (O,) uint8: the brightest pixel of each
    disc_peak: int
    discs: np.ndarray  # (D, D, D, D) uint8: tiles that hold a mark at each of their pixels


class FloatInk(NamedTuple):
    """All that a segmented picture of one margin depends on, besides the scene."""

    n_paddles: int
    n_distractor_paddles: int
    target_contrast: float
    distractor_contrast: float
    lines: np.ndarray  # (O, S, S) float32: a paddle of each orientation, start at the centre
    line_peaks: np.ndarray  # (O,) float32: the brightest pixel of each
    discs: np.ndarray  # (D, D, D, D) float32: tiles that hold a mark at each of their pixels
    disc_peaks: np.ndarray  # (D, D) float32: the brightest pixel of each


class Scenes(NamedTuple):
    """The geometry of B images."""

    index: np.ndarray  # (B,)
    margin: np.ndarray  # (B,): which of the margins
    label: np.ndarray  # (B,): 1 if both marks lie on one target
    origin: np.ndarray  # (B,): the target that carries the first mark
    n_paddles: np.ndarray  # (B,)
    paddles: np.ndarray  # (B, P, 5): the targets one after the other, then the distractors
    attempts: np.ndarray  # (B, 4): counts, zeros before
