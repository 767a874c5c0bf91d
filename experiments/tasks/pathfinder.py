"""Pathfinder, Path-X and Path-256: are two marked tips the ends of one dashed contour?

The images of the Long Range Arena, drawn on the fly: example `i` of a split is a pure function of
`(seed, split, i)`, so nothing is stored and any worker can draw any example.

Example:
    >>> source = PathfinderSource(PATHFINDER["path32"], seed=0, split="train", n_examples=1000)
    >>> example = source[3]
    >>> example["image"].shape, int(example["label"]) in (0, 1)
    ((32, 32), True)

References:
    Linsley et al., "Learning long-range spatial dependencies with horizontal gated recurrent
    units", 2018, https://arxiv.org/abs/1805.08315.
    Tay et al., "Long Range Arena: A Benchmark for Efficient Transformers", 2021,
    https://arxiv.org/abs/2011.04006.
"""

import abc
import functools
import operator
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from experiments.errors import check_not_negative, check_positive, pick
from experiments.tasks._pathfinder_core import PAIR_ATTEMPTS, choose_margins, draw_scenes
from experiments.tasks._pathfinder_render import render_scenes
from experiments.tasks._pathfinder_tables import build_ink, build_tables, disc_reach
from experiments.tasks._pathfinder_types import FloatInk, Ink, Scenes, Tables
from experiments.tasks._task import Source

AnyInk = TypeVar("AnyInk", Ink, FloatInk)
_STREAMS = {"train": 0, "validation": 2, "test": 4}  # the odd ones order the margins


@dataclass(frozen=True)
class PathfinderOptions:
    """Parameters of the generator; ``dataclasses.replace`` a published setting to vary difficulty.

    Args:
        size: side of the image, in pixels.
        border: width of the outer frame that no contour enters, in pixels.
        supersampling: lines and marks are drawn this many times larger, then reduced.
        n_paddles: dashes of each of the two target contours (the contour length).
        n_distractor_paddles: dashes of each distractor contour.
        n_distractors: distractor contours asked for; those that find no room are left out.
        paddle_length: length of a dash, in pixels.
        paddle_thickness: thickness of a dash, in pixels.
        margins: distance kept around dashes, in pixels; each image has one of these.
        turn_sharpness: how straight contours are; turns of ``90 / turn_sharpness`` degrees and more
            never occur.
        seed_distance: distance between the first dashes of the two targets, in pixels.
        disc_radius: radius of the two marks, in pixels.
        target_contrast: brightness of target dashes relative to the marks.
        distractor_contrast: brightness of distractor dashes relative to the marks.

    Raises:
        ValueError: if a parameter is out of range.
    """

    size: int
    border: int
    supersampling: int
    n_paddles: int
    n_distractor_paddles: int
    n_distractors: int
    paddle_length: int
    paddle_thickness: float
    margins: tuple[int, ...]
    turn_sharpness: float
    seed_distance: int
    disc_radius: float
    target_contrast: float
    distractor_contrast: float

    def __post_init__(self) -> None:
        check_positive(
            self,
            size=self.size,
            border=self.border,
            supersampling=self.supersampling,
            n_distractor_paddles=self.n_distractor_paddles,
            paddle_length=self.paddle_length,
            paddle_thickness=self.paddle_thickness,
            turn_sharpness=self.turn_sharpness,
            seed_distance=self.seed_distance,
            disc_radius=self.disc_radius,
            target_contrast=self.target_contrast,
            distractor_contrast=self.distractor_contrast,
        )
        check_not_negative(self, n_distractors=self.n_distractors)
        if self.n_paddles < 2:
            raise ValueError(
                f"PathfinderOptions: `n_paddles` must be at least 2; got {self.n_paddles}."
            )
        unique = len(set(self.margins)) == len(self.margins)
        if not self.margins or not unique or min(self.margins) < 1:
            raise ValueError(
                "PathfinderOptions: `margins` must be one or more different integers >= 1; "
                f"got {self.margins}."
            )
        room = max(4 * self.seed_distance, 2 * self.border, 2 * disc_reach(self.disc_radius))
        if self.size <= room:
            raise ValueError(
                "PathfinderOptions: `size` must exceed 4 * `seed_distance`, 2 * `border` and "
                f"2 * (`disc_radius` + 3); got size={self.size}, seed_distance="
                f"{self.seed_distance}, border={self.border}, disc_radius={self.disc_radius}; "
                "enlarge `size` or reduce the others."
            )


