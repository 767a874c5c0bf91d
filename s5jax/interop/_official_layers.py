"""The layers of official checkpoints: names and shapes of their arrays, and how to build them.

Names are those of version 4 of state-spaces/s4, relative to a layer, without ``layer.layer``.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jax.typing import DTypeLike

from s5jax._errors import check_choice
from s5jax.interop._dlr import dlr_from_official
from s5jax.interop._fit import Arrays, Shape
from s5jax.interop._hope import hope_block_from_official, hope_from_official
from s5jax.interop._s4 import s4_from_official, s4d_from_official
from s5jax.interop._sgconv import sgconv_from_official
from s5jax.layers import SequenceLayer

TRANSFORM = {"exp": np.exp, "softplus": lambda x: np.logaddexp(0, x)}


class Kind(NamedTuple):
    """An architecture of layers."""

    shapes: Callable[[Arrays], dict[str, Shape]]
    """From the arrays of a layer to the names and shapes that it should have."""
    build: Callable[..., SequenceLayer]
    """From the arrays of a layer, a dtype and the options of an interop function to the layer."""
    defaults: Mapping[str, Any]
    """Options that the official configurations set and arrays do not show."""


def s4d_shapes(layer: Arrays) -> dict[str, Shape]:
    """The arrays of S4D."""
    return {
        "kernel.C": ("directions", "H", "N/2", 2),
        "kernel.A_real": ("n_ssm", "N/2"),
        "kernel.A_imag": ("n_ssm", "N/2"),
        "kernel.B": (1, "n_ssm", "N/2", 2),
        "kernel.inv_dt": ("H", 1),
        "D": (1, "H"),
        **output_map_shapes(layer, "H"),
    }


def s4_shapes(layer: Arrays) -> dict[str, Shape]:
    """The arrays of S4."""
    low_rank: dict[str, Shape] = {
        "kernel.P": ("rank", "n_ssm", "N/2", 2),
        "kernel.l_kernel": (),
    }
    return s4d_shapes(layer) | low_rank


def dlr_shapes(layer: Arrays) -> dict[str, Shape]:
    """The arrays of DLR and of DSS."""
    shapes: dict[str, Shape] = {"kernel.W": ("directions", "H", "N", 2), "D": (1, "H")}
    version = dlr_version(layer)
    if version == "dss_softmax":
        shapes["kernel.Lambda"] = ("N", 2)
    else:
        shapes |= {"kernel.Lambda_log_neg_re": ("N",), "kernel.Lambda_im": ("N",)}
    if version != "dlr":
        shapes["kernel.log_dt"] = ("H",)
    return shapes | output_map_shapes(layer, "H")


def sgconv_shapes(layer: Arrays) -> dict[str, Shape]:
    """The arrays of SGConv."""
    n = max(1, sum(name.startswith("kernel_list.") for name in layer))
    kernels: dict[str, Shape] = {
        f"kernel_list.{i}": ("directions", "H", "kernel_dim") for i in range(n)
    }
    norm: dict[str, Shape] = {"kernel_norm": ("directions", "H", 1), "D": (1, "H")}
    learnable = "decay" in layer
    decay: dict[str, Shape] = {"multiplier": () if learnable else (1, "H", 1)}
    if learnable:
        decay["decay"] = ("H",)
    return kernels | norm | decay | output_map_shapes(layer, "H")


def hope_shapes(layer: Arrays) -> dict[str, Shape]:
    """The arrays of HOPE's block, or of its minimal layer."""
    if "kernel.H" in layer:
        minimal: dict[str, Shape] = {
            "D": ("H",),
            "kernel.H": ("2 H", "n", 2),
            "kernel.log_dt": ("2 H",),
        }
        return minimal | output_map_shapes(layer, "H")
    shared = "kernel.Han" in layer and layer["kernel.Han"].shape[1:2] == (1,)
    block: dict[str, Shape] = {
        "D": (2, "H"),
        "kernel.inv_dt": ("H", 1),
        "kernel.Han": (2, 1 if shared else "H", "n", 2),
    }
    return block | output_map_shapes(layer, "2 H")


def output_map_shapes(layer: Arrays, features: str) -> dict[str, Shape]:
    """The map after the activation, for a GLU unless it has as many outputs as inputs."""
    outputs = "2 H" if gated(layer) else "H"
    return {"output_linear.weight": (outputs, features), "output_linear.bias": (outputs,)}


def gated(layer: Arrays) -> bool:
    """Whether a layer ends with a GLU."""
    if "D" in layer and "output_linear.weight" in layer:
        return layer["output_linear.weight"].shape[:1] != layer["D"].shape[-1:]
    return True


def build_s4d(layer: Arrays, *, dtype: DTypeLike, **options: Any) -> SequenceLayer:
    """Builds S4D."""
    arrays = systems(layer, options) | {"C": pairs(layer["kernel.C"])}
    return s4d_from_official(arrays, dtype=dtype, **shape_options(layer), **options)


