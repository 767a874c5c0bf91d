"""Units of one kind, one after another, compiled once."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.core import Tracer
from jaxtyping import Array, Inexact, PyTree

from s5jax._keep import is_kept
from s5jax.models._norm import explain_writes
from s5jax.ops import target_platform

Run = Callable[[Any, Array, PyTree, nnx.Rngs | None], tuple[Array, PyTree]]
"""From a unit, its input, its state and keys to its output and next state."""

FEWEST = {"tpu": 3, "gpu": 12}
"""Units that are worth a loop, by platform; none are on a CPU. See ``docs/accelerators.md``."""


def run_units(
    run: Run,
    units: Sequence[Any],
    x: Inexact[Array, "*batch L H"],
    states: Sequence[PyTree],
    rngs: nnx.Rngs | None,
    *,
    remat: bool,
) -> tuple[Inexact[Array, "*batch L H"], list[PyTree]]:
    """Runs units one after another, each a tuple of modules.

    In programs for an accelerator, leading units that differ in their values only are stacked and
    scanned, so the compiler sees one of them. Outputs, running statistics and dropout are those of
    a plain loop. The gradient keeps what `is_kept` says of each unit.

    Args:
        run: runs one unit.
        units: the modules of each unit.
        x: input of the first unit.
        states: what ``run`` gets as the state of each unit.
        rngs: source of the key ``dropout``.
        remat: whether ``run`` itself decides what the gradient keeps.

    Returns:
        The output of the last unit, and the states of all.
    """
    fewest = FEWEST.get(target_platform())
    new_states: list[PyTree] = []
    if fewest is not None and len(units) >= fewest and _compiles():
        n = _count_alike(units, states)
        scanned = _scan(run, units[:n], x, states[:n], rngs, remat) if n >= fewest else None
        if scanned is not None:
            x, new_states = scanned
    n = len(new_states)
    for unit, state in zip(units[n:], states[n:], strict=True):
        x, state = run(unit, x, state, rngs)
        new_states.append(state)
    return x, new_states


def _scan(
    run: Run,
    units: Sequence[Any],
    x: Array,
    states: Sequence[PyTree],
    rngs: nnx.Rngs | None,
    remat: bool,
) -> tuple[Array, list[PyTree]] | None:
    """`run_units` by a loop; None if a loop cannot carry what a unit does."""
    graph, _ = nnx.split(units[0])
    rngs_graph, keys = nnx.split(rngs)
    each = [(nnx.state(unit), state) for unit, state in zip(units, states, strict=True)]
    seen: dict[str, Any] = {}

    def body(carry: tuple[Array, nnx.State], each: tuple[nnx.State, PyTree]) -> Any:
        (x, keys), (variables, state) = carry, each
        unit = nnx.merge(graph, variables, copy=True)
        source = nnx.merge(rngs_graph, keys, copy=True)
        x, state = run(unit, x, state, source)
        (graph_after, after), (_, keys_after) = nnx.split(unit), nnx.split(source)
        kind = graph_after, jax.tree.structure(after)
        seen["same kind"] = kind == (graph, jax.tree.structure(variables))
        seen["keys"] = _changed(keys, keys_after)
        return (x, keys_after), (state, _pick(after, _changed(variables, after)))

    one: Any = body if remat else jax.checkpoint(body, policy=is_kept, prevent_cse=False)
    after, _ = jax.eval_shape(one, (x, keys), each[0])
    if not seen["same kind"] or not _alike((x, keys), after):
        return None
    stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *each)
    (x, keys), outputs = jax.lax.scan(one, (x, keys), stacked)
    _write(rngs, _pick(keys, seen["keys"]))
    new_states = []
    for i, unit in enumerate(units):
        state, variables = jax.tree.map(operator.itemgetter(i), outputs)
        _write(unit, variables)
        new_states.append(state)
    return x, new_states


def _count_alike(units: Sequence[Any], states: Sequence[PyTree]) -> int:
    """The number of leading units that differ in their values only."""
    graph, variables = nnx.split(units[0])
    for n, (unit, state) in enumerate(zip(units, states, strict=True)):
        its_graph, its_variables = nnx.split(unit)
        if its_graph != graph or not _alike((variables, states[0]), (its_variables, state)):
            return n
    return len(units)


def _alike(a: PyTree, b: PyTree) -> bool:
    """Tells whether two trees have the same structure, shapes and dtypes."""
    kinds = [jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree) for tree in (a, b)]
    return kinds[0] == kinds[1]


def _changed(before: nnx.State, after: nnx.State) -> list[Any]:
    """The paths of variables that hold another array than before."""
    old, new = dict(nnx.to_flat_state(before)), dict(nnx.to_flat_state(after))
    both = {path: (jax.tree.leaves(old[path]), jax.tree.leaves(new[path])) for path in old}
    return [path for path, leaves in both.items() if any(map(operator.is_not, *leaves))]


def _pick(state: nnx.State, paths: list[Any]) -> nnx.State:
    return nnx.from_flat_state([item for item in nnx.to_flat_state(state) if item[0] in paths])


@explain_writes
def _write(module: Any, variables: nnx.State) -> None:
    if variables:
        nnx.update(module, variables)


def _compiles() -> bool:
    """Tells whether a program is being traced, as by `jax.jit`.

    Outside of one, every call would compile its loop anew.
    """
    return isinstance(jnp.zeros(()), Tracer)
