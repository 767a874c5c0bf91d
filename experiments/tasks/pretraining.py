"""Pretraining on the inputs of a task, without its labels."""

from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.sources import Batch, Source, Split
from experiments.tasks._task import Task, cross_entropy

Objective = Literal["causal", "masked"]
HEADS = ("classify", "label")


class Pretraining(Task):
    r"""Another task's inputs as their own targets.

    ``"causal"`` predicts the next step from the steps before it. ``"masked"`` replaces steps by
    zeros, each with the probability ``task.mask_share``, and restores them. The loss is a mean over
    the predicted steps:

    .. math:: \ell = -\log \mathrm{softmax}(z_k)_{u_k} \text{ of tokens}, \qquad
        \ell = \tfrac{1}{d} \lVert z_k - u_k \rVert_1 \text{ of numbers.}

    The masks of training are new in each epoch; those of an evaluation are the same each time. The
    token 0 stands for masked tokens. The texts and expressions of the tasks here have it as padding
    only; in arrays of your own it may also have a meaning.

    Args:
        task: the task that provides the inputs.
        objective: ``"causal"`` or ``"masked"``.

    Raises:
        ValueError: if the examples of the task are not single sequences.

    References:
        Amos et al., "Never Train from Scratch", 2024, https://arxiv.org/abs/2310.02980.
    """

    head = "label"
    measures = ("loss",)
    metric = "loss"
    larger_is_better = False

    def __init__(self, task: Task, objective: Objective) -> None:
        if task.head not in HEADS:
            raise ValueError(
                "Pretraining: needs a task with the head "
                f"{' or '.join(map(repr, HEADS))}, whose inputs are one sequence per example; got "
                f"{task.head!r}. Leave --pretrain out."
            )
        super().__init__(task.options, task.files)
        self.task, self.objective = task, objective
        self.causal = objective == "causal" or task.causal
        self.encoder, self.irregular, self.length = task.encoder, task.irregular, task.length
        self.d_input = self.d_output = task.d_input
        self.input_moments = task.input_moments

    def fingerprint(self, *, seed: int) -> dict[str, Any]:
        """Returns the fingerprint of the task."""
        return self.task.fingerprint(seed=seed)

    def source(self, split: Split, *, seed: int) -> Source:
        """Returns the examples of the task."""
        return self.task.source(split, seed=seed)

    def read_examples(self, path: Path) -> dict[str, np.ndarray]:
        """Reads a file as the task does."""
        return self.task.read_examples(path)

    def expand(self, batch: Batch) -> Batch:
        """Expands a batch as the task does, and adds the masks, ``masked`` of shape ``(B, L)``."""
        batch = self.task.expand(batch)
        if self.objective == "causal":
            return batch
        L = self.task.inputs(batch)["u"].shape[1]

        def draw(epoch: jax.Array, index: jax.Array) -> jax.Array:
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), epoch), index)
            return jax.random.bernoulli(key, self.task.mask_share, (L,))

        return {**batch, "masked": jax.vmap(draw)(batch["epoch"], batch["index"])}

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns the inputs of the task, with masked steps set to zero."""
        inputs = self.task.inputs(batch)
        if "masked" in batch:
            masked = jnp.expand_dims(batch["masked"], range(2, inputs["u"].ndim))
            inputs["u"] = jnp.where(masked, 0, inputs["u"])
        return inputs

    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Returns the mean loss over the predicted steps of each example."""
        inputs = self.task.inputs(batch)
        u, steps = inputs["u"], jnp.arange(inputs["u"].shape[1])
        counts = steps < inputs["lengths"][:, None] if "lengths" in inputs else steps[None] >= 0
        if "masked" in batch:
            counts &= batch["masked"]
        else:
            outputs, u, counts = outputs[:, :-1], u[:, 1:], counts[:, 1:]
        if self.encoder == "tokens":
            losses = cross_entropy(outputs, u)
        else:
            losses = jnp.abs(outputs - u).mean(axis=-1)
        n = jnp.maximum(jnp.sum(counts, axis=1), 1)
        return {"loss": jnp.sum(losses, axis=1, where=counts) / n}
