"""The base class of language models."""

import abc
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.sources import Batch
from experiments.tasks._task import Task


class LanguageTask(Task):
    """A task of next tokens: a column ``token`` with one more token than the model reads.

    ``inputs`` passes the targets to the model, whose outputs are the losses of the tokens.
    """

    head = "language"
    encoder = "tokens"
    causal = True
    larger_is_better = False
    n_new: ClassVar[int] = 200
    """Default number of tokens that `experiments.generate` adds."""

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns all tokens but the last, and as targets all but the first: ``(B, length)``."""
        tokens = batch["token"].astype(jnp.int32)
        return {"u": tokens[:, :-1], "targets": tokens[:, 1:]}

    @abc.abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """Encodes a prompt as tokens, int32.

        Raises:
            UsageError: if the prompt is empty or has an unknown part.
        """

    @abc.abstractmethod
    def decode(self, tokens: np.ndarray) -> str:
        """Decodes tokens to a text for people."""
