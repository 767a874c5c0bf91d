"""Weights of the official implementations."""

from s5jax.interop._official import s5_block_from_official as s5_block_from_official
from s5jax.interop._official import s5_from_official as s5_from_official
