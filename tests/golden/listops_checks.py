"""Checker of the family ``task_listops``."""

import numpy as np
from reference import Golden, take

from experiments.tasks.listops.task import evaluate_expression


def check_listops(golden: Golden) -> None:
    [length] = take(golden.options, l_max=None)
    tokens, values, roots = golden["tokens"], golden["values"], golden["root"]
    assert tokens.shape == values.shape == (len(roots), length)
    for words, expected, root in zip(tokens.tolist(), values, roots, strict=True):
        n = len(words) - words.count("<pad>")
        assert words[n:] == ["<pad>"] * (length - n)
        got = evaluate_expression(" ".join(words[:n]))
        np.testing.assert_array_equal(got, expected[:n])
        assert (expected[n:] == -100).all()
        assert got[-1] == root
