"""``python -m experiments.bench``: reads the command line, measures, and writes what was found."""

import dataclasses

import tyro

from experiments.bench.picture import plot_layers
from experiments.bench.roofline import measure_roofline
from experiments.bench.suites import SUITES, BenchFlags
from experiments.errors import UsageError, run_command
from experiments.files import check_output
from experiments.mesh import make_mesh
from experiments.process import set_up_process
from experiments.results import device_name, environment, write_json


def main() -> None:
    """Measures a suite, and prints every row as it is known."""
    set_up_process()
    flags = tyro.cli(BenchFlags, prog="python -m experiments.bench")
    if flags.picture is not None and flags.suite != "layers":
        raise UsageError(
            f"--picture draws time against length, which the suite {flags.suite} does not measure; "
            "add --suite=layers."
        )
    if flags.max_length < 1_024:
        raise UsageError(f"--max-length must be at least 1024; got {flags.max_length}.")
    for option, path in (("--json", flags.json), ("--picture", flags.picture)):
        if path is not None:
            check_output(path, option)
    device, roofline = device_name(make_mesh("data=1", batch_size=1)), measure_roofline()
    print(f"{device}: {roofline}", flush=True)
    where = {"device": device, "roofline": roofline._asdict(), **environment()}
    rows = []
    for row in SUITES[flags.suite](flags, roofline):
        print(row, flush=True)
        rows.append(row)
        if flags.json is not None:
            values = [dataclasses.asdict(row) for row in rows]
            write_json(flags.json, {"suite": flags.suite, **where, "rows": values})
    if flags.picture is not None:
        title = f"One layer on one sequence of 128 features, float32, {device}"
        plot_layers(rows, flags.picture, title=title)


if __name__ == "__main__":
    run_command(main)
