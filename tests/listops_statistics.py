"""An interpreter of ListOps, and the statistics that the reference file beside the tests has."""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.tasks.listops.task import TOKENS, ExpressionSource, ListOpsSource

DATA = Path(__file__).parent / "experiments/tasks/data"
REFERENCE: dict[str, Any] = json.loads((DATA / "listops_statistics.json").read_text())
OPERATORS = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda x: int(statistics.median(x)),
    "[SM": lambda x: sum(x) % 10,
}


class Node(NamedTuple):
    """One operator of an expression."""

    operator: int
    operands: list[int]
    are_nodes: list[bool]
    value: int
    depth: int
    height: int
    start: int
    end: int


def nodes_of(words: list[str]) -> Iterator[Node]:
    """An interpreter that shares nothing with the tested code; inner operators come first."""
    stack: list[tuple[str, int, list[tuple[int, int]]]] = []
    for k, word in enumerate(words):
        if word in OPERATORS:
            stack.append((word, k, []))
        elif word.isdigit():
            stack[-1][2].append((int(word), 0))
        else:
            name, start, operands = stack.pop()
            values = [value for value, _ in operands]
            value = OPERATORS[name](values)
            height = 1 + max(height for _, height in operands)
            if stack:
                stack[-1][2].append((value, height))
            operator = list(OPERATORS).index(name)
            are_nodes = [height > 0 for _, height in operands]
            yield Node(operator, values, are_nodes, value, len(stack) + 1, height, start, k + 1)


def words_of(source: ExpressionSource, index: int) -> list[str]:
    example = source[index]
    words = ("<pad>", "<unk>", "<eos>")[: source.first] + TOKENS
    text = [words[token] for token in example["token"][: example["length"]].tolist()]
    return text[:-1] if text[-1] == "<eos>" else text


def _counts_of(words: list[str], reference: dict[str, Any]) -> Iterator[tuple[str, Any, int]]:
    """Name, counts and their total for every statistic of the reference, for one expression."""
    nodes = list(nodes_of(words))
    root, n = nodes[-1], len(nodes)
    operator, value, depth, height, start, end = (
        np.array([getattr(node, name) for node in nodes])
        for name in ("operator", "value", "depth", "height", "start", "end")
    )
    args = np.array([len(node.operands) for node in nodes])
    digits = [int(word) for word in words if word.isdigit()]
    n_args, n_levels = (len(reference["means"][name]) for name in ("args", "depth"))

    def histogram(values: Any, start: int, bins: int) -> np.ndarray:
        return np.histogram(values, np.arange(bins + 1) + start)[0]

    yield "length", [len(words)], 1
    yield "length_histogram", np.histogram(len(words), reference["edges"])[0], 1
    yield "operators", [n], 1
    yield "operator", histogram(operator, 0, 4), n
    yield "root_operator", histogram(root.operator, 0, 4), 1
    yield "args", histogram(args, 2, n_args), n
    yield "root_args", histogram(args[-1], 2, n_args), 1
    yield "label", histogram(root.value, 0, 10), 1
    yield "digit", histogram(digits, 0, 10), len(digits)
    yield "value", histogram(value, 0, 10), n
    for code, name in enumerate(OPERATORS):
        own = value[operator == code]
        yield f"value_of_{name[1:].lower()}", histogram(own, 0, 10), len(own)
    yield "depth", histogram(depth, 1, n_levels), n
    yield "height", histogram(height, 1, n_levels), n
    yield "span", [(end - start).sum()], n


def z_scores(source: ExpressionSource, n: int) -> dict[str, np.ndarray]:
    """z-scores of ratios of sums over independent examples against those of the reference.

    The spread of both is estimated from our examples, and at least that of independent counts.
    """
    reference = REFERENCE["listops" if isinstance(source, ListOpsSource) else "listops_subtrees"]
    rows: dict[str, list[tuple[Any, int]]] = {}
    for i in range(n):
        for name, counts, total in _counts_of(words_of(source, i), reference):
            rows.setdefault(name, []).append((counts, total))
    assert rows.keys() == reference["means"].keys()
    scores = {}
    for name, values in rows.items():
        counts = np.array([count for count, _ in values], float)
        totals = np.array([total for _, total in values], float)
        ours = counts.sum(axis=0) / totals.sum()
        theirs = np.array(reference["means"][name])
        residuals = counts - ours * totals[:, None]
        variance = np.square(residuals).sum(axis=0) / totals.sum() ** 2
        variance = np.maximum(variance, theirs * (1 - theirs) / totals.sum())
        scores[name] = (ours - theirs) / np.sqrt(variance * (1 + n / reference["n_examples"]))
    return scores
