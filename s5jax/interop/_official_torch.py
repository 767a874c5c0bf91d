"""Whole models from the state dicts of state-spaces/s4 and of the repositories built on it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.typing import DTypeLike

from s5jax.interop._fit import Arrays, Shape, assemble, check_fit
from s5jax.interop._official_config import published_options
from s5jax.interop._official_ends import dense, encoder_part, head_part
from s5jax.interop._official_layers import KINDS, gated
from s5jax.interop._torch_file import TorchFile
from s5jax.models import DocumentMatcher, SequenceClassifier, SequenceModel

RENAMED = (
    (r"^module\.", ""),
    (r"^s4_layers\.(\d+)\.", r"model.layers.\1.layer."),
    (r"^norms\.(\d+)\.", r"model.layers.\1.norm.norm."),
    (r"^encoder\.(weight|bias)$", r"encoder.0.\1"),
    (r"^decoder\.(weight|bias)$", r"decoder.0.output_transform.\1"),
    (r"\.layer\.layer\.", ".layer."),
    (r"\.kernel\.kernel\.", ".kernel."),
    (r"\.kernel\.L$", ".kernel.l_kernel"),
    (r"\.kernel\.(inv|log)_(w|A)_real$", ".kernel.A_real"),
    (r"\.kernel\.w_imag$", ".kernel.A_imag"),
    (r"\.norm\.ln\.", ".norm."),
    (r"\.output_linear\.0\.", ".output_linear."),
    (r"\.ff\.0\.0\.", ".ff.0."),
)
"""Names of earlier versions, and of the programs with minimal layers."""

DROPPED = re.compile(
    r"^loss_val\.|^loss\.shared_out_projs\.|num_batches_tracked$|\.kernel_norm_initialized$"
    r"|\.kernel\.(omega|z)$"
)
"""Copies, counters and caches."""

FEED_FORWARD: Mapping[str, Shape] = {
    "ff.0.weight": ("4 H", "H"),
    "ff.0.bias": ("4 H",),
    "ff.2.weight": ("H", "4 H"),
    "ff.2.bias": ("H",),
}

NORMS: Mapping[str, Mapping[str, Shape]] = {
    "layer": {"weight": ("H",), "bias": ("H",)},
    "scalar_layer": {"s": (1,), "m": (1,)},
    "batch": {
        "weight": ("H",),
        "bias": ("H",),
        "running_mean": ("H",),
        "running_var": ("H",),
    },
}
VARIABLES = {
    **{"weight": "scale", "bias": "bias", "s": "scale", "m": "bias"},
    **{"running_mean": "mean", "running_var": "var"},
}
"""Official names of the arrays of norms, and their names here."""


class Names(NamedTuple):
    """A state dict under the names of version 4 of state-spaces/s4, without ``layer.layer``."""

    arrays: dict[str, np.ndarray]
    originals: dict[str, str]
    """Names in the file."""
    minimal: bool
    """Whether a program with minimal layers wrote the file: its models have no last norm."""
    raw_step: bool
    """Whether step sizes are stored before a transform, as in version 4, and not as logarithms."""


def torch_model(
    where: str,
    architecture: str,
    file: TorchFile,
    *,
    per_step: bool,
    dtype: DTypeLike,
    layer_options: Mapping[str, Any],
    options: Mapping[str, Any],
) -> SequenceModel:
    """Builds a model from a state dict; the arguments are those of `load_official`.

    Raises:
        ValueError: if names or shapes do not fit, or an option is not supported.
    """
    names = rename(file.arrays, architecture)
    arrays, kind = names.arrays, KINDS[architecture]
    published, published_layer = published_options(where, architecture, file.hyper_parameters)
    encoder, head = encoder_part(arrays), head_part(arrays, per_step=per_step)
    if not issubclass(head.model, SequenceClassifier | DocumentMatcher):
        published.pop("pooling", None)
    shown = {"prenorm": any(name.startswith("model.norm.") for name in arrays)}
    options = {**shown, **published, **options}
    blocks = split_blocks(arrays)
    is_layer = [not any(name.startswith("ff.") for name in block) for block in blocks]
    final_norm = bool(options["prenorm"]) and not names.minimal

    shapes = dict(encoder.shapes)
    for i, block in enumerate(blocks):
        own = kind.shapes(block) if is_layer[i] else FEED_FORWARD
        shapes |= {f"model.layers.{i}.layer.{name}": shape for name, shape in own.items()}
    norms = [f"model.layers.{i}.norm.norm" for i in range(len(blocks))]
    norms += ["model.norm.norm"] if final_norm else []
    norm = norm_kind(arrays)
    shapes |= {f"{path}.{name}": shape for path in norms for name, shape in NORMS[norm].items()}
    sizes = check_fit(where, arrays, shapes | head.shapes, names.originals)

    layer_options = {
        **(kind.defaults if names.raw_step else {}),
        **published_layer,
        **layer_options,
    }
    layers = [
        kind.build(block, dtype=dtype, **layer_options)
        for block, builds in zip(blocks, is_layer, strict=True)
        if builds
    ]
    arguments = {
        **{"norm": norm, "final_norm": final_norm, "ffn_every": ffn_every(where, is_layer)},
        **{"activation": "glu" if gated(blocks[0]) else "gelu_linear"},
        **encoder.options(sizes),
        **head.options(sizes),
        **options,
    }
    values = block_values(arrays, blocks, is_layer, norm, final_norm=final_norm)
    values |= encoder.values(arrays) | head.values(arrays)
    return assemble(where, head.model, layers, values, dtype=dtype, **arguments)


def rename(arrays: Arrays, architecture: str) -> Names:
    """Gives the arrays of every version the names, shapes and signs of version 4."""
    renamed, originals = {}, {}
    for original, array in arrays.items():
        name = original
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        if not DROPPED.search(name):
            renamed[name] = squeeze(name, array)
            originals[name] = original
    minimal = any(".s4_layers." in f".{name}" for name in arrays)
    raw_step = any(name.endswith(".kernel.inv_dt") for name in renamed)
    if architecture in ("s4", "s4d") and not raw_step:
        renamed, originals = to_version_4(renamed, originals)
    return Names(renamed, originals, minimal, raw_step)


def squeeze(name: str, array: np.ndarray) -> np.ndarray:
    """Drops the last axis of convolutions with one tap, and of the biases of transposed maps."""
    axes = {"weight": 3, "bias": 2}
    is_map = ".output_linear." in name or ".ff." in name
    squeezes = is_map and array.ndim == axes.get(name.rpartition(".")[2])
    return array[..., 0] if squeezes and array.shape[-1] == 1 else array


def to_version_4(
    arrays: dict[str, np.ndarray], originals: dict[str, str]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Converts S4 and S4D with log step sizes: frequencies had the opposite sign.

    A minimal layer has no B, which is one, and no axes for directions and shared systems.
    """
    new, names = {}, {}
    for name, array in arrays.items():
        target = name
        if name.endswith(".kernel.log_dt"):
            target, array = name.replace("log_dt", "inv_dt"), array[..., None]
        elif name.endswith(".kernel.A_imag"):
            array = -array
        elif name.endswith(".kernel.C") and array.ndim == 3:
            array = array[None]
            new[name.removesuffix("C") + "B"] = np.ones_like(array) * [1.0, 0.0]
        elif name.endswith(".layer.D") and array.ndim == 1:
            array = array[None]
        new[target], names[target] = array, originals[name]
    return new, names


