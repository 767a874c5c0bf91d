"""A page in which a trained model reads digits that a user draws."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

import s5jax
from experiments.errors import UsageError

DRAWINGS: dict[str, dict[str, Any]] = {
    "digits": {"side": 8, "box": [5, 8], "centre": "box", "ink": 19.5},
    "smnist": {"side": 28, "box": [20, 20], "centre": "mass", "thickness": 2.7},
}
"""How a data set prepares its images, in pixels.

Digits fill a box around the centre of the image, which on ``smnist`` is their centre of mass. On
``digits`` strokes are so thick that all images have about the same amount of ink; both amounts are
averages of the training images.
"""


def demo_page(task: str, model: Any, test: Mapping[str, float]) -> str:
    """Builds a page of HTML that needs no server, no network and no other file.

    Args:
        task: ``"digits"`` or ``"smnist"``.
        model: a causal classifier of S5 or LRU layers in evaluation mode.
        test: figures on the test images, with ``"accuracy"``.

    Returns:
        The page, with the weights in float32.

    Raises:
        UsageError: for another task or model.
    """
    _check(task, model)
    backbone = model.backbone
    n_parameters = sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
    description = {
        "drawing": DRAWINGS[task],
        "classes": [str(digit) for digit in range(model.d_output)],
        "facts": (
            f"{len(backbone.blocks)} layers of {_kinds(model)} with "
            f"{backbone.d_model} features, {n_parameters:,} parameters, trained on {task}; "
            f"{100 * test['accuracy']:.1f} % of the test images are classified correctly. "
            "Everything is computed in this page; no drawing leaves it."
        ),
        "pooling": model.pooling,
        "encode": _dense(backbone.encode),
        "blocks": [_block(block) for block in backbone.blocks],
        "decode": _dense(model.decode),
    }
    template = Path(__file__).with_name("demo.html").read_text(encoding="utf-8")
    return template.replace("@MODEL@", json.dumps(description, separators=(",", ":")))


def _check(task: str, model: Any) -> None:
    if task not in DRAWINGS:
        raise _refusal(f"the task {' or '.join(DRAWINGS)}", task)
    options = model.backbone.options
    if not all(isinstance(layer, s5jax.S5 | s5jax.LRU) for layer in model.layers):
        raise _refusal("layers of S5 or LRU", _kinds(model))
    if any(layer.bidirectional for layer in model.layers):
        raise _refusal("a causal model", "a bidirectional one")
    if options.norm not in ("batch", "layer"):
        raise _refusal("the norm batch or layer", options.norm)
    if not options.approximate_gelu:
        raise _refusal("the activation gelu, half_glu1, half_glu2 or full_glu", options.activation)
    if model.backbone.final_norm or model.backbone.ffn_every:
        raise _refusal("neither a final norm nor feed-forward blocks", "one of them")


def _kinds(model: Any) -> str:
    return " and ".join(dict.fromkeys(type(layer).__name__ for layer in model.layers))


def _refusal(rule: str, received: str) -> UsageError:
    return UsageError(
        f"--format=html needs {rule}; this run has {received}. Train a model for it with: python "
        "-m experiments.train --task=digits --model.bidirectional=False"
    )


def _block(block: s5jax.ResidualBlock) -> dict[str, Any]:
    layer: Any = block.layer
    coefficients = layer.coefficients()
    return {
        "Lambda": _complex_array(coefficients.Lambda_bar),
        "B": _complex_array(layer.input_matrix(coefficients)),
        "C": _complex_array(layer.output_matrix(coefficients)),
        "D": _array(coefficients.D),
        "norm": _norm(block.norm),
        "prenorm": block.options.prenorm,
        "activation": block.options.activation,
        "out1": block.out1 and _dense(block.out1),
        "out2": block.out2 and _dense(block.out2),
    }


def _norm(norm: Any) -> dict[str, Any]:
    """Scale and shift, with the running statistics of a batch norm; epsilon of a layer norm."""
    scale, shift = np.asarray(norm.scale[...]), np.asarray(norm.bias[...])
    if isinstance(norm, nnx.LayerNorm):
        return {"scale": _array(scale), "shift": _array(shift), "epsilon": norm.epsilon}
    scale = scale / np.sqrt(np.asarray(norm.var[...]) + norm.epsilon)
    shift = shift - np.asarray(norm.mean[...]) * scale
    return {"scale": _array(scale), "shift": _array(shift), "epsilon": None}


def _dense(linear: nnx.Linear) -> dict[str, Any]:
    """Weights with a row for each output."""
    assert linear.bias is not None
    return {"weight": _array(linear.kernel[...].T), "bias": _array(linear.bias[...])}


def _complex_array(x: ArrayLike) -> dict[str, str]:
    x = np.asarray(x)
    return _array(np.stack([x.real, x.imag], -1))


def _array(x: ArrayLike) -> dict[str, str]:
    """Little-endian float32, row by row, in base64."""
    return {"float32": base64.b64encode(np.asarray(x, "<f4").tobytes()).decode()}
