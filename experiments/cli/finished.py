"""Flags of the commands that work on finished runs."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from experiments.cli.flags import FileFlags, MeshSpec
from experiments.training.export import ExportFormat, ExportOptions
from experiments.training.fingerprint import OnChangedData
from experiments.training.generation import Sampling


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateFlags(FileFlags):
    """Evaluates the model of a finished run on its validation and test data.

    Example: python -m experiments.evaluate --workdir=runs/pathx-s5-smoke-seed0
    """

    workdir: Path
    """Folder of the run."""
    file: Annotated[Path | None, tyro.conf.arg(name="data.file")] = None
    """The run's own file, if it has moved (tasks arrays, chars and forecast)."""
    on_changed_data: OnChangedData = "stop"
    """If the data have changed since the run started: stop, or use the new data."""
    json: Path | None = None
    """File to write the figures to."""
    mesh: MeshSpec = None
    """Devices: N share each batch, M each sequence; by default all devices share each batch."""
    dt: int | None = None
    """Another sampling rate: use every n-th step, and make the model's steps n times as long."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictFlags(FileFlags):
    """Writes the predictions of a finished run's model for each example of a file.

    Example: python -m experiments.predict --workdir=runs/sc35-s5-paper-seed0 --data.file=yes.wav
    """

    workdir: Path
    """Folder of the run."""
    file: Annotated[Path, tyro.conf.arg(name="data.file")]
    """The examples; for most tasks a .npz file as written by the command `data sample`, or one WAV,
    CSV or PNG file; for forecasts a table."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File to write, .csv or .json; by default CSV on the standard output. Forecasts also get a
    picture, .png, beside it."""
    start: Annotated[str | None, tyro.conf.arg(metavar="TIME")] = None
    """First time to forecast, inside the table; by default the time after its last value."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamFlags:
    """Reads a sound chunk by chunk with a trained causal model, and prints what it makes of it.

    Example: arecord -t wav -r 16000 | python -m experiments.stream --workdir=RUN --data.file=-
    """

    workdir: Path
    """Folder of the run: sc35, sc10, or arrays on sounds."""
    file: Annotated[str, tyro.conf.arg(name="data.file", metavar="FILE")]
    """A sound, or - for a WAV on the standard input."""
    chunk: float = 0.1
    """Length of a chunk [s]; the answer to it comes as much later."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """WAV to write, for models whose outputs are samples."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateFlags(FileFlags, Sampling):
    """Continues prompts with a trained language model, of text or of pixels.

    Example: python -m experiments.generate --workdir=runs/chars-s5-cpu-seed0 --prompt="The "
    """

    n: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Number of new tokens; by default 200, or the rest of an image."""
    workdir: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder of the run."""
    prompt: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="TEXT")]
    """Text to continue; may be given several times. Pixels are numbers separated by spaces."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportFlags(ExportOptions):
    """Writes the model of a finished run for machines without s5jax.

    Example: python -m experiments.export --workdir=runs/pathx-s5-smoke-seed0 --format=stablehlo
    """

    workdir: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder of the run."""
    format: ExportFormat
    """stablehlo: sequences and steps, for JAX; onnx: steps in real arithmetic, for onnxruntime;
    html: a page in which a causal model of digits or smnist reads what a user draws; pretrained: a
    folder with a card for s5jax.load_pretrained."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder to write; by default export-FORMAT in the folder of the run."""
