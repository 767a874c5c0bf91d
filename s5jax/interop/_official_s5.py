"""Whole models from the variables of github.com/lindermanlab/S5, in a file of Flax."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import serialization
from jax.typing import DTypeLike

from s5jax.interop._fit import Arrays, Shape, assemble, check_fit
from s5jax.interop._s5 import s5_from_official
from s5jax.layers import S5
from s5jax.models import DocumentMatcher, SequenceClassifier, SequenceLabeler, SequenceModel

HEAD = {"params/decoder": ("decode", "H", "d_output")}
MATCHER = {
    "params/decoder/layer1": ("compare", "4 H", "H"),
    "params/decoder/layer2": ("decode", "H", "d_output"),
}
"""Official dense maps of a head: path here, inputs and outputs."""

MAPS: Mapping[str, Sequence[str]] = {
    "full_glu": ("out1", "out2"),
    "half_glu1": ("out2",),
    "half_glu2": ("out2",),
    "gelu": (),
}
"""Dense maps of a block by its activation."""

LAYER = re.compile(r"params/encoder/layers_(\d+)/")


def read_flax_file(where: str, path: Path) -> dict[str, np.ndarray]:
    """Reads parameters and statistics of a file of ``flax.serialization`` or an older checkpoint.

    Raises:
        ValueError: if the file is not one of Flax, or has no parameters.
    """
    try:
        tree = serialization.msgpack_restore(path.read_bytes())
    except Exception as error:
        cause = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(
            f"{where}: {path} is not a file that Flax wrote in msgpack: {cause} Write one with "
            'flax.serialization.msgpack_serialize({"params": ..., "batch_stats": ...}).'
        ) from error
    tree = tree if isinstance(tree, dict) else {}
    if "params" not in tree:
        tree = {"params": tree}
    arrays: dict[str, np.ndarray] = {}
    for name in ("params", "batch_stats"):
        flatten(name, tree.get(name), arrays)
    if not arrays:
        raise ValueError(f"{where}: {path} must hold `params`; got no arrays.")
    return arrays


def flatten(name: str, tree: Any, arrays: dict[str, np.ndarray]) -> None:
    """Adds the arrays of a tree by the paths to them."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            flatten(f"{name}/{key}", value, arrays)
    elif tree is not None:
        arrays[name] = np.asarray(tree)


def s5_model(
    where: str,
    arrays: Arrays,
    *,
    per_step: bool,
    dtype: DTypeLike,
    layer_options: Mapping[str, Any],
    options: Mapping[str, Any],
) -> SequenceModel:
    """Builds a model of S5; the arguments are those of `load_official`.

    Raises:
        ValueError: if names or shapes do not fit, or an option is not supported.
    """
    indices = [int(match[1]) for name in arrays if (match := LAYER.match(name))]
    n_layers = min(max(indices, default=0) + 1, len(arrays))
    batch = any(name.startswith("batch_stats/") for name in arrays)
    options = {
        "activation": shown_activation(arrays),
        "prenorm": True,
        "encoder": "linear",
        "norm_momentum": 0.95,
        "norm_epsilon": 1e-5 if batch else 1e-6,
        **options,
    }
    matches = "params/decoder/layer1/kernel" in arrays
    heads = MATCHER if matches else HEAD
    shapes = dense_shapes("params/encoder/encoder", "d_input", "H")
    for i in range(n_layers):
        shapes |= block_shapes(arrays, i, options["activation"], batch=batch)
    for name, (_, inputs, outputs) in heads.items():
        shapes |= dense_shapes(name, inputs, outputs)
    sizes = check_fit(where, arrays, shapes, {})

    layers = [build_layer(arrays, i, dtype=dtype, **layer_options) for i in range(n_layers)]
    values = dense_values(arrays, "params/encoder/encoder", "backbone.encode")
    for i in range(n_layers):
        values |= block_values(arrays, i)
    for name, (path, _, _) in heads.items():
        values |= dense_values(arrays, name, path)
    # The official norms and backward states see padding; without the latter it has no effect.
    arguments: dict[str, Any] = {} if per_step else {"mask_padding": not layers[0].bidirectional}
    arguments |= {"d_input": sizes["d_input"], "d_output": sizes["d_output"]}
    arguments |= {"norm": "batch" if batch else "layer", **options}
    one_output = DocumentMatcher if matches else SequenceClassifier
    model = SequenceLabeler if per_step and not matches else one_output
    return assemble(where, model, layers, values, dtype=dtype, **arguments)


