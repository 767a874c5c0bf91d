"""Pathfinder, Path-X and Path-256: are two discs joined by one dashed path?

The three tasks differ in their settings only, which the recipes give.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.tasks._readers import read_image
from experiments.tasks._task import (
    HERE,
    Batch,
    DataOptions,
    Files,
    Source,
    Split,
    Task,
    measure_classification,
)
from experiments.tasks.pathfinder import PathfinderOptions, PathfinderSource


@dataclasses.dataclass(frozen=True, kw_only=True)
class PathsOptions(DataOptions, PathfinderOptions):
    """Data: how the images are drawn, and how many."""

    n_train: int = 160_000
    """Training examples."""
    n_validation: int = 20_000
    """Validation examples, by which the best checkpoint is chosen."""
    n_test: int = 20_000
    """Test examples, used once, at the end."""
    centred: bool = True
    """Pixels from -1 to 1; if not, from 0 to 1, as in the current S4."""

    def __post_init__(self) -> None:
        DataOptions.__post_init__(self)
        PathfinderOptions.__post_init__(self)


class Paths(Task):
    """Images drawn on the fly, read row by row as a sequence of ``size * size`` grey values."""

    options_type = PathsOptions
    d_input = 1
    d_output = 2

    def __init__(self, options: PathsOptions, files: Files = HERE) -> None:
        super().__init__(options, files)
        self.length = options.size**2
        self.input_moments = (127.5, 127.5) if options.centred else (0.0, 255.0)

    @property
    def classes(self) -> tuple[str, ...]:
        """Whether a path joins the discs."""
        return "apart", "joined"

    def source(self, split: Split, *, seed: int) -> Source:
        """Images, labels and margins; drawn when they are read."""
        n_examples = self.options.n_examples(split)
        return PathfinderSource(self.options, seed=seed, split=split, n_examples=n_examples)

    def read_examples(self, path: Path) -> dict[str, np.ndarray]:
        """An image, or several as ``experiments.data sample`` writes them."""
        if path.suffix.lower() == ".npz":
            return super().read_examples(path)
        return {"image": read_image(path, size=self.options.size)[None]}

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Bytes to [-1, 1], flattened row by row: ``u`` of shape ``(B, size * size, 1)``."""
        x = batch["image"].astype(jnp.float32) / 255
        x = (x - 0.5) / 0.5 if self.options.centred else x
        return {"u": x.reshape(x.shape[0], self.length, self.d_input)}

    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Cross entropy and accuracy."""
        return measure_classification(outputs, batch["label"])
