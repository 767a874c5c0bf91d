"""A row of the benchmark."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Row:
    """A ratio that should reach ``target``; larger is better."""

    name: str
    ratio: float
    target: float
    detail: dict[str, dict[str, float]]
    """The measurements behind the ratio, by unit and by name."""

    def reaches(self, share: float = 1.0) -> bool:
        """Returns whether the ratio is at least that share of the target; false for NaN."""
        return self.ratio >= share * self.target

    def __str__(self) -> str:
        parts = (
            f"{unit}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            for unit, values in self.detail.items()
        )
        return f"{self.name:<24}{self.ratio:>9.2f}  target {self.target:<4g}  {'; '.join(parts)}"
