"""Sounds in the forms that recorders write, right and wrong."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sounds import write_wav

from experiments.data.sounds import SoundOptions, read_sound, read_sounds, read_wav
from experiments.errors import UsageError

RATE = 22_050
SAMPLES = (16_000 * np.sin(np.arange(64) / 4)).astype("<i2")
VALUES = SAMPLES / np.float32(2**15)
PLAIN = SoundOptions()


def chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def riff(*chunks: bytes, size: int | None = None) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def form(tag: int, bits: int, extra: bytes = b"", channels: int = 1) -> bytes:
    block = channels * bits // 8
    fields = (tag, channels, RATE, RATE * block, block, bits)
    return chunk(b"fmt ", struct.pack("<HHIIHH", *fields) + extra)


def extensible(bits: int) -> bytes:
    identity = struct.pack("<H", 1) + bytes.fromhex("000000001000800000aa00389b71")
    return form(0xFFFE, bits, struct.pack("<HHI", 22, bits, 4) + identity)


PCM = form(1, 16)
DATA = chunk(b"data", SAMPLES.tobytes())
IN_24_BITS = b"".join(struct.pack("<i", int(v) << 8)[:3] for v in SAMPLES)
RF64 = (
    b"RF64\xff\xff\xff\xffWAVE"
    + chunk(b"ds64", struct.pack("<QQQI", 200, 128, 64, 0))
    + PCM
    + b"data\xff\xff\xff\xff"
    + SAMPLES.tobytes()
)
FILES = {
    "16 bits": riff(PCM, DATA),
    "24 bits": riff(form(1, 24), chunk(b"data", IN_24_BITS)),
    "32 bits": riff(form(1, 32), chunk(b"data", (SAMPLES.astype("<i4") << 16).tobytes())),
    "floats": riff(form(3, 32), chunk(b"data", VALUES.astype("<f4").tobytes())),
    "doubles": riff(form(3, 64), chunk(b"data", VALUES.astype("<f8").tobytes())),
    "EXTENSIBLE, 16 bits": riff(extensible(16), DATA),
    "EXTENSIBLE, 24 bits": riff(extensible(24), chunk(b"data", IN_24_BITS)),
    "RF64": RF64,
    "a list before": riff(PCM, chunk(b"LIST", b"INFOISFT\x05\0\0\0abcde\0"), DATA),
    "a list after": riff(PCM, DATA, chunk(b"LIST", b"abc")),
    "streamed by ffmpeg": riff(PCM, b"data\xff\xff\xff\xff", SAMPLES.tobytes(), size=2**32 - 1),
    "streamed by sox": riff(PCM, b"data\x00\xf0\xff\x7f", SAMPLES.tobytes(), size=0x7FFFF024),
    "streamed, size 0": riff(PCM, b"data\0\0\0\0", SAMPLES.tobytes(), size=0),
    "RIFF of size 0": riff(PCM, DATA, size=0),
    "an odd byte more": riff(PCM, chunk(b"data", SAMPLES.tobytes() + b"\1")),
}


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", FILES)
def test_forms_of_wav_files(tmp_path, name):
    samples, rate = read_sound(write(tmp_path / "a.wav", FILES[name]), PLAIN)
    assert rate == RATE
    assert np.array_equal(samples, VALUES[:, None])


def test_samples_of_8_bits(tmp_path):
    data = chunk(b"data", np.array([0, 64, 128, 255], "u1").tobytes())
    samples, _ = read_sound(write(tmp_path / "a.wav", riff(form(1, 8), data)), PLAIN)
    assert samples[:, 0].tolist() == [-1, -0.5, 0, 127 / 128]


@pytest.mark.parametrize(("suffix", "tolerance"), [("flac", 0), ("ogg", 0.1), ("mp3", 0.1)])
def test_compressed_sounds(tmp_path, suffix, tolerance):
    wave = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    truth = np.round(2**14 * np.stack([wave, wave / 2], axis=1)) / 2**15
    soundfile.write(tmp_path / f"a.{suffix}", truth, RATE)
    samples, rate = read_sound(tmp_path / f"a.{suffix}", PLAIN)
    assert (rate, samples.shape[1]) == (RATE, 2)
    if not tolerance:
        assert np.array_equal(samples, truth.astype(np.float32))
    else:
        assert abs(len(samples) - RATE) < 2_000
        assert abs(np.std(samples[:, 0]) / np.std(truth[:, 0]) - 1) < tolerance


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.wav", riff(PCM, chunk(b"data", b"")), "a.wav has no samples"),
        ("a.wav", b"", "a.wav is not a valid sound.*Format not recognised"),
        ("a.wav", b"\0\x05\x16\x07" + bytes(100), "a.wav is not a valid sound"),
        ("a.wav", riff(form(1, 16, channels=0), DATA), "a.wav is not a valid sound"),
        ("a.wav", riff(PCM, DATA)[:-10], "promises 128 bytes of samples, but there are fewer"),
        ("a.wav", RF64[:-10], "promises 128 bytes of samples, but there are fewer"),
        ("a.mp3", b"ID3\x04\0\0\0\0\0\0" + bytes(100), "a.mp3 is not a valid sound"),
        ("a.flac", b"fLaC" + bytes(100), "a.flac is not a valid sound"),
    ],
)
def test_damaged_sounds(tmp_path, name, data, words):
    with pytest.raises(UsageError, match=words):
        read_sound(write(tmp_path / name, data), PLAIN)


def test_a_flac_file_that_was_cut_off(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).normal(size=50_000) / 9, RATE)
    path.write_bytes(path.read_bytes()[:-40_000])
    with pytest.raises(UsageError, match=r"a\.flac (is cut off|is not a valid sound)"):
        read_sound(path, PLAIN)


def test_a_small_file_may_not_take_all_memory(tmp_path):
    soundfile.write(tmp_path / "a.flac", np.zeros(2**24), RATE)
    with pytest.raises(UsageError, match="would take"):
        read_sound(tmp_path / "a.flac", PLAIN)


def test_other_rates_are_resampled(tmp_path):
    def tone(rate: int) -> np.ndarray:
        return 10_000 * np.sin(2 * np.pi * 100 * np.arange(rate) / rate)

    write_wav(tmp_path / "a.wav", tone(8_000), rate=8_000)
    write_wav(tmp_path / "b.wav", tone(11_025), rate=11_025)
    paths = [tmp_path / "a.wav", tmp_path / "b.wav"]
    with pytest.raises(
        UsageError, match=r"sampling rate; got 8000 in .*a.wav, but 11025 in .*--data.sample_rate"
    ):
        read_sounds(paths, PLAIN)
    (a, b), rate = read_sounds(paths, SoundOptions(sample_rate=8_000))
    assert rate == 8_000
    assert a.shape == b.shape == (8_000, 1)
    np.testing.assert_allclose(a[200:-200], b[200:-200], atol=2e-3)
    write_wav(tmp_path / "b.wav", tone(11_025), rate=2**31 - 1)
    with pytest.raises(UsageError, match="cannot be resampled from 2,147,483,647"):
        read_sounds(paths, SoundOptions(sample_rate=8_000))


def test_channels_are_averaged(tmp_path):
    write_wav(tmp_path / "a.wav", np.array([[2**13, 2**14]]))
    write_wav(tmp_path / "b.wav", np.array([2**14]))
    paths = [tmp_path / "a.wav", tmp_path / "b.wav"]
    with pytest.raises(UsageError, match=r"got 2 in .*a.wav, but 1 in .*b.wav: --data.mono=True"):
        read_sounds(paths, PLAIN)
    sounds, _ = read_sounds(paths, SoundOptions(mono=True))
    assert [x.tolist() for x in sounds] == [[[0.375]], [[0.5]]]


def test_sounds_must_be_finite(tmp_path):
    data = riff(form(3, 32), chunk(b"data", np.array([0, np.nan], "<f4").tobytes()))
    with pytest.raises(UsageError, match=r"`x` must be finite; got nan at \[1, 0\]"):
        read_sounds([write(tmp_path / "a.wav", data)], PLAIN)
    with pytest.raises(ValueError, match="`sample_rate` must be positive"):
        SoundOptions(sample_rate=0)


def test_samples_of_16_bits_as_they_are_stored(tmp_path):
    samples, _ = read_wav(write(tmp_path / "a.wav", FILES["EXTENSIBLE, 16 bits"]))
    assert samples.dtype == np.int16
    assert np.array_equal(samples[:, 0], SAMPLES)
