"""Options in the configuration that Lightning stores with the weights of state-spaces/s4."""

from collections.abc import Mapping
from typing import Any

from s5jax._errors import check_choice

POOLING = {"pool": "mean", "last": "last"}
VERSIONS = {"": "dlr", "exp": "dss_exp", "softmax": "dss_softmax"}
DECAYS = {
    "cat_randn": "scale",
    "cat_cos": "scale",
    "cat_randn_learnable": "learnable",
    "cat_cos_learnable": "learnable",
    "cat_randn_learnable_fixed": "power",
    "cat_cos_learnable_fixed": "power",
}
"""Modes of SGConv, and its decay here."""

LAYER_NAMES: Mapping[str, Mapping[str, str]] = {
    "s4": {"dt_transform": "dt_transform", "real_transform": "real_transform"},
    "s4d": {
        "dt_transform": "dt_transform",
        "real_transform": "real_transform",
        "disc": "discretization",
    },
    "dlr": {
        "kernel_to_real": "kernel_to_real",
        "max_kernel_length": "l_kernel",
        "version": "version",
    },
    "sgconv": {"l_max": "l_max", "init_scale": "init_scale", "mode": "decay"},
    "hope": {"dt_transform": "dt_transform", "decay_exp": "decay_exp"},
}
"""Official names of the options of layers, and their names here."""

TRANSLATED = {"version": VERSIONS, "mode": DECAYS}
"""Options whose values have other names here."""


def published_options(
    where: str, architecture: str, config: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the options of the model and of its layers that a configuration states.

    Raises:
        ValueError: for an option that the library does not have.
    """
    model, decoder = (config.get(name) for name in ("model", "decoder"))
    model = model if isinstance(model, dict) else {}
    options = {n: model[n] for n in ("dropout", "tie_dropout") if model.get(n) is not None}
    if model.get("resratio"):
        raise ValueError(
            f"{where}: residual connections must not be weighted; the file has a `resratio` of "
            f"{model['resratio']}, so the model cannot be built."
        )
    decoders = decoder if isinstance(decoder, list) else [decoder]
    for each in decoders:
        if isinstance(each, dict) and each.get("mode") is not None:
            check_choice(where, "decoder.mode", each["mode"], POOLING)
            options["pooling"] = POOLING[each["mode"]]
    layers = model.get("layer")
    layers = layers if isinstance(layers, list) else [layers]
    layer = next((x for x in layers if isinstance(x, dict) and "expand" not in x), {})
    layer_options = {}
    for name, ours in LAYER_NAMES[architecture].items():
        value = layer.get(name)
        if value is None:
            continue
        if name in TRANSLATED:
            check_choice(where, name, value, TRANSLATED[name])
            value = TRANSLATED[name][value]
        layer_options[ours] = value
    return options, layer_options
