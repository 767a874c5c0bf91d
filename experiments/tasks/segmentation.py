"""Pathfinder segmentation: which pixels lie on the path that joins two discs?

The images of the DLR paper, drawn on the fly. Unlike those of Pathfinder they keep the overshoot of
the filter that lines are drawn with, and distractors carry discs, too.

References:
    Gupta, Mehta and Berant, "Simplifying and Understanding State Space Models with Diagonal Linear
    RNNs", 2022, https://arxiv.org/abs/2212.00768.
"""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from experiments.tasks._pathfinder_render import render_segmented_scenes
from experiments.tasks._pathfinder_tables import build_float_ink
from experiments.tasks._pathfinder_types import FloatInk, Scenes
from experiments.tasks._task import (
    HERE,
    Batch,
    DataOptions,
    Files,
    Source,
    Split,
    Task,
    cross_entropy,
)
from experiments.tasks.pathfinder import PathfinderOptions, SceneSource

SEGMENTATION: dict[str, PathfinderOptions] = {
    "seg128": PathfinderOptions(
        size=128,
        border=1,
        supersampling=2,
        n_paddles=14,
        n_distractor_paddles=4,
        n_distractors=16,
        paddle_length=5,
        paddle_thickness=1.5,
        margins=(2, 3),
        turn_sharpness=1.8,
        seed_distance=22,
        disc_radius=2.1,
        target_contrast=0.9,
        distractor_contrast=0.9,
    ),
    "seg256": PathfinderOptions(
        size=256,
        border=1,
        supersampling=2,
        n_paddles=16,
        n_distractor_paddles=5,
        n_distractors=16,
        paddle_length=8,
        paddle_thickness=2.0,
        margins=(4,),
        turn_sharpness=2.2,
        seed_distance=27,
        disc_radius=4.2,
        target_contrast=1.0,
        distractor_contrast=1.0,
    ),
    "seg512": PathfinderOptions(
        size=512,
        border=1,
        supersampling=3,
        n_paddles=12,
        n_distractor_paddles=4,
        n_distractors=18,
        paddle_length=22,
        paddle_thickness=6.0,
        margins=(7,),
        turn_sharpness=2.5,
        seed_distance=40,
        disc_radius=9.0,
        target_contrast=1.0,
        distractor_contrast=1.0,
    ),
}
"""The published settings."""


