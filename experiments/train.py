"""``python -m experiments.train``: trains a model on a task."""

import sys
from pathlib import Path

import jax

from experiments.cli.ending import run_command
from experiments.cli.process import set_up_process
from experiments.cli.runs import parse_train
from experiments.config import Config
from experiments.devices.distributed import log_primary
from experiments.devices.mesh import make_mesh
from experiments.recipes import describe_changes
from experiments.records import Results
from experiments.training.loop import fit
from experiments.training.seeds import fit_seeds


def main() -> None:
    """Reads the command line and trains."""
    set_up_process()
    flags = parse_train(sys.argv[1:])
    configs = flags.configs()
    config = configs[0]
    if flags.print_config:
        log_primary(config.to_json().rstrip("\n"))
        return
    batch_size, parts = config.train.batch_size, config.train.accumulate
    mesh = make_mesh(flags.mesh, batch_size=batch_size, parts=parts)
    why = "" if flags.preset else f" (the default preset on {jax.default_backend()})"

    def train(config: Config, workdir: Path) -> Results:
        log_primary(f"Run {config.run_name}{why} in {workdir}\n{describe_changes(config)}")
        return fit(
            config,
            workdir,
            mesh=mesh,
            on_nan=flags.on_nan,
            on_changed_data=flags.on_changed_data,
            files=flags.files(),
            profile=flags.profile,
        )

    if len(configs) == 1:
        train(config, flags.workdir or Path("runs") / config.run_name)
        return
    runs = {Path("runs") / config.run_name: config for config in configs}
    if flags.workdir is not None:
        runs = {flags.workdir / f"seed{config.seed}": config for config in configs}
    fit_seeds(runs, train)


if __name__ == "__main__":
    run_command(main)
