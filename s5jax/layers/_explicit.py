"""Meshes whose axes are part of the types of arrays (`jax.sharding.AxisType.Explicit`)."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P


def compiler_splits(method: Callable[..., Any], *, step: bool) -> Callable[..., Any]:
    """Makes a module's call or step leave the explicit axes of a mesh to the compiler.

    The result is the one under an automatic mesh. Outputs are split as the inputs are, over
    batch axes and, if they have one, the time axis; states as the ones that were passed.

    Args:
        method: takes the module and its inputs, which are integers if they are tokens.
        step: whether it takes one step and a state instead of sequences.
    """

    @functools.wraps(method)
    def wrapped(self: Any, u: Any, *args: Any, **kwargs: Any) -> Any:
        if not jax.sharding.get_abstract_mesh().explicit_axes:
            return method(self, u, *args, **kwargs)
        u = jnp.asarray(u)
        n_batch = u.ndim - (not step) - (not jnp.issubdtype(u.dtype, jnp.integer))
        out, batch = (P(*sharding(u)[: n_batch + n]) for n in (self.has_time and not step, 0))
        state = kwargs.get("state", args[0] if step and args else None)
        if step or kwargs.get("return_state"):
            out = (out, batch if state is None else jax.tree.map(sharding, state))
        rngs = kwargs.pop("rngs", None)

        def call(modules: Any, arguments: Any) -> Any:
            module, rngs = modules
            u, args, kwargs = arguments
            return method(module, u, *args, **kwargs | ({"rngs": rngs} if rngs else {}))

        return on_automatic_axes(call, (self, rngs), (u, args, kwargs), out)

    return wrapped


def on_automatic_axes(
    f: Callable[[Any, Any], Any], modules: Any, arguments: Any, out_sharding: Any
) -> Any:
    """Calls ``f(modules, arguments)`` with the explicit axes of the mesh made automatic.

    What the call writes into variables of the modules, such as running statistics and counts of
    random keys, is written into the ones outside.
    """
    axes = jax.sharding.get_abstract_mesh().explicit_axes
    if not axes:
        return f(modules, arguments)
    graphdef, variables = nnx.split(modules)
    paths, values = zip(*nnx.to_flat_state(variables), strict=True)
    leaves, treedef = jax.tree.flatten(arguments)
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, (jax.Array, np.ndarray))]
    written: list[int] = []

    def run(variables: Any, arrays: list[Any]) -> Any:
        before = jax.tree.leaves(variables)
        inside = nnx.merge(graphdef, variables)
        filled = dict(enumerate(leaves)) | dict(zip(places, arrays, strict=True))
        out = f(inside, jax.tree.unflatten(treedef, list(filled.values())))
        after = jax.tree.leaves(nnx.state(inside))
        changed = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a is not b]
        written.extend(changed)
        return out, [after[i] for i in changed]

    automatic = jax.sharding.auto_axes(run, axes=axes, out_sharding=(out_sharding, P()))
    out, new = automatic(variables, [jnp.asarray(leaves[i]) for i in places])
    if written:
        pairs = [(paths[i], values[i].replace(x)) for i, x in zip(written, new, strict=True)]
        nnx.update(modules, nnx.from_flat_state(pairs))
    return out


def sharding(x: Any) -> P:
    """Returns the explicit axes of a mesh over which the axes of an array are split."""
    return jax.typeof(x).sharding.spec
