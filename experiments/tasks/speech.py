r"""Speech Commands: which of 35, or of ten, words does a second of sound hold?

The data are the publisher's archive ``speech_commands_v0.02.tar.gz``, unpacked to
``DATA_DIR/speech_commands_v0.02/WORD/*.wav`` with its two lists of files. They are decoded once,
into ``DATA_DIR/speech_commands_v0.02.decoded``: 3.4 GB for all words, read as a memory map.

The data set ``speech_commands`` of tensorflow-datasets serves neither task. Its reader of audio
needs TensorFlow; 25 of the 35 words are one class "unknown" in it; and the split of the ten words
that the papers use is one of the publisher's files, whose names it does not keep.

Three quirks of the published loader, all kept:

* Every *time step* has its own mean and deviation, over the training set: the code loops over the
  last axis of an array in which that is time (``normalisation="per_step"``).
* It divides by :math:`2^{15}` "as the reader's own normalisation does not seem to work". A current
  reader has divided already; then the 1e-5 that is added to the deviation is larger than the
  deviation, and inputs stay well below unit variance. ``full_scale=2**30`` reproduces that. Which
  of the two the published runs had is not known.
* The ten words take the files in the order of the publisher's machine, and split after it. Here
  they are in the order of their names, so the split is made in the same way but is not the same.

References:
    Warden, "Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition", 2018,
    https://arxiv.org/abs/1804.03209.
    Romero et al., "CKConv: Continuous Kernel Convolution For Sequential Data", 2022,
    https://arxiv.org/abs/2102.02611: the ten words, and the loader.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Literal

import jax
import numpy as np

import s5jax
from experiments.errors import UsageError, check_positive
from experiments.tasks._sounds import FULL_SCALE, read_wav
from experiments.tasks._speech_clips import (
    LENGTH,
    WORDS,
    Clips,
    Vocabulary,
    check_sound,
    load_clips,
)
from experiments.tasks._task import (
    HERE,
    Batch,
    DataOptions,
    Files,
    Source,
    Split,
    Task,
    measure_classification,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeechOptions(DataOptions):
    """Data: which words, and how loud."""

    n_train: int = 84_843
    """Training examples."""
    n_validation: int = 9_981
    """Validation examples, by which the best checkpoint is chosen."""
    n_test: int = 11_005
    """Test examples, used once, at the end."""
    words: Vocabulary = "all"
    """All 35 with the publisher's split; or ten, 70/15/15, without clips below one second."""
    normalisation: Literal["per_step", "global", "none"] = "per_step"
    """Which training samples share a mean and a deviation; "per_step" is the published quirk."""
    full_scale: float = float(FULL_SCALE)
    """What 16-bit samples are divided by first; 2**30 is the published code with today's reader."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, full_scale=self.full_scale)


class SpeechSource(Source):
    """Clips of a split, normalised.

    Args:
        clips: all clips.
        rows: which of them.
        mean: subtracted from the 16-bit samples; a number, or one a step.
        gain: what the rest is multiplied by.
    """

    in_memory = True

    def __init__(
        self,
        clips: Clips,
        rows: np.ndarray,
        mean: np.ndarray,
        gain: np.ndarray,
    ) -> None:
        self.clips, self.rows, self.mean, self.gain = clips, rows, mean, gain

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        row = self.rows[index]
        return {
            "audio": normalise(self.clips.audio[row], self.mean, self.gain),
            "label": self.clips.label[row],
        }

    def batch(self, indices: np.ndarray, *, epoch: int) -> dict[str, np.ndarray]:
        """Clips, float32 of shape ``(B, 16000)``, and labels."""
        del epoch
        rows = self.rows[indices]
        return {
            "audio": normalise(self.clips.audio[rows], self.mean, self.gain),
            "label": self.clips.label[rows],
        }


class Speech(Task):
    """One second of sound at 16 kHz, sample by sample."""

    options_type = SpeechOptions
    d_input = 1
    length = LENGTH

    def __init__(self, options: SpeechOptions, files: Files = HERE) -> None:
        super().__init__(options, files)
        self.d_output = len(WORDS[options.words])

    @property
    def classes(self) -> tuple[str, ...]:
        """The words."""
        return WORDS[self.options.words]

    def source(self, split: Split, *, seed: int) -> Source:
        """The first ``n`` clips of a split, which lies in a fixed random order."""
        del seed
        clips = load_clips(self.files.data_dir, self.options.words)
        n, rows = self.options.n_examples(split), clips.splits[split]
        if n > len(rows):
            raise UsageError(
                f"SpeechOptions: `n_{split}` must not exceed {len(rows):,}, the clips of that "
                f"split in {self.files.data_dir}; got {n:,}. Set --data.n_{split}={len(rows)}, or "
                "unpack the whole archive."
            )
        return SpeechSource(clips, rows[:n], *self.statistics(clips))

    def statistics(self, clips: Clips) -> tuple[np.ndarray, np.ndarray]:
        """Mean and gain in units of 16-bit samples, of the whole training split."""
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
        """A WAV file of one second at most."""
        if path.suffix.lower() != ".wav":
            return super().read_examples(path)
        samples = check_sound(path, read_wav(path))
        audio = np.pad(samples, (0, LENGTH - len(samples)))
        p = self.preprocessing
        mean, gain = np.asarray(p.input_mean), 1 / np.asarray(p.input_std)
        prepared = normalise(audio[:, None], mean.astype(np.float32), gain.astype(np.float32))
        return {"audio": prepared[None, :, 0]}

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """The samples: ``u`` of shape ``(B, 16000, 1)``."""
        return {"u": batch["audio"][..., None]}

    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Cross entropy and accuracy."""
        return measure_classification(outputs, batch["label"])


def normalise(audio: np.ndarray, mean: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """The product of the gain and of what 16-bit samples are above the mean, float32."""
    x = np.subtract(audio, mean, dtype=np.float32)
    x *= gain
    return x
