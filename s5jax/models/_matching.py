"""Whole models that compare two sequences."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from s5jax.layers._base import SequenceLayer
from s5jax.models._backbone import ClassifierState, SequenceClassifier
from s5jax.models._block import TANH_GELU


class DocumentMatcher(SequenceClassifier):
    r"""Two sequences in, logits of their relation out.

    .. math::
        x_i = \operatorname{pool}(\operatorname{backbone}(u_i)), \qquad
        \text{logits} = W_2 \operatorname{gelu}(W_1 [x_1, x_2, x_1 - x_2, x_1 \odot x_2] + b_1)
        + b_2

    Both sequences go through the same backbone, as one batch with an axis of size 2: inputs have
    shape ``(*batch, 2, L, d_input)``, or ``(*batch, 2, L)`` for tokens, and ``lengths`` has shape
    ``(*batch, 2)``. Everything else is as in `SequenceClassifier`: chunks and steps advance both
    sequences, and a chunk whose ``lengths`` are 0 for one of them leaves that one as it is.

    Args:
        layer: class of the layers, for example `S5`.
        rngs: source of the key ``params``.
        **classifier: the other arguments of `SequenceClassifier`.

    Raises:
        ValueError: for sizes that are not positive or an unknown option.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from s5jax import S5, DocumentMatcher
        >>> model = DocumentMatcher(
        ...     S5, d_input=98, d_output=2, d_model=16, n_layers=2, layer_options={"d_state": 8},
        ...     encoder="embedding", norm="layer", rngs=nnx.Rngs(0),
        ... )
        >>> model(jnp.ones((3, 2, 100), int), lengths=jnp.array([[100, 80], [7, 9], [1, 50]])).shape
        (3, 2)

    References:
        The retrieval models of Gu, Goel and Ré, "Efficiently Modeling Long Sequences with
        Structured State Spaces", 2022, https://arxiv.org/abs/2111.00396, and of Smith, Warrington
        and Linderman, "Simplified State Space Layers for Sequence Modeling", 2023,
        https://arxiv.org/abs/2208.04933.
    """

    def __init__(
        self, layer: Callable[..., SequenceLayer], *, rngs: nnx.Rngs, **classifier: Any
    ) -> None:
        super().__init__(layer, rngs=rngs, **classifier)
        H = self.d_model
        self.compare = nnx.Linear(
            4 * H, H, dtype=self.dtype, param_dtype=self.param_dtype, rngs=rngs
        )

    def init_state(self, batch_shape: Sequence[int] = ()) -> ClassifierState:
        """The state of both sequences before the first step, of shape ``(*batch_shape, 2)``."""
        return super().init_state((*batch_shape, 2))

    def _head(self, x: Array) -> Array:
        x1, x2 = x[..., 0, :], x[..., 1, :]
        x = self.compare(jnp.concatenate([x1, x2, x1 - x2, x1 * x2], axis=-1))
        return self.decode(nnx.gelu(x, approximate=self.activation in TANH_GELU))

    def _check_input(self, u: Array, n_axes: int) -> tuple[int, ...]:
        shape = super()._check_input(u, n_axes)
        if len(shape) <= n_axes or shape[-n_axes - 1] != 2:
            raise ValueError(
                "DocumentMatcher: `u` must have an axis of size 2, one entry a document, after the "
                f"batch axes; got shape {u.shape}."
            )
        return shape
