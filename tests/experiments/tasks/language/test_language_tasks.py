"""Bytes, words and pixels as language tasks."""

import math
import os

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.sources import Files
from experiments.errors import UsageError
from experiments.tasks import LanguageTask, get_task
from experiments.tasks.language.chars import Chars, CharsOptions
from experiments.tasks.language.density import DigitsDensity, DigitsDensityOptions
from experiments.tasks.language.wikitext import WikiText103, WikiTextOptions
from experiments.training.pipeline import make_batches

TRAIN = " \n = Ä b = \n \n b a b c <unk> b\n a , b d\n"
WORDS = "<eos> b = a Ä c <unk> , d".split()
"""By frequency, then by their first place."""
NUMBERS = [0, 2, 4, 1, 2, 0, 0, 1, 3, 1, 5, 6, 1, 0, 3, 7, 1, 8, 0]


def chars(**options):
    return Chars(CharsOptions(**{"length": 8, "n_train": 32, "n_validation": 2} | options))


def epoch(task, number, *, batch_size):
    """The training tokens of an epoch, batch by batch."""
    batches = make_batches(task, "train", seed=0, batch_size=batch_size)
    n = len(task.source("train", seed=0)) // batch_size
    return np.stack([batches[number * n + k]["token"] for k in range(n)])


def targets(task, split, *, batch_size=4):
    """All targets of a split that count, in order."""
    found = []
    for batch in make_batches(task, split, seed=0, batch_size=batch_size):
        for row, n, real in zip(batch["token"], batch["length"], batch["mask"], strict=True):
            found += row[1 : n + 1].tolist() if real else []
    return found


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(bytes(np.random.default_rng(0).integers(256, size=400, dtype=np.uint8)))
    return path


@pytest.fixture
def wikitext(tmp_path):
    """Files of the true format: blanks around lines, empty lines, words separated by blanks."""
    folder = tmp_path / "wikitext-103"
    folder.mkdir()
    (folder / "wiki.train.tokens").write_text(TRAIN, encoding="utf-8")
    (folder / "wiki.valid.tokens").write_text(" a new \n b", encoding="utf-8")
    (folder / "wiki.test.tokens").write_text("d a\n" * 3, encoding="utf-8")

    def task(**options):
        sizes = {"length": 3, "n_streams": 2, "n_train": 4, "n_validation": 2, "n_test": 3}
        options = WikiTextOptions(**{"vocabulary": len(WORDS)} | sizes | options)
        return WikiText103(options, Files(data_dir=tmp_path))

    return task


def test_chars_evaluates_the_end_of_the_text_once_and_trains_on_the_rest(text):
    task, everything = chars(file=str(text), n_test=3), text.read_bytes()
    assert bytes(targets(task, "validation")) == everything[400 - 5 * 8 : 400 - 3 * 8]
    assert bytes(targets(task, "test")) == everything[400 - 3 * 8 :]
    seen = epoch(task, 0, batch_size=8).reshape(-1, 9)
    assert len(seen) == 32
    assert all(window.tobytes() in everything[: 400 - 5 * 8] for window in seen)


def test_chars_draws_other_windows_each_epoch_and_the_same_for_each_seed(text):
    task = chars(file=str(text), n_test=2)
    first, second = (set(map(bytes, epoch(task, k, batch_size=8).reshape(-1, 9))) for k in (0, 1))
    assert first != second
    assert first == set(map(bytes, epoch(task, 0, batch_size=8).reshape(-1, 9)))
    a, b = (task.source("train", seed=seed)[0]["token"] for seed in (0, 1))
    assert a.tolist() != b.tolist()


def test_chars_counts_bits_of_characters_not_bytes():
    task = chars()
    token = np.frombuffer("aäb€c".encode(), np.uint8)[None]
    inputs = task.inputs({"token": token})
    assert inputs["u"].shape == inputs["targets"].shape == (1, 7)
    losses = jnp.full((1, 7), math.log(2))
    quantities = task.measure(losses, {"token": token})
    assert quantities.keys() == task.quantities.keys()
    report = task.report({name: np.float32(value[0]) for name, value in quantities.items()})
    assert report["loss"] == pytest.approx(math.log(2))
    assert report["bits_per_character"] == pytest.approx(7 / 4)


