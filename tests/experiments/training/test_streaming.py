"""Models that listen to a sound chunk by chunk."""

import csv
import dataclasses
import io
import os
import re
import sys

import numpy as np
import pytest
import soundfile
from toys import finish

import s5jax
from experiments import stream as stream_module
from experiments.config.models import AttentionOptions
from experiments.errors import UsageError
from experiments.tasks.arrays.options import ArraysOptions
from experiments.training import SoundStream, predict

RATE = 1_000
RNG = np.random.default_rng(0)


def write_wav(path, samples, rate=RATE, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **options)
    return path


@pytest.fixture(scope="module")
def run_of(tmp_path_factory, toy):
    """The folder of a run on a file: ``run_of(file, mono=True)``."""

    def make(file, *, model=None, **options):
        model = model or dataclasses.replace(toy().model, bidirectional=False)
        data = ArraysOptions(file=str(file), **options)
        config = dataclasses.replace(toy(), task="arrays", data=data, model=model)
        return finish(config, tmp_path_factory.mktemp("run"))

    return make


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A folder of sounds in two classes."""
    folder = tmp_path_factory.mktemp("words")
    for i in range(12):
        write_wav(folder / ("yes", "no")[i % 2] / f"{i}.wav", 0.2 * RNG.normal(size=300))
    return folder


@pytest.fixture(scope="module")
def classifier(run_of, words):
    return run_of(words)


@pytest.fixture(scope="module")
def filter_run(run_of, tmp_path_factory):
    """A model with a value for every sample."""
    file = tmp_path_factory.mktemp("pairs") / "pairs.npz"
    x = RNG.normal(size=(8, 50, 1)).astype(np.float32)
    np.savez(file, x=x, y=0.5 * x + 0.1)
    return run_of(file)


@pytest.mark.parametrize("chunk", ["0.1", "0.037", "60"])
def test_the_last_answer_is_the_one_for_the_whole_sound(command, classifier, tmp_path, chunk):
    file = write_wav(tmp_path / "new.wav", 0.2 * RNG.normal(size=555))
    (whole,) = predict(classifier, file)
    code, out, err = command(
        stream_module, f"--workdir={classifier}", f"--data.file={file}", f"--chunk={chunk}"
    )
    assert code == 0, err
    rows = list(csv.DictReader(io.StringIO(out)))
    assert list(rows[0]) == ["seconds", "class", "p_no", "p_yes"]
    assert len(rows) == -(-555 // round(float(chunk) * RATE))
    assert rows[-1]["seconds"] == "0.5550"
    assert rows[-1]["class"] == whole["class"]
    assert float(rows[-1]["p_yes"]) == pytest.approx(whole["p_yes"], abs=1e-4)
    assert re.match(r"0\.555 s of sound in \d+ chunks?, at \S+ of real time: \S+ ms a chunk", err)


def test_samples_in_and_samples_out(command, filter_run, tmp_path):
    samples = 0.2 * RNG.normal(size=555)
    file, out = write_wav(tmp_path / "noisy.wav", samples, subtype="FLOAT"), tmp_path / "clean.wav"
    code, printed, err = command(
        stream_module, f"--workdir={filter_run}", f"--data.file={file}", f"--out={out}"
    )
    assert code == 0, err
    written, rate = soundfile.read(out, always_2d=True)
    whole = s5jax.load(filter_run / "model")(samples[None, :, None])
    assert rate == RATE
    np.testing.assert_allclose(written, whole[0], rtol=1e-4, atol=1e-5)
    last = list(csv.DictReader(io.StringIO(printed)))[-1]
    assert float(last["y0"]) == pytest.approx(written[-1, 0], abs=1e-4)


def test_chunks_of_any_length_are_one_sound(filter_run):
    samples = RNG.normal(size=(200, 1))
    whole = SoundStream(filter_run).push(samples)
    stream = SoundStream(filter_run)
    parts = [stream.push(part) for part in np.split(samples, [1, 4, 120])]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "FLOAT"])
def test_a_pipe_with_any_kind_of_samples(command, filter_run, tmp_path, monkeypatch, subtype):
    samples = 0.2 * RNG.normal(size=300)
    file, out = write_wav(tmp_path / "x.wav", samples, subtype=subtype), tmp_path / "y.wav"
    reading, writing = os.pipe()
    os.write(writing, file.read_bytes())
    os.close(writing)
    with os.fdopen(reading) as pipe:
        monkeypatch.setattr(sys, "stdin", pipe)
        code, _, err = command(
            stream_module, f"--workdir={filter_run}", "--data.file=-", f"--out={out}"
        )
    assert code == 0, err
    stored, _ = soundfile.read(file, always_2d=True)
    whole = s5jax.load(filter_run / "model")(stored[None])
    np.testing.assert_allclose(soundfile.read(out, always_2d=True)[0], whole[0], atol=1e-5)


def test_channels_are_averaged_as_in_training(run_of, words, command, tmp_path):
    run = run_of(words, mono=True)
    one = 0.2 * RNG.normal(size=300)
    for name, samples in (("one", one), ("two", np.stack([one + 0.1, one - 0.1], axis=1))):
        write_wav(tmp_path / f"{name}.wav", samples, subtype="FLOAT")
    both = [
        command(stream_module, f"--workdir={run}", f"--data.file={tmp_path / name}.wav")[1]
        for name in ("one", "two")
    ]
    assert both[0] == both[1] != ""


@pytest.mark.parametrize(
    ("samples", "rate", "text"),
    [
        (np.zeros((50, 2)), RATE, r"must have 1 channel, as in training; got 2\. Convert .*-ac 1"),
        (np.zeros(50), 8_000, r"must have 1,000 samples a second, .* got 8,000\. .*-ar 1000"),
        (np.zeros(0), RATE, r"The sound has no samples\."),
    ],
)
def test_refused_sounds(command, classifier, tmp_path, samples, rate, text):
    file = write_wav(tmp_path / "x.wav", samples, rate)
    code, _, err = command(stream_module, f"--workdir={classifier}", f"--data.file={file}")
    assert code == 2
    assert re.search(text, err)


def test_refused_files(command, classifier, tmp_path):
    call = (stream_module, f"--workdir={classifier}")
    assert "No file" in command(*call, f"--data.file={tmp_path / 'none.wav'}")[2]
    (tmp_path / "text.wav").write_text("hello")
    code, _, err = command(*call, f"--data.file={tmp_path / 'text.wav'}")
    assert code == 2
    assert re.search(r"text\.wav is not a valid sound \(WAV, and from a file also FLAC", err)
    code, _, err = command(*call, "--data.file=x.wav", "--chunk=0")
    assert code == 2
    assert "`chunk` must be positive; got 0" in err


def test_out_needs_samples(command, classifier, tmp_path):
    code, _, err = command(
        stream_module, f"--workdir={classifier}", "--data.file=-", f"--out={tmp_path / 'y.wav'}"
    )
    assert code == 2
    assert "--out is for the samples that a model returns" in err


def test_a_terminal_is_no_sound(command, classifier, monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    code, _, err = command(stream_module, f"--workdir={classifier}", "--data.file=-")
    assert code == 2
    assert "The standard input is a terminal: pipe a WAV into the command" in err


def test_refused_models(run_of, words, toy, finished, tmp_path):
    both_ways = dataclasses.replace(toy().model, bidirectional=True)
    with pytest.raises(UsageError, match="S5: `state` needs a causal layer"):
        SoundStream(run_of(words, model=both_ways))
    with pytest.raises(UsageError, match="reads no sounds: name a run of sc35"):
        SoundStream(finished)
    np.savez(tmp_path / "dt.npz", x=np.ones((6, 9, 1)), y=np.arange(6) % 2, dt=np.ones((6, 9)))
    with pytest.raises(UsageError, match="reads no sounds: name a run of sc35"):
        SoundStream(run_of(tmp_path / "dt.npz"))


def test_attention_streams_too(run_of, words):
    model = AttentionOptions(n_layers=1, d_model=4, n_heads=1, bidirectional=False)
    assert SoundStream(run_of(words, model=model)).push(np.zeros((30, 1))).shape == (2,)
