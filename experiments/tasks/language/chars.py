"""Language models of the bytes of any text."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.sources import (
    DEFAULT_PATHS,
    Batch,
    DataOptions,
    Files,
    Source,
    Split,
    absolute_path,
    digest,
)
from experiments.data.windows import EvalWindows, TrainWindows
from experiments.errors import UsageError, check_positive
from experiments.tasks.language.task import LanguageTask


@dataclasses.dataclass(frozen=True, kw_only=True)
class CharsOptions(DataOptions):
    """Data: the text, and its windows."""

    file: str | None = None
    """A text; by default Python's reference manual, which differs slightly between versions."""
    length: int = 1_024
    """Targets of a window [bytes]."""
    n_train: int = 10_000
    """Training windows per epoch, at random positions."""
    n_validation: int = 40
    """Validation windows, which are held out before the test windows."""
    n_test: int = 40
    """Test windows, which are held out at the end of the text."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, length=self.length)
        if self.file is not None:  # valid in any folder
            object.__setattr__(self, "file", absolute_path(self.file))


class Chars(LanguageTask):
    """Prediction of the next byte of a text in UTF-8: any language, 256 tokens."""

    options_type = CharsOptions
    measures = ("loss", "bits_per_character")
    metric = "bits_per_character"
    d_input = 256
    d_output = 256

    def __init__(self, options: CharsOptions, files: Files = DEFAULT_PATHS) -> None:
        super().__init__(options, files)
        self.length = options.length

    def source(self, split: Split, *, seed: int) -> Source:
        """Returns windows: drawn anew in each epoch for training, consecutive for evaluation."""
        text, o = self._text(), self.options
        held_out = (o.n_validation + o.n_test) * o.length
        n_train = len(text) - held_out
        if n_train <= o.length:
            raise UsageError(
                f"A text of {len(text):,} bytes is too short: validation and test take {held_out:,}"
                f", and training needs more than {o.length:,}. Lower --data.length, "
                "--data.n_validation and --data.n_test, or use a longer text."
            )
        if split == "train":
            return TrainWindows(text[:n_train], o.length, o.n_train, seed=seed)
        start = n_train if split == "validation" else len(text) - o.n_test * o.length
        return EvalWindows(text[start - 1 :], o.length, o.n_examples(split))

    def fingerprint(self, *, seed: int) -> dict[str, Any]:
        """Returns the size and the digest of the text."""
        del seed
        text = self._text()
        return {"bytes": len(text), "sha256": digest({"text": text})}

    @property
    def quantities(self) -> dict[str, tuple[int, ...]]:
        """The quantities for the mean over all characters."""
        return {"loss": (), "nats": (), "characters": ()}

    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Returns the mean and the sum of each window's loss, and its number of characters."""
        is_first = (batch["token"][:, 1:] & 0xC0) != 0x80
        return {
            "loss": outputs.mean(-1),
            "nats": outputs.sum(-1),
            "characters": is_first.sum(-1).astype(jnp.float32),
        }

    def report(self, means: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Computes nats per byte, and bits per character over the whole split."""
        bits = float(means["nats"]) / max(float(means["characters"]), 1e-9) / math.log(2)
        return {"loss": float(means["loss"]), "bits_per_character": bits}

    def encode(self, text: str) -> np.ndarray:
        """Encodes a text as bytes in UTF-8."""
        if not text:
            raise UsageError(
                "A prompt must not be empty: the first new byte depends on the byte before it."
            )
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def decode(self, tokens: np.ndarray) -> str:
        """Decodes bytes; bytes that are not UTF-8 become a replacement character."""
        return tokens.astype(np.uint8).tobytes().decode(errors="replace")

    def _text(self) -> np.ndarray:
        if self.options.file is None:
            return np.frombuffer(_manual().encode(), np.uint8)
        path = Path(self.options.file)
        if not path.is_file():
            raise UsageError(f"No text: {path} is not a file. Set another --data.file=FILE.")
        return np.fromfile(path, np.uint8)


def _manual() -> str:
    from pydoc_data.topics import topics  # half a megabyte, only needed here

    return "\n".join(topics[name] for name in sorted(topics))
