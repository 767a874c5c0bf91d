"""The table of claims, and one claim in full."""

from collections.abc import Iterable
from pathlib import Path

from experiments.evidence.commands import (
    ATOMIC_LENGTH,
    ATOMIC_MODELS,
    ATOMIC_TASKS,
    atomic_name,
)
from experiments.evidence.finding import Claim, runs_of, values_of
from experiments.training.seeds import mean_and_deviation

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


def make_atomic_table(folder: Path) -> str:
    """Formats a Markdown table of R² by task and model, for the atomic tasks of 512 steps.

    Args:
        folder: the records, as in ``results/``.
    """
    rows = [("task", *ATOMIC_MODELS), ["---"] * (1 + len(ATOMIC_MODELS))]
    for task in ATOMIC_TASKS:
        found = [runs_of(folder, atomic_name(task, ATOMIC_LENGTH, m)) for m in ATOMIC_MODELS]
        rows.append([f"`{task}`", *(mean_and_deviation(values_of(r)) if r else "" for r in found)])
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
