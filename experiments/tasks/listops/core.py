"""Compiled generator of ListOps: draws expressions and evaluates them.

An expression is in prefix order. The codes 0 to 9 are the digits, the next ones the four operators
and the closing bracket. A token is a code plus `first`, which leaves room for special tokens.
"""

from typing import NamedTuple

import numpy as np

from experiments.data.jit import below, entry, hash_words, inline, uniform

MIN, MAX, MED, SM, CLOSE = range(10, 15)
IGNORED = -100

TREES = 1_000_000  # the published settings keep 1 of 3 (ListOps) and 1 of 70 (sub-trees)


class Rules(NamedTuple):
    """The law of expressions; see `ExpressionOptions`."""

    max_depth: int
    max_args: int
    binomial: np.ndarray  # [n, k]: probability that at most k of n arguments are operators
    min_length: int
    max_length: int
    first: int  # the token of digit 0


@inline
def _count_operators(rules, rng, n_args):
    u, count = uniform(rng), 0
    for k in range(rules.max_args):  # no early exit, because a loop of known length is faster
        count += u >= rules.binomial[n_args, k]
    return count


@inline
def _draw_shape(rules, rng, stack, shape):
    """Draws one tree without its tokens, whose root is an operator; returns its length.

    For each operator, level by level, `shape` receives the number of arguments and of operators
    among them. `stack[d, 2]` is the start of depth d in `shape`. All operators of a
    level are arguments of the level above, so the length can only grow: as soon as it is too large,
    0 is returned.
    """
    length, start, n_operators = 1, 0, 1
    for depth in range(1, rules.max_depth):
        stack[depth, 2] = start
        n_children = 0
        for j in range(start, start + n_operators):
            n_args = 2 + below(rng, rules.max_args - 1)
            length += n_args + 1
            if length >= rules.max_length:
                return 0
            children = 0
            if depth + 1 < rules.max_depth:
                children = _count_operators(rules, rng, n_args)
            shape[j, 0], shape[j, 1] = n_args, children
            n_children += children
        start += n_operators
        n_operators = n_children
    return length


@inline
def _write(shape, first, rng, stack, tokens):
    """Writes a tree of a given shape, with random digits, operators and order of arguments.

    `stack[d]` has, for the open operator at depth d, the number of its remaining arguments and the
    number of operators among them; and the next operator at depth d. The root is the only argument
    of depth 0.
    """
    depth = 0
    stack[0, 0], stack[0, 1] = 1, 1
    for k in range(len(tokens)):
        if stack[depth, 0] == 0:
            depth -= 1
            tokens[k] = first + CLOSE
            continue
        is_operator = below(rng, stack[depth, 0]) < stack[depth, 1]
        stack[depth, 0] -= 1
        if is_operator:
            stack[depth, 1] -= 1
            depth += 1
            j = stack[depth, 2]
            stack[depth, 0], stack[depth, 1], stack[depth, 2] = shape[j, 0], shape[j, 1], j + 1
            tokens[k] = first + MIN + below(rng, CLOSE - MIN)
        else:
            tokens[k] = first + below(rng, 10)


@inline
def _operand(counts, rank):
    """Returns the operand with a rank in ascending order; `counts[v]` operands have the value v."""
    value = 0
    while rank >= counts[value]:
        rank -= counts[value]
        value += 1
    return value


@inline
def _apply(operator, n, counts):
    """Returns the value of an operator with n operands."""
    if operator == MIN:
        return _operand(counts, 0)
    if operator == MAX:
        return _operand(counts, n - 1)
    if operator == MED:
        return (_operand(counts, (n - 1) // 2) + _operand(counts, n // 2)) // 2
    total = 0
    for value in range(10):
        total += value * counts[value]
    return total % 10


@inline
def _evaluate(tokens, first, stack, counts, values):
    """Writes the value of every sub-tree, plus `first`, at its bracket; returns the root's value.

    `stack[d]` and `counts[d]` describe the open operator at depth `d` and its operands so far. At
    depth 0 there is no operator, and the root is the only operand.
    """
    depth, value = 0, 0
    for k in range(len(tokens)):
        code = tokens[k] - first
        values[k] = IGNORED
        if MIN <= code < CLOSE:
            depth += 1
            stack[depth, 0], stack[depth, 1] = code, 0
            counts[depth] = 0
            continue
        value = code
        if code == CLOSE:
            value = _apply(stack[depth, 0], stack[depth, 1], counts[depth])
            values[k] = first + value
            depth -= 1
        stack[depth, 1] += 1
        counts[depth, value] += 1
    return value


@entry
def evaluate(
    tokens: np.ndarray, first: int, stack: np.ndarray, counts: np.ndarray, values: np.ndarray
) -> int:
    """Evaluates one well-formed expression, see `_evaluate`."""
    return _evaluate(tokens, first, stack, counts, values)


@entry
def draw_expressions(
    rules: Rules,
    seed: int,
    stream: int,
    indices: np.ndarray,
    rng: np.ndarray,
    shape: np.ndarray,
    stack: np.ndarray,
    counts: np.ndarray,
    tokens: np.ndarray,
    values: np.ndarray,
    lengths: np.ndarray,
    roots: np.ndarray,
) -> int:
    """Draws the examples `indices`, each a function of `(seed, stream, index)`.

    The root is always an operator, because a single digit would be rejected.

    Scratch: `rng` (1,) uint64; int64 `shape` (max_length // 3, 2), `stack` (max_depth, 3) and
    `counts` (max_depth, 10). Results, one row per example: `tokens`, 0 beyond the end; `values` of
    sub-trees as tokens at the closing brackets, `IGNORED` elsewhere; `lengths`; `roots`, the
    values of whole expressions. Returns the number of examples drawn: all of them, unless none of
    `TREES` trees had an allowed length.
    """
    for row in range(len(indices)):
        rng[0] = hash_words(seed, stream, indices[row])
        n = 0
        for _ in range(TREES):
            n = _draw_shape(rules, rng, stack, shape)
            if n > rules.min_length:
                break
        if n <= rules.min_length:
            return row
        lengths[row] = n
        _write(shape, rules.first, rng, stack, tokens[row, :n])
        roots[row] = _evaluate(tokens[row, :n], rules.first, stack, counts, values[row])
        tokens[row, n:] = 0
        values[row, n:] = IGNORED
    return len(indices)
