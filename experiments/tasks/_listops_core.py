"""Compiled ListOps: how expressions are drawn, and what they are worth.

An expression is written in prefix order, one token a number: a digit is itself, then come the four
operators, then the closing bracket; `first` is added to each, so that special tokens may lie below.
"""

from typing import NamedTuple

import numpy as np

from experiments.tasks._jit import entry, inline

MIN, MAX, MED, SM, CLOSE = range(10, 15)
IGNORED = -100

TREES = 1_000_000  # the published settings keep one in 3 (ListOps) and one in 70 (sub-trees)


class Rules(NamedTuple):
    """What an expression may look like; see `ExpressionOptions`."""

    max_depth: int
    max_args: int
    binomial: np.ndarray  # [n, k]: probability that at most k of n arguments are operators
    min_length: int
    max_length: int
    first: int  # the token of digit 0


@inline
def _mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@inline
def _next(rng):
    """One step of splitmix64, as in `_pathfinder_core`: numba's cache wants it in this file."""
    rng[0] += np.uint64(0x9E3779B97F4A7C15)
    return _mix(rng[0])


@inline
def _seed(rng, seed, stream, index):
    z = _mix(np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15))
    z = _mix((z ^ np.uint64(stream)) + np.uint64(0x9E3779B97F4A7C15))
    rng[0] = _mix((z ^ np.uint64(index)) + np.uint64(0x9E3779B97F4A7C15))


@inline
def _below(rng, n):
    return np.int64(((_next(rng) >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))


@inline
def _count_operators(rules, rng, n_args):
    uniform = np.float64(_next(rng) >> np.uint64(11)) * 2.0**-53
    count = 0
    for k in range(rules.max_args):  # no early end: a loop of known length takes half the time
        count += uniform >= rules.binomial[n_args, k]
    return count


@inline
def _draw_shape(rules, rng, stack, shape):
    """Draws one tree without its tokens, from an operator as root; returns its length.

    `shape` receives for each operator, level by level, how many arguments it has, and how many of
    them are operators; `stack[d, 2]` where those at depth d start. All operators of a level are
    among the arguments of the one above, so the length can only grow: 0 is returned as soon as it
    is too large.
    """
    length, start, n_operators = 1, 0, 1
    for depth in range(1, rules.max_depth):
        stack[depth, 2] = start
        n_children = 0
        for j in range(start, start + n_operators):
            n_args = 2 + _below(rng, rules.max_args - 1)
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

    `stack[d]` holds how many arguments of the open operator at depth d are still to come, how many
    of them are operators, and the next operator at depth d; the root is the one argument of depth
    0.
    """
    depth = 0
    stack[0, 0], stack[0, 1] = 1, 1
    for k in range(len(tokens)):
        if stack[depth, 0] == 0:
            depth -= 1
            tokens[k] = first + CLOSE
            continue
        is_operator = _below(rng, stack[depth, 0]) < stack[depth, 1]
        stack[depth, 0] -= 1
        if is_operator:
            stack[depth, 1] -= 1
            depth += 1
            j = stack[depth, 2]
            stack[depth, 0], stack[depth, 1], stack[depth, 2] = shape[j, 0], shape[j, 1], j + 1
            tokens[k] = first + MIN + _below(rng, CLOSE - MIN)
        else:
            tokens[k] = first + _below(rng, 10)


@inline
def _operand(counts, rank):
    """The operand with so many before it in ascending order; there are `counts[v]` of value v."""
    value = 0
    while rank >= counts[value]:
        rank -= counts[value]
        value += 1
    return value


@inline
def _apply(operator, n, counts):
    """The value of an operator on n operands."""
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
    """Puts every sub-tree's value, plus `first`, to its bracket in `values`; returns the root's.

    `stack[d]` and `counts[d]` hold the open operator at depth `d` and its operands so far; those of
    depth 0 are none, and the root.
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

    A root that is a digit would never be kept, so it is not drawn: the law of what is kept is the
    same.

    Scratch: `rng` (1,) uint64; int64 `shape` (max_length // 3, 2), `stack` (max_depth, 3) and
    `counts` (max_depth, 10). Results, one row an example: `tokens`, 0 beyond the end; `values`,
    those of sub-trees as tokens at the closing brackets, `IGNORED` elsewhere; `lengths`; `roots`,
    the value of the whole. Returned is how many were drawn: all, unless for one no tree of `TREES`
    had a length between the limits.
    """
    for row in range(len(indices)):
        _seed(rng, seed, stream, indices[row])
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
