"""ListOps: what is a nested expression of MIN, MAX, MED and SM worth?

The expressions of the Long Range Arena and, longer and with the value of every sub-expression to
predict, of DLR. They are drawn on the fly: example `i` of a split is a pure function of
`(seed, split, i)`, so nothing is stored and any worker can draw any example.

A node at depth d, the root at depth 1, is an operator with probability `p_operator` if
d < `max_depth`, else a digit; an operator has 2 to `max_args` arguments; all choices are uniform. A
tree is kept if `min_length` < length < `max_length`, where the length counts each operator twice,
for its closing bracket. MED is the median rounded down, SM the sum modulo 10.

The published sets hold no expression twice, in the sub-trees not even two that differ in digits
only. Examples that know nothing of each other cannot promise that, but the odds are small enough.
Two expressions of one shape with d digits and o operators agree with probability 10^-d 4^-o, which
is below 40^(-n / 3) for n = 2 o + d tokens: below 1e-267 for any two of ListOps, and below
4^-700 < 1e-421 for the operators alone of two sub-trees. With options that make expressions of a
few tokens the splits do overlap.

Tokens are `<pad>`, `<unk>`, for ListOps `<eos>`, then `TOKENS`. The published order of the latter,
by frequency in the training data, differs between data sets; no result depends on it.

Example:
    >>> evaluate_expression("[MAX 2 [MED 3 9 8 1 ] [SM 5 6 ] ]").tolist()
    [-100, -100, -100, -100, -100, -100, -100, 5, -100, -100, -100, 1, 5]

References:
    Nangia and Bowman, "ListOps: A Diagnostic Dataset for Latent Tree Learning", 2018,
    https://arxiv.org/abs/1804.06028.
    Tay et al., "Long Range Arena: A Benchmark for Efficient Transformers", 2021,
    https://arxiv.org/abs/2011.04006.
    Gupta, Mehta and Berant, "Simplifying and Understanding State Space Models with Diagonal Linear
    RNNs", 2022, https://arxiv.org/abs/2212.00768.
"""

import dataclasses
import operator
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from experiments.errors import check_positive, check_share, pick
from experiments.tasks._listops_core import (
    CLOSE,
    IGNORED,
    MIN,
    TREES,
    Rules,
    draw_expressions,
    evaluate,
)
from experiments.tasks._task import (
    HERE,
    Batch,
    DataOptions,
    Files,
    Source,
    Split,
    Task,
    cross_entropy,
    measure_classification,
)

TOKENS = (*"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]")
"""What expressions consist of."""
EOS = 2
_STREAMS = {"train": 0, "validation": 1, "test": 2}


