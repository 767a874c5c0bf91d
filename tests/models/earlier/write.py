"""Writes the models of this folder, with inputs and outputs; run at commit 22034eb."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import s5jax
from s5jax import DLR, GRU, HOPE, LRU, S4, S4D, S5, SGConv

FOLDER = Path(sys.argv[1])
SIZES = {"d_model": 4, "n_layers": 2, "norm": "layer"}
H = 4


def normal(*shape):
    return np.asarray(jax.random.normal(jax.random.key(1), shape))


def model(kind, layer, **options):
    layer_options = {"d_state": 4, **options.pop("layer_options", {})}
    return kind(layer, layer_options=layer_options, rngs=nnx.Rngs(0), **{**SIZES, **options})


def layer(kind, **options):
    return kind(H, 4, rngs=nnx.Rngs(0), **options)


def pipeline():
    inner = model(s5jax.SequenceClassifier, S4D, d_input=2, d_output=2, norm="batch")
    preprocessing = s5jax.Preprocessing(
        input_mean=(20.0, 1.0), input_std=(5.0, 2.0), classes=("cold", "hot")
    )
    return s5jax.Pipeline(inner, preprocessing)


CASES = {
    "s5_sequential": (layer(S5, backend="sequential", bidirectional=True), {}),
    "lru_associative": (layer(LRU, backend="associative"), {}),
    "s4_cauchy": (layer(S4, backend="cauchy", conv="fft"), {}),
    "s4_chunked": (layer(S4, conv="chunked", backend="two_table", n_ssm=2), {}),
    "s4d_chunked": (layer(S4D, conv="chunked", init="lin"), {}),
    "s4d_sequential": (layer(S4D, backend="sequential", dtype=jnp.bfloat16), {}),
    "dlr_scan": (layer(DLR, conv="scan", kernel_to_real="sum", dt_min=0.1), {}),
    "dlr_scan_sequential": (layer(DLR, conv="scan", backend="sequential"), {}),
    "dlr_associative": (layer(DLR, backend="associative"), {}),
    "hope_chunked": (layer(HOPE, conv="chunked"), {}),
    "sgconv": (SGConv(H, l_max=9, kernel_dim=2, rngs=nnx.Rngs(0)), {}),
    "backbone": (
        model(
            s5jax.SequenceBackbone, S5, d_input=3, final_norm=True, ffn_every=2, norm="scalar_layer"
        ),
        {"lengths": np.array([6, 3])},
    ),
    "classifier_one_hot": (
        model(
            s5jax.SequenceClassifier,
            S5,
            d_input=5,
            d_output=3,
            encoder="one_hot",
            activation="full_glu",
            norm="batch",
            layer_options={"backend": "associative", "bidirectional": True},
            tie_dropout=False,
            mask_padding=False,
        ),
        {"lengths": np.array([6, 3])},
    ),
    "language_adaptive": (
        model(s5jax.LanguageModel, GRU, d_input=11, cutoffs=(3,), ffn_every=1, div_val=2),
        {"resets": np.arange(12).reshape(2, 6) % 5 == 3},
    ),
    "language_untied": (
        model(s5jax.LanguageModel, S5, d_input=7, tie_embedding=False, embedding_dropout=0.25),
        {},
    ),
    "language_tied": (model(s5jax.LanguageModel, S5, d_input=7, dropout=0.5), {}),
    "matcher": (
        model(
            s5jax.DocumentMatcher,
            LRU,
            d_input=3,
            d_output=2,
            pooling="last",
            tie_dropout="residual",
        ),
        {"lengths": np.array([[6, 2], [1, 5]])},
    ),
    "image_regressor": (
        model(
            s5jax.ImageRegressor,
            S5,
            d_input=65,
            d_output=2,
            image_shape=(8, 8),
            layer_options={"clip_eigs": True},
        ),
        {"dt": np.linspace(0.5, 2, 12, dtype=np.float32).reshape(2, 6)},
    ),
    "labeler": (
        model(
            s5jax.SequenceLabeler,
            DLR,
            d_input=3,
            d_output=2,
            activation="gelu_linear",
            prenorm=False,
            remat=True,
            layer_options={"conv": "fft", "bidirectional": True},
        ),
        {"lengths": np.array([6, 3])},
    ),
    "pipeline": (pipeline(), {}),
}


def inputs(name, module):
    d_input = getattr(getattr(module, "model", module), "d_input", H)
    if name.startswith("language") or name.endswith("one_hot"):
        return np.arange(12).reshape(2, 6) % d_input
    return normal(2, *([2] if name == "matcher" else []), 6, d_input)


for name, (module, arguments) in CASES.items():
    module.eval()
    u = inputs(name, module)
    s5jax.save(module, FOLDER / name)
    np.savez(
        FOLDER / name / "calls.npz",
        u=u,
        y=np.asarray(module(u, **arguments), np.float32),
        **arguments,
    )
