"""``python -m experiments.data sample|prepare``: writes examples or prepares a data set."""

import sys
from collections.abc import Sequence

import numpy as np

from experiments.cli.ending import run_command
from experiments.cli.flags import as_started
from experiments.cli.runs import parse_prepare, parse_sample
from experiments.data.prepare import prepare_dataset
from experiments.errors import UsageError, suggest
from experiments.files import check_output, replacing
from experiments.tasks import get_task
from experiments.training.pipeline import sample


def main() -> None:
    """Runs the subcommand that the command line names."""
    command, *args = sys.argv[1:] or ["--help"]
    commands = {"sample": _sample_command, "prepare": _prepare_command}
    usage = "python -m experiments.data sample|prepare --task=NAME ...   (--help lists the options)"
    if command in ("-h", "--help"):
        print(as_started(f"usage: {usage}"))
    elif command in commands:
        commands[command](args)
    else:
        hint = suggest(command, commands)
        raise UsageError(f"Unknown command {command!r}: the usage is {usage}.{hint}")


def _sample_command(args: Sequence[str]) -> None:
    flags = parse_sample(args)
    out = flags.out if flags.out.suffix == ".npz" else flags.out.with_name(f"{flags.out.name}.npz")
    check_output(flags.out, "--out")
    task = get_task(str(flags.task))(flags.data, flags.files())
    arrays = sample(task, flags.split, seed=flags.seed, n=flags.n)
    with replacing(out, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    shapes = ", ".join(f"{name} {value.shape}" for name, value in arrays.items())
    print(f"Wrote {out}: {shapes}")


def _prepare_command(args: Sequence[str]) -> None:
    flags = parse_prepare(args)
    prepare_dataset(flags.task, flags.data_dir, flags.source)


if __name__ == "__main__":
    run_command(main)
