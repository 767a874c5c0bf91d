"""``python -m experiments.train``: trains a model on a task."""

import sys

import jax

from experiments.cli import parse_train
from experiments.distributed import say
from experiments.errors import run_command
from experiments.loop import fit
from experiments.mesh import make_mesh
from experiments.process import set_up_process
from experiments.recipes import describe_changes


def main() -> None:
    """Reads the command line and trains."""
    set_up_process()
    flags = parse_train(sys.argv[1:])
    config = flags.config()
    if flags.print_config:
        say(config.to_json().rstrip("\n"))
        return
    batch_size, parts = config.train.batch_size, config.train.accumulate
    mesh = make_mesh(flags.mesh, batch_size=batch_size, parts=parts)
    name = f"{config.task}-{config.model.name}-{config.preset}-seed{config.seed}"
    workdir = flags.workdir or f"runs/{name}"
    device = jax.default_backend()
    why = f" (preset for {device}, as --preset is not given)" if flags.preset is None else ""
    say(f"Run {name}{why} in {workdir}\n{describe_changes(config)}")
    options = {"on_nan": flags.on_nan, "on_changed_data": flags.on_changed_data}
    fit(config, workdir, mesh=mesh, files=flags.files(), **options)


if __name__ == "__main__":
    run_command(main)
