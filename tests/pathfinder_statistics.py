"""Statistics of Pathfinder images, as defined in the reference file beside the tests."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from experiments.tasks.pathfinder.options import PATHFINDER
from experiments.tasks.pathfinder.scenes import PathfinderSource, SceneSource
from experiments.tasks.pathfinder.segmentation import SEGMENTATION, SegmentationSource

REFERENCE: dict[str, Any] = json.loads(
    (Path(__file__).parent / "experiments/tasks/data/pathfinder_statistics.json").read_text()
)
Z_MAX = 4.5
Statistics = dict[str, tuple[np.ndarray, np.ndarray]]  # name -> (mean, standard error)

THRESHOLDS = (0, 15, 31, 63, 95, 127, 159, 191, 223, 239, 250, 254)


def make_source(name: str, n: int = 1000, seed: int = 0, split: str = "train") -> SceneSource:
    if name in SEGMENTATION:
        return SegmentationSource(SEGMENTATION[name], seed=seed, split=split, n_examples=n)
    return PathfinderSource(PATHFINDER[name], seed=seed, split=split, n_examples=n)


def matched(name: str, n: int) -> tuple[SceneSource, np.ndarray]:
    """A source, and about `n` of its examples that have the reference's shares of margins."""
    counts = {int(m): c[-1] for m, c in REFERENCE[name]["geometry"]["survival"].items()}
    source = make_source(name, n)
    margin = source.batch(np.arange(n), epoch=0)["margin"]
    unit = min((margin == m).sum() / count for m, count in counts.items())
    kept = [np.flatnonzero(margin == m)[: int(unit * count)] for m, count in counts.items()]
    return source, np.concatenate(kept)


def image_statistics(images: np.ndarray) -> Statistics:
    """Mean and standard error over images (n, H, H) of every statistic of the reference."""
    per_image = {name: np.asarray(values, np.float64) for name, values in _per_image(images)}
    return {name: _mean_and_error(values) for name, values in per_image.items()} | dict(
        _components(images)
    )


def _mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))


def _per_image(images: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    side = images.shape[-1]
    flat = images.reshape(len(images), -1)
    yield "mean", flat.mean(axis=1)
    yield "std", flat.std(axis=1)
    yield "above", np.stack([(flat > t).mean(axis=1) for t in THRESHOLDS], axis=1)
    # 15 bins of 17 grey levels, zero left out.
    counts = np.stack([np.bincount(x, minlength=256) for x in flat])
    yield "levels", counts[:, 1:].reshape(len(images), 15, 17).sum(axis=2) / flat.shape[1]
    yield from _spectra(images)

    position = (np.arange(side) + 0.5) / side - 0.5
    distance = np.hypot(position[:, None], position)
    ring = np.minimum(distance // 0.05, 14).astype(int)
    yield "distance", _bin_means(flat, ring, 15)
    edge = np.minimum(np.arange(side), np.arange(side)[::-1])
    yield "border", _bin_means(flat, np.minimum(edge[:, None], edge), 5)
    half = np.arange(side) >= side // 2
    yield "quadrant", _bin_means(flat, 2 * half[:, None] + half, 4)


def _spectra(images: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    n, side = len(images), images.shape[-1]
    frequency = np.fft.fftfreq(side, 1 / side)
    radius = np.rint(np.hypot(frequency[:, None], frequency)).astype(int)
    power, correlation = [], []
    for image in images:
        x = image / 255
        spectrum = np.abs(np.fft.fft2(x - x.mean())) ** 2
        power.append(spectrum / side**2)
        correlation.append(np.fft.ifft2(spectrum).real / side**2 / x.var())
    yield "power", _bin_means(np.stack(power).reshape(n, -1), radius, side // 2 + 1)
    yield (
        "correlation",
        _bin_means(np.stack(correlation).reshape(n, -1), radius, min(side // 2, 24) + 1),
    )


def _bin_means(flat: np.ndarray, labels: np.ndarray, n_bins: int) -> np.ndarray:
    """Means over pixels (n, pixels) with each label below `n_bins`, 0 where there are none."""
    one_hot = labels.reshape(-1)[:, None] == np.arange(n_bins)
    return flat @ (one_hot / np.maximum(one_hot.sum(axis=0), 1))


def _components(images: np.ndarray) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """8-connected components; areas and diagonals are pooled over images."""
    for threshold in (63, 127, 191):
        counts, areas, diagonals = [], [], []
        for image in images:
            labels, count = ndimage.label(image > threshold, np.ones((3, 3)))
            counts.append(count)
            areas.append(np.bincount(labels.reshape(-1))[1:])
            boxes = ndimage.find_objects(labels)
            diagonals.append(
                [np.hypot(b[0].stop - b[0].start, b[1].stop - b[1].start) for b in boxes]
            )
        yield f"components_{threshold}", _mean_and_error(np.array(counts))
        yield f"area_{threshold}", _mean_and_error(np.concatenate(areas))
        yield f"diagonal_{threshold}", _mean_and_error(np.concatenate(diagonals))
