"""An embedding and a softmax whose width falls with the rank of the token."""

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Inexact, Integer

from s5jax._errors import check_positive
from s5jax._promotion import with_axes
from s5jax.layers._dense import attend, flat_apply, output_map
from s5jax.layers._tables import unlist_methods
from s5jax.models._arguments import Encoder
from s5jax.models._dropout import drop
from s5jax.models._encoders import default_std

BIAS_BOUND = 1.0
"""Initial biases of tokens are uniform within this bound times ``d_model ** -0.5``."""


@unlist_methods
class AdaptiveEmbedding(nnx.Module):
    r"""Token embedding and, tied to it, an adaptive softmax.

    Tokens are numbered by falling frequency and cut into clusters; tokens of cluster i have vectors
    of only :math:`d_i = \lfloor H / v^i \rfloor` features. With :math:`E_i` the table and
    :math:`P_i` the projection, of shape ``(d_i, H)``, of the cluster i in which token w has row j,

    .. math::
        x = \sqrt{H}\, P_i^T E_{ij}, \qquad
        p(w) = p(\text{cluster } i)\, \operatorname{softmax}(E_i P_i x + b_i)_j

    The tokens of cluster 0 and the other clusters share one softmax; its projection
    is separate from the embedding's, and starts at zero.

    Args:
        d_input: number of tokens V.
        d_model: number of features H.
        cutoffs: where the clusters after the first begin, rising, within the vocabulary.
        div_val: quotient v of the widths of one cluster and the next.
        embedding_std: standard deviation of the first embedding; None for ``d_model ** -0.5``.
        dropout: rate of the drops of single entries before the projection of the embedding.
        dtype: dtype of computations; log-probabilities are float32 or wider.
        param_dtype: dtype of the parameters.
        rngs: source of the key ``params``.

    Raises:
        ValueError: for cutoffs that do not rise or exceed the vocabulary, or a cluster without
            features.

    References:
        Baevski and Auli, "Adaptive Input Representations", 2019, https://arxiv.org/abs/1809.10853.
        Dai et al., "Transformer-XL", 2019, https://arxiv.org/abs/1901.02860,
        for the form that the published S4 adopted.
    """

    kind: ClassVar[Encoder] = "embedding"

    def __init__(
        self,
        d_input: int,
        d_model: int,
        *,
        cutoffs: Sequence[int],
        div_val: int,
        embedding_std: float | None,
        dropout: float = 0.0,
        dtype: DTypeLike | None,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        (div_val,) = check_positive("AdaptiveEmbedding", div_val=div_val)
        self.bounds = (0, *cutoffs, d_input)
        if any(a >= b for a, b in itertools.pairwise(self.bounds)):
            raise ValueError(
                "AdaptiveEmbedding: `cutoffs` must rise from above 0 to below the number of tokens "
                f"{d_input}; got {tuple(cutoffs)}."
            )
        self.d_model = d_model
        self.widths = tuple(d_model // div_val**i for i in range(len(cutoffs) + 1))
        if self.widths[-1] < 1:
            raise ValueError(
                f"AdaptiveEmbedding: `d_model` must be at least {div_val ** len(cutoffs)}, so that "
                f"the last of {len(self.widths)} clusters has a feature; got {d_model}."
            )
        dtypes: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}
        normal, zeros = nnx.initializers.normal, nnx.initializers.zeros_init()
        scale = default_std(embedding_std, d_model) ** 0.5  # the table's, and the projection's
        self.tables = nnx.List(
            nnx.Embed(b - a, d, embedding_init=normal(scale * d**-0.5), rngs=rngs, **dtypes)
            for (a, b), d in zip(itertools.pairwise(self.bounds), self.widths, strict=True)
        )
        projection: dict[str, Any] = {"use_bias": False, "rngs": rngs, **dtypes}
        self.projections = nnx.List(
            nnx.Linear(d, d_model, kernel_init=normal(scale * d_model**-0.5), **projection)
            for d in self.widths
        )
        self.head = nnx.Linear(d_model, d_model, kernel_init=zeros, **projection)
        self.clusters = output_map(d_model, len(cutoffs), kernel_init=zeros, rngs=rngs, **dtypes)
        bound = BIAS_BOUND * d_model**-0.5
        self.dropout = nnx.Dropout(dropout)
        self.bias = nnx.Param(
            jax.random.uniform(rngs.params(), (d_input,), param_dtype, -bound, bound)
        )

    def __call__(
        self, u: Integer[Array, "*batch"], rngs: nnx.Rngs | None = None
    ) -> Inexact[Array, "*batch H"]:
        """Returns the vectors of tokens."""
        x = jnp.zeros((), self.tables[0].dtype)
        for i, (a, b) in enumerate(itertools.pairwise(self.bounds)):
            rows = self.tables[i](jnp.clip(u - a, 0, b - a - 1))
            rows = drop("LanguageModel", self.dropout, rows, rngs)
            inside = ((a <= u) & (u < b))[..., None]
            x = jnp.where(inside, self.projections[i](rows), x)
        return x * self.d_model**0.5

    def project(self, x: Inexact[Array, "*batch H"]) -> Inexact[Array, "*batch D"]:
        """Returns what the :math:`E_i` multiply, one cluster after another."""
        return flat_apply(self._project, x)

    def logits(self, h: Inexact[Array, "*batch D"]) -> Float[Array, "*batch V"]:
        """Returns the log-probabilities of all tokens, from what `project` returned."""
        return flat_apply(self._log_probabilities, h)

    def _project(self, x: Array) -> Array:
        tails = (
            x @ projection.kernel[...].astype(x.dtype).T for projection in self.projections[1:]
        )
        return jnp.concatenate([self.head(x), *tails], axis=-1)

    def _log_probabilities(self, h: Array) -> Array:
        ends = itertools.accumulate(self.widths)
        head, *tails = jnp.split(h, list(ends)[:-1], axis=-1)
        wide = jnp.promote_types(h.dtype, jnp.float32)
        first = self._scores(0, head).astype(wide)
        joint = jnp.concatenate([first, self.clusters(head).astype(wide)], axis=-1)
        joint = jax.nn.log_softmax(joint, axis=-1)
        shortlist, clusters = jnp.split(joint, [self.bounds[1]], axis=-1)
        within = (
            jax.nn.log_softmax(self._scores(i, tail).astype(wide), axis=-1)
            for i, tail in enumerate(tails, start=1)
        )
        rest = (clusters[..., i : i + 1] + log_p for i, log_p in enumerate(within))
        return jnp.concatenate([shortlist, *rest], axis=-1)

    def _scores(self, i: int, h: Array) -> Array:
        a, b = self.bounds[i : i + 2]
        scores = attend(self.tables[i], h)
        return scores + with_axes(self.bias[a:b], scores)
