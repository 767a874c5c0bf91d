"""Options of a set of an archive: its name, its splits and its inputs."""

import dataclasses

from experiments.data.sources import DataOptions
from experiments.errors import UsageError, check_not_negative


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArchiveOptions(DataOptions):
    """Data: one set of an archive."""

    name: str = ""
    """Name of the set, as its files have it: NAME_TRAIN.ts and NAME_TEST.ts."""
    n_train: int = 0
    """Training series; 0 means 70 % of all."""
    n_validation: int = 0
    """Validation series, which select the best checkpoint; 0 means 15 % of all."""
    n_test: int = 0
    """Test series, used once, at the end; 0 means 15 % of all."""
    time: bool = False
    """Time is the first input, from 0 at the first step to 1 after the last."""
    standardise: bool = False
    """Standardise dimensions, and targets that are values, by the training series."""

    def __post_init__(self) -> None:
        sizes = {"n_train": self.n_train, "n_validation": self.n_validation}
        check_not_negative(self, **sizes, n_test=self.n_test)
        if set(self.name) & set("/\\:") or self.name.startswith("."):
            raise UsageError(
                "ArchiveOptions: `name` must be the name of a set, such as EigenWorms; got "
                f"{self.name!r}. Set --data-dir to the folder of the data."
            )

    @property
    def data_set(self) -> str:
        """The name of the set."""
        return self.name
