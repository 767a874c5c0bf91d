"""The compiled steps of a run.

The loop stores the training state as a flat list of arrays. A step rebuilds it inside ``jit``,
where that costs nothing, and reuses its memory (donation). A step with a non-finite loss or
gradient changes neither parameters nor optimiser; the meter records it for the loop. With
``freeze`` later steps do not change the state either, until the loop has diagnosed the cause.

With ``train.accumulate`` a step processes its batch in n parts, one after another, and averages
their gradients. Part i has the examples i, i + n, i + 2n, ..., for any number of devices. Each part
is then spread evenly over all devices, and no example moves. The result equals a step of the whole
batch up to rounding, with two exceptions: dropout draws new numbers for each part, and a batch norm
uses the statistics of the part and updates its running statistics n times.

With ``optim.ema`` b the state also has an average of the parameters p, which is evaluated and saved
in their place. Running statistics are not averaged:

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
from experiments.data.sources import Batch
from experiments.devices.mesh import replicate, replicated
from experiments.tasks import Task, decimate
from experiments.training.watch import Probe, summarize_step, watch

Leaves = list[jax.Array]
Measures = dict[str, jax.Array]
Gradients = Callable[[Any, Any, Batch, jax.Array], tuple[Any, Any, Measures]]
"""From parameters, batch statistics, batch and key to gradients, new statistics and means."""


class Meter(NamedTuple):
    """Totals since the last logged step."""

    totals: Measures
    """Sums of the quantities' means over the finite steps."""
    finite: jax.Array
    """Number of finite steps."""
    bad: jax.Array
    """Number of non-finite steps."""
    first_bad: dict[str, jax.Array]
    """``step``, ``loss`` and ``grad_norm`` of the first non-finite step."""


class TrainState(NamedTuple):
    """The state of training."""

    step: jax.Array
    """Number of steps taken."""
    params: Any
    """Parameters, as nested dictionaries."""
    stats: Any
    """Other variables of the model: batch statistics."""
    opt_state: Any
    meter: Meter
    ema: Any = None
    """Moving average of the parameters, if used."""

    @property
    def eval_params(self) -> Any:
        """Parameters to evaluate and save."""
        return self.params if self.ema is None else self.ema


