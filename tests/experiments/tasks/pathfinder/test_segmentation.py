"""Classes of pixels against the reference, and what the task makes of pictures.

test_pathfinder.py holds the pictures themselves against the reference.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pathfinder_statistics import REFERENCE, Z_MAX, make_source, matched
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, f1_score

from experiments.config import Config
from experiments.config.models import MODELS
from experiments.recipes import RECIPES, get_recipe
from experiments.tasks import TASKS, get_task
from experiments.tasks.pathfinder.segmentation import (
    SEGMENTATION,
    Segmentation,
    SegmentationSource,
    segment,
)
from experiments.training.evaluation import evaluate
from experiments.training.optim import make_schedule
from experiments.training.pipeline import make_batches
from experiments.training.setup import make_setup

_NAMES = [name for name in TASKS if name.startswith("pathfinder_segmentation")]
_SMOKE = get_recipe(_NAMES[0], "dlr", "smoke")


@pytest.fixture
def task() -> Segmentation:
    return Segmentation(_SMOKE.data)


def _batch(n: int = 4, n_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Random logits and targets."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(n, 1024, 3)).astype(np.float32)
    return logits, rng.integers(n_classes, size=(n, 32, 32)).astype(np.int8)


def _reference_loss(logits: np.ndarray, target: np.ndarray) -> float:
    """The weighted mean over all pixels, with weights of one over the count."""
    target = target.ravel()
    log_p = jax.nn.log_softmax(logits.reshape(-1, 3).astype(np.float64))
    losses = -np.asarray(log_p)[np.arange(len(target)), target]
    counts = np.bincount(target, minlength=3)
    weights = np.where(counts > 0, 1 / np.maximum(counts, 1), 0)[target]
    return float((weights * losses).sum() / weights.sum())


@pytest.mark.parametrize("n_classes", [1, 2, 3])
def test_loss_weighs_classes_by_one_over_their_count(task: Segmentation, n_classes: int) -> None:
    logits, target = _batch(n_classes=n_classes)
    loss = task.measure(jnp.asarray(logits), {"target": jnp.asarray(target)})["loss"]
    assert loss.shape == (4,)
    assert float(loss.mean()) == pytest.approx(_reference_loss(logits, target), rel=1e-5)


def test_padding_of_a_batch_has_no_weight(task: Segmentation) -> None:
    logits, target = _batch()
    target[3] = 2
    target[:3] %= 2
    batch = {"target": jnp.asarray(target), "mask": np.arange(4) < 3}
    loss = task.measure(jnp.asarray(logits), batch)["loss"][:3]
    assert float(loss.mean()) == pytest.approx(_reference_loss(logits[:3], target[:3]), rel=1e-5)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_metrics_are_those_of_all_pixels(task: Segmentation, n_classes: int) -> None:
    logits, target = _batch(n_classes=n_classes)
    logits[..., 1] += 1
    values = task.measure(jnp.asarray(logits), {"target": jnp.asarray(target)})
    report = task.report({name: np.asarray(value).mean(axis=0) for name, value in values.items()})
    y, taken = target.ravel(), logits.argmax(axis=-1).ravel()
    assert report["macro_f1"] == pytest.approx(f1_score(y, taken, average="macro"))
    hits = [(taken[y == c] == c).mean() for c in range(n_classes)]
    assert report["balanced_accuracy"] == pytest.approx(np.mean(hits))
    if n_classes == 3:
        assert np.mean(hits) == pytest.approx(balanced_accuracy_score(y, taken))


def test_quantities_have_the_shapes_they_say(task: Segmentation) -> None:
    logits, target = _batch()
    values = task.measure(jnp.asarray(logits), {"target": jnp.asarray(target)})
    assert {name: value.shape[1:] for name, value in values.items()} == task.quantities


def test_pixels_enter_the_model_centred(task: Segmentation) -> None:
    image = np.zeros((1, 32, 32), np.uint8)
    image[0, 0, 1], image[0, 1, 0] = 255, 51
    u = task.inputs({"image": image})["u"]
    assert u.shape == (1, 1024, 1)
    np.testing.assert_allclose(u[0, [0, 1, 32], 0], [-1, 1, -0.6], atol=1e-6)


@pytest.mark.parametrize("label", [0, 1])
def test_larger_class_wins_where_paths_cross(label: int) -> None:
    paths = np.array([[[True, True, False]], [[False, True, True]]])
    classes = [[1, 1, 1]] if label == 0 else [[2, 2, 1]]
    assert segment(paths, np.array([0, 1 - label])).tolist() == classes


def test_targets_lie_on_what_is_drawn() -> None:
    """A path's pixels are not background, and class 2 is there exactly in positive pictures."""
    source = SegmentationSource(SEGMENTATION["seg128"], seed=1, split="train", n_examples=40)
    columns = source.batch(np.arange(40), epoch=0)
    image, target, label = columns["image"], columns["target"], columns["label"]
    assert (image.dtype, target.dtype) == (np.uint8, np.int8)
    assert (image[target > 0] > 0).all()
    np.testing.assert_array_equal(target.max(axis=(1, 2)), 1 + label)
    assert (image.max(axis=(1, 2)) == 255).all()
    for i in range(40):
        scene = source.scene(i)
        n = source.options.n_paddles
        starts = scene.paddles[: 2 * n, :2].reshape(2, n, 2)
        for contour in range(2):
            rows, cols = starts[contour].T
            least = 2 if scene.label and contour == scene.origin else 1
            assert (target[i, rows, cols] >= least).all()


