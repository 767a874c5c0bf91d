"""Options of CSV files."""

import dataclasses

from experiments.errors import check_not_negative

DELIMITERS = {"tab": "\t", "\\t": "\t", "space": " ", "comma": ",", "semicolon": ";"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CsvOptions:
    """Format of CSV files; options that are None are guessed for all files together."""

    delimiter: str | None = None
    """Character between cells, or "tab" or "space"."""
    decimal: str | None = None
    """The decimal sign, "." or ","."""
    header: int | None = None
    """Lines before the first row of numbers, without blank lines and comments."""
    columns: tuple[str, ...] = ()
    """Features, by name or by number from 1; by default all columns of numbers."""

    def __post_init__(self) -> None:
        delimiter = DELIMITERS.get(self.delimiter or "", self.delimiter)
        object.__setattr__(self, "delimiter", delimiter)
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n#'):
            raise ValueError(
                f"CsvOptions: `delimiter` must be one character, tab or space; got {delimiter!r}."
            )
        if self.decimal not in (None, ".", ","):
            raise ValueError(f"CsvOptions: `decimal` must be '.' or ','; got {self.decimal!r}.")
        check_not_negative(self, header=self.header or 0)

    @property
    def resolved(self) -> tuple[str, str, int]:
        """Delimiter, decimal sign and header of complete options."""
        assert self.delimiter is not None, "it was guessed"
        assert self.decimal is not None, "it was guessed"
        return self.delimiter, self.decimal, self.header or 0
