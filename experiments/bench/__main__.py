"""``python -m experiments.bench``: measures speed and memory."""

import dataclasses

from experiments.bench.picture import plot_layers
from experiments.bench.roofline import measure_roofline
from experiments.bench.row import Row
from experiments.bench.suites import HAVE_TARGETS, SUITES, BenchFlags
from experiments.cli.ending import run_command
from experiments.cli.flags import read_flags
from experiments.cli.process import set_up_process
from experiments.devices.mesh import make_mesh
from experiments.errors import RunError, UsageError
from experiments.files import check_output
from experiments.records import device_name, environment, write_json


def main() -> None:
    """Measures a suite, and prints every row immediately."""
    set_up_process()
    flags = read_flags(BenchFlags, prog="python -m experiments.bench")
    if flags.picture is not None and flags.suite != "layers":
        raise UsageError(
            f"--picture plots time against length, which the suite {flags.suite} does not measure; "
            "add --suite=layers."
        )
    if flags.max_length < 1_024:
        raise UsageError(f"--max-length must be at least 1024; got {flags.max_length}.")
    if flags.strict and flags.suite not in HAVE_TARGETS:
        raise UsageError(
            f"--strict needs rows with targets, which the suite {flags.suite} does not have; use "
            f"--suite={', '.join(HAVE_TARGETS)}."
        )
    check_output(flags.json, "--json")
    check_output(flags.picture, "--picture")
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
    short = [row for row in rows if isinstance(row, Row) and not row.reaches()]
    if short:
        names = ", ".join(f"{row.name} ({row.ratio:.2f} of {row.target:g})" for row in short)
        sentence = f"{len(short)} of {len(rows)} rows fall short of their targets: {names}."
        if flags.strict:
            raise RunError(sentence)
        print(sentence)
    if flags.picture is not None:
        title = f"One layer on one sequence of 128 features, float32, {device}"
        plot_layers(rows, flags.picture, title=title)


if __name__ == "__main__":
    run_command(main)