def test_every_placed_distractor_carries_a_mark() -> None:
    """Without lines, there is a mark at the two tips and behind each distractor's first dash."""
    source = SegmentationSource(SEGMENTATION["seg128"], seed=1, split="train", n_examples=20)
    source._ink = {
        margin: ink._replace(
            lines=np.zeros_like(ink.lines), line_peaks=np.zeros_like(ink.line_peaks)
        )
        for margin, ink in source._ink.items()
    }
    options = source.options
    a, side = options.supersampling, options.size
    canvas = np.arange(a * side)
    for i in range(20):
        scenes = source._scenes(np.array([i]))
        paddles, origin = scenes.paddles[0, : scenes.n_paddles[0]], scenes.origin[0]
        n = options.n_paddles
        end = origin if scenes.label[0] else 1 - origin
        centres = [paddles[origin * n, :2], paddles[end * n + n - 1, :2]]
        centres += list(paddles[2 * n :: options.n_distractor_paddles, 3:])
        expected = np.zeros((side, side))
        for y, x in centres:
            disc = np.add.outer((canvas - a * y) ** 2, (canvas - a * x) ** 2)
            disc = (disc <= (a * options.disc_radius) ** 2).astype(np.float32)
            small = Image.fromarray(disc).resize((side, side), Image.Resampling.LANCZOS)
            expected = np.maximum(expected, np.asarray(small))
        expected = np.rint(255 * expected / expected.max())
        np.testing.assert_allclose(source[i]["image"], expected, atol=1)


@pytest.mark.parametrize(
    ("name", "n"),
    [
        ("seg128", 200),
        pytest.param("seg256", 400, marks=pytest.mark.slow),
        pytest.param("seg512", 40, marks=pytest.mark.slow),
    ],
)
def test_shares_of_classes(name: str, n: int) -> None:
    reference = REFERENCE[name]["classes"]
    source, indices = matched(name, n)
    columns = source.batch(indices, epoch=0)
    target, label = columns["target"], columns["label"]
    shares = np.stack([(target == c).mean(axis=(1, 2)) for c in range(3)], axis=1)
    bright = columns["image"] > 127
    ours = {
        "label_0": shares[label == 0],
        "label_1": shares[label == 1],
        "bright_in_mask": (bright & (target > 0)).sum((1, 2)) / bright.sum((1, 2)),
    }
    for key, values in ours.items():
        mean, error = (np.array(x) for x in reference[key])
        deviation = values.std(axis=0, ddof=1)
        n_reference = REFERENCE[name]["n_images"] / (2 if "label" in key else 1)
        error = np.hypot(np.maximum(error, deviation / n_reference**0.5), deviation / n**0.5)
        assert (np.abs(values.mean(axis=0) - mean) <= Z_MAX * error + 1e-9).all(), key


@pytest.mark.parametrize(
    "name",
    [
        "seg128",
        pytest.param("seg256", marks=pytest.mark.slow),
        pytest.param("seg512", marks=pytest.mark.slow),
    ],
)
def test_segmented_pictures_overshoot_as_the_reference_does(name: str) -> None:
    """The brightest pixel before bytes are made: a mark's, one at the edge, or a paddle's."""
    source = make_source(name)
    peaks = [
        peak
        for ink in source._ink.values()
        for peak in (
            ink.disc_peaks.ravel(),
            ink.line_peaks * ink.target_contrast,
        )
    ]
    for brightest in REFERENCE[name]["classes"]["brightest"]:
        assert np.isclose(np.concatenate(peaks), brightest, rtol=1e-6).any()


@pytest.mark.parametrize(("name", "side"), list(zip(_NAMES, (128, 256, 512), strict=True)))
def test_published_recipes(name: str, side: int) -> None:
    config = get_recipe(name, "dlr", "paper")
    assert get_task(name)(config.data).length == side**2
    assert Config.from_dict(json.loads(config.to_json())) == config
    attention = get_recipe(name, "attention", "paper").model
    assert attention.layer_options(get_task(name)(config.data))["l_max"] == 1024


def test_what_is_not_published_says_so() -> None:
    sources = {key: row.source for key, row in RECIPES.items() if key[0] in _NAMES}
    published = {key[:2] for key, source in sources.items() if source.startswith("Gupta")}
    assert published == {*((name, "dlr") for name in _NAMES), (_NAMES[0], "attention")}


def test_run_ends_before_its_cosine_at_256() -> None:
    config = get_recipe("pathfinder_segmentation_256", "dlr", "paper")
    schedule = make_schedule(config, 1.0)
    assert float(schedule(1_000)) == pytest.approx(1)
    assert 0.02 < float(schedule(config.train.steps)) < 0.04


def test_bad_period_is_refused() -> None:
    with pytest.raises(ValueError, match="`period_steps` must exceed `warmup_steps`; got 2 and 2"):
        dataclasses.replace(_SMOKE.optim, period_steps=2)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_two_steps_and_an_evaluation(model: str, one_device) -> None:
    config = get_recipe(_NAMES[0], model, "smoke")
    setup = make_setup(config, one_device)
    batches = make_batches(setup.task, "train", seed=0, batch_size=8)
    leaves = setup.steps.initial
    for k in range(2):
        leaves, meter = setup.steps.train(leaves, batches[k])
    assert int(meter.bad) == 0
    figures = evaluate(setup, leaves, "validation")
    assert set(figures) >= {"loss", "macro_f1", "balanced_accuracy"}
    assert 0 < figures["macro_f1"] < 1
