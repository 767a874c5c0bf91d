"""Encoders: from the inputs of a model to the features of its first block."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Inexact

from s5jax.layers._dense import attend
from s5jax.layers._tables import unlist_methods
from s5jax.models._arguments import Encoder
from s5jax.models._dropout import drop


class LinearEncoder(nnx.Linear):
    """A dense map of real inputs.

    Every encoder takes the same arguments, and names its kind in ``kind``: ``"linear"`` if inputs
    are real numbers, another name if they are tokens. To give a backbone an encoder of another
    class, pass the class, or a function of these arguments, as ``encoder``.

    Args:
        d_input: number of input features, or of tokens.
        d_model: number of features H.
        embedding_std: standard deviation of a first embedding; None for the default.
        dtype: dtype of computations.
        param_dtype: dtype of the parameters.
        rngs: source of the key ``params``.
    """

    kind: ClassVar[Encoder] = "linear"

    def __init__(
        self,
        d_input: int,
        d_model: int,
        *,
        embedding_std: float | None,
        dtype: DTypeLike | None,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        del embedding_std
        super().__init__(d_input, d_model, dtype=dtype, param_dtype=param_dtype, rngs=rngs)

    def __call__(
        self, inputs: Array, out_sharding: Any = None, *, rngs: nnx.Rngs | None = None
    ) -> Inexact[Array, "*batch H"]:
        """Maps inputs; ``rngs`` is for encoders with dropout."""
        del rngs
        return super().__call__(inputs, out_sharding)


class OneHotEncoder(LinearEncoder):
    """A dense map of the one-hot vectors of tokens, as in the published S5."""

    kind = "one_hot"

    def __call__(
        self, inputs: Array, out_sharding: Any = None, *, rngs: nnx.Rngs | None = None
    ) -> Inexact[Array, "*batch H"]:
        """Maps tokens."""
        vectors = jax.nn.one_hot(inputs, self.in_features, dtype=self.dtype or self.param_dtype)
        return super().__call__(vectors, out_sharding, rngs=rngs)


@unlist_methods
class TokenEmbedding(nnx.Embed):
    """A table with a vector for each token, from which a language model can read off its logits.

    Args:
        d_input: number of tokens.
        d_model: number of features H.
        embedding_std: standard deviation of the first embedding; None for ``d_model ** -0.5``.
        dropout: rate of the drops of single entries after the embedding.
        dtype: dtype of computations.
        param_dtype: dtype of the parameters.
        rngs: source of the key ``params``.
    """

    kind: ClassVar[Encoder] = "embedding"

    def __init__(
        self,
        d_input: int,
        d_model: int,
        *,
        embedding_std: float | None,
        dropout: float = 0.0,
        dtype: DTypeLike | None,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        init = nnx.initializers.normal(default_std(embedding_std, d_model))
        dtypes: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}
        super().__init__(d_input, d_model, embedding_init=init, rngs=rngs, **dtypes)
        self.dropout = nnx.Dropout(dropout)

    def __call__(
        self, inputs: Array, out_sharding: Any = None, *, rngs: nnx.Rngs | None = None
    ) -> Inexact[Array, "*batch H"]:
        """Returns the vectors of tokens."""
        x = super().__call__(inputs, out_sharding)
        return drop("LanguageModel", self.dropout, x, rngs)

    def project(self, x: Inexact[Array, "*batch H"]) -> Inexact[Array, "*batch H"]:
        """Returns what `logits` takes: the features themselves."""
        return x

    def logits(self, h: Inexact[Array, "*batch H"]) -> Inexact[Array, "*batch V"]:
        """Returns the products with the vectors of all tokens."""
        return attend(self, h)


ENCODERS: Mapping[Encoder, Callable[..., nnx.Module]] = {
    encoder.kind: encoder for encoder in (LinearEncoder, TokenEmbedding, OneHotEncoder)
}


def default_std(embedding_std: float | None, d_model: int) -> float:
    """The standard deviation of a first embedding, Flax's if None."""
    return d_model**-0.5 if embedding_std is None else embedding_std