def segment(paths: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """The class of each pixel.

    ======  ==========================================
    class   pixel
    ======  ==========================================
    2       on the path that carries both marks
    1       on another path
    0       on none
    ======  ==========================================

    Where paths cross, the larger class wins.

    Args:
        paths: which pixels lie on each of two paths, booleans of shape ``(*batch, 2, H, W)``.
        marked: the path that carries the first mark, and the one that carries the second, integers
            of shape ``(*batch, 2)``.

    Returns:
        Classes, int8 of shape ``(*batch, H, W)``.

    Example:
        >>> paths = np.array([[[1, 1, 0, 0]], [[0, 1, 1, 0]]], bool)
        >>> segment(paths, np.array([1, 1])).tolist(), segment(paths, np.array([1, 0])).tolist()
        ([[1, 2, 2, 0]], [[1, 1, 1, 0]])
    """
    first, second = marked[..., :1], marked[..., 1:]
    classes = 1 + ((first == second) & (first == np.arange(2))).astype(np.int8)
    return (paths * classes[..., None, None]).max(axis=-3)


class SegmentationSource(SceneSource[FloatInk]):
    """Pictures with the class of each pixel.

    Columns: ``image``, uint8, and ``target``, int8, see :func:`segment`, of shape ``(size, size)``;
    ``label``, 1 if one path carries both marks; ``margin``.

    Example:
        >>> options = SEGMENTATION["seg128"]
        >>> source = SegmentationSource(options, seed=0, split="test", n_examples=10)
        >>> example = source[0]
        >>> example["target"].shape, int(example["target"].max()) == 1 + int(example["label"])
        ((128, 128), True)
    """

    def _build_ink(self) -> dict[int, FloatInk]:
        return _ink_of(self.options)

    def _pictures(self, scenes: Scenes) -> dict[str, np.ndarray]:
        n, size = len(scenes.index), self.options.size
        canvas = np.empty((size, size), np.float32)
        images = np.empty((n, size, size), np.uint8)
        contours = np.zeros((n, 2, size, size), np.bool_)
        for k, margin in enumerate(self.options.margins):
            render_segmented_scenes(self._ink[margin], k, scenes, canvas, images, contours)
        ends = np.where(scenes.label == 1, scenes.origin, 1 - scenes.origin)
        return {
            "image": images,
            "target": segment(contours, np.stack([scenes.origin, ends], axis=-1)),
        }


@functools.lru_cache(maxsize=16)
def _ink_of(options: PathfinderOptions) -> dict[int, FloatInk]:
    return {margin: build_float_ink(options, margin) for margin in options.margins}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentationOptions(DataOptions, PathfinderOptions):
    """Data: how the images are drawn, and how many."""

    n_train: int = 80_000
    """Training examples."""
    n_validation: int = 10_000
    """Validation examples, by which the best checkpoint is chosen."""
    n_test: int = 10_000
    """Test examples, used once, at the end."""

    def __post_init__(self) -> None:
        DataOptions.__post_init__(self)
        PathfinderOptions.__post_init__(self)


class Segmentation(Task):
    r"""Images read row by row, and one of three classes for each pixel.

    The loss weighs classes by how rare they are in the batch: with :math:`n_c` pixels of class c
    and C classes that occur,

    .. math:: \ell = \frac{1}{C} \sum_{c:\, n_c > 0} \frac{1}{n_c} \sum_{i:\, y_i = c} \ell_i

    Both metrics follow from the confusion matrix of the whole split. The published code averages
    those of batches, which depend on how many images a batch has.
    """

    options_type = SegmentationOptions
    head = "label"
    measures = ("loss", "macro_f1", "balanced_accuracy")
    metric = "macro_f1"
    d_input = 1
    d_output = 3
    input_moments = 127.5, 127.5

    def __init__(self, options: SegmentationOptions, files: Files = HERE) -> None:
        super().__init__(options, files)
        self.length = options.size**2

    @property
    def quantities(self) -> dict[str, tuple[int, ...]]:
        """The loss, and the pixels of each class (axis 0) by what they are taken for (axis 1)."""
        return {"loss": (), "confusion": (self.d_output, self.d_output)}

    def source(self, split: Split, *, seed: int) -> Source:
        """Images, classes, labels and margins; drawn when they are read."""
        n_examples = self.options.n_examples(split)
        return SegmentationSource(self.options, seed=seed, split=split, n_examples=n_examples)

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Bytes to [-1, 1], flattened row by row: ``u`` of shape ``(B, size * size, 1)``."""
        x = (batch["image"].astype(jnp.float32) / 255 - 0.5) / 0.5
        return {"u": x.reshape(x.shape[0], self.length, self.d_input)}

    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Shares of the batch's loss, times the number of its examples; and confusion matrices.

        Examples that only fill the batch do not count in the weights.
        """
        target = batch["target"].reshape(outputs.shape[:2])
        counts = batch.get("mask", jnp.ones(len(target)))
        belongs = jax.nn.one_hot(target, self.d_output)
        n_pixels = jnp.einsum("b,blc->c", counts, belongs)
        weights = jnp.where(n_pixels > 0, 1 / jnp.maximum(n_pixels, 1), 0)
        losses = cross_entropy(outputs, target)
        shares = jnp.einsum("bl,bl->b", losses, weights[target]) / (n_pixels > 0).sum()
        taken = jax.nn.one_hot(outputs.argmax(axis=-1), self.d_output)
        confusion = jnp.einsum("blc,bld->bcd", belongs, taken)
        return {"loss": counts.sum() * shares, "confusion": confusion}

    def report(self, means: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Means over the classes that occur: F1 and, of those in the targets, the recall."""
        confusion = np.asarray(means["confusion"], np.float64)
        hits, targets, taken = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
        occurs = targets + taken > 0
        f1 = 2 * hits[occurs] / (targets + taken)[occurs]
        recall = hits[targets > 0] / targets[targets > 0]
        return {
            "loss": float(means["loss"]),
            "macro_f1": float(f1.mean()),
            "balanced_accuracy": float(recall.mean()),
        }