@dataclasses.dataclass(frozen=True)
class Steps:
    """The functions of a run, and the layout of the flat state that they use."""

    graph: nnx.GraphDef
    """Structure of the model, in evaluation mode."""
    initial: Leaves
    """State before the first step, on the mesh."""
    names: list[str]
    """A path such as ``params/head/kernel`` for each array of the state."""
    treedef: Any
    """Structure of the :class:`TrainState` of a flat list."""
    train: jax.stages.Wrapped
    """``(leaves, batch) -> (leaves, meter)``; donates ``leaves``."""
    evaluate: jax.stages.Wrapped
    """``(leaves, batch) -> sums of the quantities over the batch's examples``."""
    probe: jax.stages.Wrapped
    """``(leaves, batch, step) -> Probe``: a train step that only observes."""

    def model(self, leaves: Leaves) -> nnx.Module:
        """Returns the model with the parameters of a state, in evaluation mode."""
        state = jax.tree.unflatten(self.treedef, leaves)
        return nnx.merge(self.graph, state.eval_params, state.stats)

    def forget_bad(self, leaves: Leaves) -> Leaves:
        """Returns the state with the count of non-finite steps set to zero."""
        return [
            jax.device_put(np.int32(0), leaf.sharding) if name == "meter/bad" else leaf
            for name, leaf in zip(self.names, leaves, strict=True)
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
        model: the model with its initial parameters.
        task: computes inputs and measures.
        optimizer: applies to the nested dictionaries of parameters.
        mesh: devices; batches are split over its axis ``data``, and sequences over ``seq``, which
            the layers find in the context.
        config: the run; dropout depends on its seed and the number of the step.
        dt: evaluate on every ``dt``-th step of each sequence, with longer steps.
        freeze: keep the state after a non-finite step, up to the next logged step.
    """
    model.eval()
    eval_graph = nnx.graphdef(model)
    model.train()
    train_graph, params, stats = _split_model(model)
    meter = _empty_meter(task.quantities)
    ema = None if config.optim.ema is None else jax.tree.map(jnp.copy, params)
    state = TrainState(jnp.int32(0), params, stats, optimizer.init(params), meter, ema)
    paths, treedef = jax.tree.flatten_with_path(state)
    gradients = _in_parts(_gradients(train_graph, task), config.train.accumulate)
    train = _train_step(gradients, task, optimizer, config, freeze=freeze)

    def jit(step: Callable[..., Any], **options: Any) -> jax.stages.Wrapped:
        @functools.wraps(step)
        def call(leaves: Leaves, batch: Batch, *args: Any) -> Any:
            with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
                return step(jax.tree.unflatten(treedef, leaves), _with_rows(batch), *args)

        return jax.jit(call, out_shardings=replicated(mesh), **options)

    compiler_options = _compiler_options(config, mesh)
    return Steps(
        graph=eval_graph,
        initial=replicate([leaf for _, leaf in paths], mesh),
        names=[jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths],
        treedef=treedef,
        train=jit(train, donate_argnums=0, compiler_options=compiler_options),
        evaluate=jit(_eval_step(eval_graph, task, dt)),
        probe=jit(_probe_step(train_graph, task, config), compiler_options=compiler_options),
    )


def _split_model(model: nnx.Module) -> tuple[nnx.GraphDef, Any, Any]:
    """Returns the structure of a model, its parameters and its other variables."""
    graph, params, stats = nnx.split(model, nnx.Param, ...)
    return graph, nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def _compiler_options(config: Config, mesh: Mesh) -> dict[str, str]:
    """Keeps the barriers of ``train.remat`` on CPUs.

    The barriers delay the second computation of a block until its gradients are needed. On CPUs XLA
    removes them, computes all blocks immediately, and needs more memory.
    """
    if not config.train.remat or mesh.devices.flat[0].platform != "cpu":
        return {}
    return {"xla_disable_hlo_passes": "cse_barrier_expander"}


def _with_rows(batch: Batch) -> Batch:
    """Adds the examples to a batch of indices, if the devices store the whole split."""
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
    """Averages the gradients and measures of n parts of equal size."""
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
) -> Callable[[TrainState, Batch], tuple[Leaves, Meter]]:
    log_every, decay = config.train.log_every, config.optim.ema

    def train_step(state: TrainState, batch: Batch) -> tuple[Leaves, Meter]:
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
        return jax.tree.leaves(TrainState(step=state.step + 1, meter=meter, **kept)), meter

    return train_step


def _dropout_key(config: Config, step: jax.Array) -> jax.Array:
    return jax.random.fold_in(jax.random.key(config.seed), step)


def _probe_step(
    graph: nnx.GraphDef, task: Task, config: Config
) -> Callable[[TrainState, Batch, jax.Array], Probe]:
    def probe_step(state: TrainState, batch: Batch, step: jax.Array) -> Probe:
        model = nnx.merge(graph, state.params, state.stats)
        calls = watch(model)
        watched, params, stats = _split_model(model)
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
        first_bad={"step": jnp.int32(0), "loss": jnp.float32(0), "grad_norm": jnp.float32(0)},
    )


def _add(meter: Meter, means: Measures, finite: jax.Array, step: jax.Array) -> Meter:
    """Adds a step to the meter; ``step`` is its index from zero."""
    seen = {"step": step, "loss": means["loss"], "grad_norm": means["grad_norm"]}
    is_first = ~finite & (meter.bad == 0)
    totals = {name: meter.totals[name] + jnp.where(finite, x, 0) for name, x in means.items()}
    first_bad = {name: jnp.where(is_first, x, meter.first_bad[name]) for name, x in seen.items()}
    return Meter(totals, meter.finite + finite, meter.bad + ~finite, first_bad)
