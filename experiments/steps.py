"""The compiled steps: what happens on the devices.

The loop holds the training state as a flat list of arrays; a step rebuilds it inside ``jit``, where
that costs nothing, and reuses its memory (donation). A step with a non-finite loss or gradient
changes neither parameters nor optimiser: the meter records it, and the loop judges. If the state is
to ``freeze``, no later step changes it before the loop has looked, so that the cause can be found.

With ``train.accumulate`` a step takes its batch in parts, one after the other, and averages their
gradients. Part i holds the examples i, i + n, i + 2n, ..., whatever the number of devices, so each
part lies evenly on all of them and none moves. The step is that of the whole batch but for rounding
and two things: dropout draws other numbers for each part, and a batch norm uses the statistics of
the part, and updates its running ones n times.

With ``optim.ema`` b the state also holds an average of the parameters p, which is evaluated and
kept in their place; running statistics stay those of the parameters themselves:

    average[0] = p[0],    average[k] = b average[k - 1] + (1 - b) p[k]
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from experiments.config import Config
from experiments.mesh import replicate, replicated
from experiments.tasks import Batch, Task, decimate
from experiments.watch import Probe, summarize_step, watch

Leaves = list[jax.Array]
Measures = dict[str, jax.Array]
Gradients = Callable[[Any, Any, Batch, jax.Array], tuple[Any, Any, Measures]]
"""From parameters, batch statistics, batch and key to gradients, new statistics and means."""


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
    ema: Any = None
    """The average of the parameters, if there is one."""

    @property
    def eval_params(self) -> Any:
        """The parameters to evaluate and to keep."""
        return self.params if self.ema is None else self.ema


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
        probe: ``(leaves, batch, step) -> Probe``: a train step seen from inside, which changes
            nothing.
    """

    graph: nnx.GraphDef
    initial: Leaves
    names: list[str]
    treedef: Any
    train: jax.stages.Wrapped
    evaluate: jax.stages.Wrapped
    probe: jax.stages.Wrapped

    def model(self, leaves: Leaves) -> nnx.Module:
        """The model with the parameters of a state, in evaluation mode."""
        state = jax.tree.unflatten(self.treedef, leaves)
        return nnx.merge(self.graph, state.eval_params, state.stats)

    def forget_bad(self, leaves: Leaves) -> Leaves:
        """The state as if no step since the last logged one had been non-finite."""
        named = zip(self.names, leaves, strict=True)
        return [
            jax.device_put(np.int32(0), leaf.sharding) if name == "meter/bad" else leaf
            for name, leaf in named
        ]


def make_steps(
    model: nnx.Module,
    task: Task,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    config: Config,
    *,
    dt: int | None = None,
    freeze: bool = True,
) -> Steps:
    """Builds the steps of a run; they compile at their first call.

    Args:
        model: the model with its first parameters.
        task: turns batches into inputs and measures.
        optimizer: applied to the nested dictionaries of parameters.
        mesh: devices; batches are split over its axis ``data``, and sequences over ``seq``, which
            the layers find in the context.
        config: dropout is drawn from its seed and the step's number.
        dt: evaluate on every so-many-th step of each sequence, for which steps are longer.
        freeze: whether a non-finite step keeps the state as it is up to the next logged step, which
            training does unless it skips such steps.

    Returns:
        The steps and their initial state.
    """
    model.eval()
    eval_graph = nnx.graphdef(model)
    model.train()
    train_graph, params, stats = _split(model)
    meter = _empty_meter(task.quantities)
    ema = None if config.optim.ema is None else jax.tree.map(jnp.copy, params)
    state = TrainState(jnp.int32(0), params, stats, optimizer.init(params), meter, ema)
    paths, treedef = jax.tree.flatten_with_path(state)
    jit = functools.partial(jax.jit, out_shardings=replicated(mesh))
    gradients = _in_parts(_gradients(train_graph, task), config.train.accumulate)
    train_step = _train_step(gradients, task, optimizer, config, freeze=freeze)
    probe_step = _probe_step(train_graph, task, config)
    eval_step = _eval_step(eval_graph, task, dt)

    def train(leaves: Leaves, batch: Batch) -> tuple[Leaves, Meter]:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            state = train_step(jax.tree.unflatten(treedef, leaves), _with_rows(batch))
        return jax.tree.leaves(state), state.meter

    def evaluate(leaves: Leaves, batch: Batch) -> Measures:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return eval_step(jax.tree.unflatten(treedef, leaves), _with_rows(batch))

    def probe(leaves: Leaves, batch: Batch, step: jax.Array) -> Probe:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return probe_step(jax.tree.unflatten(treedef, leaves), _with_rows(batch), step)

    compiler_options = _compiler_options(config, mesh)
    return Steps(
        graph=eval_graph,
        initial=replicate([leaf for _, leaf in paths], mesh),
        names=[jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths],
        treedef=treedef,
        train=jit(train, donate_argnums=0, compiler_options=compiler_options),
        evaluate=jit(evaluate),
        probe=jit(probe, compiler_options=compiler_options),
    )