def split_blocks(arrays: Arrays) -> list[dict[str, np.ndarray]]:
    """The arrays of each layer, by their names in the layer; at least one layer."""
    blocks: dict[int, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        if match := re.match(r"model\.layers\.(\d+)\.(layer\.)?", name):
            block = blocks.setdefault(int(match[1]), {})
            if match[2]:
                block[name[match.end() :]] = array
    n = min(max(blocks, default=0) + 1, len(arrays))
    return [blocks.get(i, {}) for i in range(n)]


def ffn_every(where: str, is_layer: Sequence[bool]) -> int | None:
    """The number of layers before each feed-forward block."""
    if all(is_layer):
        return None
    n = list(is_layer).index(False)
    n_layers = sum(is_layer)
    expected = [i % (n + 1) != n for i in range(len(is_layer))]
    if n == 0 or list(is_layer) != expected:
        raise ValueError(
            f"{where}: feed-forward blocks must follow every n-th of the {n_layers} layers; got "
            f"them at {[i for i, layer in enumerate(is_layer) if not layer]}."
        )
    return n


def norm_kind(arrays: Arrays) -> str:
    """The norm of the first block."""
    norm = "model.layers.0.norm.norm"
    if f"{norm}.running_mean" in arrays:
        return "batch"
    return "scalar_layer" if f"{norm}.m" in arrays else "layer"


def block_values(
    arrays: Arrays,
    blocks: Sequence[Arrays],
    is_layer: Sequence[bool],
    norm: str,
    *,
    final_norm: bool,
) -> dict[str, np.ndarray]:
    """The values of the variables of blocks, besides those of layers."""
    values = {}

    def add_norm(name: str, path: str) -> None:
        for official in NORMS[norm]:
            values[f"{path}.{VARIABLES[official]}"] = arrays[f"{name}.{official}"]

    counts = {True: 0, False: 0}
    for i, (block, builds) in enumerate(zip(blocks, is_layer, strict=True)):
        path = f"backbone.{'blocks' if builds else 'feed_forwards'}.{counts[builds]}"
        counts[builds] += 1
        add_norm(f"model.layers.{i}.norm.norm", f"{path}.norm")
        if builds:
            values |= dense(block, "output_linear", f"{path}.out2")
        else:
            values |= dense(block, "ff.0", f"{path}.widen") | dense(block, "ff.2", f"{path}.narrow")
    if final_norm:
        add_norm("model.norm.norm", "backbone.last_norm")
    return values