def shown_activation(arrays: Arrays) -> str:
    """The activation that the dense maps of the first block show, or the official default."""
    if "params/encoder/layers_0/out1/kernel" in arrays:
        return "full_glu"
    return "half_glu1" if "params/encoder/layers_0/out2/kernel" in arrays else "gelu"


def dense_shapes(name: str, inputs: str, outputs: str) -> dict[str, Shape]:
    """The arrays of a dense map."""
    return {f"{name}/kernel": (inputs, outputs), f"{name}/bias": (outputs,)}


def dense_values(arrays: Arrays, name: str, path: str) -> dict[str, np.ndarray]:
    """The values of a dense map."""
    return {f"{path}.{variable}": arrays[f"{name}/{variable}"] for variable in ("kernel", "bias")}


def block_shapes(arrays: Arrays, i: int, activation: str, *, batch: bool) -> dict[str, Shape]:
    """The arrays of a block."""
    block = f"encoder/layers_{i}"
    seq = f"params/{block}/seq"
    shapes: dict[str, Shape] = {f"{seq}/Lambda_re": ("P",), f"{seq}/Lambda_im": ("P",)}
    shapes |= {f"{seq}/log_step": ("P", 1), f"{seq}/B": ("P", "H", 2), f"{seq}/D": ("H",)}
    if f"{seq}/C1" in arrays:
        shapes |= {f"{seq}/C1": ("H", "P", 2), f"{seq}/C2": ("H", "P", 2)}
    else:
        shapes[f"{seq}/C"] = ("H", "2 P" if both_directions(arrays, seq) else "P", 2)
    shapes |= {f"params/{block}/norm/{name}": ("H",) for name in ("scale", "bias")}
    if batch:
        shapes |= {f"batch_stats/{block}/norm/{name}": ("H",) for name in ("mean", "var")}
    for name in MAPS[activation]:
        shapes |= dense_shapes(f"params/{block}/{name}", "H", "H")
    return shapes


def both_directions(arrays: Arrays, seq: str) -> bool:
    """Whether a layer runs in both directions: it has two matrices C, or one of twice the width."""
    C, Lambda = arrays.get(f"{seq}/C"), arrays.get(f"{seq}/Lambda_re")
    if C is None or Lambda is None:
        return f"{seq}/C1" in arrays
    return C.shape[1:2] == (2 * len(Lambda),)


def build_layer(arrays: Arrays, i: int, *, dtype: DTypeLike, **options: Any) -> S5:
    """Builds the layer of a block."""
    seq = f"params/encoder/layers_{i}/seq"
    layer = {name: arrays[f"{seq}/{name}"] for name in ("Lambda_re", "Lambda_im", "D")}
    names = ["C1", "C2"] if f"{seq}/C1" in arrays else ["C"]
    layer["C_tilde"] = np.concatenate([arrays[f"{seq}/{name}"] for name in names], axis=1)
    layer |= {"B_tilde": arrays[f"{seq}/B"], "log_step": arrays[f"{seq}/log_step"][:, 0]}
    options = {"bidirectional": both_directions(arrays, seq)} | options
    return s5_from_official(layer, dtype=dtype, **options)


def block_values(arrays: Arrays, i: int) -> dict[str, np.ndarray]:
    """The values of the variables of a block, besides those of its layer."""
    block, path = f"encoder/layers_{i}", f"backbone.blocks.{i}"
    values = {}
    for kind, names in (("params", ("scale", "bias")), ("batch_stats", ("mean", "var"))):
        for name in names:
            if (official := f"{kind}/{block}/norm/{name}") in arrays:
                values[f"{path}.norm.{name}"] = arrays[official]
    for name in ("out1", "out2"):
        if f"params/{block}/{name}/kernel" in arrays:
            values |= dense_values(arrays, f"params/{block}/{name}", f"{path}.{name}")
    return values