def test_chars_has_a_text_of_its_own():
    task = chars(length=64)
    window = task.source("train", seed=0)[0]["token"]
    assert window.shape == (65,)
    assert all(byte < 128 for byte in window)


def test_chars_reads_and_writes_any_text():
    task = chars()
    assert task.encode("aä").tolist() == [97, 195, 164]
    assert task.decode(np.array([97, 195, 164, 255])) == "aä\ufffd"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"file": "nowhere.txt"}, ["nowhere.txt", "--data.file=FILE"]),
        ({"length": 40, "n_test": 8}, ["400 bytes is too short", "take 400", "--data.length"]),
        ({"length": 40, "n_test": 7}, ["400 bytes is too short", "360", "--data.n_test"]),
    ],
)
def test_chars_says_what_it_lacks(options, words, text):
    with pytest.raises(UsageError) as error:
        chars(**{"file": str(text)} | options).source("train", seed=0)
    assert all(word in str(error.value) for word in words)


def test_words_are_numbered_by_frequency_and_lines_end(wikitext):
    task = wikitext()
    assert epoch(task, 0, batch_size=2).max() <= 8
    folder = task.files.data_dir / "wikitext-103"
    assert np.load(folder / "wiki.train.npy").tolist() == NUMBERS
    assert (folder / "vocabulary.txt").read_text(encoding="utf-8").split() == WORDS
    assert sorted(path.suffix for path in folder.iterdir()) == [".npy", *3 * [".tokens"], ".txt"]
    assert task.decode(task.encode("b a <eos> Ä")) == "b a \n Ä"


def test_words_of_evaluation_are_scored_once(wikitext):
    task = wikitext()
    assert targets(task, "validation") == [6, 0, 1, 0]  # a <unk> <eos> b <eos>, but the first
    assert targets(task, "test") == [3, 0, 8, 3, 0, 8, 3, 0]


def test_streams_go_on_from_batch_to_batch_and_start_elsewhere_each_epoch(wikitext):
    task = wikitext()
    streams = [NUMBERS[:9], NUMBERS[9:18]]
    first, second = (epoch(task, k, batch_size=2) for k in (0, 1))
    assert first.shape == (2, 2, 4)
    assert (first[1, :, 0] == first[0, :, -1]).all()
    starts = []
    for batches in (first, second):
        for s, stream in enumerate(streams):
            ring = [stream[k:] + stream[:k] for k in range(9)]
            seen = [*batches[0, s].tolist(), *batches[1, s, 1:].tolist()]
            starts.append([k for k in range(9) if ring[k][:7] == seen])
    assert all(starts)
    assert starts[:2] != starts[2:]


def test_training_takes_the_windows_in_their_order(wikitext):
    task = wikitext()
    batches = make_batches(task, "train", seed=0, batch_size=2)
    assert [batches[k]["index"].tolist() for k in range(3)] == [[0, 1], [2, 3], [0, 1]]
    assert task.source("train", seed=0)[0]["length"] == 3


def test_numbers_are_made_anew_when_the_text_changes(wikitext):
    wikitext().source("test", seed=0)
    path = wikitext().files.data_dir / "wikitext-103" / "wiki.test.tokens"
    path.write_text("b b\n" * 3, encoding="utf-8")
    later = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(later, later))
    assert targets(wikitext(), "test") == [1, 0, 1, 1, 0, 1, 1, 0]


