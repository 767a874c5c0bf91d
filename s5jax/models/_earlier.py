"""Files of earlier versions, brought into the form of this one."""

from collections.abc import Mapping
from typing import Any

import numpy as np

BACKBONE = ("encode", "blocks", "feed_forwards", "last_norm")
"""Parts of a model that were its own before it had a backbone."""

RENAMED = ("S5", "LRU", "S4", "S4D", "DLR", "HOPE")
"""Layers whose option ``algorithm`` was one or two, ``conv`` and ``backend``."""


def upgrade(
    arguments: Mapping[str, Any], arrays: Mapping[str, np.ndarray], kind: str, *, has_backbone: bool
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Renames the options of layers and the paths of parameters that had other names.

    Args:
        arguments: constructor arguments, as JSON holds them.
        arrays: parameters by their paths.
        kind: name of the class.
        has_backbone: whether the class is a whole model, whose backbone is a part of it.

    Returns:
        The arguments and the arrays.
    """
    arguments = dict(arguments)
    if isinstance(arguments.get("layer"), dict):
        options = _rename(dict(arguments["layer_options"]), arguments["layer"]["class"])
        arguments["layer_options"] = list(map(list, options.items()))
    elif "layer" not in arguments:
        arguments = _rename(arguments, kind)
    if not has_backbone:
        return arguments, dict(arrays)
    moved = {f"backbone.{p}" if p.split(".")[0] in BACKBONE else p: x for p, x in arrays.items()}
    return arguments, moved


def _rename(options: dict[str, Any], layer: str) -> dict[str, Any]:
    """Replaces ``conv`` and ``backend`` by ``algorithm``, which joins the two."""
    if layer not in RENAMED or not {"conv", "backend"} & options.keys():
        return options
    rest = {name: value for name, value in options.items() if name not in ("conv", "backend")}
    conv, backend = options.get("conv", "auto"), options.get("backend", "auto")
    if layer in ("S5", "LRU") or (layer == "S4" and backend == "cauchy"):
        algorithm = backend
    elif layer == "DLR" and conv == "scan" and backend != "auto":
        algorithm = backend
    else:
        algorithm = conv
    return {**rest, "algorithm": algorithm}