PATHFINDER: dict[str, PathfinderOptions] = {
    "path32": PathfinderOptions(
        size=32,
        border=1,
        supersampling=2,
        n_paddles=14,
        n_distractor_paddles=4,
        n_distractors=5,
        paddle_length=2,
        paddle_thickness=0.5,
        margins=(1,),
        turn_sharpness=1.0,
        seed_distance=7,
        disc_radius=1.5,
        target_contrast=1.5,
        distractor_contrast=2.0,
    ),
    "path64": PathfinderOptions(
        size=64,
        border=1,
        supersampling=2,
        n_paddles=14,
        n_distractor_paddles=4,
        n_distractors=5,
        paddle_length=5,
        paddle_thickness=1.0,
        margins=(1,),
        turn_sharpness=1.8,
        seed_distance=12,
        disc_radius=2.5,
        target_contrast=0.8,
        distractor_contrast=0.8,
    ),
    "path128": PathfinderOptions(
        size=128,
        border=1,
        supersampling=2,
        n_paddles=14,
        n_distractor_paddles=4,
        n_distractors=8,
        paddle_length=5,
        paddle_thickness=1.5,
        margins=(2, 3),
        turn_sharpness=1.8,
        seed_distance=20,
        disc_radius=3.0,
        target_contrast=0.9,
        distractor_contrast=0.9,
    ),
    "path256": PathfinderOptions(
        size=256,
        border=22,
        supersampling=2,
        n_paddles=14,
        n_distractor_paddles=4,
        n_distractors=7,
        paddle_length=5,
        paddle_thickness=2.0,
        margins=(3,),
        turn_sharpness=1.8,
        seed_distance=27,
        disc_radius=5.0,
        target_contrast=1.0,
        distractor_contrast=1.0,
    ),
}
"""The published settings; ``path128`` is Path-X."""


class Scene(NamedTuple):
    """The geometry of one image, before it is rendered.

    Args:
        paddles: start row, start column and orientation index of each dash,       (n, 3)
            contour by contour: the two targets, then the distractors.
        label: 1 if both marks lie on the ends of one contour, else 0.
        origin: the target contour (0 or 1) whose first dash carries a mark.
        margin: distance kept around dashes, in pixels.
        attempts: attempts at a pair of targets, those that could start, those in which
            half of the extensions were placed; attempts at distractors.            (4,)
    """

    paddles: np.ndarray
    label: int
    origin: int
    margin: int
    attempts: np.ndarray


