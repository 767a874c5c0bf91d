"""Pathfinder, Path-X and Path-256: does one dashed path join two discs?

The three tasks differ only in their settings, which are in the recipes.
"""

import dataclasses
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.readers import read_image
from experiments.data.sources import DEFAULT_PATHS, Batch, Files, Source, Split
from experiments.tasks._task import Task
from experiments.tasks.pathfinder.options import ImagesOptions
from experiments.tasks.pathfinder.scenes import PathfinderSource, SceneSource


@dataclasses.dataclass(frozen=True, kw_only=True)
class PathsOptions(ImagesOptions):
    """Data: the number of images, and their parameters."""

    n_train: int = 160_000
    n_validation: int = 20_000
    n_test: int = 20_000
    centred: bool = True
    """Scale pixels to [-1, 1]; if false, to [0, 1], as in the current S4."""


class SyntheticImages(Task):
    """Base class of synthetic images, read row by row as sequences of grey values."""

    source_type: ClassVar[type[SceneSource]]
    d_input = 1
    input_moments = 127.5, 127.5

    def __init__(self, options: ImagesOptions, files: Files = DEFAULT_PATHS) -> None:
        super().__init__(options, files)
        self.length = options.size**2

    def source(self, split: Split, *, seed: int) -> Source:
        """Returns the columns of ``source_type``, drawn on access."""
        n_examples = self.options.n_examples(split)
        return self.source_type(self.options, seed=seed, split=split, n_examples=n_examples)

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns pixels row by row: ``u`` of shape ``(B, size * size, 1)``."""
        x = batch["image"].astype(jnp.float32) / 255
        x = (x - 0.5) / 0.5 if self.input_moments[0] else x
        return {"u": x.reshape(x.shape[0], self.length, self.d_input)}


class Paths(SyntheticImages):
    """Classification of images: does a path join the discs?"""

    options_type = PathsOptions
    source_type = PathfinderSource
    d_output = 2

    def __init__(self, options: PathsOptions, files: Files = DEFAULT_PATHS) -> None:
        super().__init__(options, files)
        self.input_moments = (127.5, 127.5) if options.centred else (0.0, 255.0)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return "apart", "joined"

    def read_examples(self, path: Path) -> dict[str, np.ndarray]:
        """Reads an image, or several images as ``experiments.data sample`` writes them."""
        if path.suffix.lower() == ".npz":
            return super().read_examples(path)
        return {"image": read_image(path, size=self.options.size)[None]}
