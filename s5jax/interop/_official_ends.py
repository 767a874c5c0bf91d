"""Encoders and heads of state-spaces/s4."""

import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from s5jax.interop._fit import Arrays, Shape
from s5jax.models import (
    DocumentMatcher,
    LanguageModel,
    SequenceClassifier,
    SequenceLabeler,
    SequenceModel,
)

DECODER = "decoder.0.output_transform"
RETRIEVAL = "decoder.0.retrieval.classifier"


class Part(NamedTuple):
    """An encoder or a head."""

    shapes: dict[str, Shape]
    values: Callable[[Arrays], dict[str, np.ndarray]]
    """From the arrays of a checkpoint to the values of variables by their paths."""
    options: Callable[[Mapping[str, int]], dict[str, Any]]
    """From sizes to arguments of the model."""
    model: type[SequenceModel] = SequenceModel
    """The model with this head."""


def encoder_part(arrays: Arrays) -> Part:
    """The encoder that the names show: a dense map, unless there is a table of tokens."""
    if "encoder.0.emb_layers.0.weight" in arrays:
        return adaptive_part(arrays)
    if "encoder.0.weight" in arrays and "encoder.0.bias" not in arrays:
        # A language model multiplies its embedding by sqrt(H).
        power = 0.5 if vocabulary_decoder(arrays) else 0.0
        return Part(
            {"encoder.0.weight": ("V", "H")},
            lambda a: {
                "backbone.encode.embedding": scaled(a["encoder.0.weight"], power),
            },
            lambda sizes: {"d_input": sizes["V"], "encoder": "embedding"},
        )
    return Part(
        {"encoder.0.weight": ("H", "d_input"), "encoder.0.bias": ("H",)},
        lambda a: dense(a, "encoder.0", "backbone.encode"),
        lambda sizes: {"d_input": sizes["d_input"], "encoder": "linear"},
    )


def scaled(table: np.ndarray, power: float) -> np.ndarray:
    """A table of vectors, times a power of their length."""
    return table * table.shape[-1] ** power


def head_part(arrays: Arrays, *, per_step: bool) -> Part:
    """The head that the names show: one output for a sequence, unless ``per_step``."""
    if "encoder.0.emb_layers.0.weight" in arrays:
        return Part({}, lambda a: {}, lambda sizes: {}, LanguageModel)
    if name := vocabulary_decoder(arrays):
        return Part(
            {f"{name}.weight": ("V", "H"), f"{name}.bias": ("V",)},
            lambda a: dense(a, name, "decode"),
            lambda sizes: {"tie_embedding": False},
            LanguageModel,
        )
    if f"{RETRIEVAL}.0.weight" in arrays:
        return Part(
            {
                **{f"{RETRIEVAL}.0.weight": ("H", "4 H"), f"{RETRIEVAL}.0.bias": ("H",)},
                **{f"{RETRIEVAL}.2.weight": ("classes", "H"), f"{RETRIEVAL}.2.bias": ("classes",)},
            },
            lambda a: dense(a, f"{RETRIEVAL}.0", "compare") | dense(a, f"{RETRIEVAL}.2", "decode"),
            lambda sizes: {"d_output": sizes["classes"]},
            DocumentMatcher,
        )
    return Part(
        {f"{DECODER}.weight": ("d_output", "H"), f"{DECODER}.bias": ("d_output",)},
        lambda a: dense(a, DECODER, "decode"),
        lambda sizes: {"d_output": sizes["d_output"]},
        SequenceLabeler if per_step else SequenceClassifier,
    )


def vocabulary_decoder(arrays: Arrays) -> str | None:
    """The name of the dense map with which a language model ends, if it is one."""
    if "encoder.0.bias" in arrays:
        return None
    names = (name for name in arrays if re.fullmatch(r"decoder\.\d+\.weight", name))
    return next((name.removesuffix(".weight") for name in names), None)


def adaptive_part(arrays: Arrays) -> Part:
    """An adaptive embedding with an adaptive softmax that shares its tables."""
    n = sum(
        re.fullmatch(r"encoder\.0\.emb_layers\.\d+\.weight", name) is not None for name in arrays
    )
    widths = ["H", *(f"H{i}" for i in range(1, n))]
    shapes: dict[str, Shape] = {"loss.out_projs.0": ("H", "H")}
    for i, width in enumerate(widths):
        shapes[f"encoder.0.emb_layers.{i}.weight"] = (f"V{i}", width)
        shapes[f"encoder.0.emb_projs.{i}"] = ("H", width)
        shapes[f"loss.out_layers_biases.{i}"] = (f"V{i}",)
    shapes |= {"loss.cluster_weight": (n - 1, "H"), "loss.cluster_bias": (n - 1,)}

    def values(a: Arrays) -> dict[str, np.ndarray]:
        encode = "backbone.encode"
        found = {f"{encode}.head.kernel": a["loss.out_projs.0"]}
        for i in range(n):
            found[f"{encode}.tables.{i}.embedding"] = a[f"encoder.0.emb_layers.{i}.weight"]
            found[f"{encode}.projections.{i}.kernel"] = a[f"encoder.0.emb_projs.{i}"].T
        # The official logits of clusters are in reverse order.
        found[f"{encode}.clusters.kernel"] = a["loss.cluster_weight"][::-1].T
        found[f"{encode}.clusters.bias"] = a["loss.cluster_bias"][::-1]
        biases = [a[f"loss.out_layers_biases.{i}"] for i in range(n)]
        return found | {f"{encode}.bias": np.concatenate(biases)}

    def options(sizes: Mapping[str, int]) -> dict[str, Any]:
        *cutoffs, d_input = itertools.accumulate(sizes[f"V{i}"] for i in range(n))
        return {"d_input": d_input, "cutoffs": cutoffs, "div_val": sizes["H"] // sizes["H1"]}

    return Part(shapes, values, options)


def dense(arrays: Arrays, name: str, path: str) -> dict[str, np.ndarray]:
    """The values of a dense map."""
    weight, bias = arrays[f"{name}.weight"], arrays[f"{name}.bias"]
    return {f"{path}.kernel": weight.T, f"{path}.bias": bias}
