"""``python -m experiments.plan``: estimates the time and memory of a run."""

import sys

from experiments.cli.ending import run_command
from experiments.cli.process import set_up_process
from experiments.cli.runs import parse_plan
from experiments.devices.mesh import make_mesh
from experiments.errors import blaming_options
from experiments.recipes import describe_changes
from experiments.training.plan import make_plan
from experiments.training.setup import make_setup


def main() -> None:
    """Reads the command line, tries a few steps, and prints the plan."""
    set_up_process()
    flags = parse_plan(sys.argv[1:])
    config = flags.config()
    batch_size, parts = config.train.batch_size, config.train.accumulate
    mesh = make_mesh(flags.mesh, batch_size=batch_size, parts=parts)
    setup = make_setup(config, mesh, files=flags.files())
    print(describe_changes(config), flush=True)
    with blaming_options():
        print(make_plan(setup, setup.steps.initial).text)


if __name__ == "__main__":
    run_command(main)
