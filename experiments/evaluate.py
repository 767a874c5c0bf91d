"""``python -m experiments.evaluate``: evaluates the model of a finished run once more."""

import dataclasses
from pathlib import Path

import tyro
from flax import nnx

import s5jax
from experiments.build import evaluate, prepare
from experiments.cli import FileFlags, MeshSpec
from experiments.config import Config, read_config
from experiments.errors import UsageError, blaming_options, run_command
from experiments.files import UserPath, check_output, user_path
from experiments.loop import describe
from experiments.mesh import make_mesh
from experiments.process import set_up_process
from experiments.results import Results, read_results, write_json
from experiments.tasks import HERE, Files


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateFlags(FileFlags):
    """Evaluates the model of a finished run on its validation and test data.

    Example: python -m experiments.evaluate --workdir=runs/pathx-s5-smoke-seed0
    """

    workdir: UserPath
    """Folder of the run."""
    json: UserPath | None = None
    """File to write the figures to."""
    mesh: MeshSpec = None
    """Devices: N share each batch, M each sequence; without it, all of them share each batch."""
    dt: int | None = None
    """Another sampling rate: take every so-many-th step, and make the model's steps as long."""


def evaluate_run(
    workdir: str | Path,
    mesh: str | None = None,
    files: Files = HERE,
    dt: int | None = None,
) -> Results:
    """Evaluates the model of a finished run.

    With ``dt`` at another sampling rate, to which the model was not trained: every ``dt``-th step
    of each sequence, without a filter, and step lengths multiplied by ``dt``. That is the zero-shot
    experiment of S4 and S5 on speech at 8 kHz, ``dt=2``; it needs layers with a step length.

    Args:
        workdir: the run's folder.
        mesh: devices, as `experiments.mesh.make_mesh` takes them.
        files: where data sets lie.
        dt: how many steps become one; by default all are used.

    Returns:
        The contents of its ``results.json``, with the figures found now, and ``dt`` if given.

    Raises:
        UsageError: if the folder holds no finished run, or task or model have no other rate.

    References:
        Gu, Goel and Ré, "Efficiently Modeling Long Sequences with Structured State Spaces", 2022,
        https://arxiv.org/abs/2111.00396, section 4.3.
    """
    config, recorded, model = load_run(workdir)
    devices = make_mesh(mesh, batch_size=config.train.batch_size)
    setup = prepare(config, devices, model, files=files, dt=dt)
    with blaming_options():
        figures = {
            split: evaluate(setup, setup.steps.initial, split) for split in ("validation", "test")
        }
    return {**recorded, **figures, **({} if dt is None else {"dt": dt})}


def load_run(workdir: str | Path) -> tuple[Config, Results, nnx.Module]:
    """Configuration, results and model of a finished run.

    Raises:
        UsageError: if the folder holds none.
    """
    workdir = user_path(workdir)
    config = read_config(workdir)
    results = read_results(workdir)
    if results is None:
        raise UsageError(f"The run in {workdir} is not finished: start it again to go on.")
    try:
        return config, results, s5jax.load(workdir / "model")
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error


def main() -> None:
    """Reads the command line, evaluates, and says whether the figures are the recorded ones."""
    set_up_process()
    flags = tyro.cli(EvaluateFlags, prog="python -m experiments.evaluate", use_underscores=True)
    if flags.json is not None:
        check_output(flags.json, "--json")
    results = evaluate_run(flags.workdir, flags.mesh, flags.files(), flags.dt)
    print(describe(results))
    if flags.dt is not None:
        print(f"On one step in {flags.dt}, each taken to be {flags.dt} times as long.")
    elif results == read_results(flags.workdir):
        print("These are the figures in results.json.")
    else:
        print("results.json has other figures.")
    if flags.json is not None:
        write_json(flags.json, results)


if __name__ == "__main__":
    run_command(main)
