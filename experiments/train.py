"""``python -m experiments.train``: trains a model on a task."""

import sys

import jax

from experiments.cli.ending import run_command
from experiments.cli.process import set_up_process
from experiments.cli.runs import parse_train
from experiments.devices.distributed import log_primary
from experiments.devices.mesh import make_mesh
from experiments.recipes import describe_changes
from experiments.training.loop import fit


def main() -> None:
    """Reads the command line and trains."""
    set_up_process()
    flags = parse_train(sys.argv[1:])
    config = flags.config()
    if flags.print_config:
        log_primary(config.to_json().rstrip("\n"))
        return
    batch_size, parts = config.train.batch_size, config.train.accumulate
    mesh = make_mesh(flags.mesh, batch_size=batch_size, parts=parts)
    name = f"{config.task}-{config.model.name}-{config.preset}-seed{config.seed}"
    workdir = flags.workdir or f"runs/{name}"
    why = "" if flags.preset else f" (the default preset on {jax.default_backend()})"
    log_primary(f"Run {name}{why} in {workdir}\n{describe_changes(config)}")
    options = {"on_nan": flags.on_nan, "on_changed_data": flags.on_changed_data}
    fit(config, workdir, mesh=mesh, files=flags.files(), **options)


if __name__ == "__main__":
    run_command(main)
