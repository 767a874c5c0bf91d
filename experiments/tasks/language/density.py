"""Density models of the pixels of scikit-learn's handwritten digits."""

import dataclasses
import math
from typing import ClassVar

import jax
import numpy as np

from experiments.data.held_out import published_order
from experiments.data.sources import ArraySource, Batch, DataOptions, Source, Split
from experiments.errors import UsageError
from experiments.tasks.language.task import LanguageTask

SIZE, LEVELS = 8, 17
SHADES = " .:-=+*#%@"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DigitsDensityOptions(DataOptions):
    """Data: the splits of the 1,797 images."""

    n_train: int = 1_200
    n_validation: int = 297
    n_test: int = 300


class DigitsDensity(LanguageTask):
    """Prediction of the next pixel of an 8 x 8 image with 17 grey levels, row by row.

    Token 0 starts an image, and level g is token g + 1, as in the density task of CIFAR-10.
    """

    options_type = DigitsDensityOptions
    measures = ("loss", "bits_per_pixel")
    metric = "bits_per_pixel"
    d_input = LEVELS + 1
    d_output = LEVELS + 1
    length = SIZE**2
    n_new: ClassVar[int] = SIZE**2

    def source(self, split: Split, *, seed: int) -> Source:
        """Returns images in a fixed order: first training, then validation, then test."""
        from sklearn.datasets import load_digits  # slow to import, only needed here

        images = load_digits().data.astype(np.uint8)
        o = self.options
        if o.n_train + o.n_validation + o.n_test > len(images):
            raise UsageError(
                f"There are {len(images):,} images: lower --data.n_train, --data.n_validation or "
                f"--data.n_test, whose sum is {o.n_train + o.n_validation + o.n_test:,}."
            )
        start = {"train": 0, "validation": o.n_train, "test": o.n_train + o.n_validation}[split]
        chosen = published_order(len(images))[start : start + o.n_examples(split)]
        return ArraySource(token=np.pad(images[chosen] + 1, ((0, 0), (1, 0))))

    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Returns nats and bits per pixel."""
        loss = outputs.mean(-1)
        return {"loss": loss, "bits_per_pixel": loss / math.log(2)}

    def encode(self, text: str) -> np.ndarray:
        """Encodes grey levels, which are separated by blanks; an empty text starts an image."""
        try:
            levels = [int(word) for word in text.split()]
        except ValueError:
            levels = [-1]
        if not all(0 <= level < LEVELS for level in levels) or len(levels) >= self.length:
            raise UsageError(
                f"A prompt must have fewer than {self.length} grey levels from 0 to {LEVELS - 1}, "
                f"separated by blanks; got {text!r}. Example: --prompt='0 0 5 13'"
            )
        return np.array([0] + [level + 1 for level in levels], np.int32)

    def decode(self, tokens: np.ndarray) -> str:
        """Draws an image with letters; tokens after the last pixel are ignored."""
        levels = np.maximum(tokens[1 : self.length + 1] - 1, 0)
        shades = "".join(2 * SHADES[level * len(SHADES) // LEVELS] for level in levels.tolist())
        width = 2 * SIZE
        return "\n".join(shades[i : i + width] for i in range(0, len(shades), width))
