"""The suites of the benchmark."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from experiments.bench import pipelines, ratios, training
from experiments.bench.compiled import compiled_rows
from experiments.bench.contestants import Size
from experiments.bench.layers import layer_times
from experiments.bench.page import write_page
from experiments.bench.report import check_gpu, gpu_report
from experiments.bench.roofline import Roofline
from experiments.bench.series import series_speeds
from experiments.config import Config
from experiments.data.sources import DATA_DIR, Files
from experiments.errors import UsageError
from experiments.files import check_output, replacing
from experiments.recipes import get_recipe
from experiments.records import write_json

Suite = Literal["ci", "layers", "models", "tasks", "generators", "series", "gpu", "compile"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchFlags:
    """Measures speed and memory on this machine, which should be idle.

    Example: python -m experiments.bench --suite=layers --picture=layers.png
    """

    suite: Suite = "ci"
    """ci: every claim about speed as a ratio, larger is better; layers: all layers against length,
    by every algorithm; models: the train step of every model; tasks: the input pipeline of every
    task; generators: the synthetic data generators; series: training and streams of forecasts;
    gpu: time, memory and values on a GPU, in ten minutes; compile: memory and traffic of programs
    for an NVIDIA H200 and a TPU v5e, compiled here without them."""
    json: Path | None = None
    """File to write the rows to. The suite gpu also writes a page, FILE.md for FILE.json."""
    picture: Path | None = None
    """PNG file for a plot of time against length, for the suite layers."""
    strict: bool = False
    """End with exit code 1 if a row falls short of its target."""
    max_length: int = 65_536
    """Longest sequence of the suite layers, whose lengths are 1,024 times powers of 4."""
    data_dir: Path = DATA_DIR
    """Folder of the data sets for the suite tasks; rows without data are skipped."""


class CISizes(NamedTuple):
    """Sizes of the measurements of the suite ci."""

    layer: Size = Size()
    lengths: tuple[int, ...] = (16_384, 32_768, 65_536, 131_072, 262_144)
    doubled: Size = Size(H=32)
    million: Size = Size(L=1_048_576, H=32)
    short: tuple[int, ...] = (1_024, 2_048)
    position: int = 16_384
    batch_position: int = 4_096
    d_model: int = 128
    n_layers: int = 6
    loop_steps: int = 200
    images: int = 1_600


def ci_rows(step: Config, loop: Config, sizes: CISizes) -> Iterator[Any]:
    """Measures every claim about speed."""
    yield from ratios.kernel_rows(sizes.layer)
    yield from ratios.layer_rows(sizes.layer)
    yield ratios.short_row(sizes.short, sizes.layer)
    yield ratios.sgconv_row(sizes.layer)
    yield ratios.pooled_conv_row(sizes.images)
    yield from training.train_step_rows(step)
    yield from ratios.length_rows(sizes.lengths, sizes.doubled, sizes.million)
    model = {"d_model": sizes.d_model, "n_layers": sizes.n_layers}
    yield ratios.generate_row(sizes.position, **model)
    yield ratios.generate_batch_row(sizes.batch_position, **model)
    yield training.host_overhead_row(loop, steps=sizes.loop_steps)
    yield from pipelines.generator_rows(("pathfinder_32", "pathfinder_128"))


def _ci(flags: BenchFlags, roofline: Roofline) -> Iterator[Any]:
    step = get_recipe("pathx", "s5", "paper")
    step = dataclasses.replace(step, train=dataclasses.replace(step.train, batch_size=1))
    return ci_rows(step, get_recipe("pathx", "s5", "smoke"), CISizes())


def _layers(flags: BenchFlags, roofline: Roofline) -> Iterator[Any]:
    lengths = [4**k for k in range(5, 11) if 4**k <= flags.max_length]
    return layer_times(lengths, Size(), roofline)


HAVE_TARGETS: tuple[Suite, ...] = ("ci", "generators")

SUITES: dict[Suite, Callable[[BenchFlags, Roofline], Iterator[Any]]] = {
    "ci": _ci,
    "layers": _layers,
    "models": lambda flags, _: training.model_speeds(d_model=128, n_layers=4, batch_size=8),
    "tasks": lambda flags, _: pipelines.task_rows(Files(flags.data_dir)),
    "generators": lambda flags, _: pipelines.generator_rows(),
    "series": lambda flags, _: series_speeds(),
    "gpu": lambda _, roofline: gpu_report(roofline),
    "compile": lambda flags, _: compiled_rows(),
}


def check_flags(flags: BenchFlags) -> None:
    """Raises a UsageError for flags that contradict each other, or need another machine."""
    if flags.picture is not None and flags.suite != "layers":
        raise UsageError(
            f"--picture plots time against length, which the suite {flags.suite} does not measure; "
            "add --suite=layers."
        )
    if flags.max_length < 1_024:
        raise UsageError(f"--max-length must be at least 1024; got {flags.max_length}.")
    if flags.strict and flags.suite not in HAVE_TARGETS:
        raise UsageError(
            f"--strict needs rows with targets, which the suite {flags.suite} does not have; use "
            f"--suite={', '.join(HAVE_TARGETS)}."
        )
    if flags.json is not None and flags.json.suffix == ".md":
        raise UsageError(
            f"--json must not end in .md, as the page of the report does; got {flags.json}."
        )
    check_output(flags.json, "--json")
    check_output(flags.picture, "--picture")
    if flags.suite == "gpu":
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # processes share the GPU
        check_gpu()


def write_rows(flags: BenchFlags, where: dict[str, Any], rows: Sequence[Any]) -> None:
    """Writes what was measured so far, and the page of the suite gpu."""
    if flags.json is None:
        return
    values = [dataclasses.asdict(row) for row in rows]
    write_json(flags.json, {"suite": flags.suite, **where, "rows": values})
    if flags.suite == "gpu":
        with replacing(flags.json.with_suffix(".md")) as file:
            file.write(write_page(where, rows))
