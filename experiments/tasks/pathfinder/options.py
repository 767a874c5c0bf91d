"""Parameters of the Pathfinder generator, and the published settings."""

import math
from dataclasses import dataclass, fields
from typing import Any

from experiments.data.sources import DataOptions
from experiments.errors import check_not_negative, check_positive


def disc_reach(radius: float) -> int:
    """Returns the radius of a drawn mark [pixels]; the resampling filter adds three."""
    return math.ceil(radius) + 3


@dataclass(frozen=True)
class PathfinderOptions:
    """Parameters of the generator.

    To vary the difficulty, use ``dataclasses.replace`` on a published setting.

    Raises:
        ValueError: if a parameter is out of range.
    """

    size: int
    """Side of the image [pixels]."""
    border: int
    """Width of the outer frame without contours [pixels]."""
    supersampling: int
    """Factor by which lines and marks are drawn larger, before they are reduced."""
    n_paddles: int
    """Dashes of each of the two target contours (the contour length)."""
    n_distractor_paddles: int
    """Dashes of each distractor contour."""
    n_distractors: int
    """Target number of distractor contours; those that do not fit are left out."""
    paddle_length: int
    """Length of a dash [pixels]."""
    paddle_thickness: float
    """Thickness of a dash [pixels]."""
    margins: tuple[int, ...]
    """Distances around dashes, one per image [pixels]."""
    turn_sharpness: float
    """Straightness of contours; they never bend by ``90 / turn_sharpness`` degrees or more."""
    seed_distance: int
    """Distance between the first dashes of the two targets [pixels]."""
    disc_radius: float
    """Radius of the two marks [pixels]."""
    target_contrast: float
    """Brightness of target dashes relative to the marks."""
    distractor_contrast: float
    """Brightness of distractor dashes relative to the marks."""

    def __post_init__(self) -> None:
        others = ("n_paddles", "n_distractors", "margins")
        names = [field.name for field in fields(PathfinderOptions) if field.name not in others]
        check_positive(self, **{name: getattr(self, name) for name in names})
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


@dataclass(frozen=True, kw_only=True)
class ImagesOptions(DataOptions, PathfinderOptions):
    """Data: the number of images, and their parameters."""

    def __post_init__(self) -> None:
        DataOptions.__post_init__(self)
        PathfinderOptions.__post_init__(self)


_SETTINGS: dict[str, tuple[Any, ...]] = {
    # path32, path64, path128, path256, seg128, seg256, seg512
    "size": (32, 64, 128, 256, 128, 256, 512),
    "border": (1, 1, 1, 22, 1, 1, 1),
    "supersampling": (2, 2, 2, 2, 2, 2, 3),
    "n_paddles": (14, 14, 14, 14, 14, 16, 12),
    "n_distractor_paddles": (4, 4, 4, 4, 4, 5, 4),
    "n_distractors": (5, 5, 8, 7, 16, 16, 18),
    "paddle_length": (2, 5, 5, 5, 5, 8, 22),
    "paddle_thickness": (0.5, 1.0, 1.5, 2.0, 1.5, 2.0, 6.0),
    "margins": ((1,), (1,), (2, 3), (3,), (2, 3), (4,), (7,)),
    "turn_sharpness": (1.0, 1.8, 1.8, 1.8, 1.8, 2.2, 2.5),
    "seed_distance": (7, 12, 20, 27, 22, 27, 40),
    "disc_radius": (1.5, 2.5, 3.0, 5.0, 2.1, 4.2, 9.0),
    "target_contrast": (1.5, 0.8, 0.9, 1.0, 0.9, 1.0, 1.0),
    "distractor_contrast": (2.0, 0.8, 0.9, 1.0, 0.9, 1.0, 1.0),
}
_OPTIONS = [
    PathfinderOptions(**dict(zip(_SETTINGS, column, strict=True)))
    for column in zip(*_SETTINGS.values(), strict=True)
]
PATHFINDER = dict(zip(("path32", "path64", "path128", "path256"), _OPTIONS[:4], strict=True))
"""The published settings of Pathfinder; ``path128`` is Path-X."""
SEGMENTATION = dict(zip(("seg128", "seg256", "seg512"), _OPTIONS[4:], strict=True))
"""The published settings of Pathfinder segmentation."""
