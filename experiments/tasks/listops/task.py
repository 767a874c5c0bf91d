"""ListOps: the values of nested expressions of MIN, MAX, MED and SM.

Long Range Arena asks for the value of an expression. DLR has longer expressions, and asks for the
value of every sub-expression. Examples are synthetic: example `i` of a split is a pure function of
`(seed, split, i)`, so nothing is stored and any worker can draw any example.

A node at depth d (the root has depth 1) is an operator with probability `p_operator` if
d < `max_depth`, else a digit. An operator has 2 to `max_args` arguments. All choices are uniform. A
tree is kept if `min_length` < length < `max_length`, where the length counts each operator twice,
for its closing bracket. MED is the median rounded down, SM the sum modulo 10.

The published sets have no expression twice, and no two sub-trees that differ in digits only.
Independent examples cannot guarantee that, but the odds of a repetition are negligible. Two
expressions of one shape with d digits and o operators agree with probability 10^-d 4^-o, which is
below 40^(-n / 3) for n = 2 o + d tokens: below 1e-267 for any two of ListOps, and below
4^-700 < 1e-421 for the operators alone of two sub-trees. With options that make expressions of a
few tokens the splits do overlap.

Tokens are `<pad>`, `<unk>`, for ListOps `<eos>`, then `TOKENS`. The published order of `TOKENS`, by
frequency in the training data, differs between data sets; no result depends on it.

Example:
    >>> evaluate_expression("[MAX 2 [MED 3 9 8 1 ] [SM 5 6 ] ]").tolist()
    [-100, -100, -100, -100, -100, -100, -100, 5, -100, -100, -100, 1, 5]

References:
    Nangia and Bowman, "ListOps", 2018, https://arxiv.org/abs/1804.06028.
    Tay et al., "Long Range Arena", 2021, https://arxiv.org/abs/2011.04006.
    Gupta et al., "DLR", 2022, https://arxiv.org/abs/2212.00768.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.sources import DEFAULT_PATHS, Batch, DataOptions, DrawnSource, Files, Split
from experiments.errors import check_positive, check_share, choose
from experiments.tasks._task import Task, cross_entropy, token_inputs
from experiments.tasks.listops.core import (
    CLOSE,
    IGNORED,
    MIN,
    TREES,
    Rules,
    draw_expressions,
    evaluate,
)

TOKENS = (*"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]")
"""The tokens of expressions."""
EOS = 2


def evaluate_expression(expression: str) -> np.ndarray:
    """Computes the value of every sub-expression, by the code that labels the examples.

    Args:
        expression: ``TOKENS`` separated by blanks. Round brackets, which group arguments in the
            official files, are ignored, and ``X`` is another closing bracket.

    Returns:
        Integers of shape ``(length,)``: the value of a sub-expression at its closing bracket,
        elsewhere -100.

    Raises:
        ValueError: for an unknown token, or if brackets do not match.

    Example:
        >>> evaluate_expression("[SM 7 [MIN 4 6 ] ]").tolist()
        [-100, -100, -100, -100, -100, 4, 1]
    """
    codes = {token: code for code, token in enumerate(TOKENS)} | {"X": CLOSE}
    words = [word for word in expression.split() if word not in ("(", ")")]
    tokens = np.array([choose("token", word, codes) for word in words], np.uint8)
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
    """Data: the number of expressions, and their law."""

    n_train: int = 96_000
    n_validation: int = 2_000
    n_test: int = 2_000
    max_depth: int
    """Levels of an expression, including the level of the deepest digits."""
    max_args: int
    """Largest number of arguments of an operator; the smallest is 2."""
    p_operator: float = 0.25
    """Probability that an argument is an expression instead of a digit."""
    min_length: int
    """Exclusive lower bound on the length of an expression [tokens]."""
    max_length: int
    """Exclusive upper bound on the length of an expression [tokens]."""

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
        """Length of a sequence with padding: the next power of two, as published [tokens]."""
        return 2 ** (self.max_length - 1).bit_length()


class ExpressionSource(DrawnSource):
    """Random access to the expressions of one split, safe to read from many threads."""

    first: ClassVar[int]
    """The token of digit 0; the other ``TOKENS`` follow it."""

    def __init__(self, options: ExpressionOptions, *, seed: int, split: Split) -> None:
        n_examples = options.n_examples(split)
        super().__init__(options, seed=seed, split=split, n_examples=n_examples)
        self._rules = Rules(
            options.max_depth,
            options.max_args,
            _binomial(options.max_args, options.p_operator),
            options.min_length,
            options.max_length,
            self.first,
        )

    def draw(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        """Draws expressions.

        Args:
            indices: indices of the examples, integers of shape ``(B,)``.

        Returns:
            ``tokens``, uint8 of shape ``(B, padded_length)``, 0 beyond the end; ``values``, int8 of
            the same shape, the value of a sub-expression as a token at its closing bracket,
            elsewhere -100; ``lengths`` without padding, and ``roots``, the values of whole
            expressions, int32 of shape ``(B,)``.

        Raises:
            ValueError: if no expression of an allowed length was found.
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
        address = (self.seed, self.stream, indices)
        results = (tokens, values, lengths, roots)
        drawn = draw_expressions(self._rules, *address, *scratch, *results)
        if drawn < n:
            raise ValueError(
                f"{type(self).__name__}: none of {TREES:,} trees has an allowed length (example "
                f"{indices[drawn]}) under {options}; set `min_length` and `max_length` further "
                "apart, or change `max_depth`, `max_args` or `p_operator`."
            )
        return results


