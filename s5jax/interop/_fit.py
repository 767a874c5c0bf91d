"""Compares the arrays of a checkpoint with what a model needs, and builds the model of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flax import nnx
from jax.typing import ArrayLike, DTypeLike

from s5jax.interop._s5 import _fill
from s5jax.layers import SequenceLayer
from s5jax.models import SequenceModel
from s5jax.models._saving import _argument_names

Arrays = Mapping[str, np.ndarray]
Shape = tuple[int | str, ...]
"""Numbers, and names of sizes such as "H" or "2 H"; the first array that has one decides it."""

MOST = 6
"""Names that an error lists of a kind."""


def check_fit(
    where: str, arrays: Arrays, expected: Mapping[str, Shape], originals: Mapping[str, str]
) -> dict[str, int]:
    """Compares names and shapes.

    Args:
        where: start of the message: the caller, and the file.
        arrays: arrays by name.
        expected: shapes by name, in the order in which they decide sizes.
        originals: names in the file by names in ``arrays``, where they differ.

    Returns:
        The sizes by name.

    Raises:
        ValueError: with all names that are missing or unexpected, and all shapes that are wrong.
    """
    sizes: dict[str, int] = {}
    wrong = []
    for name, shape in expected.items():
        if name in arrays and not _match(arrays[name].shape, shape, sizes):
            known = tuple(_size(axis, sizes) for axis in shape)
            received = arrays[name].shape
            wrong.append(f"{originals.get(name, name)} expected {_show(known)}, got {received}")
    missing = [name for name in expected if name not in arrays]
    unexpected = [originals.get(name, name) for name in arrays if name not in expected]
    kinds = {"missing": missing, "unexpected": unexpected, "wrong shape": wrong}
    faults = [f"{kind}: {_few(names)}" for kind, names in kinds.items() if names]
    if faults:
        raise ValueError(
            f"{where}: the arrays do not fit the architecture; {'; '.join(faults)}. Check the "
            "options, and that the file holds a whole model."
        )
    return sizes


def _match(received: Sequence[int], expected: Shape, sizes: dict[str, int]) -> bool:
    """Compares a shape, and decides the sizes in it that are not known yet."""
    if len(received) != len(expected):
        return False
    new = {}
    for size, axis in zip(received, expected, strict=True):
        known = _size(axis, sizes | new)
        if isinstance(known, int):
            if known != size:
                return False
            continue
        factor, name = _factor(known)
        if size % factor:
            return False
        new[name] = size // factor
    sizes.update(new)
    return True


def _size(axis: int | str, sizes: Mapping[str, int]) -> int | str:
    if isinstance(axis, int):
        return axis
    factor, name = _factor(axis)
    return factor * sizes[name] if name in sizes else axis


def _factor(axis: str) -> tuple[int, str]:
    factor, _, name = axis.rpartition(" ")
    return int(factor or 1), name


def _show(shape: Iterable[int | str]) -> str:
    axes = [str(axis) for axis in shape]
    return f"({', '.join(axes)}{',' if len(axes) == 1 else ''})"


def _few(names: Sequence[str]) -> str:
    more = f", and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(names[:MOST]) + more


def assemble(
    where: str,
    model: Callable[..., SequenceModel],
    layers: Sequence[SequenceLayer],
    values: Mapping[str, ArrayLike],
    *,
    dtype: DTypeLike,
    **options: Any,
) -> SequenceModel:
    """Builds a model of layers and of the values of its other variables, in evaluation mode.

    Args:
        where: name of the caller, for messages.
        model: class of the model.
        layers: the layers, all with the same options.
        values: arrays by the paths of the variables.
        dtype: dtype of parameters and computations.
        **options: arguments of the model besides ``layer``, ``layer_options`` and dtypes.

    Returns:
        The model, as its constructor arguments build it.

    Raises:
        ValueError: as the class does.
    """
    first = layers[0]
    skip = ("d_model", "dtype", "param_dtype")
    names = [name for name in _argument_names(type(first)) if name not in skip]
    options |= {"layer_options": {name: getattr(first, name) for name in names}}
    options |= {"d_model": first.d_model, "n_layers": len(layers)}
    options |= {"dtype": dtype, "param_dtype": dtype}
    built = nnx.eval_shape(lambda: model(type(first), rngs=nnx.Rngs(0), **options))
    for block, layer in zip(built.backbone.blocks, layers, strict=True):
        block.layer = layer
    variables = {
        ".".join(map(str, path)): node
        for path, node in nnx.iter_graph(built)
        if isinstance(node, nnx.Variable)
    }
    _fill(where, {path: (value, variables[path]) for path, value in values.items()}, dtype)
    built.eval()
    return built
