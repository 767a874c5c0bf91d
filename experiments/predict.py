"""``python -m experiments.predict``: applies a trained model to a user's own file."""

import sys

from experiments.cli.ending import run_command
from experiments.cli.finished import PredictFlags
from experiments.cli.flags import read_flags
from experiments.cli.process import set_up_process
from experiments.errors import choose
from experiments.files import check_output, replacing
from experiments.training.prediction import WRITERS, predict


def main() -> None:
    """Reads the command line, predicts and writes."""
    set_up_process()
    flags = read_flags(PredictFlags, prog="python -m experiments.predict", use_underscores=True)
    suffix = ".csv" if flags.out is None else flags.out.suffix
    write = choose("ending of --out", suffix, WRITERS)
    check_output(flags.out, "--out")
    picture = flags.out and flags.out.with_suffix(".png")
    rows = predict(flags.workdir, flags.file, flags.files(), start=flags.start, picture=picture)
    if flags.out is None:
        write(rows, sys.stdout)
    else:
        with replacing(flags.out) as file:
            write(rows, file)


if __name__ == "__main__":
    run_command(main)