class SceneSource(Source, Generic[AnyInk]):
    """Random access to pictures of scenes, one split; safe to read from many threads.

    Args:
        options: the generator's parameters.
        seed: seed of the whole data set, at least 0.
        split: ``"train"``, ``"validation"`` or ``"test"``: three independent streams of examples.
        n_examples: number of examples in the split.

    Raises:
        ValueError: if an argument is out of range, or no contour can start under ``options``.
    """

    def __init__(
        self, options: PathfinderOptions, *, seed: int, split: str, n_examples: int
    ) -> None:
        stream = pick("split", split, _STREAMS)
        if not 0 <= seed < 2**63:
            raise ValueError(f"{type(self).__name__}: `seed` must be in [0, 2**63); got {seed}.")
        check_positive(self, n_examples=n_examples)
        self.options = options
        self.seed = seed
        self.split = split
        self.n_examples = n_examples
        self._tables = _tables_of(options)
        self._ink = self._build_ink()
        self._stream = stream

    def __len__(self) -> int:
        return self.n_examples

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.options!r}, seed={self.seed}, split={self.split!r}, "
            f"n_examples={self.n_examples})"
        )

    @abc.abstractmethod
    def _build_ink(self) -> dict[int, AnyInk]:
        """What pictures of each margin are drawn with."""

    @abc.abstractmethod
    def _pictures(self, scenes: Scenes) -> dict[str, np.ndarray]:
        """Columns of pictures."""

    def __getitem__(self, index: int) -> dict[str, np.ndarray | np.generic]:
        """Draws one example: the columns of :meth:`batch`, without their first axis."""
        columns = self._draw(np.array([self._checked(index)]))
        return {name: column[0] for name, column in columns.items()}

    def batch(self, indices: np.ndarray, *, epoch: int) -> dict[str, np.ndarray]:
        """Draws examples.

        Args:
            indices: their numbers, from 0, integers of shape ``(B,)``.
            epoch: not used.

        Returns:
            Columns of pictures; ``label`` and ``margin``, int32 of shape ``(B,)``.

        Raises:
            IndexError: if an index is negative or not below the number of examples.
            ValueError: if no two contours were found that fit under ``options``.
        """
        del epoch
        for index in (indices.min(), indices.max()):
            self._checked(index)
        return self._draw(indices)

    def scene(self, index: int) -> Scene:
        """The geometry of one example; same arguments and errors as indexing."""
        scenes = self._scenes(np.array([self._checked(index)]))
        return Scene(
            scenes.paddles[0, : scenes.n_paddles[0], :3],
            int(scenes.label[0]),
            int(scenes.origin[0]),
            self.options.margins[scenes.margin[0]],
            scenes.attempts[0],
        )

    def angles(self, scene: Scene) -> np.ndarray:
        """Directions (n,) in which a scene's contours run at each dash, in radians."""
        _, angles = self._tables[scene.margin]
        return angles[scene.paddles[:, 2]]

    def _checked(self, index: int) -> int:
        index = operator.index(index)
        if not 0 <= index < self.n_examples:
            raise IndexError(
                f"{type(self).__name__}: index must be in [0, {self.n_examples}); got {index}."
            )
        return index

    def _draw(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        scenes = self._scenes(indices)
        margins = np.array(self.options.margins, np.int32)
        return {
            **self._pictures(scenes),
            "label": scenes.label.astype(np.int32),
            "margin": margins[scenes.margin],
        }

    def _scenes(self, indices: np.ndarray) -> Scenes:
        options, n = self.options, len(indices)
        contours = (2 * options.n_paddles, options.n_distractors * options.n_distractor_paddles)
        scenes = Scenes(
            index=indices.astype(np.int64),
            margin=np.empty(n, np.int64),
            label=np.empty(n, np.int64),
            origin=np.empty(n, np.int64),
            n_paddles=np.empty(n, np.int64),
            paddles=np.empty((n, sum(contours), 5), np.int64),
            attempts=np.zeros((n, 4), np.int64),
        )
        choose_margins(self.seed, self._stream + 1, len(options.margins), scenes)
        rng = np.empty(1, np.uint64)
        for k, margin in enumerate(options.margins):
            tables, _ = self._tables[margin]
            maps, committed = np.empty_like(tables.empty), np.empty_like(tables.empty)
            sums = np.empty(len(tables.ring))
            failed = draw_scenes(
                tables, self.seed, self._stream, k, scenes, rng, sums, maps, committed
            )
            if failed >= 0:
                raise ValueError(
                    f"{type(self).__name__}: no pair of contours fits in {PAIR_ATTEMPTS:,} "
                    f"attempts (example {indices[failed]}, margin {margin}) under {options}; "
                    "enlarge `size`, or reduce `n_paddles`, `paddle_length` or `margins`."
                )
        return scenes


class PathfinderSource(SceneSource[Ink]):
    """Pathfinder: two dashed contours among shorter ones, and two marks.

    Columns: ``image``, uint8 of shape ``(size, size)``; ``label``, 1 if both marks lie on one
    contour; ``margin``.

    Example:
        >>> source = PathfinderSource(PATHFINDER["path128"], seed=0, split="test", n_examples=10)
        >>> sorted(source[4]), sorted(int(source[i]["margin"]) for i in (4, 5))
        (['image', 'label', 'margin'], [2, 3])
    """

    def _build_ink(self) -> dict[int, Ink]:
        return _ink_of(self.options)

    def _pictures(self, scenes: Scenes) -> dict[str, np.ndarray]:
        size = self.options.size
        images = np.zeros((len(scenes.index), size, size), np.uint8)
        levels = np.empty((3, 256), np.uint8)
        for k, margin in enumerate(self.options.margins):
            render_scenes(self._ink[margin], k, scenes, levels, images)
        return {"image": images}


@functools.lru_cache(maxsize=16)
def _tables_of(options: PathfinderOptions) -> dict[int, tuple[Tables, np.ndarray]]:
    tables = {margin: build_tables(options, margin) for margin in options.margins}
    for margin, (table, _) in tables.items():
        seeds = table.seeds
        if not (seeds.usable & seeds.box[:, 1::2].all(axis=1)).any():
            raise ValueError(
                f"Pathfinder: no first dash fits with margin {margin} under {options}; "
                "enlarge `size`, or reduce `seed_distance`, `paddle_length` or `margins`."
            )
    return tables


@functools.lru_cache(maxsize=16)
def _ink_of(options: PathfinderOptions) -> dict[int, Ink]:
    return {margin: build_ink(options, margin) for margin in options.margins}
