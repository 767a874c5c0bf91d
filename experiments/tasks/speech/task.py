r"""Speech Commands: which of 35 words, or of ten, is in a second of sound?

The data are the publisher's archive ``speech_commands_v0.02.tar.gz``, unpacked to
``DATA_DIR/speech_commands_v0.02/WORD/*.wav`` with its two lists of files. They are decoded once,
into ``DATA_DIR/speech_commands_v0.02.decoded``: 3.4 GB for all words, read as a memory map.

The data set ``speech_commands`` of tensorflow-datasets suits neither task. Its audio reader needs
TensorFlow. It merges 25 of the 35 words into one class "unknown". The papers split the ten words by
the publisher's file names, which it does not keep.

Three quirks of the published loader are kept:

* Every *time step* has its own mean and deviation over the training set: the code loops over the
  last axis of an array, which is time (``normalisation="per_step"``).
* It divides by :math:`2^{15}` "as the reader's own normalisation does not seem to work". A current
  reader has divided already. Then the 1e-5 that is added to the deviation is larger than the
  deviation, and inputs stay well below unit variance. ``full_scale=2**30`` reproduces that. It is
  not known which of the two the published runs had.
* The ten words are split in the order of the files on the publisher's machine. Here files are in
  the order of their names, so the split is made in the same way but is not the same.

References:
    Warden, "Speech Commands", 2018, https://arxiv.org/abs/1804.03209.
    Romero et al., "CKConv" (the ten words, and the loader), 2022, https://arxiv.org/abs/2102.02611.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Literal

import jax
import numpy as np

import s5jax
from experiments.data.sounds import FULL_SCALE, read_wav
from experiments.data.sources import (
    DEFAULT_PATHS,
    Batch,
    BatchSource,
    DataOptions,
    Files,
    Source,
    Split,
)
from experiments.errors import UsageError, check_positive
from experiments.tasks._task import Task
from experiments.tasks.speech.clips import LENGTH, WORDS, Clips, Vocabulary, check_sound, load_clips


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeechOptions(DataOptions):
    """Data: the words, and the normalisation of samples."""

    n_train: int = 84_843
    n_validation: int = 9_981
    n_test: int = 11_005
    words: Vocabulary = "all"
    """All 35 words with the published split; or ten words, 70/15/15, without shorter clips."""
    normalisation: Literal["per_step", "global", "none"] = "per_step"
    """Scope of mean and deviation of the training samples; "per_step" is the published quirk."""
    full_scale: float = float(FULL_SCALE)
    """Divisor of 16-bit samples; 2**30 reproduces the published code with a current reader."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, full_scale=self.full_scale)


class SpeechSource(BatchSource):
    """Normalised clips of a split.

    Args:
        clips: all clips.
        rows: indices of the clips.
        mean: the mean of the 16-bit samples, a number or one per step.
        gain: the factor after the mean is subtracted.
    """

    in_memory = True

    def __init__(self, clips: Clips, rows: np.ndarray, mean: np.ndarray, gain: np.ndarray) -> None:
        self.clips, self.rows, self.mean, self.gain = clips, rows, mean, gain

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: np.ndarray, *, epoch: int) -> dict[str, np.ndarray]:
        """Returns clips, float32 of shape ``(B, 16000)``, and labels."""
        del epoch
        rows = self.rows[indices]
        return {
            "audio": normalise(self.clips.audio[rows], self.mean, self.gain),
            "label": self.clips.label[rows],
        }


class Speech(Task):
    """Classification of a second of sound at 16 kHz, sample by sample."""

    options_type = SpeechOptions
    d_input = 1
    length = LENGTH
    full_scale = float(FULL_SCALE)
    mask_share = 0.25

    def __init__(self, options: SpeechOptions, files: Files = DEFAULT_PATHS) -> None:
        super().__init__(options, files)
        self.d_output = len(WORDS[options.words])

    @property
    def classes(self) -> tuple[str, ...]:
        """The words."""
        return WORDS[self.options.words]

    def source(self, split: Split, *, seed: int) -> Source:
        """Returns the first clips of a split, which is in a fixed random order."""
        del seed
        clips = load_clips(self.files.data_dir, self.options.words)
        n, rows = self.options.n_examples(split), clips.splits[split]
        if n > len(rows):
            raise UsageError(
                f"SpeechOptions: `n_{split}` must not exceed {len(rows):,}, the clips of the split "
                f"in {self.files.data_dir}; got {n:,}. Set --data.n_{split}={len(rows)}, or "
                "unpack the whole archive."
            )
        return SpeechSource(clips, rows[:n], *self.statistics(clips))

    def statistics(self, clips: Clips) -> tuple[np.ndarray, np.ndarray]:
        """Returns mean and gain of the training split, in units of 16-bit samples."""
        if self.options.normalisation == "none":
            return np.zeros((), np.float32), np.array(1 / self.options.full_scale, np.float32)
        mean, std = clips.moments(per_step=self.options.normalisation == "per_step")
        gain = 1 / (std + 1e-5 * self.options.full_scale)
        return mean.astype(np.float32), gain.astype(np.float32)

    @functools.cached_property
    def preprocessing(self) -> s5jax.Preprocessing:
        """Statistics in units of 16-bit samples, the words, and the sampling rate."""
        clips = load_clips(self.files.data_dir, self.options.words)
        mean, gain = (np.asarray(v, np.float64)[..., None] for v in self.statistics(clips))
        return s5jax.Preprocessing(
            input_mean=mean, input_std=1 / gain, classes=self.classes, sample_rate=LENGTH
        )

    def read_examples(self, path: Path) -> dict[str, np.ndarray]:
        """Reads a WAV file of at most one second."""
        if path.suffix.lower() != ".wav":
            return super().read_examples(path)
        samples = check_sound(path, read_wav(path))
        audio = np.pad(samples, (0, LENGTH - len(samples)))
        p = self.preprocessing
        mean, gain = np.asarray(p.input_mean), 1 / np.asarray(p.input_std)
        prepared = normalise(audio[:, None], mean.astype(np.float32), gain.astype(np.float32))
        return {"audio": prepared[None, :, 0]}

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns the samples: ``u`` of shape ``(B, 16000, 1)``."""
        return {"u": batch["audio"][..., None]}


def normalise(audio: np.ndarray, mean: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Subtracts the mean from 16-bit samples and multiplies by the gain, in float32."""
    x = np.subtract(audio, mean, dtype=np.float32)
    x *= gain
    return x