def _split(model: nnx.Module) -> tuple[nnx.GraphDef, Any, Any]:
    """Structure, parameters and what else the model carries, the latter as nested dictionaries."""
    graph, params, stats = nnx.split(model, nnx.Param, ...)
    return graph, nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def _compiler_options(config: Config, mesh: Mesh) -> dict[str, str]:
    """Keeps what ``train.remat`` asks for in its place.

    Blocks must not be computed again before their gradients are needed. For CPUs XLA takes out the
    barriers that say so, and then computes them at once: memory would grow.
    """
    if not config.train.remat or mesh.devices.flat[0].platform != "cpu":
        return {}
    return {"xla_disable_hlo_passes": "cse_barrier_expander"}


def _with_rows(batch: Batch) -> Batch:
    """The batch with its examples, where the devices hold those of the whole split."""
    columns = dict(batch)
    rows = columns.pop("rows", {})
    return {**columns, **{name: column[batch["index"]] for name, column in rows.items()}}


def _gradients(graph: nnx.GraphDef, task: Task) -> Gradients:
    def gradients(
        params: Any, stats: Any, batch: Batch, dropout: jax.Array
    ) -> tuple[Any, Any, Measures]:
        batch = task.expand(batch)

        def loss_fn(params: Any) -> tuple[jax.Array, tuple[Any, Measures]]:
            model = nnx.merge(graph, params, stats)
            outputs = model(**task.inputs(batch), rngs=nnx.Rngs(dropout=dropout))
            means = {name: x.mean(0) for name, x in task.measure(outputs, batch).items()}
            return means["loss"], (nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param))), means)

        grads, (new_stats, means) = jax.grad(loss_fn, has_aux=True)(params)
        return grads, new_stats, means

    return gradients


def _in_parts(gradients: Gradients, n: int) -> Gradients:
    """Averages the gradients and measures of n parts of the batch, which have equal sizes."""
    if n == 1:
        return gradients

    def averaged(
        params: Any, stats: Any, batch: Batch, dropout: jax.Array
    ) -> tuple[Any, Any, Measures]:
        def add_part(carry: tuple[Any, Any], part: tuple[jax.Array, Batch]) -> tuple[Any, Measures]:
            (sums, stats), (i, examples) = carry, part
            key = jax.random.fold_in(dropout, i)
            grads, stats, means = gradients(params, stats, examples, key)
            return (jax.tree.map(jnp.add, sums, grads), stats), means

        parts = jax.tree.map(lambda x: x.reshape(-1, n, *x.shape[1:]).swapaxes(0, 1), batch)
        start = (jax.tree.map(jnp.zeros_like, params), stats)
        (sums, stats), means = jax.lax.scan(add_part, start, (jnp.arange(n), parts))
        grads = jax.tree.map(lambda x: x / n, sums)
        return grads, stats, {name: x.mean(0) for name, x in means.items()}

    return averaged


def _train_step(
    gradients: Gradients,
    task: Task,
    optimizer: optax.GradientTransformation,
    config: Config,
    *,
    freeze: bool,
) -> Callable[[TrainState, Batch], TrainState]:
    log_every, decay = config.train.log_every, config.optim.ema

    def train_step(state: TrainState, batch: Batch) -> TrainState:
        dropout = _dropout_key(config, state.step)
        grads, stats, means = gradients(state.params, state.stats, batch, dropout)
        grad_norm = optax.tree.norm(grads)
        finite = jnp.isfinite(means["loss"]) & jnp.isfinite(grad_norm)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = None if decay is None else optax.incremental_update(params, state.ema, 1 - decay)
        new = {"params": params, "stats": stats, "opt_state": opt_state, "ema": ema}
        old = {name: getattr(state, name) for name in new}
        start = jax.tree.map(
            lambda empty, value: jnp.where(state.step % log_every == 0, empty, value),
            _empty_meter(task.quantities),
            state.meter,
        )
        meter = _add(start, {**means, "grad_norm": grad_norm}, finite, state.step)
        accepted = finite
        if freeze:
            frozen = start.bad > 0
            accepted &= ~frozen
            meter = jax.tree.map(lambda a, b: jnp.where(frozen, a, b), start, meter)
        kept = jax.tree.map(lambda a, b: jnp.where(accepted, a, b), new, old)
        return TrainState(step=state.step + 1, meter=meter, **kept)

    return train_step


def _dropout_key(config: Config, step: jax.Array) -> jax.Array:
    return jax.random.fold_in(jax.random.key(config.seed), step)


def _probe_step(
    graph: nnx.GraphDef, task: Task, config: Config
) -> Callable[[TrainState, Batch, jax.Array], Probe]:
    def probe_step(state: TrainState, batch: Batch, step: jax.Array) -> Probe:
        model = nnx.merge(graph, state.params, state.stats)
        calls = watch(model)
        watched, params, stats = _split(model)
        gradients = _in_parts(_gradients(watched, task), config.train.accumulate)
        grads, _, means = gradients(params, stats, batch, _dropout_key(config, step))
        batch = task.expand(batch)
        inputs = task.inputs(batch)
        return summarize_step(batch, inputs, task.d_input, state.params, grads, means, calls)

    return probe_step


def _eval_step(
    graph: nnx.GraphDef, task: Task, dt: int | None
) -> Callable[[TrainState, Batch], Measures]:
    def eval_step(state: TrainState, batch: Batch) -> Measures:
        batch = task.expand(batch)
        model = nnx.merge(graph, state.eval_params, state.stats)
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
