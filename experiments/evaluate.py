"""``python -m experiments.evaluate``: evaluates the model of a finished run once more."""

import dataclasses
from pathlib import Path

import tyro

from experiments.build import Trained, evaluate, load_trained, prepare
from experiments.cli import FileFlags, MeshSpec
from experiments.config import Config, read_config
from experiments.errors import UsageError, blaming_options, run_command
from experiments.files import UserPath, check_output, user_path
from experiments.fingerprint import OnChangedData, check_data
from experiments.loop import describe
from experiments.mesh import make_mesh
from experiments.process import set_up_process
from experiments.results import Results, read_results, write_json
from experiments.tasks import HERE, DataOptions, Files


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateData:
    """Data: where they are."""

    file: UserPath | None = None
    """The run's own file, if it has moved (of the tasks arrays and chars)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateFlags(FileFlags):
    """Evaluates the model of a finished run on its validation and test data.

    Example: python -m experiments.evaluate --workdir=runs/pathx-s5-smoke-seed0
    """

    workdir: UserPath
    """Folder of the run."""
    data: EvaluateData = dataclasses.field(default_factory=EvaluateData)
    on_changed_data: OnChangedData = "stop"
    """If the data have changed since the run was started: end, or evaluate the model on them."""
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
    *,
    file: str | Path | None = None,
    on_changed_data: OnChangedData = "stop",
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
        file: where the run's own file is now, if it has moved.
        on_changed_data: whether data that have changed since the run was started are refused, or
            used, with the preprocessing of training.

    Returns:
        The contents of its ``results.json``, with the figures found now, and ``dt`` if given.

    Raises:
        UsageError: if the folder holds no finished run, its data are gone or have changed, or task
            or model have no other rate.

    References:
        Gu, Goel and Ré, "Efficiently Modeling Long Sequences with Structured State Spaces", 2022,
        https://arxiv.org/abs/2111.00396, section 4.3.
    """
    config, recorded, trained = load_run(workdir)
    if file is not None:
        config = dataclasses.replace(config, data=_move(config, file))
    devices = make_mesh(mesh, batch_size=config.train.batch_size)
    setup = prepare(config, devices, trained, files=files, dt=dt)
    fingerprint = setup.task.fingerprint(seed=config.seed)
    check_data(user_path(workdir), config.task, fingerprint, on_changed_data)
    with blaming_options():
        figures = {
            split: evaluate(setup, setup.steps.initial, split) for split in ("validation", "test")
        }
    return {**recorded, **figures, **({} if dt is None else {"dt": dt})}


def _move(config: Config, file: str | Path) -> DataOptions:
    if not hasattr(config.data, "file"):
        raise UsageError(
            f"--data.file says where a user's own file is, and {config.task} has none: leave it "
            "out, or say with --data-dir=DIR where its data set is."
        )
    return dataclasses.replace(config.data, **{"file": str(file)})


def load_run(workdir: str | Path) -> tuple[Config, Results, Trained]:
    """Configuration, results and model of a finished run.

    Raises:
        UsageError: if the folder holds none.
    """
    workdir = user_path(workdir)
    config = read_config(workdir)
    results = read_results(workdir)
    if results is None:
        raise UsageError(f"The run in {workdir} is not finished: start it again to go on.")
    return config, results, load_trained(workdir)


def main() -> None:
    """Reads the command line, evaluates, and says whether the figures are the recorded ones."""
    set_up_process()
    flags = tyro.cli(EvaluateFlags, prog="python -m experiments.evaluate", use_underscores=True)
    if flags.json is not None:
        check_output(flags.json, "--json")
    results = evaluate_run(
        flags.workdir,
        flags.mesh,
        flags.files(),
        flags.dt,
        file=flags.data.file,
        on_changed_data=flags.on_changed_data,
    )
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