def test_perplexity_is_that_of_all_words_together(wikitext):
    task = wikitext()
    losses = jnp.array([[1.0, 2.0, 3.0], [5.0, 100.0, 100.0]])
    quantities = task.measure(losses, {"length": jnp.array([3, 1])})
    assert quantities.keys() == task.quantities.keys()
    assert quantities["loss"].tolist() == [2, 5]
    report = task.report({name: np.asarray(value).mean() for name, value in quantities.items()})
    assert report == pytest.approx({"loss": 11 / 4, "perplexity": math.exp(11 / 4)})
    assert math.isfinite(
        task.report({"nats": np.float32(1e6), "words": np.float32(1)})["perplexity"]
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"vocabulary": 7}, ["9 different words, not 7", "--data.vocabulary=9"]),
        ({"n_train": 5}, ["wiki.train.tokens", "19 words", "4 windows", "--data.n_train"]),
        ({"n_test": 4}, ["wiki.test.tokens", "9 words", "3 windows of 3", "--data.n_test"]),
    ],
)
def test_wikitext_says_what_does_not_fit(options, words, wikitext):
    task = wikitext(**options)
    with pytest.raises(UsageError) as error:
        task.source("test" if "n_test" in options else "train", seed=0)
    assert all(word in str(error.value) for word in words)


def test_wikitext_refuses_words_that_it_cannot_number(wikitext):
    task = wikitext()
    path = task.files.data_dir / "wikitext-103" / "wiki.train.tokens"
    path.write_text(TRAIN.replace("<unk>", "unk"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"wiki.valid.tokens has words .* no <unk>"):
        task.source("validation", seed=0)


def test_missing_wikitext_is_a_sentence_with_a_command(tmp_path):
    task = WikiText103(WikiTextOptions(), Files(data_dir=tmp_path))
    assert (task.d_input, task.length) == (267_735, 8_192)
    with pytest.raises(UsageError, match=r"No WikiText-103: .*wiki.train.tokens") as error:
        task.source("train", seed=0)
    assert "python -m experiments.data prepare --task=wikitext103" in str(error.value)
    assert f"--data-dir={tmp_path}" in str(error.value)


def test_digits_are_tokens_after_a_start():
    task = DigitsDensity(DigitsDensityOptions())
    splits = [task.source(split, seed=0) for split in ("train", "validation", "test")]
    assert [len(source) for source in splits] == [1_200, 297, 300]
    images = np.concatenate(
        [source.batch(np.arange(len(source)), epoch=0)["token"] for source in splits]
    )
    assert images.shape == (1_797, 65)
    assert (images[:, 0] == 0).all()
    assert (images[:, 1:].min(), images.max()) == (1, 17)
    quantities = task.measure(jnp.full((2, 64), math.log(2)), {})
    assert quantities["bits_per_pixel"].tolist() == pytest.approx([1, 1])
    assert task.encode("0 16").tolist() == [0, 1, 17]
    assert task.encode("").tolist() == [0]
    picture = task.decode(np.array([0, 1, 17, 9, 1, 1, 1, 1, 1, *64 * [17]]))
    assert picture.splitlines() == ["  @@==" + 10 * " ", *7 * ["@" * 16]]


def test_too_many_digits_are_refused():
    task = DigitsDensity(DigitsDensityOptions(n_train=1_300))
    with pytest.raises(UsageError, match=r"1,797 images: .* sum is 1,897"):
        task.source("train", seed=0)


@pytest.mark.parametrize(
    ("task", "prompt", "message"),
    [
        ("chars", "", "must not be empty"),
        ("wikitext103", " ", "must not be empty"),
        ("wikitext103", "a zebra, b", "not in the training text: zebra,"),
        ("digits_density", "17", "from 0 to 16"),
        ("digits_density", "white", "from 0 to 16"),
        ("digits_density", " ".join(64 * "0"), "fewer than 64"),
    ],
)
def test_bad_prompts_are_refused(task, prompt, message, wikitext):
    kind = get_task(task)
    instance = wikitext() if task == "wikitext103" else kind(kind.options_type())
    assert isinstance(instance, LanguageTask)
    with pytest.raises(UsageError, match=message):
        instance.encode(prompt)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (lambda: CharsOptions(length=0), "`length` must be positive"),
        (lambda: WikiTextOptions(vocabulary=0), "`vocabulary` must be positive"),
        (lambda: WikiTextOptions(n_streams=-1), "`n_streams` must be positive"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        options()