def build_s4(layer: Arrays, *, dtype: DTypeLike, **options: Any) -> SequenceLayer:
    """Builds S4."""
    arrays = systems(layer, options) | {"P": expand(pairs(layer["kernel.P"]), layer)}
    l_kernel = layer["kernel.l_kernel"]
    arrays |= {"C_tilde" if l_kernel else "C": pairs(layer["kernel.C"]), "l_kernel": l_kernel}
    return s4_from_official(arrays, dtype=dtype, **shape_options(layer), **options)


def systems(layer: Arrays, options: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Step sizes, A, B and D of S4 and S4D, in float64 and expanded to all features."""
    transforms = [options.get(name, "exp") for name in ("dt_transform", "real_transform")]
    for name, transform in zip(("dt_transform", "real_transform"), transforms, strict=True):
        check_choice("load_official", name, transform, TRANSFORM)
    inv_dt, re, im = (
        layer[f"kernel.{name}"].astype(float) for name in ("inv_dt", "A_real", "A_imag")
    )
    A = -TRANSFORM[transforms[1]](re) - 1j * im
    B = pairs(layer["kernel.B"])[0]
    dt = TRANSFORM[transforms[0]](inv_dt[:, 0])
    return {"dt": dt, "A": expand(A, layer), "B": expand(B, layer), "D": layer["D"]}


def expand(systems: np.ndarray, layer: Arrays) -> np.ndarray:
    """Repeats shared systems, on the axis before the last: feature h has the system h modulo S."""
    H, S = layer["D"].shape[-1], systems.shape[-2]
    return np.concatenate([systems] * (H // S), axis=-2)


def shape_options(layer: Arrays) -> dict[str, Any]:
    """The options of S4 and S4D that shapes show."""
    return {"n_ssm": len(layer["kernel.A_real"]), "bidirectional": len(layer["kernel.C"]) == 2}


def build_dlr(layer: Arrays, *, dtype: DTypeLike, **options: Any) -> SequenceLayer:
    """Builds DLR or DSS."""
    options = {"version": dlr_version(layer)} | options
    if options["version"] == "dss_softmax":
        Lambda = pairs(layer["kernel.Lambda"])
    else:
        raw, im = (layer[f"kernel.{n}"].astype(float) for n in ("Lambda_log_neg_re", "Lambda_im"))
        Lambda = -(raw**2 if options["version"] == "dlr" else np.exp(raw)) + 1j * im
    arrays = {"Lambda": Lambda, "W": pairs(layer["kernel.W"]), "D": layer["D"]}
    if "kernel.log_dt" in layer:
        arrays["log_dt"] = layer["kernel.log_dt"]
    bidirectional = len(layer["kernel.W"]) == 2
    return dlr_from_official(arrays, bidirectional=bidirectional, dtype=dtype, **options)


def dlr_version(layer: Arrays) -> str:
    """The version that the arrays show: DLR has no step size, and only a softmax no transform."""
    if "kernel.Lambda" in layer:
        return "dss_softmax"
    return "dss_exp" if "kernel.log_dt" in layer else "dlr"


def build_sgconv(layer: Arrays, *, dtype: DTypeLike, **options: Any) -> SequenceLayer:
    """Builds SGConv, for sequences as long as its kernel unless there is an ``l_max``."""
    w = [layer[f"kernel_list.{i}"] for i in range(len(layer)) if f"kernel_list.{i}" in layer]
    stretch = 2 ** (len(w) - 1 + options.get("init_scale", 0))
    shown: dict[str, Any] = {"l_max": w[0].shape[-1] * stretch, "bidirectional": len(w[0]) == 2}
    shown["decay"] = "learnable" if "decay" in layer else "scale"
    arrays = {f"w{i}": w_i for i, w_i in enumerate(w)} | dict(layer)
    return sgconv_from_official(arrays, dtype=dtype, **(shown | options))


def build_hope(layer: Arrays, *, dtype: DTypeLike, **options: Any) -> SequenceLayer:
    """Builds HOPE, of its block or of its minimal layer."""
    if "kernel.H" in layer:
        arrays = {"Hankel": pairs(layer["kernel.H"]), "log_dt": layer["kernel.log_dt"]}
        return hope_from_official(arrays | {"D": layer["D"]}, dtype=dtype, **options)
    Han, H = pairs(layer["kernel.Han"]), layer["D"].shape[-1]
    arrays = {"Han": np.broadcast_to(Han, (2, H, Han.shape[-1])), "D": layer["D"]}
    arrays["inv_dt"] = layer["kernel.inv_dt"]
    return hope_block_from_official(arrays, dtype=dtype, **options)


def pairs(x: np.ndarray) -> np.ndarray:
    """Complex numbers from a last axis of (real, imaginary)."""
    return x[..., 0].astype(float) + 1j * x[..., 1]


SOFTPLUS_STEP = {"dt_transform": "softplus"}

KINDS: Mapping[str, Kind] = {
    "s4": Kind(s4_shapes, build_s4, SOFTPLUS_STEP),
    "s4d": Kind(s4d_shapes, build_s4d, SOFTPLUS_STEP),
    "dlr": Kind(dlr_shapes, build_dlr, {}),
    "sgconv": Kind(sgconv_shapes, build_sgconv, {}),
    "hope": Kind(hope_shapes, build_hope, SOFTPLUS_STEP),
}
