"""Synthetic images of Pathfinder: are two marked tips the ends of one dashed contour?

Example `i` of a split is a pure function of `(seed, split, i)`, so nothing is stored and any worker
can draw any example.

Example:
    >>> from experiments.tasks.pathfinder.options import PATHFINDER
    >>> source = PathfinderSource(PATHFINDER["path32"], seed=0, split="train", n_examples=1000)
    >>> example = source[3]
    >>> example["image"].shape, int(example["label"]) in (0, 1)
    ((32, 32), True)

References:
    Linsley et al., "Pathfinder", 2018, https://arxiv.org/abs/1805.08315.
    Tay et al., "Long Range Arena", 2021, https://arxiv.org/abs/2011.04006.
"""

import abc
import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np

from experiments.data.sources import DrawnSource
from experiments.tasks.pathfinder.core import PAIR_ATTEMPTS, choose_margins, draw_scenes
from experiments.tasks.pathfinder.options import PathfinderOptions
from experiments.tasks.pathfinder.render import render_scenes
from experiments.tasks.pathfinder.tables import build_ink, build_tables
from experiments.tasks.pathfinder.types import FloatInk, Ink, Scenes, Tables

AnyInk = TypeVar("AnyInk", Ink, FloatInk)


class Scene(NamedTuple):
    """The geometry of one image.

    Args:
        paddles: start row, start column and orientation index of each dash,       (n, 3)
            contour by contour: the two targets, then the distractors.
        label: 1 if both marks are on the ends of one contour, else 0.
        origin: the target contour (0 or 1) whose first dash carries a mark.
        margin: distance around dashes, in pixels.
        attempts: attempts at a pair of targets, attempts that could start, attempts
            with half of the extensions; attempts at distractors.                   (4,)
    """

    paddles: np.ndarray
    label: int
    origin: int
    margin: int
    attempts: np.ndarray


class SceneSource(DrawnSource, Generic[AnyInk]):
    """Random access to images of scenes of one split, safe to read from many threads.

    Raises:
        ValueError: if an argument is out of range, or no contour can start under ``options``.
    """

    streams: ClassVar[Mapping[str, int]] = {"train": 0, "validation": 2, "test": 4}
    """The number of each random stream; the next odd number is the stream of the margins."""
    build_ink: ClassVar[Callable[[PathfinderOptions, int], Any]]
    """Builds the ink of one margin."""

    def __init__(
        self, options: PathfinderOptions, *, seed: int, split: str, n_examples: int
    ) -> None:
        super().__init__(options, seed=seed, split=split, n_examples=n_examples)
        self._tables = _tables_of(options)
        self._ink: dict[int, AnyInk] = _ink_of(type(self).build_ink, options)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.options!r}, seed={self.seed}, split={self.split!r}, "
            f"n_examples={self.n_examples})"
        )

    @abc.abstractmethod
    def _draw_images(self, scenes: Scenes) -> dict[str, np.ndarray]:
        """Renders scenes as columns of images."""

    def draw_columns(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Draws images; ``label`` and ``margin``, int32 of shape ``(B,)``."""
        scenes = self._scenes(indices)
        margins = np.array(self.options.margins, np.int32)
        return {
            **self._draw_images(scenes),
            "label": scenes.label.astype(np.int32),
            "margin": margins[scenes.margin],
        }

    def scene(self, index: int) -> Scene:
        """Returns the geometry of one example."""
        scenes = self._scenes(np.array([operator.index(index)]))
        return Scene(
            scenes.paddles[0, : scenes.n_paddles[0], :3],
            int(scenes.label[0]),
            int(scenes.origin[0]),
            self.options.margins[scenes.margin[0]],
            scenes.attempts[0],
        )

    def angles(self, scene: Scene) -> np.ndarray:
        """Returns the directions (n,) of a scene's contours at each dash, in radians."""
        _, angles = self._tables[scene.margin]
        return angles[scene.paddles[:, 2]]

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
        choose_margins(self.seed, self.stream + 1, len(options.margins), scenes)
        rng = np.empty(1, np.uint64)
        for k, margin in enumerate(options.margins):
            tables, _ = self._tables[margin]
            maps, committed = np.empty_like(tables.empty), np.empty_like(tables.empty)
            sums = np.empty(len(tables.ring))
            failed = draw_scenes(
                tables, self.seed, self.stream, k, scenes, rng, sums, maps, committed
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

    Columns: ``image``, uint8 of shape ``(size, size)``; ``label``, 1 if both marks are on one
    contour; ``margin``.

    Example:
        >>> from experiments.tasks.pathfinder.options import PATHFINDER
        >>> source = PathfinderSource(PATHFINDER["path128"], seed=0, split="test", n_examples=10)
        >>> sorted(source[4]), sorted(int(source[i]["margin"]) for i in (4, 5))
        (['image', 'label', 'margin'], [2, 3])
    """

    build_ink = staticmethod(build_ink)

    def _draw_images(self, scenes: Scenes) -> dict[str, np.ndarray]:
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
def _ink_of(
    build: Callable[[PathfinderOptions, int], Any], options: PathfinderOptions
) -> dict[int, Any]:
    return {margin: build(options, margin) for margin in options.margins}
