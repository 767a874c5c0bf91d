"""One figure of the benchmark."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Row:
    """A ratio that should reach ``target``; larger is better."""

    name: str
    ratio: float
    target: float
    detail: dict[str, dict[str, float]]
    """What it was made of, by unit and by name."""

    def __str__(self) -> str:
        parts = (
            f"{unit}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            for unit, values in self.detail.items()
        )
        return f"{self.name:<24}{self.ratio:>9.2f}  target {self.target:<4g}  {'; '.join(parts)}"
