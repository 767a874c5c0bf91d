r"""Models that record where values stop being finite, in the forward and the backward pass.

Every module of a watched model passes its inputs and outputs through the identity

.. math:: y = f(x, w) = x, \qquad
    \bar x = \bar y, \quad \bar w := (x \text{ is not finite}, \ \bar y \text{ is not finite})

The gradient that it declares for its own parameter w records what happened in both passes. So
``jax.grad`` returns the records beside the true gradients, whatever surrounds the module:
``jit``, a loop over time or over parts of the batch, recomputation, several devices.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

Path = tuple[str | int, ...]
"""Path of a module or a parameter in a model, such as ``("blocks", 2, "layer")``."""

FOUND = "found"
"""Name of w, whose gradient has rows for inputs and outputs, columns for forward and backward."""


def watch(model: nnx.Module) -> list[tuple[Path, str]]:
    """Makes every module of a model record whether its inputs and outputs are finite.

    Args:
        model: changed in place; its outputs stay the same. Each module gets a parameter ``found``.

    Returns:
        A list to which each module adds its path and the name of its class when it is called.
    """
    calls: list[tuple[Path, str]] = []

    @functools.cache
    def watched(kind: Any) -> type[nnx.Module]:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append((self.path, kind.__name__))
            args, kwargs = _pass((args, kwargs), self.found[0])
            return _pass(kind.__call__(self, *args, **kwargs), self.found[1])

        return type(kind.__name__, (kind,), {"__call__": call})

    modules: Any = list(nnx.iter_modules(model))
    for path, module in modules:
        if callable(module):
            object.__setattr__(module, "__class__", watched(type(module)))
            module.path = path
            setattr(module, FOUND, nnx.Param(jnp.zeros((2, 2))))
    return calls


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Probe:
    """Summary of a step's intermediate values."""

    means: dict[str, jax.Array]
    """Measured quantities of the task, averaged over the batch."""
    grad_norm: jax.Array
    indices: jax.Array
    """Examples of the batch, ``(B,)``."""
    columns: dict[str, tuple[jax.Array, tuple[jax.Array, ...]]]
    """Non-finite examples ``(B,)`` of each column of numbers, and the first place."""
    tokens: tuple[jax.Array, tuple[jax.Array, ...], jax.Array] | None
    """Examples with tokens outside the vocabulary, the first place, and the token there."""
    parameters: dict[Path, jax.Array]
    """Largest magnitude of each parameter, not finite if the parameter is not."""
    gradients: dict[Path, jax.Array]
    """Largest magnitude of each gradient."""
    modules: dict[Path, jax.Array]
    """Record of each module: above zero if inputs or outputs (rows) were not finite in the forward
    or the backward pass (columns)."""
    calls: tuple[tuple[Path, str], ...] = dataclasses.field(metadata={"static": True})
    """Path and class of the modules, in the order of their calls."""


def summarize_step(
    batch: Mapping[str, jax.Array],
    inputs: Mapping[str, jax.Array],
    d_input: int,
    parameters: Any,
    gradients: Any,
    means: dict[str, jax.Array],
    calls: Sequence[tuple[Path, str]],
) -> Probe:
    """Summarises the values that a step of a watched model has computed."""
    flat = _flatten(gradients)
    modules = {path[:-1]: flat.pop(path) for path in list(flat) if path[-1] == FOUND}
    return Probe(
        means=means,
        grad_norm=optax.tree.norm(list(flat.values())),
        indices=batch["index"],
        columns=_bad_columns(batch, inputs),
        tokens=_bad_tokens(inputs, d_input),
        parameters={path: _largest(x) for path, x in _flatten(parameters).items()},
        gradients={path: _largest(x) for path, x in flat.items()},
        modules=modules,
        calls=tuple(dict.fromkeys(calls)),
    )


def _bad_columns(batch: Mapping[str, jax.Array], inputs: Mapping[str, jax.Array]) -> dict[str, Any]:
    columns = {}
    for name in filter(lambda name: _is_number(batch[name]), batch):
        bad = ~jnp.isfinite(batch[name])
        if "lengths" in inputs and bad.shape[1:2] == inputs["u"].shape[1:2]:  # padding may be bad
            valid = jnp.arange(bad.shape[1]) < inputs["lengths"][:, None]
            bad &= valid.reshape(*valid.shape, *[1] * (bad.ndim - 2))
        examples = bad.any(axis=tuple(range(1, bad.ndim)))
        columns[name] = examples, jnp.unravel_index(jnp.argmax(bad), bad.shape)
    return columns


def _bad_tokens(inputs: Mapping[str, jax.Array], d_input: int) -> Any:
    u = inputs["u"]
    if not jnp.issubdtype(u.dtype, jnp.integer):
        return None
    bad = (u < 0) | (u >= d_input)
    if "lengths" in inputs:
        bad &= jnp.arange(u.shape[-1]) < inputs["lengths"][..., None]
    place = jnp.unravel_index(jnp.argmax(bad), bad.shape)
    return bad.any(axis=tuple(range(1, bad.ndim))), place, u[place]


def _largest(x: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(x)).astype(jnp.float32)


def _flatten(nested: Any) -> dict[Path, jax.Array]:
    leaves, _ = jax.tree.flatten_with_path(nested)
    return {tuple(key.key for key in path): leaf for path, leaf in leaves}


def _pass(values: Any, found: jax.Array) -> Any:
    """Passes the numbers among some values through the identity, but not modules and keys."""
    leaves, treedef = jax.tree.flatten(values, is_leaf=lambda x: isinstance(x, nnx.Pytree))
    places = [i for i, leaf in enumerate(leaves) if _is_number(leaf)]
    if places:
        passed = _identity([leaves[i] for i in places], found)
        for i, leaf in zip(places, passed, strict=True):
            leaves[i] = leaf
    return jax.tree.unflatten(treedef, leaves)


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.inexact)


@jax.custom_vjp
def _identity(arrays: Sequence[jax.Array], found: jax.Array) -> Sequence[jax.Array]:
    del found
    return arrays


def _forward(arrays: Sequence[jax.Array], found: jax.Array) -> tuple[Any, jax.Array]:
    del found
    return arrays, _any_bad(arrays)


def _backward(bad: jax.Array, cotangents: Sequence[jax.Array]) -> tuple[Any, jax.Array]:
    return cotangents, jnp.stack([bad, _any_bad(cotangents)]).astype(jnp.float32)


_identity.defvjp(_forward, _backward)


def _any_bad(arrays: Sequence[jax.Array]) -> jax.Array:
    return jnp.any(jnp.stack([~jnp.isfinite(x).all() for x in arrays]))
