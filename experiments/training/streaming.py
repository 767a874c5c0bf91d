"""A trained causal model that listens: to a sound file, or to a sound that arrives on a pipe."""

import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import soundfile
from flax import nnx
from jaxtyping import PyTree

import s5jax
from experiments.data.readers import check_is_file
from experiments.data.sources import DEFAULT_PATHS
from experiments.errors import UsageError, blaming_file, blaming_options
from experiments.files import user_path
from experiments.tasks import Arrays, Speech
from experiments.training.finished import load_run, task_for_prediction

STANDARD_INPUT = "-"
"""The name of a pipe."""


class Heard(NamedTuple):
    """What a model makes of a chunk of sound."""

    end: float
    """The end of the chunk [s]."""
    outputs: np.ndarray
    """As `SoundStream.push` returns them."""
    seconds: float
    """The time that the model took [s]."""


class SoundStream:
    """A trained model that reads a sound chunk by chunk; what it returns is as for the whole sound.

    Args:
        workdir: the folder of a finished run of a causal model on sounds.

    Raises:
        UsageError: if the folder holds no finished run, or its model cannot stream sounds.
    """

    def __init__(self, workdir: str | Path) -> None:
        config, _, trained = load_run(workdir)
        with blaming_options():
            self.task = task_for_prediction(config, DEFAULT_PATHS, trained)
            is_sound = isinstance(self.task, Arrays | Speech) and self.task.encoder == "linear"
            known = trained.preprocessing
            if known is None or not is_sound or known.dt_unit is not None:
                raise UsageError(
                    f"The model of {config.task} in {workdir} reads no sounds: name a run of sc35 "
                    "or sc10, or of arrays with sounds or other samples at equal intervals."
                )
            if np.asarray(known.input_mean).ndim > 1:
                raise UsageError(
                    f"The model in {workdir} was trained with a mean for each step of a clip, and "
                    "a stream has no first step: train with --data.normalisation=global."
                )
            for layer in trained.model.layers:
                layer.check_use("state")
        self.rate, self.classes = known.sample_rate, known.classes
        self.has_steps = self.task.head == "label"
        self.returns_samples = self.has_steps and self.classes is None
        self.mono = isinstance(self.task, Arrays) and self.task.options.mono
        graph, self._parameters = nnx.split(s5jax.Pipeline(trained.model, known))
        self._state: PyTree = trained.model.init_state((1,))

        @jax.jit
        def advance(parameters: nnx.State, u: jax.Array, state: PyTree) -> tuple[jax.Array, PyTree]:
            return nnx.merge(graph, parameters)(u, state=state, return_state=True)

        self._advance = advance

    def warm_up(self, n: int) -> None:
        """Compiles the program for chunks of n samples, for which the first one would wait."""
        self._run(np.zeros((n, self.task.d_input)))

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Reads the next samples.

        Args:
            samples: floats with full scale 1, shape ``(n, channels)``.

        Returns:
            Logits or values: of all that was heard, ``(d_output,)``, or of each sample,
            ``(n, d_output)``.
        """
        outputs, self._state = self._run(samples)
        return outputs

    def _run(self, samples: np.ndarray) -> tuple[np.ndarray, PyTree]:
        u = np.asarray(samples * self.task.full_scale, np.float32)[None]
        outputs, state = self._advance(self._parameters, u, self._state)
        return np.asarray(outputs)[0], state


def open_sound(stream: SoundStream, file: str) -> soundfile.SoundFile:
    """Opens a sound for a model.

    Args:
        stream: the model.
        file: a path, or ``"-"`` for a WAV on the standard input.

    Raises:
        UsageError: if it is not a sound, or has another rate or number of channels than in
            training.
    """
    is_pipe = file == STANDARD_INPUT
    if is_pipe and sys.stdin.isatty():
        raise UsageError(
            "The standard input is a terminal: pipe a WAV into the command, for example from "
            "`arecord -t wav -f S16_LE -r 16000`."
        )
    if not is_pipe:
        check_is_file(user_path(file))
    name = "The standard input" if is_pipe else file
    with blaming_file(name, "sound (WAV, and from a file also FLAC, OGG or MP3)"):
        try:
            source = sys.stdin.fileno() if is_pipe else user_path(file)
            sound = soundfile.SoundFile(source, closefd=not is_pipe)
        except soundfile.LibsndfileError as error:
            raise ValueError(error.error_string) from None
    _check_format(stream, name, sound)
    return sound


def listen(stream: SoundStream, sound: soundfile.SoundFile, *, chunk: float) -> Iterator[Heard]:
    """Reads a sound to its end.

    Args:
        stream: the model.
        sound: an open sound of the model's format.
        chunk: the length of a chunk [s].

    Yields:
        What the model makes of each chunk, as soon as the chunk has arrived.

    Raises:
        UsageError: if the sound has no samples, or its file is damaged.
    """
    n = max(1, round(chunk * sound.samplerate))
    stream.warm_up(n)
    end = 0
    while len(samples := _read(sound, n)):
        if stream.mono:
            samples = samples.mean(axis=1, keepdims=True)
        if len(samples) < n:
            stream.warm_up(len(samples))
        end, began = end + len(samples), time.perf_counter()
        outputs = stream.push(samples)
        yield Heard(end / sound.samplerate, outputs, time.perf_counter() - began)
    if not end:
        raise UsageError("The sound has no samples.")


def describe_speed(times: Sequence[float], seconds: float) -> str:
    """Returns the times that the chunks of a sound took, as a sentence."""
    n, median, slowest = len(times), 1e3 * statistics.median(times), 1e3 * max(times)
    return (
        f"{seconds:.3f} s of sound in {n:,} chunk{'s' * (n > 1)}, at {sum(times) / seconds:.3g} of "
        f"real time: {median:.2f} ms a chunk, {slowest:.2f} ms the slowest."
    )


def _read(sound: soundfile.SoundFile, n: int) -> np.ndarray:
    with blaming_file(sound.name, "sound"):
        return sound.read(n, "float32", always_2d=True)


def _check_format(stream: SoundStream, name: str, sound: soundfile.SoundFile) -> None:
    channels, wanted = 1 if stream.mono else sound.channels, stream.task.d_input
    if channels != wanted:
        raise UsageError(
            f"{name} must have {wanted} channel{'s' * (wanted > 1)}, as in training; got "
            f"{channels}. Convert it, for example with `ffmpeg -i IN -ac {wanted} OUT.wav`."
        )
    if stream.rate not in (None, sound.samplerate):
        raise UsageError(
            f"{name} must have {stream.rate:,} samples a second, as in training; got "
            f"{sound.samplerate:,}. Convert it, for example with `ffmpeg -i IN -ar {stream.rate} "
            "OUT.wav`."
        )
