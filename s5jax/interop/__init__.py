"""Weights of the official implementations in, programs for other machines out."""

from s5jax.interop._dlr import dlr_from_official as dlr_from_official
from s5jax.interop._exported import ExportedModel as ExportedModel
from s5jax.interop._exported import load_exported as load_exported
from s5jax.interop._hope import hope_block_from_official as hope_block_from_official
from s5jax.interop._hope import hope_from_official as hope_from_official
from s5jax.interop._official import load_official as load_official
from s5jax.interop._onnx import export_onnx as export_onnx
from s5jax.interop._s4 import s4_from_official as s4_from_official
from s5jax.interop._s4 import s4d_from_official as s4d_from_official
from s5jax.interop._s4 import s4d_minimal_from_official as s4d_minimal_from_official
from s5jax.interop._s5 import s5_block_from_official as s5_block_from_official
from s5jax.interop._s5 import s5_from_official as s5_from_official
from s5jax.interop._sgconv import sgconv_from_official as sgconv_from_official
from s5jax.interop._stablehlo import export_stablehlo as export_stablehlo
