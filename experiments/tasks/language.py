"""Language models: what their tasks share, and the bytes of any text."""

import abc
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from experiments.errors import UsageError, check_positive
from experiments.tasks._task import (
    HERE,
    Batch,
    DataOptions,
    Files,
    Source,
    Split,
    Task,
    absolute_path,
    digest,
)
from experiments.tasks._windows import EvalWindows, TrainWindows


class LanguageTask(Task):
    """A task of next tokens: a column ``token`` with one token more than the model reads.

    ``inputs`` hands the model its targets, so that outputs are the tokens' losses.
    """

    head = "language"
    encoder = "tokens"
    causal = True
    larger_is_better = False
    n_new: ClassVar[int] = 200
    """Tokens that `experiments.generate` adds if not told otherwise."""

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """All tokens but the last, and as targets all but the first: ``(B, length)`` each."""
        tokens = batch["token"].astype(jnp.int32)
        return {"u": tokens[:, :-1], "targets": tokens[:, 1:]}

    @abc.abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """The tokens of a prompt, int32.

        Raises:
            UsageError: if the prompt is empty or has what the model does not know.
        """

    @abc.abstractmethod
    def decode(self, tokens: np.ndarray) -> str:
        """What tokens stand for, to be read by people."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CharsOptions(DataOptions):
    """Data: which text, and how it is cut."""

    file: str | None = None
    """A text; without it, the reference manual that comes with Python, which differs a little from
    version to version."""
    length: int = 1_024
    """Bytes that the model predicts at a time."""
    n_train: int = 10_000
    """Training windows an epoch, at random places."""
    n_validation: int = 40
    """Validation windows: so many times length are held out before those of the test."""
    n_test: int = 40
    """Test windows: so many times length are held out at the end of the text."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, length=self.length)
        if self.file is not None:  # found from any folder
            object.__setattr__(self, "file", absolute_path(self.file))


class Chars(LanguageTask):
    """The next byte of a text in UTF-8: any text, any language, 256 tokens."""

    options_type = CharsOptions
    measures = ("loss", "bits_per_character")
    metric = "bits_per_character"
    d_input = 256
    d_output = 256

    def __init__(self, options: CharsOptions, files: Files = HERE) -> None:
        super().__init__(options, files)
        self.length = options.length

    def source(self, split: Split, *, seed: int) -> Source:
        """Windows: drawn anew each epoch for training, all of the part once for evaluation."""
        text, o = self._text(), self.options
        held_out = (o.n_validation + o.n_test) * o.length
        n_train = len(text) - held_out
        if n_train <= o.length:
            raise UsageError(
                f"A text of {len(text):,} bytes is too short: validation and test take {held_out:,}"
                f" of it, and training needs more than {o.length:,}. Lower --data.length, "
                "--data.n_validation and --data.n_test, or take a longer text."
            )
        if split == "train":
            return TrainWindows(text[:n_train], o.length, o.n_train, seed=seed)
        start = n_train if split == "validation" else len(text) - o.n_test * o.length
        return EvalWindows(text[start - 1 :], o.length, o.n_examples(split))

    def fingerprint(self, *, seed: int) -> dict[str, Any]:
        """Size and digest of the text."""
        del seed
        text = self._text()
        return {"bytes": len(text), "sha256": digest({"text": text})}

    @property
    def quantities(self) -> dict[str, tuple[int, ...]]:
        """What the mean over all characters is made of."""
        return {"loss": (), "nats": (), "characters": ()}

    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Mean loss of each window's bytes; its sum; and how many characters begin there."""
        is_first = (batch["token"][:, 1:] & 0xC0) != 0x80
        return {
            "loss": outputs.mean(-1),
            "nats": outputs.sum(-1),
            "characters": is_first.sum(-1).astype(jnp.float32),
        }

    def report(self, means: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Nats a byte, and bits a character over the whole split, not a mean over windows."""
        bits = float(means["nats"]) / max(float(means["characters"]), 1e-9) / math.log(2)
        return {"loss": float(means["loss"]), "bits_per_character": bits}

    def encode(self, text: str) -> np.ndarray:
        """Bytes in UTF-8."""
        if not text:
            raise UsageError("A prompt must not be empty: the first new byte follows from another.")
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def decode(self, tokens: np.ndarray) -> str:
        """Text; bytes that are no UTF-8 become a replacement character."""
        return tokens.astype(np.uint8).tobytes().decode(errors="replace")

    def _text(self) -> np.ndarray:
        if self.options.file is None:
            return np.frombuffer(_manual().encode(), np.uint8)
        path = Path(self.options.file)
        if not path.is_file():
            raise UsageError(f"No text: {path} is not a file. Give another --data.file=FILE.")
        return np.fromfile(path, np.uint8)


def _manual() -> str:
    from pydoc_data.topics import topics  # half a megabyte, for this only

    return "\n".join(topics[name] for name in sorted(topics))
