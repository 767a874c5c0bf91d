"""The tables of the page of claims, and one claim in full."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.evidence.claims import CLAIMS
from experiments.evidence.commands import (
    ATOMIC_LENGTH,
    ATOMIC_MODELS,
    ATOMIC_TASKS,
    PRETRAINED_MODELS,
    PRETRAINING_STEPS,
    atomic_name,
    scratch_name,
    tuned_name,
)
from experiments.evidence.finding import Claim, runs_of, values_of
from experiments.training.seeds import mean_and_deviation

HEADER = ("claim", "paper", "status", "figure", "where")


def make_tables(folder: Path) -> dict[str, str]:
    """Formats the Markdown tables of the claims, the atomic tasks and pretraining, by name.

    Args:
        folder: the records, as in ``results/``.
    """
    return {
        "claims": _make_claims_table(folder),
        "atomic tasks": _make_atomic_table(folder),
        "pretraining": _make_pretraining_table(folder),
    }


def _make_claims_table(folder: Path) -> str:
    rows = []
    for claim in CLAIMS:
        found = claim.evidence(folder)
        text = f"`{claim.name}`: {claim.text}"
        rows.append((text, claim.paper, found.status, found.figure, claim.where))
    return _as_markdown(HEADER, rows)


def _make_atomic_table(folder: Path) -> str:
    rows = [
        (
            f"`{task}`",
            *(_figure(folder, atomic_name(task, ATOMIC_LENGTH, model)) for model in ATOMIC_MODELS),
        )
        for task in ATOMIC_TASKS
    ]
    return _as_markdown(("task", *ATOMIC_MODELS), rows)


def _make_pretraining_table(folder: Path) -> str:
    header = (
        "model",
        f"from scratch, {2 * PRETRAINING_STEPS:,} steps",
        f"pretrained {PRETRAINING_STEPS:,} steps, then {PRETRAINING_STEPS:,}",
    )
    rows = [
        (f"`{model}`", _figure(folder, scratch_name(model)), _figure(folder, tuned_name(model)))
        for model in PRETRAINED_MODELS
    ]
    return _as_markdown(header, rows)


def _figure(folder: Path, name: str) -> str:
    runs = runs_of(folder, name)
    return mean_and_deviation(values_of(runs)) if runs else ""


def _as_markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rules = ["---"] * len(header)
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rules, *rows))


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
