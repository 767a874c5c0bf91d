"""``python -m experiments.bench``: measures speed and memory."""

from experiments.bench.picture import plot_layers
from experiments.bench.roofline import measure_roofline
from experiments.bench.row import Row
from experiments.bench.suites import SUITES, BenchFlags, check_flags, write_rows
from experiments.cli.ending import run_command
from experiments.cli.flags import read_flags
from experiments.cli.process import set_up_process
from experiments.devices.mesh import make_mesh
from experiments.errors import RunError
from experiments.records import device_name, environment


def main() -> None:
    """Measures a suite, and prints every row immediately."""
    set_up_process()
    flags = read_flags(BenchFlags, prog="python -m experiments.bench")
    check_flags(flags)
    device, roofline = device_name(make_mesh("data=1", batch_size=1)), measure_roofline()
    print(f"{device}: {roofline}", flush=True)
    where = {"device": device, "roofline": roofline._asdict(), **environment()}
    rows = []
    for row in SUITES[flags.suite](flags, roofline):
        print(row, flush=True)
        rows.append(row)
        write_rows(flags, where, rows)
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
