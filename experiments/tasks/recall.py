r"""Associative recall: the value that followed a key.

An example holds n pairs of a key and a value, a separator, and a query, which is one of its keys:

.. math:: k_1\, v_1\, k_2\, v_2 \dots k_n\, v_n\, |\, k_q, \qquad \text{length} = 2 n + 2

The answer is :math:`v_q`. Half of the vocabulary are keys, the other half values. Each example
draws a value for every key, so that nothing can be learnt by heart; the keys of the pairs and the
queried pair are drawn as well, all of them uniformly and with replacement. Example `i` of a split
is a pure function of `(seed, split, i)`.

The published generators draw the query uniformly among the keys that occur, and not among the
pairs. Hyena's examples of 131,072 tokens have a vocabulary of 30, those of H3 20 tokens and a
vocabulary of 10.

References:
    Fu et al., "H3", 2023, https://arxiv.org/abs/2212.14052.
    Poli et al., "Hyena", 2023, https://arxiv.org/abs/2302.10866.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.sources import DEFAULT_PATHS, Batch, DataOptions, DrawnSource, Files, Split
from experiments.tasks._task import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecallOptions(DataOptions):
    """Data: the length and the vocabulary of the examples."""

    n_train: int = 4_000
    n_validation: int = 500
    n_test: int = 500
    length: int = 131_072
    """Tokens of an example: pairs, a separator and the query."""
    vocabulary: int = 30
    """Keys and values, as many of each; the separator is another token."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, smallest in (("length", 4), ("vocabulary", 4)):
            value = getattr(self, name)
            if value < smallest or value % 2 or value >= 2**31:
                raise ValueError(
                    f"RecallOptions: `{name}` must be an even number of at least {smallest} and "
                    f"below 2**31; got {value}."
                )


class RecallSource(DrawnSource):
    """Pairs of keys and values, and a query: ``token``, ``label``."""

    def draw_columns(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Draws examples; keys count from 0, values from ``vocabulary / 2``."""
        n_keys, n_pairs = self.options.vocabulary // 2, self.options.length // 2 - 1
        token = np.full((len(indices), self.options.length), 2 * n_keys, np.int32)
        label = np.empty(len(indices), np.int32)
        for row, index in enumerate(indices.tolist()):
            seeds = np.random.SeedSequence((self.seed, self.stream, index))
            words = np.random.Philox(seeds).random_raw(n_keys + n_pairs + 1)
            values, keys = words[:n_keys] % n_keys, words[n_keys:-1] % n_keys
            query = keys[words[-1] % n_pairs]
            token[row, :-2:2], token[row, 1:-2:2] = keys, n_keys + values[keys]
            token[row, -1], label[row] = query, values[query]
        return {"token": token, "label": label}


class AssociativeRecall(Task):
    """Classification of examples by the value of the queried key."""

    options_type = RecallOptions
    encoder = "tokens"
    causal = True

    def __init__(self, options: RecallOptions, files: Files = DEFAULT_PATHS) -> None:
        super().__init__(options, files)
        self.length, self.d_input = options.length, options.vocabulary + 1
        self.d_output = options.vocabulary // 2

    def source(self, split: Split, *, seed: int) -> RecallSource:
        """Returns tokens and answers, drawn on access."""
        n_examples = self.options.n_examples(split)
        return RecallSource(self.options, seed=seed, split=split, n_examples=n_examples)

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns tokens ``u`` of shape ``(B, length)``."""
        return {"u": batch["token"].astype(jnp.int32)}

    @property
    def note(self) -> str:
        """The accuracy of a naive baseline, on 500 examples."""
        source = RecallSource(self.options, seed=0, split="validation", n_examples=500)
        examples = [source.draw_columns(np.array([i])) for i in range(len(source))]
        guesses = [most_frequent_value(each["token"][0], self.d_output) for each in examples]
        right = np.mean(guesses == np.concatenate([each["label"] for each in examples]))
        return (
            f"Naive baselines: the most frequent value of an example is right in {right:.1%} of "
            f"examples, any value in {1 / self.d_output:.1%}."
        )


def most_frequent_value(tokens: np.ndarray, n_values: int) -> int:
    """Returns the value that occurs most often in an example, the first of several.

    Args:
        tokens: an example, integers of shape ``(length,)``.
        n_values: number of values, and of keys.

    Example:
        >>> most_frequent_value(np.array([0, 3, 1, 2, 0, 3, 4, 1]), 2)
        1
    """
    return int(np.bincount(tokens[1:-2:2] - n_values).argmax())
