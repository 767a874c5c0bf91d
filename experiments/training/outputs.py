"""Outputs of a trained model for examples that its task has prepared."""

from collections.abc import Callable

import jax
import numpy as np
from flax import nnx

from experiments.data.sources import Batch
from experiments.errors import UsageError, blaming_file
from experiments.tasks import Task


def compute_outputs(
    model: nnx.Module, task: Task, columns: dict[str, np.ndarray], *, batch_size: int
) -> np.ndarray:
    """Computes the model's outputs, of shape ``(N, d_output)`` or ``(N, L, d_output)``.

    Raises:
        UsageError: if a column is missing, there are no examples, or a token is not in the model's
            vocabulary.
    """
    graph, state = nnx.split(model)

    @jax.jit
    def compute(state: nnx.State, batch: Batch) -> jax.Array:
        return nnx.merge(graph, state)(**task.inputs(batch))

    sizes = {name: len(column) for name, column in columns.items()}
    n = min(sizes.values(), default=0)
    if n == 0:
        raise UsageError("The file holds no examples.")
    if max(sizes.values()) != n:
        raise UsageError(f"The file must have equally many rows of each column; got {sizes}.")
    columns = {"index": np.arange(n, dtype=np.int32), "epoch": np.zeros(n, np.int32), **columns}
    outputs = []
    for start in range(0, n, batch_size):
        batch = {name: column[start : start + batch_size] for name, column in columns.items()}
        if start == 0:
            _check_fit(compute, state, batch)
        if task.encoder == "tokens":
            _check_tokens(task, batch, start)
        outputs.append(np.asarray(compute(state, batch), np.float32))
    return np.concatenate(outputs)


def _check_fit(compute: Callable[..., jax.Array], state: nnx.State, batch: Batch) -> None:
    """Computes shapes only: whatever fails here is due to the file."""
    with blaming_file("The file", "set of examples for this model"):
        try:
            shape = jax.eval_shape(compute, state, batch).shape
        except KeyError as missing:
            raise UsageError(
                f"The file lacks the column {missing}; it has {', '.join(batch)}."
            ) from None
        if shape[0] != len(batch["index"]):
            raise ValueError(f"{len(batch['index'])} examples become {shape[0]}")


def _check_tokens(task: Task, batch: Batch, start: int) -> None:
    """Refuses tokens outside the vocabulary, for which the compiled model would return NaN."""
    inputs = task.inputs(batch)
    tokens = np.asarray(inputs["u"])
    wrong = (tokens < 0) | (tokens >= task.d_input)
    if "lengths" in inputs:
        wrong &= np.arange(tokens.shape[-1]) < np.asarray(inputs["lengths"])[..., None]
    if wrong.any():
        example, *place = np.argwhere(wrong)[0].tolist()
        raise UsageError(
            f"The file must hold tokens from 0 to {task.d_input - 1}, as in training; got "
            f"{tokens[(example, *place)]} in example {start + example} at {place}."
        )
