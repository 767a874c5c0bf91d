"""Models of finished runs for machines without s5jax."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import s5jax
from experiments.errors import UsageError, blaming_options
from experiments.files import replacing, user_path
from experiments.training.demo import demo_page
from experiments.training.finished import load_run
from experiments.training.publish import publish_run
from s5jax.interop import export_onnx, export_stablehlo

ExportFormat = Literal["stablehlo", "onnx", "html", "pretrained"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of the format StableHLO; see `s5jax.interop.export_stablehlo`."""

    what: tuple[Literal["call", "step"], ...] | None = None
    """StableHLO: call for whole sequences, step for causal models; by default both."""
    length: int | None = None
    """StableHLO: length of the sequences; by default any length works, step by step."""
    platforms: tuple[Literal["cpu", "cuda", "rocm", "tpu"], ...] | None = None
    """StableHLO: where the programs are to run; by default cpu, cuda and tpu."""


def export_run(
    workdir: str | Path,
    format: ExportFormat,
    out: str | Path | None = None,
    options: ExportOptions | None = None,
) -> Path:
    """Exports the model of a finished run, with a description of its preprocessing.

    Args:
        workdir: the run's folder.
        format: ``"stablehlo"``, ``"onnx"``, ``"html"`` for a page that reads drawn digits, or
            ``"pretrained"`` for `s5jax.load_pretrained`.
        out: the folder to write; by default ``export-FORMAT`` in the run's folder.
        options: options of StableHLO.

    Returns:
        The folder.

    Raises:
        UsageError: if the folder holds no finished run, the model cannot be exported in this way,
            an option does not apply, or the extra ``onnx`` is missing.
    """
    workdir = user_path(workdir)
    names = [field.name for field in dataclasses.fields(ExportOptions)]
    chosen = {name: value for name in names if (value := getattr(options, name, None)) is not None}
    if format != "stablehlo" and chosen:
        flags = " and ".join(f"--{name}" for name in chosen)
        raise UsageError(f"{flags} must be left out with --format={format}: it is for StableHLO.")
    if format == "pretrained":
        if out is None:
            raise UsageError(
                "--format=pretrained needs --out=FOLDER/NAME: the name of the model is NAME, and "
                "FOLDER/index.json lists it."
            )
        return publish_run(workdir, user_path(out))
    config, results, trained = load_run(workdir)
    model = trained.model
    out = workdir / f"export-{format}" if out is None else user_path(out)
    if format == "html":
        page = demo_page(config.task, model, results["test"])
        out.mkdir(parents=True, exist_ok=True)
        with replacing(out / "demo.html") as file:
            file.write(page)
        return out
    if "step" in chosen.get("what", ("step",)):
        _check_steps(model)
    if trained.preprocessing is not None:
        model = s5jax.Pipeline(model, trained.preprocessing)
    try:
        with blaming_options():
            if format == "onnx":
                export_onnx(model, out)
            else:
                export_stablehlo(model, out, **chosen)
    except ImportError as error:
        raise UsageError(str(error)) from error
    return out


def _check_steps(model: Any) -> None:
    """Raises a UsageError if the model cannot step."""
    try:
        for layer in model.layers:
            layer.check_use("step")
    except ValueError as error:
        raise UsageError(
            f"{error} For programs that do, use --format=stablehlo --what call."
        ) from error
