"""The compiled steps: what happens on the devices.

The loop holds the training state as a flat list of arrays; a step rebuilds it inside ``jit``, where
that costs nothing, and reuses its memory (donation). A step with a non-finite loss or gradient
changes neither parameters nor optimiser: the meter records it, and the loop judges.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from experiments.mesh import replicated
from experiments.tasks import Batch, Task, decimate

Leaves = list[jax.Array]
Measures = dict[str, jax.Array]


class Meter(NamedTuple):
    """What happened since the last logged step."""

    totals: Measures
    """Sums of the quantities' means over the finite steps."""
    finite: jax.Array
    """Number of finite steps."""
    bad: jax.Array
    """Number of non-finite steps."""
    first_bad: dict[str, jax.Array]
    """``step``, ``loss`` and ``grad_norm`` of the first non-finite step."""


class TrainState(NamedTuple):
    """All that changes in training."""

    step: jax.Array
    """Steps done."""
    params: Any
    """Parameters, as nested dictionaries."""
    stats: Any
    """What else the model carries: batch statistics."""
    opt_state: Any
    meter: Meter


@dataclasses.dataclass(frozen=True)
class Steps:
    """The functions that a run calls, and the layout of the flat state they work on.

    Attributes:
        graph: the model's structure, in evaluation mode.
        initial: the state before the first step, on the mesh.
        names: a path such as ``params/head/kernel`` for each array of the state.
        treedef: rebuilds a :class:`TrainState` from the flat list.
        train: ``(leaves, batch) -> (leaves, meter)``; donates ``leaves``.
        evaluate: ``(leaves, batch) -> sums of the quantities over the batch's examples``.
    """

    graph: nnx.GraphDef
    initial: Leaves
    names: list[str]
    treedef: Any
    train: jax.stages.Wrapped
    evaluate: jax.stages.Wrapped

    def model(self, leaves: Leaves) -> nnx.Module:
        """The model with the parameters of a state, in evaluation mode."""
        state = jax.tree.unflatten(self.treedef, leaves)
        return nnx.merge(self.graph, state.params, state.stats)


def make_steps(
    model: nnx.Module,
    task: Task,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    seed: int,
    log_every: int,
    dt: int | None = None,
) -> Steps:
    """Builds the steps of a run; they compile at their first call.

    Args:
        model: the model with its first parameters.
        task: turns batches into inputs and measures.
        optimizer: applied to the nested dictionaries of parameters.
        mesh: devices; batches are split over its axis ``data``.
        seed: dropout is drawn from it and the step's number.
        log_every: steps after which the meter starts anew.
        dt: evaluate on every so-many-th step of each sequence, for which steps are longer.

    Returns:
        The steps and their initial state.
    """
    model.eval()
    eval_graph = nnx.graphdef(model)
    model.train()
    train_graph, params, stats = nnx.split(model, nnx.Param, ...)
    params, stats = nnx.to_pure_dict(params), nnx.to_pure_dict(stats)
    meter = _empty_meter(task.quantities)
    state = TrainState(jnp.int32(0), params, stats, optimizer.init(params), meter)
    paths, treedef = jax.tree.flatten_with_path(state)
    jit = functools.partial(jax.jit, out_shardings=replicated(mesh))
    train_step = _train_step(train_graph, task, optimizer, seed, log_every)
    eval_step = _eval_step(eval_graph, task, dt)

    def train(leaves: Leaves, batch: Batch) -> tuple[Leaves, Meter]:
        state = train_step(jax.tree.unflatten(treedef, leaves), batch)
        return jax.tree.leaves(state), state.meter

    def evaluate(leaves: Leaves, batch: Batch) -> Measures:
        return eval_step(jax.tree.unflatten(treedef, leaves), batch)

    return Steps(
        graph=eval_graph,
        initial=jax.device_put([leaf for _, leaf in paths], replicated(mesh)),
        names=[jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths],
        treedef=treedef,
        train=jit(train, donate_argnums=0),
        evaluate=jit(evaluate),
    )


def _train_step(
    graph: nnx.GraphDef,
    task: Task,
    optimizer: optax.GradientTransformation,
    seed: int,
    log_every: int,
) -> Callable[[TrainState, Batch], TrainState]:
    def train_step(state: TrainState, batch: Batch) -> TrainState:
        batch = task.expand(batch)
        dropout = jax.random.fold_in(jax.random.key(seed), state.step)

        def loss_fn(params: Any) -> tuple[jax.Array, tuple[Measures, Any]]:
            model = nnx.merge(graph, params, state.stats)
            outputs = model(**task.inputs(batch), rngs=nnx.Rngs(dropout=dropout))
            means = {name: x.mean(0) for name, x in task.measure(outputs, batch).items()}
            stats = nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))
            return means["loss"], (means, stats)

        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (means, stats)), grads = grad_fn(state.params)
        grad_norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        new = (optax.apply_updates(state.params, updates), stats, opt_state)
        old = (state.params, state.stats, state.opt_state)
        kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
        start = jax.tree.map(
            lambda empty, value: jnp.where(state.step % log_every == 0, empty, value),
            _empty_meter(task.quantities),
            state.meter,
        )
        meter = _add(start, {**means, "grad_norm": grad_norm}, finite, state.step)
        return TrainState(state.step + 1, *kept, meter)

    return train_step


def _eval_step(
    graph: nnx.GraphDef, task: Task, dt: int | None
) -> Callable[[TrainState, Batch], Measures]:
    def eval_step(state: TrainState, batch: Batch) -> Measures:
        batch = task.expand(batch)
        model = nnx.merge(graph, state.params, state.stats)
        inputs = task.inputs(batch)
        inputs = inputs if dt is None else decimate(inputs, dt)
        values = task.measure(model(**inputs), batch)
        values["examples"] = jnp.ones_like(values["loss"])
        return {
            name: jnp.sum(value, axis=0, where=batch["mask"].reshape(-1, *[1] * (value.ndim - 1)))
            for name, value in values.items()
        }

    return eval_step


def _empty_meter(quantities: Mapping[str, tuple[int, ...]]) -> Meter:
    return Meter(
        totals={name: jnp.zeros(s) for name, s in [*quantities.items(), ("grad_norm", ())]},
        finite=jnp.int32(0),
        bad=jnp.int32(0),
        first_bad={
            "step": jnp.int32(0),
            "loss": jnp.float32(0),
            "grad_norm": jnp.float32(0),
        },
    )


def _add(meter: Meter, means: Measures, finite: jax.Array, step: jax.Array) -> Meter:
    """Counts one step; ``step`` is its position in the data, counted from zero."""
    seen = {"step": step, "loss": means["loss"], "grad_norm": means["grad_norm"]}
    is_first = ~finite & (meter.bad == 0)
    return Meter(
        totals={
            name: meter.totals[name] + jnp.where(finite, value, 0) for name, value in means.items()
        },
        finite=meter.finite + finite,
        bad=meter.bad + ~finite,
        first_bad={
            name: jnp.where(is_first, value, meter.first_bad[name]) for name, value in seen.items()
        },
    )
