"""Checker of the family ``task``: the atomic tasks of DLR, from the signals in the files."""

import functools

import jax
import numpy as np
from reference import Golden, assert_close, assert_trees_close, take

from experiments.tasks.atomic import rules as rules

TOLERANCE = 2e-6  # the files are in single precision


def check_atomic(golden: Golden) -> None:
    batch, n_shifts, n_marked, d_mips, causal = take(
        golden.options, batch=None, num_shifts=None, M=None, D=None, causal=True
    )
    assert causal
    x, y = golden["x"], golden["y"]
    assert len(x) == len(y) == batch
    task = golden.case.removeprefix("task_")
    rule, read = {
        "shift": (functools.partial(rules.shift, n_shifts=n_shifts), read_signal),
        "context_shift": (rules.context_shift, read_context_shift),
        "cumsum": (rules.cumsum, read_signal),
        "cummax": (rules.cummax, read_signal),
        "reverse": (rules.reverse, read_first_half),
        "sort": (rules.sort, read_first_half),
        "masked_select": (rules.masked_select, read_masked_select),
        "solve": (functools.partial(rules.solve, length=x.shape[1]), read_solve),
        "mips": (rules.mips, read_mips),
    }[task.removesuffix("_fixed")]
    drawn = [np.stack(parts) for parts in zip(*map(read, x), strict=True)]
    assert_trees_close(jax.jit(jax.vmap(rule))(*drawn), (x, y), TOLERANCE)
    if task.endswith("_fixed"):
        same = drawn[0 if task == "solve_fixed" else 1]
        assert (same == same[0]).all()
    if task == "masked_select":
        assert drawn[1].shape[1] == n_marked
    if task == "mips":
        assert drawn[0].shape[2] == d_mips


def unit_maximum(s: np.ndarray) -> np.ndarray:
    assert abs(np.abs(s).max() - 1) < TOLERANCE
    return s


def read_signal(x: np.ndarray) -> tuple[np.ndarray, ...]:
    return (unit_maximum(x[:, 0]),)


def read_first_half(x: np.ndarray) -> tuple[np.ndarray, ...]:
    return (unit_maximum(x[: len(x) // 2, 0]),)


def read_context_shift(x: np.ndarray) -> tuple[np.ndarray, ...]:
    turn = np.arctan2(x[1, 0], x[0, 0]) / (2 * np.pi)
    delay = round(turn * len(x)) % len(x)
    assert 0 <= delay <= len(x) - 3
    return unit_maximum(x[2:, 0]), np.array(delay)


def read_masked_select(x: np.ndarray) -> tuple[np.ndarray, ...]:
    positions = np.flatnonzero(x[:, 1])
    return unit_maximum(x[: -len(positions), 0]), positions


def read_solve(x: np.ndarray) -> tuple[np.ndarray, ...]:
    N = int(np.sqrt(len(x) + 1)) - 1
    A, b = np.split(x[: N * (N + 1), 0].reshape(N, N + 1), [N], axis=1)
    assert_close(A @ A.T, np.eye(N), TOLERANCE)
    solution = A.T @ b[:, 0]
    assert_close(np.linalg.norm(solution), 1.0, TOLERANCE)
    return A, solution


def read_mips(x: np.ndarray) -> tuple[np.ndarray, ...]:
    vectors = np.split(x[:, :-2], 3, axis=-1)
    assert_close(np.linalg.norm(vectors, axis=-1), np.ones((3, len(x))), TOLERANCE)
    return tuple(vectors)
