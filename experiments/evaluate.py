"""``python -m experiments.evaluate``: evaluates the model of a finished run once more."""

import dataclasses
from pathlib import Path

import tyro

import s5jax
from experiments.build import evaluate, prepare
from experiments.cli import FileFlags, MeshSpec
from experiments.config import read_config
from experiments.errors import UsageError, run_command
from experiments.loop import describe
from experiments.mesh import make_mesh
from experiments.results import Results, read_results, write_json
from experiments.tasks import HERE, Files


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateFlags(FileFlags):
    """Evaluates the model of a finished run on its validation and test data.

    Example: python -m experiments.evaluate --workdir=runs/pathx-s5-smoke-seed0
    """

    workdir: Path
    """Folder of the run."""
    json: Path | None = None
    """File to write the figures to."""
    mesh: MeshSpec = None
    """Devices that share each batch, as data=N; without it, all of them."""


def evaluate_run(
    workdir: Path,
    mesh: str | None = None,
    files: Files = HERE,
) -> Results:
    """Evaluates the model of a finished run.

    Args:
        workdir: the run's folder.
        mesh: devices, as ``"data=N"``, or None for all.
        files: where data sets lie.

    Returns:
        The contents of its ``results.json``, with the figures found now.

    Raises:
        UsageError: if the folder holds no finished run.
    """
    config = read_config(workdir)
    recorded = read_results(workdir)
    if recorded is None:
        raise UsageError(f"The run in {workdir} is not finished: start it again to go on.")
    try:
        model = s5jax.load(workdir / "model")
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    devices = make_mesh(mesh, batch_size=config.train.batch_size)
    setup = prepare(config, devices, model, files=files)
    figures = {
        split: evaluate(setup, setup.steps.initial, split) for split in ("validation", "test")
    }
    return {**recorded, **figures}


def main() -> None:
    """Reads the command line, evaluates, and says whether the figures are the recorded ones."""
    flags = tyro.cli(EvaluateFlags, prog="python -m experiments.evaluate", use_underscores=True)
    results = evaluate_run(flags.workdir, flags.mesh, flags.files())
    print(describe(results))
    same = results == read_results(flags.workdir)
    print("These are the figures in results.json." if same else "results.json has other figures.")
    if flags.json is not None:
        write_json(flags.json, results)


if __name__ == "__main__":
    run_command(main)
