"""Which parameter belongs to which optimiser group."""

from collections.abc import Mapping
from typing import Any

from flax import nnx, traverse_util

from s5jax._errors import check_choice


def param_labels(model: nnx.Module, groups: Mapping[str, str] | None = None) -> dict[Any, Any]:
    """Names the optimiser group of every parameter, as the layers declare it.

    ``"ssm"`` holds the parameters that the papers train with a small learning rate and no weight
    decay, ``"ssm_decay"`` those with a small learning rate and with it, ``"regular"`` all others.

    Args:
        model: a layer or a model.
        groups: exceptions, from the name of a parameter, such as ``"B"`` or ``"bias"``, to any
            group.

    Returns:
        Nested dictionaries shaped like ``nnx.to_pure_dict(nnx.state(model, nnx.Param))``, with a
        group at each leaf: what `optax.multi_transform` takes.

    Raises:
        ValueError: if ``groups`` names a parameter that the model does not have.

    Example:
        >>> from flax import nnx
        >>> from s5jax import S5, param_labels
        >>> layer = S5(d_model=4, d_state=8, rngs=nnx.Rngs(0))
        >>> labels = param_labels(layer, {"log_step": "regular"})
        >>> print(labels["B"], labels["C"], labels["log_step"])
        ssm regular regular

    References:
        Smith, Warrington and Linderman, "Simplified State Space Layers for Sequence Modeling",
        2023, https://arxiv.org/abs/2208.04933, appendix B.1.3.
    """
    groups = {} if groups is None else groups
    parameters = nnx.to_flat_state(nnx.state(model, nnx.Param))
    names = {path[-1] for path, _ in parameters}
    for name in groups:
        check_choice("param_labels", "groups", name, sorted(map(str, names)))
    return traverse_util.unflatten_dict(
        {
            path: groups.get(path[-1], parameter.get_metadata().get("group", "regular"))
            for path, parameter in parameters
        }
    )
