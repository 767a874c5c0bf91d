"""The generator against the reference statistics, and what the source promises.

Confidence: sample sizes and seeds are fixed, so the tests are deterministic. Under a faithful
generator about 5 % of z-scores exceed 2; of the some hundred here, none may exceed 4.5.
"""

import dataclasses
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import pytest
from pathfinder_statistics import REFERENCE, Z_MAX, image_statistics, make_source, matched
from PIL import Image
from scipy import stats

from experiments.data import jit as jit
from experiments.tasks.pathfinder.options import PATHFINDER
from experiments.tasks.pathfinder.scenes import PathfinderSource, Scene, SceneSource

_EASY = dataclasses.replace(PATHFINDER["path32"], n_paddles=6, n_distractors=0)

_SIZES = [
    ("path32", 4000),
    ("path128", 800),
    pytest.param("path256", 400, marks=pytest.mark.slow),
    ("seg128", 200),
    pytest.param("path32", 20000, marks=pytest.mark.slow),
    pytest.param("path128", 4000, marks=pytest.mark.slow),
    pytest.param("path256", 2000, marks=pytest.mark.slow),
    pytest.param("seg128", 1000, marks=pytest.mark.slow),
    pytest.param("seg256", 400, marks=pytest.mark.slow),
    pytest.param("seg512", 40, marks=pytest.mark.slow),
]


def _images(source: SceneSource) -> np.ndarray:
    return source.batch(np.arange(len(source)), epoch=0)["image"]


def _scenes(source: SceneSource) -> list[Scene]:
    return [source.scene(i) for i in range(len(source))]


# ---------------------------------------------------------------------------- against the reference


@pytest.mark.parametrize(("name", "n"), _SIZES)
def test_image_statistics(name: str, n: int) -> None:
    reference = REFERENCE[name]
    source, indices = matched(name, n)
    ours = image_statistics(source.batch(indices, epoch=0)["image"])
    scores = {}
    for key, (mean, error) in reference["images"].items():
        our_mean, our_error = ours[key]
        # The reference is smaller: where events are rare it may have missed them, so its error is
        # at least what our spread says. Components in one image are not independent.
        error = np.maximum(error, our_error * np.sqrt(len(indices) / reference["n_images"]))
        pooled = 2 if key.startswith(("area", "diagonal")) else 1
        rounding = 1e-5 * np.abs(mean) + 1e-12
        scores[key] = (our_mean - mean) / (pooled * np.hypot(error, our_error) + rounding)
    z = np.abs(np.concatenate([np.atleast_1d(s) for s in scores.values()]))
    assert z.max() < Z_MAX, scores
    assert (z > 2).mean() < 0.12, scores


