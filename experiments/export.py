"""``python -m experiments.export``: writes a trained model for machines without s5jax."""

from experiments.cli.ending import run_command
from experiments.cli.finished import ExportFlags
from experiments.cli.flags import read_flags
from experiments.cli.process import set_up_process
from experiments.training.export import export_run


def main() -> None:
    """Reads the command line, exports, and lists the files."""
    set_up_process()
    flags = read_flags(ExportFlags, prog="python -m experiments.export", use_underscores=True)
    folder = export_run(flags.workdir, flags.format, flags.out, flags)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        print(f"{file}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    run_command(main)
