"""Speech Commands, from folders of the publisher's layout that the tests make."""

import dataclasses
import wave
from pathlib import Path

import numpy as np
import pytest
from sounds import write_wav
from toys import finish

from experiments.data.sounds import read_wav
from experiments.data.sources import Files
from experiments.errors import UsageError
from experiments.recipes import get_recipe
from experiments.tasks.speech.clips import FOLDER, WORDS, load_clips
from experiments.tasks.speech.task import Speech, SpeechOptions
from experiments.training import SoundStream, predict
from experiments.training.pipeline import sample

SMALL = SpeechOptions(n_train=110, n_validation=35, n_test=35)
TEN = dataclasses.replace(SMALL, words="ten", n_train=49, n_validation=10, n_test=11)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Four clips of each word, eight of the ten; the second is short, two are not for training."""
    data_dir = tmp_path_factory.mktemp("speech")
    rng = np.random.default_rng(0)
    lists = {"validation_list.txt": [], "testing_list.txt": []}
    for word in WORDS["all"]:
        folder = data_dir / FOLDER / word
        folder.mkdir(parents=True)
        for k in range(8 if word in WORDS["ten"] else 4):
            samples = 1000 * rng.normal(size=12_000 if k == 1 else 16_000)
            write_wav(folder / f"{k}_nohash_0.wav", samples)
        lists["validation_list.txt"].append(f"{word}/2_nohash_0.wav")
        lists["testing_list.txt"].append(f"{word}/3_nohash_0.wav")
    for name, lines in lists.items():
        (data_dir / FOLDER / name).write_text("\n".join(lines) + "\n")
    return data_dir


def read(data_dir: Path, name: str) -> np.ndarray:
    with wave.open(str(data_dir / FOLDER / name), "rb") as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def all_examples(task: Speech, split) -> dict[str, np.ndarray]:
    source = task.source(split, seed=0)
    return source.batch(np.arange(len(source)), epoch=0)


def test_the_published_splits_of_35_words(data_dir):
    clips = load_clips(data_dir, "all")
    assert {split: len(rows) for split, rows in clips.splits.items()} == {
        "train": 110,
        "validation": 35,
        "test": 35,
    }
    assert sorted(np.concatenate(list(clips.splits.values()))) == list(range(180))
    assert sorted(clips.label[clips.splits["test"]]) == list(range(35))
    assert clips.splits["validation"].min() == 2  # the third file of the first word
    assert not clips.audio[1, 12_000:].any()
    assert np.array_equal(clips.audio[1, :12_000], read(data_dir, "bed/1_nohash_0.wav"))


def test_ten_words_are_split_by_class_and_short_clips_left_out(data_dir):
    clips = load_clips(data_dir, "ten")
    counts = {split: len(rows) for split, rows in clips.splits.items()}
    assert counts == {"train": 49, "validation": 10, "test": 11}
    rows = np.concatenate(list(clips.splits.values()))
    assert sorted(clips.label[rows]) == sorted([*range(10)] * 7)
    assert not set(rows) & set(range(1, 80, 8)), "the second clip of each word is short"
    assert set(np.bincount(clips.label[clips.splits["train"]])) == {4, 5}


def test_each_time_step_has_its_own_mean_and_deviation(data_dir):
    task = Speech(SMALL, Files(data_dir))
    train, test = all_examples(task, "train"), all_examples(task, "test")
    raw = load_clips(data_dir, "all").audio
    rows = load_clips(data_dir, "all").splits
    scaled = {split: raw[rows[split]].astype(np.float64) / 2**15 for split in ("train", "test")}
    mean, std = scaled["train"].mean(0), scaled["train"].std(0, ddof=1)
    for split, found in (("train", train), ("test", test)):
        want = (scaled[split] - mean) / (std + 1e-5)
        np.testing.assert_allclose(found["audio"], want, rtol=1e-4, atol=1e-4)
    assert train["audio"].dtype == np.float32
    np.testing.assert_array_equal(train["audio"][3], task.source("train", seed=1)[3]["audio"])


def test_with_a_reader_that_has_divided_already_inputs_are_small(data_dir):
    doubled = Speech(dataclasses.replace(SMALL, full_scale=2.0**30), Files(data_dir))
    assert 0.05 < all_examples(doubled, "train")["audio"].std() < 0.2


def test_other_normalisations(data_dir):
    files = Files(data_dir)
    x = {
        kind: all_examples(Speech(dataclasses.replace(SMALL, normalisation=kind), files), "train")
        for kind in ("global", "none")
    }
    whole = x["global"]["audio"].astype(np.float64)
    assert abs(whole.mean()) < 1e-5
    assert abs(whole.std() - 1) < 1e-3
    raw = load_clips(data_dir, "all")
    np.testing.assert_allclose(
        x["none"]["audio"], raw.audio[raw.splits["train"]] / 2**15, rtol=1e-6
    )


def test_clips_are_decoded_once(data_dir, monkeypatch, capsys):
    load_clips(data_dir, "all")
    load_clips.cache_clear()
    capsys.readouterr()
    monkeypatch.setattr("experiments.tasks.speech.clips.read_wav", None)
    assert load_clips(data_dir, "all").audio.shape == (180, 16_000)
    assert capsys.readouterr().out == ""
    assert len(list((data_dir / f"{FOLDER}.decoded").glob("all-*"))) == 1


def test_a_batch_enters_the_model_as_one_feature_a_step(data_dir):
    task = Speech(TEN, Files(data_dir))
    batch = sample(task, "validation", seed=0, n=3)
    assert batch["audios"].shape == (3, 16_000)
    assert task.inputs({"audio": batch["audios"]})["u"].shape == (3, 16_000, 1)
    assert (task.d_output, task.classes[0], task.length) == (10, "yes", 16_000)


def test_a_sound_of_the_user_s_is_normalised_as_the_others(data_dir):
    task = Speech(SMALL, Files(data_dir))
    clips = load_clips(data_dir, "all")
    row = clips.splits["test"][0]
    word = WORDS["all"][clips.label[row]]
    columns = task.read_examples(data_dir / FOLDER / word / "3_nohash_0.wav")
    np.testing.assert_array_equal(columns["audio"][0], task.source("test", seed=0)[0]["audio"])


@pytest.mark.parametrize("normalisation", ["per_step", "global", "none"])
def test_a_finished_run_needs_no_clips(data_dir, tmp_path, normalisation):
    options = dataclasses.replace(SMALL, normalisation=normalisation)
    task = Speech(options, Files(data_dir))
    away = Speech.for_prediction(options, Files(tmp_path), None, task.preprocessing)
    sound = data_dir / FOLDER / "yes" / "3_nohash_0.wav"
    expected = task.read_examples(sound)["audio"]
    np.testing.assert_array_equal(away.read_examples(sound)["audio"], expected)
    raw = read_wav(sound).samples
    prepared = task.preprocessing.standardize(raw)
    np.testing.assert_allclose(prepared[:, 0], expected[0], atol=1e-5)
    assert (task.preprocessing.classes, task.preprocessing.sample_rate) == (task.classes, 16_000)


@pytest.mark.parametrize(("task", "sizes"), [("sc35", 105_829), ("sc10", 34_975)])
def test_recipes_use_all_published_clips(task, sizes):
    data = get_recipe(task, "s5", "paper").data
    assert data.n_train + data.n_validation + data.n_test == sizes


def test_missing_data_are_an_error_that_says_what_to_do(tmp_path):
    task = Speech(SpeechOptions(), Files(tmp_path))
    with pytest.raises(UsageError) as error:
        task.source("train", seed=0)
    for words in (str(tmp_path / FOLDER), f"{FOLDER}.tar.gz", "experiments.data prepare --task"):
        assert words in str(error.value)


def test_too_few_clips(data_dir):
    task = Speech(SpeechOptions(), Files(data_dir))
    with pytest.raises(UsageError, match=r"n_test.*35.*11,005.*--data\.n_test=35"):
        task.source("test", seed=0)


def test_full_scale_is_positive():
    with pytest.raises(ValueError, match="`full_scale` must be positive; got 0"):
        SpeechOptions(full_scale=0.0)


@pytest.mark.parametrize(
    ("samples", "options", "words"),
    [
        (np.zeros(16_001), {}, "at most 16,000 of them; got 1, 16,000 and 16,001"),
        (np.zeros(800), {"rate": 8_000}, "got 1, 8,000 and 800"),
        (np.zeros((9, 2)), {}, "one channel.*got 2"),
        (np.zeros(9), {"width": 4}, "Signed 32 bit PCM, but 16-bit PCM is needed"),
        (np.zeros(0), {}, "has no samples"),
    ],
)
def test_sounds_that_are_none_of_these(tmp_path, samples, options, words):
    write_wav(tmp_path / "a.wav", samples, **options)
    with pytest.raises(UsageError, match=words):
        Speech(SMALL, Files(tmp_path)).read_examples(tmp_path / "a.wav")


def test_what_is_no_sound(tmp_path):
    (tmp_path / "a.wav").write_text("hello")
    task = Speech(SMALL, Files(tmp_path))
    with pytest.raises(UsageError, match="is not a valid sound"):
        task.read_examples(tmp_path / "a.wav")
    with pytest.raises(UsageError, match="No file"):
        task.read_examples(tmp_path / "b.wav")
    with pytest.raises(UsageError, match="No file"):
        task.read_examples(tmp_path / "b.npz")


@pytest.fixture
def run_of(data_dir, toy, tmp_path):
    """The folder of a run on Speech Commands, whose model has seen nothing."""

    def make(**options):
        data = dataclasses.replace(SMALL, **options)
        model = dataclasses.replace(toy().model, bidirectional=False)
        config = dataclasses.replace(toy(), task="sc35", data=data, model=model)
        return finish(config, tmp_path, Files(data_dir))

    return make


def test_a_stream_of_words(run_of, tmp_path):
    samples = np.random.default_rng(0).integers(-9_999, 9_999, 16_000)
    file = tmp_path / "word.wav"
    write_wav(file, samples)
    run = run_of(normalisation="global")
    (whole,) = predict(run, file)
    stream = SoundStream(run)
    assert (stream.rate, len(stream.classes)) == (16_000, 35)
    *_, last = [stream.push(part) for part in np.split(samples[:, None] / 2**15, 4)]
    assert stream.classes[np.argmax(last)] == whole["class"]


def test_another_mean_for_each_step_has_no_place_in_a_stream(run_of):
    with pytest.raises(UsageError, match="a stream has no first step: train with --data"):
        SoundStream(run_of())