class ListOpsSource(ExpressionSource):
    """Expressions that end with ``<eos>``: ``token``, ``length``, ``label``."""

    first = 3

    def draw_columns(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Draws examples, see :meth:`draw`."""
        tokens, _, lengths, roots = self.draw(indices)
        tokens[np.arange(len(indices)), lengths] = EOS
        return {"token": tokens, "length": lengths + 1, "label": roots}


class SubTreesSource(ExpressionSource):
    """Expressions and the values of all sub-expressions: ``token``, ``length``, ``label``."""

    first = 2

    def draw_columns(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Draws examples, see :meth:`draw`."""
        tokens, values, lengths, _ = self.draw(indices)
        return {"token": tokens, "length": lengths, "label": values}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListOpsOptions(ExpressionOptions):
    """Data: the number of expressions, and their law."""

    max_depth: int = 10
    max_args: int = 10
    min_length: int = 500
    max_length: int = 2_000
    vocabulary_size: int = 18
    """Size of the vocabulary, of which 18 tokens occur; the published S5 has 20."""

    def __post_init__(self) -> None:
        super().__post_init__()
        needed = ListOpsSource.first + len(TOKENS)
        if self.vocabulary_size < needed:
            raise ValueError(
                f"{type(self).__name__}: `vocabulary_size` must be at least {needed}; "
                f"got {self.vocabulary_size}."
            )


class ListOps(Task):
    """Classification of expressions by their value."""

    options_type = ListOpsOptions
    encoder = "tokens"
    d_output = 10
    mask_share = 0.1

    def __init__(self, options: ListOpsOptions, files: Files = DEFAULT_PATHS) -> None:
        super().__init__(options, files)
        self.d_input, self.length = options.vocabulary_size, options.padded_length

    def source(self, split: Split, *, seed: int) -> ListOpsSource:
        """Returns tokens, lengths and values, drawn on access."""
        return ListOpsSource(self.options, seed=seed, split=split)

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns tokens ``u`` of shape ``(B, length)``, and ``lengths``."""
        return token_inputs(batch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SubTreesOptions(ExpressionOptions):
    """Data: the number of expressions, and their law."""

    max_depth: int = 15
    max_args: int = 9
    min_length: int = 7_000
    max_length: int = 8_180


class ListOpsSubTrees(Task):
    """Classification of every sub-expression by its value, at its closing bracket.

    Inputs and outputs share one vocabulary: the class of a value is the token of its digit.
    """

    options_type = SubTreesOptions
    head = "label"
    encoder = "tokens"
    causal = True
    mask_share = 0.1
    d_input = d_output = SubTreesSource.first + len(TOKENS)

    def __init__(self, options: SubTreesOptions, files: Files = DEFAULT_PATHS) -> None:
        super().__init__(options, files)
        self.length = options.padded_length

    def source(self, split: Split, *, seed: int) -> SubTreesSource:
        """Returns tokens, lengths and values, drawn on access."""
        return SubTreesSource(self.options, seed=seed, split=split)

    @property
    def quantities(self) -> dict[str, tuple[int, ...]]:
        """Sums over the brackets of an example, and its share of the mean loss of the batch."""
        return dict.fromkeys(("loss", "cross_entropy", "correct", "brackets"), ())

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns tokens ``u`` of shape ``(B, length)``, and ``lengths``."""
        return token_inputs(batch)

    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        r"""Computes the mean loss over all closing brackets of the batch.

        .. math:: \ell = \frac{\sum_{i, t} -\log \mathrm{softmax}(z_{it})_{y_{it}}}{\sum_i n_i}

        Example :math:`i` of :math:`B` has :math:`n_i` brackets; its ``loss`` is :math:`B` times its
        part of the sum.
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
        """Computes means over all closing brackets of the split, not over means of batches."""
        return {
            "loss": float(means["cross_entropy"] / means["brackets"]),
            "accuracy": float(means["correct"] / means["brackets"]),
        }


def _binomial(n_max: int, p: float) -> np.ndarray:
    """Returns at ``[n, k]`` the probability of at most k of n independent events."""
    mass = np.zeros((n_max + 1, n_max + 1))
    mass[0, 0] = 1
    for n in range(n_max):
        mass[n + 1] = (1 - p) * mass[n]
        mass[n + 1, 1:] += p * mass[n, :-1]
    return np.where(np.tri(n_max + 1, k=-1) == 1, np.cumsum(mass, axis=1), 1)
