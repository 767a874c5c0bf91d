"""The table of claims, and one claim in full."""

from collections.abc import Iterable
from pathlib import Path

from experiments.evidence.finding import Claim

HEADER = ("claim", "paper", "status", "figure", "where")


def make_table(claims: Iterable[Claim], folder: Path) -> str:
    """Formats a Markdown table with a row for each claim.

    Args:
        claims: the claims.
        folder: the records, as in ``results/``.
    """
    rows = [HEADER, ["---"] * len(HEADER)]
    for claim in claims:
        found = claim.evidence(folder)
        text = f"`{claim.name}`: {claim.text}"
        rows.append([text, claim.paper, found.status, found.figure, claim.where])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def describe(claim: Claim, folder: Path) -> str:
    """Returns everything about one claim, with the commands that show it."""
    found = claim.evidence(folder)
    figure = f" ({found.figure})" if found.figure else ""
    lines = [
        f"{claim.name} ({claim.paper}): {claim.text}",
        f"Status: {found.status}{figure}",
        f"Where: {claim.where}",
        *(f"    {command}" for command in claim.commands),
    ]
    return "\n".join(lines)
