"""``python -m experiments.claims``: claims of the papers, and what records here say of them."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from experiments.cli.ending import run_command
from experiments.cli.flags import as_started, read_flags
from experiments.errors import blaming_file, choose
from experiments.evidence import CLAIMS, describe, make_tables
from experiments.files import replacing
from experiments.training.ledger import replace_table


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClaimFlags:
    """Prints the tables of claims, atomic tasks and pretraining, or one claim and its commands.

    Example: python -m experiments.claims dlr-shift
    """

    name: Annotated[str | None, tyro.conf.Positional] = None
    """Claim to describe; by default all, in a table."""
    folder: Path = Path("results")
    """Folder of the records."""
    write: Path | None = None
    """File in which to replace the tables, each between its marks."""


def main() -> None:
    """Reads the command line, and prints or writes."""
    flags = read_flags(ClaimFlags, prog="python -m experiments.claims")
    by_name = {claim.name: claim for claim in CLAIMS}
    if flags.name is not None:
        print(as_started(describe(choose("claim", flags.name, by_name), flags.folder)))
        return
    tables = make_tables(flags.folder)
    if flags.write is None:
        print("\n\n".join(tables.values()))
        return
    with blaming_file(flags.write, "text in UTF-8"):
        text = flags.write.read_text(encoding="utf-8")
    for name, table in tables.items():
        marks = f"<!-- {name}: python -m experiments.claims -->", f"<!-- end of {name} -->"
        text = replace_table(text, table, flags.write, marks=marks)
    with replacing(flags.write) as file:
        file.write(text)
    print(f"Wrote the tables to {flags.write}.")


if __name__ == "__main__":
    run_command(main)
