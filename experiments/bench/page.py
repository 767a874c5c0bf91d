"""The page of ``--suite=gpu``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.bench.measure import Measured
from experiments.bench.report import Outcome

INTRODUCTION = """\
Measured by `make gpu-report`; [docs/accelerators.md](../../docs/accelerators.md) describes the
programs. *Bytes* is the time in which the device copies as many bytes as the kernels of a program
read and write, counted in the text of that program. *Temporary* is what the compiler plans besides
arguments and results. *Peak* is the most memory that the process had in use, including the
compiler's trials. Two numbers in a cell are the forward pass, and the forward and backward pass
together."""
Column = Callable[[Measured], str]


def _number(value: float | None, scale: float = 1, form: str = ",.0f") -> str:
    return "-" if value is None else format(scale * value, form)


TIMES: dict[str, Column] = {
    "time, ms": lambda row: _number(row.seconds, 1e3, ",.3f"),
    "bytes, ms": lambda row: _number(row.bound_s, 1e3, ",.3f"),
    "time / bytes": lambda row: _number(row.times_bound, form=",.1f"),
    "moved, MB": lambda row: _number(row.moved, 1e-6),
    "temporary, MB": lambda row: _number(row.temporary, 1e-6),
    "peak, MB": lambda row: _number(row.peak, 1e-6),
    "kernels": lambda row: _number(row.launches),
}
TOKENS: dict[str, Column] = {
    "million time steps a second": lambda row: _number(row.tokens_per_s, 1e-6, ",.2f")
}
VALUES: dict[str, Column] = {
    "outputs": lambda row: _number(row.outputs, form=".1e"),
    "gradients": lambda row: _number(row.gradients, form=".1e"),
}
PROFILES: dict[str, Column] = {
    "moved, MB": TIMES["moved, MB"],
    "profiler, MB": lambda row: _number(row.profiled, 1e-6),
}


def write_page(where: Mapping[str, Any], rows: Sequence[Outcome | Measured]) -> str:
    """Returns the report as Markdown: times, values, bytes of the profiler, and what is missing."""
    roofline, versions = where["roofline"], where["versions"]
    measured = [row for row in rows if isinstance(row, Measured)]
    layers = [row for row in measured if row.job.case.mode != "step"]
    steps = [row for row in measured if row.job.case.mode == "step"]
    parts = [
        f"# {where['device']}",
        INTRODUCTION,
        f"The device copies {roofline['bytes_per_s'] / 1e9:,.0f} GB/s and multiplies float32 "
        f"matrices at {roofline['flops_per_s'] / 1e12:,.1f} TFLOP/s.",
        f"Versions: jax {versions['jax']}, jaxlib {versions['jaxlib']}, commit {where['commit']}.",
        *(f"Tests marked `gpu`: {row.summary}" for row in rows if isinstance(row, Outcome)),
        _table("One layer: time and memory", layers, "time", TIMES),
        _table("Train step", steps, "time", {**TOKENS, **TIMES}),
        _table("Largest deviation from float64 on the CPU", layers, "values", VALUES),
        _table("Bytes that the hardware counts", layers, "profile", PROFILES),
        _failures([row for row in measured if row.failure]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(title: str, rows: Sequence[Measured], kind: str, columns: Mapping[str, Column]) -> str:
    """Writes a table with a line for each program; its passes share the line."""
    lines: dict[str, list[Measured]] = {}
    for row in rows:
        if row.job.kind == kind and not row.failure:
            lines.setdefault(_program(row), []).append(row)
    if not lines:
        return ""
    names = ("program", *columns)
    body = [
        (label, *(" / ".join(map(column, _forward_first(line))) for column in columns.values()))
        for label, line in lines.items()
    ]
    text = [f"| {' | '.join(cells)} |" for cells in (names, ["---"] * len(names), *body)]
    return "\n".join([f"## {title}", "", *text])


def _program(row: Measured) -> str:
    case = row.job.case
    depth = f", depth {case.n_layers}" if case.mode == "step" else ""
    algorithm = row.algorithm or case.algorithm
    return f"{case.name}{depth}, `{algorithm}`, {case.dtype}, {case.batch} x {case.length:,}"


def _forward_first(line: Sequence[Measured]) -> list[Measured]:
    return sorted(line, key=lambda row: len(row.job.case.mode))


def _failures(rows: Sequence[Measured]) -> str:
    """Lists what was not measured, by reason."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        name = f"{row.job.kind} of {_program(row)}, {row.job.case.mode}"
        reasons.setdefault(str(row.failure), []).append(name)
    text = [f"- {reason}: {'; '.join(names)}." for reason, names in reasons.items()]
    return "\n".join(["## Not measured", "", *text]) if text else ""
