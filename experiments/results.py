"""``python -m experiments.results``: the table of reproductions."""

import dataclasses
from pathlib import Path

from experiments.cli.ending import run_command
from experiments.cli.flags import read_flags
from experiments.errors import blaming_file
from experiments.files import replacing
from experiments.training.ledger import make_table, read_ledger, replace_table


@dataclasses.dataclass(frozen=True, kw_only=True)
class LedgerFlags:
    """Builds the table of reproductions from the results.json files of finished runs.

    Example: python -m experiments.results --write=README.md
    """

    folder: Path = Path("results")
    """Folder with one subfolder per run, each with a results.json."""
    write: Path | None = None
    """File in which to replace the table between its two marks."""


def main() -> None:
    """Reads the command line, and prints or writes the table."""
    flags = read_flags(LedgerFlags, prog="python -m experiments.results")
    table = make_table(read_ledger(flags.folder))
    if flags.write is None:
        print(table)
        return
    with blaming_file(flags.write, "text in UTF-8"):
        text = flags.write.read_text(encoding="utf-8")
    text = replace_table(text, table, flags.write)
    with replacing(flags.write) as file:
        file.write(text)
    print(f"Wrote the table to {flags.write}.")


if __name__ == "__main__":
    run_command(main)