def evaluate_expression(expression: str) -> np.ndarray:
    """The value of every sub-expression, by the code that labels the examples.

    Args:
        expression: ``TOKENS`` with blanks between them; round brackets, with which the official
            files group arguments, count for nothing, and ``X`` is a closing bracket, too.

    Returns:
        Integers of shape ``(length,)``: at each closing bracket the value of what it closes,
        elsewhere -100.

    Raises:
        ValueError: for an unknown token, or if brackets do not match.

    Example:
        >>> evaluate_expression("[SM 7 [MIN 4 6 ] ]").tolist()
        [-100, -100, -100, -100, -100, 4, 1]
    """
    codes = {token: code for code, token in enumerate(TOKENS)} | {"X": CLOSE}
    words = [word for word in expression.split() if word not in ("(", ")")]
    tokens = np.array([pick("token", word, codes) for word in words], np.uint8)
    steps = (tokens >= MIN).astype(np.int64) - 2 * (tokens == CLOSE)
    depth = np.cumsum(steps)
    closes_once = len(tokens) > 1 and depth[-1] == 0 and (depth[:-1] > 0).all()
    if not closes_once or ((steps[:-1] == 1) & (steps[1:] == -1)).any():
        raise ValueError(
            "evaluate_expression: `expression` must be one operator with all its arguments and its "
            f"closing bracket, such as '[MAX 2 9 ]'; got {expression!r}."
        )
    n = len(tokens)
    values = np.empty(n, np.int8)
    stack, counts = np.empty((n, 3), np.int64), np.empty((n, 10), np.int64)
    evaluate(tokens, 0, stack, counts, values)
    return values


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExpressionOptions(DataOptions):
    """Data: how expressions are drawn, and how many."""

    n_train: int = 96_000
    """Training examples."""
    n_validation: int = 2_000
    """Validation examples, by which the best checkpoint is chosen."""
    n_test: int = 2_000
    """Test examples, used once, at the end."""
    max_depth: int
    """Levels of an expression, that of the deepest digits included."""
    max_args: int
    """Most arguments of an operator; the fewest are 2."""
    p_operator: float = 0.25
    """Probability that an argument is an expression, not a digit."""
    min_length: int
    """Expressions are longer than this [tokens]."""
    max_length: int
    """Expressions are shorter than this [tokens]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, min_length=self.min_length)
        check_share(self, p_operator=self.p_operator)
        for name in ("max_depth", "max_args"):
            if getattr(self, name) < 2:
                raise ValueError(
                    f"{type(self).__name__}: `{name}` must be at least 2; "
                    f"got {getattr(self, name)}."
                )
        if self.max_length < self.min_length + 2:
            raise ValueError(
                f"{type(self).__name__}: `max_length` must exceed `min_length` by 2 or more, as "
                f"both are excluded; got {self.max_length} and {self.min_length}."
            )

    @property
    def padded_length(self) -> int:
        """Tokens of a sequence with its padding: the next power of two, as published."""
        return 2 ** (self.max_length - 1).bit_length()


class ExpressionSource(Source):
    """Random access to the expressions of one split, safe to read from many threads.

    Args:
        options: how expressions are drawn.
        seed: seed of the whole data set, at least 0.
        split: ``"train"``, ``"validation"`` or ``"test"``: three independent streams of examples.

    Raises:
        ValueError: if an argument is out of range.
    """

    first: ClassVar[int]
    """The token of digit 0; those of the other ``TOKENS`` follow."""

    def __init__(self, options: ExpressionOptions, *, seed: int, split: Split) -> None:
        stream = pick("split", split, _STREAMS)
        if not 0 <= seed < 2**63:
            raise ValueError(f"{type(self).__name__}: `seed` must be in [0, 2**63); got {seed}.")
        self.options, self.seed, self.split = options, seed, split
        self._stream = stream
        self._rules = Rules(
            options.max_depth,
            options.max_args,
            _binomial(options.max_args, options.p_operator),
            options.min_length,
            options.max_length,
            self.first,
        )

    def __len__(self) -> int:
        return self.options.n_examples(self.split)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Draws one example: a row of a batch.

        Raises:
            IndexError: if ``index`` is negative or not below the number of examples.
            ValueError: if no expression was found that has the length asked for.
        """
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(
                f"{type(self).__name__}: index must be in [0, {len(self)}); got {index}."
            )
        batch = self.batch(np.array([index]), epoch=0)
        return {name: column[0] for name, column in batch.items()}

    def draw(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        """Draws examples.

        Args:
            indices: which examples, integers of shape ``(B,)``.

        Returns:
            ``tokens``, uint8 of shape ``(B, padded_length)``, 0 beyond the end; ``values``, int8 of
            the same shape, at each closing bracket the token of what it closes, elsewhere -100;
            ``lengths`` without padding, and ``roots``, the value of the whole, int32 of shape
            ``(B,)``.

        Raises:
            ValueError: if no expression was found that has the length asked for.
        """
        options, n = self.options, len(indices)
        scratch = (
            np.empty(1, np.uint64),
            np.empty((options.max_length // 3, 2), np.int64),
            np.empty((options.max_depth, 3), np.int64),
            np.empty((options.max_depth, 10), np.int64),
        )
        tokens = np.empty((n, options.padded_length), np.uint8)
        values = np.empty((n, options.padded_length), np.int8)
        lengths, roots = np.empty(n, np.int32), np.empty(n, np.int32)
        address = (self.seed, self._stream, indices)
        results = (tokens, values, lengths, roots)
        drawn = draw_expressions(self._rules, *address, *scratch, *results)
        if drawn < n:
            raise ValueError(
                f"{type(self).__name__}: none of {TREES:,} trees has the length asked for (example "
                f"{indices[drawn]}) under {options}; set `min_length` and `max_length` further "
                "apart, or change `max_depth`, `max_args` or `p_operator`."
            )
        return results


class ListOpsSource(ExpressionSource):
    """Expressions that end with ``<eos>``: ``token``, ``length``, ``label``."""

    first = 3

    def batch(self, indices: np.ndarray, *, epoch: int) -> dict[str, np.ndarray]:
        """Draws examples, the same in every epoch; arguments and errors of `draw`."""
        del epoch
        tokens, _, lengths, roots = self.draw(indices)
        tokens[np.arange(len(indices)), lengths] = EOS
        return {"token": tokens, "length": lengths + 1, "label": roots}


class SubTreesSource(ExpressionSource):
    """Expressions and the values of all their parts: ``token``, ``length``, ``label``."""

    first = 2

    def batch(self, indices: np.ndarray, *, epoch: int) -> dict[str, np.ndarray]:
        """Draws examples, the same in every epoch; arguments and errors of `draw`."""
        del epoch
        tokens, values, lengths, _ = self.draw(indices)
        return {"token": tokens, "length": lengths, "label": values}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListOpsOptions(ExpressionOptions):
    """Data: how expressions are drawn, and how many."""

    max_depth: int = 10
    """Levels of an expression, that of the deepest digits included."""
    max_args: int = 10
    """Most arguments of an operator; the fewest are 2."""
    min_length: int = 500
    """Expressions are longer than this [tokens]."""
    max_length: int = 2_000
    """Expressions are shorter than this [tokens]."""
    vocabulary_size: int = 18
    """Entries of the vocabulary, 18 of which occur; the published S5 has 20."""

    def __post_init__(self) -> None:
        super().__post_init__()
        needed = ListOpsSource.first + len(TOKENS)
        if self.vocabulary_size < needed:
            raise ValueError(
                f"{type(self).__name__}: `vocabulary_size` must be at least {needed}; "
                f"got {self.vocabulary_size}."
            )


class ListOps(Task):
    """Expressions in, the digit that they are worth out."""

    options_type = ListOpsOptions
    encoder = "tokens"
    d_output = 10

    def __init__(self, options: ListOpsOptions, files: Files = HERE) -> None:
        super().__init__(options, files)
        self.d_input, self.length = options.vocabulary_size, options.padded_length

    def source(self, split: Split, *, seed: int) -> ListOpsSource:
        """Tokens, lengths and values; drawn when they are read."""
        return ListOpsSource(self.options, seed=seed, split=split)

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Tokens ``u`` of shape ``(B, length)``, and ``lengths``."""
        return _inputs(batch)

    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Cross entropy and accuracy."""
        return measure_classification(outputs, batch["label"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class SubTreesOptions(ExpressionOptions):
    """Data: how expressions are drawn, and how many."""

    max_depth: int = 15
    """Levels of an expression, that of the deepest digits included."""
    max_args: int = 9
    """Most arguments of an operator; the fewest are 2."""
    min_length: int = 7_000
    """Expressions are longer than this [tokens]."""
    max_length: int = 8_180
    """Expressions are shorter than this [tokens]."""


class ListOpsSubTrees(Task):
    """Expressions in, at each closing bracket the value of what it closes out.

    Inputs and outputs share one vocabulary: the class of a value is the token of its digit.
    """

    options_type = SubTreesOptions
    head = "label"
    encoder = "tokens"
    causal = True
    d_input = d_output = SubTreesSource.first + len(TOKENS)

    def __init__(self, options: SubTreesOptions, files: Files = HERE) -> None:
        super().__init__(options, files)
        self.length = options.padded_length

    def source(self, split: Split, *, seed: int) -> SubTreesSource:
        """Tokens, lengths and values; drawn when they are read."""
        return SubTreesSource(self.options, seed=seed, split=split)

    @property
    def quantities(self) -> dict[str, tuple[int, ...]]:
        """Sums over the brackets of an example, and its share of the batch's mean loss."""
        return dict.fromkeys(("loss", "cross_entropy", "correct", "brackets"), ())

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Tokens ``u`` of shape ``(B, length)``, and ``lengths``."""
        return _inputs(batch)

    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        r"""What is minimised is the mean over all closing brackets of the batch.

        .. math:: \ell = \frac{\sum_{i, t} -\log \mathrm{softmax}(z_{it})_{y_{it}}}{\sum_i n_i}

        with :math:`n_i` brackets in example :math:`i` of :math:`B`; :math:`B` times its part of the
        sum is its ``loss``.
        """
        labels = batch["label"].astype(jnp.int32)
        labelled = labels != IGNORED
        losses = cross_entropy(outputs, jnp.where(labelled, labels, 0))
        total = jnp.sum(losses, axis=1, where=labelled, dtype=jnp.float32)
        brackets = jnp.sum(labelled, axis=1, dtype=jnp.float32)
        hits = labelled & (jnp.argmax(outputs, axis=-1) == labels)
        return {
            "loss": total / brackets.mean(),
            "cross_entropy": total,
            "correct": jnp.sum(hits, axis=1, dtype=jnp.float32),
            "brackets": brackets,
        }

    def report(self, means: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Means over all closing brackets of the split, not of means over batches."""
        return {
            "loss": float(means["cross_entropy"] / means["brackets"]),
            "accuracy": float(means["correct"] / means["brackets"]),
        }


def _inputs(batch: Batch) -> dict[str, jax.Array]:
    return {"u": batch["token"].astype(jnp.int32), "lengths": batch["length"]}


def _binomial(n_max: int, p: float) -> np.ndarray:
    """Entry ``[n, k]``: the probability that at most k of n events of probability p happen."""
    mass = np.zeros((n_max + 1, n_max + 1))
    mass[0, 0] = 1
    for n in range(n_max):
        mass[n + 1] = (1 - p) * mass[n]
        mass[n + 1, 1:] += p * mass[n, :-1]
    return np.where(np.tri(n_max + 1, k=-1) == 1, np.cumsum(mass, axis=1), 1)
