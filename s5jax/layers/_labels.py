"""Which parameter belongs to which optimiser group."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx, traverse_util
from jaxtyping import PyTree

from s5jax._errors import check_choice


@jax.tree_util.register_pytree_with_keys_class
class Labels(dict[Any, Any]):
    """Nested dictionaries of labels, which a call arranges like any parameters.

    Optax calls labels that are functions, so the same object serves parameters in an `nnx.State`
    and in dictionaries. A `jax.tree.map` over it gives plain dictionaries.
    """

    def __call__(self, params: PyTree) -> PyTree:
        """Returns the label of each parameter, in a tree of the same structure."""

        def label(path: tuple[Any, ...], _: Any) -> Any:
            found: Any = self
            for key in path:
                found = found[key.key]
            return found

        is_leaf = lambda x: isinstance(x, nnx.Variable)  # noqa: E731
        return jax.tree_util.tree_map_with_path(label, params, is_leaf=is_leaf)

    def tree_flatten_with_keys(self) -> tuple[list[Any], tuple[Any, ...]]:
        """Children with their keys, in the order of a dictionary's in JAX."""
        keys = tuple(sorted(self))
        return [(jax.tree_util.DictKey(key), self[key]) for key in keys], keys

    @classmethod
    def tree_unflatten(cls, keys: tuple[Any, ...], children: Any) -> dict[Any, Any]:
        """Puts children under their keys, for JAX."""
        return dict(zip(keys, children, strict=True))


def param_labels(model: nnx.Module, groups: Mapping[str, str] | None = None) -> Labels:
    """Names the optimiser group of every parameter, as the layers declare it.

    ``"ssm"`` holds the parameters that the papers train with a small learning rate and no weight
    decay, ``"ssm_decay"`` those with a small learning rate and with it, ``"regular"`` all others.

    Args:
        model: a layer or a model.
        groups: exceptions, from the name of a parameter, such as ``"B"`` or ``"bias"``, to any
            group.

    Returns:
        Nested dictionaries shaped like ``nnx.to_pure_dict(nnx.state(model, nnx.Param))``, with a
        group at each leaf. `optax.multi_transform` takes them for parameters in that form, for
        those in ``nnx.state(model, nnx.Param)``, and inside of `flax.nnx.Optimizer`. A call with
        parameters returns the labels in their form, for masks such as ``lambda parameters:
        jax.tree.map(lambda label: label == "ssm", labels(parameters))``.

    Raises:
        ValueError: if ``groups`` names a parameter that the model does not have.

    Example:
        >>> from flax import nnx
        >>> from s5jax import S5, param_labels
        >>> layer = S5(d_model=4, d_state=8, rngs=nnx.Rngs(0))
        >>> labels = param_labels(layer, {"log_step": "regular"})
        >>> print(labels["B"], labels["C"], labels["log_step"])
        ssm regular regular

        In the optimiser of Flax:

        >>> import jax.numpy as jnp
        >>> import optax
        >>> rates = {"ssm": optax.adam(1e-3), "regular": optax.adamw(4e-3)}
        >>> optimizer = nnx.Optimizer(layer, optax.multi_transform(rates, labels), wrt=nnx.Param)
        >>> gradients = nnx.grad(lambda layer: (layer(jnp.ones((9, 4))) ** 2).mean())(layer)
        >>> updates = optimizer.update(layer, gradients)

        In plain Optax, here over dictionaries of arrays:

        >>> parameters = nnx.to_pure_dict(nnx.state(layer, nnx.Param))
        >>> optimizer = optax.multi_transform(rates, labels)
        >>> state = optimizer.init(parameters)
        >>> updates, state = optimizer.update(nnx.to_pure_dict(gradients), state, parameters)

    References:
        Smith, Warrington and Linderman, "Simplified State Space Layers for Sequence Modeling",
        2023, https://arxiv.org/abs/2208.04933, appendix B.1.3.
    """
    groups = {} if groups is None else groups
    parameters = nnx.to_flat_state(nnx.state(model, nnx.Param))
    names = {path[-1] for path, _ in parameters}
    for name in groups:
        check_choice("param_labels", "groups", name, sorted(map(str, names)))
    return Labels(
        traverse_util.unflatten_dict(
            {
                path: groups.get(path[-1], parameter.get_metadata().get("group", "regular"))
                for path, parameter in parameters
            }
        )
    )
