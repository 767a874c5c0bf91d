import numpy as np
import pytest
from true_files import WORDS, write_aan

from experiments.data.sources import Files
from experiments.errors import UsageError
from experiments.tasks import TASKS
from experiments.tasks.text import END, PAD, UNKNOWN, pack, vocabulary

REVIEWS = {"n_train": 160, "n_validation": 160, "n_test": 160, "l_max": 32}
PAPERS = {"n_train": 80, "n_validation": 80, "n_test": 80, "l_max": 12}


def make(name, files, **options):
    task = TASKS[name]
    sizes = REVIEWS if name == "text" else PAPERS
    return task(task.options_type(**{**sizes, **options}), files)


def whole(source):
    return source.batch(np.arange(len(source)), epoch=0)


def spell(task, token):
    """Text from ids."""
    names = {int(i): chr(code) for code, i in enumerate(task.table) if i > END}
    marks = {PAD: "_", UNKNOWN: "?", END: "$"}
    return "".join({**names, **marks}[int(i)] for i in token)


def test_vocabulary_is_ordered_by_frequency_then_by_code_point():
    texts = pack([(0, ["bbbaac"]), (1, ["cd\u20ac"]), (0, ["zzzzz"])], 100)
    table = vocabulary(texts, np.array([0, 1]), min_freq=1)
    ids = {c: int(table[min(ord(c), len(table) - 1)]) for c in "bacd\u20acz\u20ad"}
    assert ids == {"b": 3, "a": 4, "c": 5, "d": 6, "\u20ac": 7, "z": UNKNOWN, "\u20ad": UNKNOWN}
    rare = vocabulary(texts, np.array([0, 1]), min_freq=2)
    assert sorted(set(rare.tolist())) == [UNKNOWN, 3, 4, 5]


def test_many_texts_are_packed_in_the_smallest_type():
    words = [chr(97 + i % 26) * (i % 7) for i in range(2_500)]
    texts = pack(((i % 2, [word]) for i, word in enumerate(words)), 4)
    assert texts.codes.dtype == np.uint8
    for i in (0, 999, 1_000, 2_499):
        assert bytes(texts.text(i)).decode() == words[i][:4]
    assert vocabulary(texts, np.arange(2_500), min_freq=1).max() == 28


def test_reviews_are_cut_marked_and_padded(files):
    task = make("text", files, min_freq=80)
    batch = whole(task.source("train", seed=0))
    assert batch["token"].shape == (160, 32)
    assert batch["token"].dtype == np.uint8
    assert set(batch["label"]) == {0, 1}
    for token, length, label in zip(batch["token"], batch["length"], batch["label"], strict=True):
        text = spell(task, token)
        words = WORDS["pos" if label else "neg"]
        assert all(a in (b, "?") for a, b in zip(text, words, strict=False))
        assert text[0] == words[0]
        assert text[length - 1] == "$"
        assert text[length:] == "_" * (32 - length)
        assert length <= 32
    inputs = task.inputs(batch)
    assert inputs["u"].dtype == np.int32
    np.testing.assert_array_equal(inputs["lengths"], batch["length"])


def test_a_long_review_loses_its_end(files):
    task = make("text", files, l_max=6, min_freq=1)
    batch = whole(task.source("train", seed=0))
    assert set(batch["length"]) == {6}
    texts = {spell(task, token) for token in batch["token"]}
    assert texts == {"a fin$", "a bad$"}


@pytest.mark.parametrize(
    ("held_out", "sizes", "word"),
    [
        ("published", (160, 160, 160), "test set"),
        ("validation", (144, 16, 160), ""),
        ("train_only", (128, 16, 16), "not IMDB's"),
    ],
)
def test_where_validation_comes_from(files, held_out, sizes, word):
    options = dict(zip(("n_train", "n_validation", "n_test"), sizes, strict=True))
    task = make("text", files, held_out=held_out, **options)
    batches = {
        split: whole(task.source(split, seed=0)) for split in ("train", "validation", "test")
    }
    assert tuple(len(batch["label"]) for batch in batches.values()) == sizes
    assert word in task.note
    same = np.array_equal(batches["validation"]["token"], batches["test"]["token"])
    assert same == (held_out == "published")
    with pytest.raises(ValueError, match=f"`n_train` must be at most {sizes[0]}"):
        make("text", files, held_out=held_out, n_train=sizes[0] + 1).source("train", seed=0)


def test_a_vocabulary_that_is_too_small(files):
    with pytest.raises(UsageError, match=r"have 29 ids, .*vocabulary_size=8: set it to 29"):
        make("text", files, vocabulary_size=8, min_freq=1).source("train", seed=0)


@pytest.mark.parametrize("option", ["l_max", "vocabulary_size", "min_freq"])
def test_impossible_options(option):
    with pytest.raises(ValueError, match=option):
        make("text", None, **{option: 0})


def test_pairs_of_papers(files):
    task = make("retrieval", files)
    batch = whole(task.source("validation", seed=0))
    assert batch["token"].shape == (80, 2, 12)
    assert batch["length"].shape == (80, 2)
    assert batch["label"].tolist() == [i % 2 for i in range(80)]
    assert [spell(task, token) for token in batch["token"][7]] == [
        '"text 7$____',
        'text "7" an$',
    ]
    assert batch["length"][7].tolist() == [8, 12]
    assert task.inputs(batch)["u"].shape == (80, 2, 12)
    measured = task.measure(np.zeros((80, 2), np.float32), batch)
    np.testing.assert_allclose(measured["loss"], np.log(2), rtol=1e-6)
    kept = {path.name.split("-")[1] for path in (files.data_dir / "s5jax").glob("aan-*-12-*.npz")}
    assert kept == {"train", "validation", "test"}
    again = whole(make("retrieval", Files(files.data_dir)).source("validation", seed=1))
    np.testing.assert_array_equal(again["token"], batch["token"])


@pytest.mark.parametrize(
    ("name", "where"), [("text", "imdb_reviews"), ("retrieval", "new_aan_pairs.train.tsv")]
)
def test_missing_data_say_where_and_how(tmp_path, name, where):
    with pytest.raises(UsageError, match=f"{where}.* prepare --task={name} --data-dir={tmp_path}"):
        make(name, Files(tmp_path)).source("train", seed=0)


def test_a_broken_line_is_named(tmp_path):
    folder = tmp_path / "aan"
    folder.mkdir()
    write_aan(folder)
    with (folder / "new_aan_pairs.train.tsv").open("a") as file:
        file.write("1.0\tonly this\n")
    with pytest.raises(UsageError, match=r"line 81: .* got 2 fields"):
        make("retrieval", Files(tmp_path)).source("train", seed=0)