def _rate_scores(ours: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Two-sample z-scores of successive success rates of (n + 1,) counts."""
    trials = np.stack([ours[:-1], reference[:-1]])
    rates = np.stack([ours[1:], reference[1:]]) / trials
    pooled = (ours + reference)[1:] / (ours + reference)[:-1]
    error = np.sqrt(pooled * (1 - pooled) * (1 / trials).sum(axis=0))
    return (rates[0] - rates[1]) / np.maximum(error, 1e-12)


def _survival_scores(name: str, source: SceneSource) -> np.ndarray:
    """How attempts at a pair end: could start, half done (where it is known), done; by margin."""
    scenes = _scenes(source)
    scores = []
    for margin, counts in REFERENCE[name]["geometry"]["survival"].items():
        attempts = [s.attempts[: len(counts) - 1] for s in scenes if s.margin == int(margin)]
        ours = np.append(np.sum(attempts, axis=0), len(attempts))
        scores.append(_rate_scores(ours, np.array(counts)))
    return np.abs(np.concatenate(scores))


@pytest.mark.parametrize(("name", "n"), _SIZES)
def test_success_rates(name: str, n: int) -> None:
    assert _survival_scores(name, make_source(name, n)).max() < Z_MAX


def _chi2(ours: np.ndarray, reference: np.ndarray) -> float:
    """z-score of the two-sample chi-square of two histograms, sparse bins merged into one."""
    table = np.stack([ours, reference]).astype(float)
    expected = table.sum(axis=0) * reference.sum() / table.sum()
    sparse = expected < 10
    table = np.column_stack([table[:, ~sparse], table[:, sparse].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    result = stats.chi2_contingency(table)
    return float(stats.norm.isf(max(result.pvalue, 1e-300)))


def _turns(source: SceneSource, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Turns in degrees of the targets and of the distractors."""
    n, n_d = source.options.n_paddles, source.options.n_distractor_paddles
    angles = np.rad2deg(source.angles(scene))
    turns = [np.diff(angles[: 2 * n].reshape(2, n)), np.diff(angles[2 * n :].reshape(-1, n_d))]
    # A hair's breadth, so that turns on the edge of a bin fall into the upper one.
    target, distractor = (np.mod(t.ravel() + 180 + 1e-9, 360) - 180 for t in turns)
    return target, distractor


@pytest.mark.parametrize(("name", "n"), _SIZES)
def test_geometry(name: str, n: int) -> None:
    source, indices = matched(name, n)
    scenes = [source.scene(i) for i in indices]
    reference = REFERENCE[name]["geometry"]
    n_paddles, n_d = source.options.n_paddles, source.options.n_distractor_paddles
    turns = [np.concatenate(t) for t in zip(*(_turns(source, s) for s in scenes), strict=True)]
    marks = np.array([_marks(source, s) for s in scenes])
    distance = np.hypot(*(marks[:, 0] - marks[:, 1]).T)
    label = np.array([s.label for s in scenes])
    placed = np.array([(len(s.paddles) - 2 * n_paddles) // n_d for s in scenes])
    seeds = [np.rad2deg(source.angles(s)) for s in scenes]
    ends = np.linspace(0, 1.2 * source.options.size, 25)
    tens = np.linspace(-180.5, 179.5, 37)
    fives = np.linspace(-180, 180, 73)
    histograms = {
        "target_turns": np.histogram(turns[0], fives)[0],
        "distractor_turns": np.histogram(turns[1], fives)[0],
        "distance_positive": np.histogram(distance[label == 1], ends)[0],
        "distance_negative": np.histogram(distance[label == 0], ends)[0],
        "first_target_seeds": np.histogram([s[0] for s in seeds], tens)[0],
        "second_target_seeds": np.histogram([s[n_paddles] for s in seeds], tens)[0],
        "placed_distractor_seeds": np.histogram(
            np.concatenate([s[2 * n_paddles :: n_d] for s in seeds]), tens
        )[0],
    }
    scores = {k: _chi2(ours, np.array(reference[k])) for k, ours in histograms.items()}
    counts = np.array([reference["distractors_placed"].get(str(k), 0) for k in range(19)])
    scores["distractors_placed"] = _chi2(np.bincount(placed, minlength=19), counts)
    assert max(scores.values()) < Z_MAX, scores


def _marks(source: SceneSource, scene: Scene) -> np.ndarray:
    """Centres of both marks, (2, 2)."""
    n = source.options.n_paddles
    end = scene.origin if scene.label else 1 - scene.origin
    return scene.paddles[[scene.origin * n, end * n + n - 1], :2]


@pytest.mark.parametrize(
    "name",
    [
        "path32",
        "path128",
        "path256",
        "seg128",
        pytest.param("seg256", marks=pytest.mark.slow),
        pytest.param("seg512", marks=pytest.mark.slow),
    ],
)
def test_first_paddles_have_the_reference_freedom(name: str) -> None:
    source = make_source(name)
    for margin, (usable, mean, least, most) in REFERENCE[name]["geometry"][
        "free_positions"
    ].items():
        seeds = source._tables[int(margin)][0].seeds
        free = seeds.box[seeds.usable, 1] * seeds.box[seeds.usable, 3]
        assert (len(free), free.min(), free.max()) == (usable, least, most)
        assert free.mean() == pytest.approx(mean)


@pytest.mark.parametrize(
    ("name", "margin", "n"),
    [("path32", 1, 18), ("path64", 1, 38), ("path128", 2, 41), ("path128", 3, 49)],
)
def test_ring_has_the_published_number_of_directions(name: str, margin: int, n: int) -> None:
    assert len(make_source(name)._tables[margin][0].ring) == n


@pytest.mark.parametrize(
    ("name", "ranges"), [("path32", [(-150, -120)]), ("path64", [(-180, -135), (-134, -84)])]
)
def test_only_the_published_orientations_start_a_contour(
    name: str, ranges: list[tuple[int, int]]
) -> None:
    usable = np.flatnonzero(make_source(name)._tables[1][0].seeds.usable) - 180
    assert usable.tolist() == [d for low, high in ranges for d in range(low, high)]


@pytest.mark.parametrize("mutation", ["integer displacements", "no veto", "no overlap test"])
def test_statistics_reject_unfaithful_generators(mutation: str) -> None:
    source = make_source("path32", 4000)
    tables, angles = source._tables[1]
    seeds, limits = tables.seeds, tables.limits
    mutants = {
        "integer displacements": tables._replace(step=np.ceil(tables.step - 1e-9)),
        "no veto": tables._replace(seeds=seeds._replace(usable=np.ones_like(seeds.usable))),
        "no overlap test": tables._replace(
            limits=limits._replace(lanes=np.full_like(limits.lanes, 255))
        ),
    }
    source._tables = {1: (mutants[mutation], angles)}
    assert _survival_scores("path32", source).max() > Z_MAX


@pytest.mark.parametrize("name", ["path32", "path128"])
def test_marks_equal_a_mark_drawn_on_the_whole_image(name: str) -> None:
    source = make_source(name)
    options = source.options
    a, side = options.supersampling, options.size
    n = options.n_paddles
    source._ink = {
        margin: ink._replace(lines=np.zeros_like(ink.lines)) for margin, ink in source._ink.items()
    }
    canvas = np.arange(a * side)
    for i in range(200):
        expected = np.zeros((side, side), np.uint8)
        for y, x in _marks(source, source.scene(i)):
            disc = np.add.outer((canvas - a * y) ** 2, (canvas - a * x) ** 2)
            disc = 255 * (disc <= (a * options.disc_radius) ** 2).astype(np.uint8)
            small = Image.fromarray(disc).resize((side, side), Image.Resampling.LANCZOS)
            expected = np.maximum(expected, np.asarray(small))
        image = source[i]["image"].astype(float)
        np.testing.assert_allclose(image, expected * (image.max() / 255), atol=2)
        assert len(source.scene(i).paddles) >= 2 * n


def test_a_batch_is_its_examples() -> None:
    for source in (make_source("path128", 40), make_source("seg128", 40)):
        indices = np.array([7, 3, 39, 3])
        batch = source.batch(indices, epoch=0)
        for k, i in enumerate(indices.tolist()):
            example = source[i]
            assert example.keys() == batch.keys()
            assert all(np.array_equal(example[name], batch[name][k]) for name in batch)


# -------------------------------------------------------------------------------------- the source


@pytest.mark.parametrize("name", list(PATHFINDER))
def test_example(name: str) -> None:
    source = make_source(name)
    example = source[0]
    size = PATHFINDER[name].size
    assert example["image"].shape == (size, size)
    assert example["image"].dtype == np.uint8
    assert (example["image"].min(), example["image"].max()) == (0, 255)
    assert example["label"].dtype == example["margin"].dtype == np.int32
    assert example["label"].shape == example["margin"].shape == ()
    assert int(example["margin"]) in PATHFINDER[name].margins


def test_examples_are_pure_functions_of_their_address() -> None:
    first, again = (
        make_source("path32", 200),
        pickle.loads(pickle.dumps(make_source("path32", 300))),
    )
    forwards = _images(first)
    backwards = np.stack([again[i]["image"] for i in reversed(range(200))])[::-1]
    np.testing.assert_array_equal(forwards, backwards)
    others = [make_source("path32", 200, seed=1), make_source("path32", 200, split="validation")]
    for other in others:
        assert not (forwards == _images(other)).all(axis=(1, 2)).any()


def test_threads_draw_what_one_thread_draws() -> None:
    source = make_source("path32", 400)
    with ThreadPoolExecutor(8) as pool:
        drawn = list(pool.map(lambda i: source[i]["image"], range(400)))
    np.testing.assert_array_equal(drawn, _images(source))


@pytest.mark.parametrize("margins", [(2, 3), (1, 2, 3)])
def test_margins_are_balanced_in_every_group_and_in_random_order(margins: tuple[int, ...]) -> None:
    options = dataclasses.replace(PATHFINDER["path128"], margins=margins, n_paddles=3)
    source = PathfinderSource(options, seed=3, split="test", n_examples=200 * len(margins))
    groups = np.array([s.margin for s in _scenes(source)]).reshape(200, -1)
    assert (np.sort(groups) == margins).all()
    orders, counts = np.unique(groups, axis=0, return_counts=True)
    assert len(orders) == (2 if len(margins) == 2 else 6)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_label_is_a_fair_coin_that_brightness_does_not_tell() -> None:
    source = make_source("path32", 4000)
    scenes = _scenes(source)
    label = np.array([s.label for s in scenes])
    origin = np.array([s.origin for s in scenes])
    for coin in (label, origin, label ^ origin, label[1:] ^ label[:-1]):
        assert stats.binomtest(int(coin.sum()), len(coin)).pvalue > 1e-3
    mean = _images(source).mean(axis=(1, 2))
    assert stats.ttest_ind(mean[label == 1], mean[label == 0]).pvalue > 1e-3


def test_options_vary_difficulty() -> None:
    source = PathfinderSource(_EASY, seed=0, split="train", n_examples=10)
    assert all(len(s.paddles) == 12 for s in _scenes(source))


def test_repr_tells_sources_apart() -> None:
    assert repr(make_source("path32")) == repr(make_source("path32"))
    assert repr(make_source("path32")) != repr(make_source("path32", seed=1))


# ------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("index", [-1, 1000, 10**30])
def test_index_out_of_range(index: int) -> None:
    with pytest.raises(IndexError, match=r"must be in \[0, 1000\)"):
        make_source("path32")[index]
    with pytest.raises(IndexError, match=r"PathfinderSource: index must be in \[0, 1000\)"):
        make_source("path32").batch(np.array([5, index, 6]), epoch=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "valid"}, "train, validation, test.*Did you mean 'validation'"),
        ({"seed": -1}, r"`seed` must be in"),
        ({"n": 0}, "`n_examples` must be positive; got 0"),
    ],
)
def test_badmake_source(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_source("path32", **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_paddles": 1}, "`n_paddles` must be at least 2; got 1"),
        ({"border": 0}, "`border` must be positive"),
        ({"n_distractors": -1}, "`n_distractors` must not be negative"),
        ({"paddle_thickness": 0.0}, "`paddle_thickness` must be positive"),
        ({"turn_sharpness": float("nan")}, "`turn_sharpness` must be positive"),
        ({"margins": ()}, "`margins` must be one or more different integers"),
        ({"margins": (2, 2)}, "`margins` must be"),
        ({"margins": (0,)}, "`margins` must be"),
        ({"size": 28}, "`size` must exceed 4 \\* `seed_distance`"),
        ({"disc_radius": 14.0}, "`size` must exceed"),
    ],
)
def test_bad_options(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PATHFINDER["path32"], **change)


def test_impossible_options_end_in_an_error() -> None:
    crowded = dataclasses.replace(PATHFINDER["path32"], n_paddles=60)
    source = PathfinderSource(crowded, seed=0, split="train", n_examples=8)
    with pytest.raises(ValueError, match=r"fits in 1,000,000 attempts \(example 5, margin 1\)"):
        source.batch(np.array([5, 0, 1, 2, 3, 4, 6, 7]), epoch=0)
    long = dataclasses.replace(PATHFINDER["path32"], paddle_length=14)
    with pytest.raises(ValueError, match="no first dash fits with margin 1"):
        PathfinderSource(long, seed=0, split="train", n_examples=1)


def test_compiles_where_no_cache_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = numba.njit

    def refuse(**options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("no locator available")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", refuse)
    assert jit.entry(lambda x: x + 1)(1) == 2
