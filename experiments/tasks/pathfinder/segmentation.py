"""Pathfinder segmentation: which pixels are on the path that joins two discs?

The synthetic images follow the DLR paper. In contrast to Pathfinder, they retain the overshoot of
the resampling filter, and distractors carry discs, too.

References:
    Gupta et al., "DLR", 2022, https://arxiv.org/abs/2212.00768.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.sources import Batch
from experiments.tasks._task import cross_entropy
from experiments.tasks.pathfinder.options import SEGMENTATION as SEGMENTATION
from experiments.tasks.pathfinder.options import ImagesOptions
from experiments.tasks.pathfinder.paths import SyntheticImages
from experiments.tasks.pathfinder.render import render_segmented_scenes
from experiments.tasks.pathfinder.scenes import SceneSource
from experiments.tasks.pathfinder.tables import build_float_ink
from experiments.tasks.pathfinder.types import FloatInk, Scenes


def segment(paths: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """Classifies each pixel.

    ======  ==========================================
    class   pixel
    ======  ==========================================
    2       on the path that carries both marks
    1       on another path
    0       on no path
    ======  ==========================================

    Where paths cross, the larger class wins.

    Args:
        paths: the pixels of each of two paths, booleans of shape ``(*batch, 2, H, W)``.
        marked: the paths that carry the first and the second mark, integers of shape
            ``(*batch, 2)``.

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
    """Images with the class of each pixel.

    Columns: ``image``, uint8, and ``target``, int8, see :func:`segment`, of shape ``(size, size)``;
    ``label``, 1 if one path carries both marks; ``margin``.

    Example:
        >>> options = SEGMENTATION["seg128"]
        >>> source = SegmentationSource(options, seed=0, split="test", n_examples=10)
        >>> example = source[0]
        >>> example["target"].shape, int(example["target"].max()) == 1 + int(example["label"])
        ((128, 128), True)
    """

    build_ink = staticmethod(build_float_ink)

    def _draw_images(self, scenes: Scenes) -> dict[str, np.ndarray]:
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentationOptions(ImagesOptions):
    """Data: the number of images, and their parameters."""

    n_train: int = 80_000
    n_validation: int = 10_000
    n_test: int = 10_000


class Segmentation(SyntheticImages):
    r"""Classification of each pixel of an image that is read row by row.

    The loss weights classes by their rarity in the batch: with :math:`n_c` pixels of class c and C
    classes that occur,

    .. math:: \ell = \frac{1}{C} \sum_{c:\, n_c > 0} \frac{1}{n_c} \sum_{i:\, y_i = c} \ell_i

    Both metrics follow from the confusion matrix of the whole split. The published code averages
    the metrics of batches, which depend on the size of a batch.
    """

    options_type = SegmentationOptions
    source_type = SegmentationSource
    head = "label"
    measures = ("loss", "macro_f1", "balanced_accuracy")
    metric = "macro_f1"
    d_output = 3

    @property
    def quantities(self) -> dict[str, tuple[int, ...]]:
        """The loss, and the pixels of each class (axis 0) by their predicted class (axis 1)."""
        return {"loss": (), "confusion": (self.d_output, self.d_output)}

    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Returns each example's share of the loss, times the batch size; and confusion matrices.

        Examples that only fill the batch do not affect the weights.
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
        """Averages F1 over the classes that occur, and recall over the classes in the targets."""
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
