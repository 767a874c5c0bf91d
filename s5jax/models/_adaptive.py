"""An embedding and a softmax whose width falls with the rank of the token."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Inexact, Int

from s5jax._errors import check_positive
from s5jax.layers._dense import attend, output_map
from s5jax.layers._tables import unlist_methods

BIAS_BOUND = 1.0
"""Of the first biases of the tokens, times ``d_model ** -0.5``."""


@unlist_methods
class AdaptiveEmbedding(nnx.Module):
    r"""Token embedding and, tied to it, an adaptive softmax.

    Tokens are numbered by falling frequency and cut into clusters; those of cluster i have vectors
    of only :math:`d_i = \lfloor H / v^i \rfloor` features. With :math:`E_i` the table and
    :math:`P_i` the projection, of shape ``(d_i, H)``, of the cluster i in which token w has row j,

    .. math::
        x = \sqrt{H}\, P_i^T E_{ij}, \qquad
        p(w) = p(\text{cluster } i)\, \operatorname{softmax}(E_i P_i x + b_i)_j

    The tokens of cluster 0 and the other clusters share one softmax; its projection
    is not that of the embedding, and starts at zero.

    Args:
        n_tokens: number of tokens V.
        d_model: number of features H.
        cutoffs: where the clusters after the first begin, rising, within the vocabulary.
        div_val: quotient v of the widths of one cluster and the next.
        embedding_std: standard deviation of the first embedding.
        dtype: of computations; log-probabilities are float32 or wider.
        param_dtype: of the parameters.
        rngs: source of the key ``params``.

    Raises:
        ValueError: for cutoffs that do not rise or exceed the vocabulary, or a cluster without
            features.

    References:
        Baevski and Auli, "Adaptive Input Representations for Neural Language Modeling", 2019,
        https://arxiv.org/abs/1809.10853; Dai, Yang, Yang, Carbonell, Le and Salakhutdinov,
        "Transformer-XL: Attentive Language Models beyond a Fixed-Length Context", 2019,
        https://arxiv.org/abs/1901.02860, for the form that the published S4 took over.
    """

    def __init__(
        self,
        n_tokens: int,
        d_model: int,
        *,
        cutoffs: Sequence[int],
        div_val: int,
        embedding_std: float,
        dtype: DTypeLike | None,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        (div_val,) = check_positive("AdaptiveEmbedding", div_val=div_val)
        self.bounds = (0, *cutoffs, n_tokens)
        if any(a >= b for a, b in itertools.pairwise(self.bounds)):
            raise ValueError(
                "AdaptiveEmbedding: `cutoffs` must rise from above 0 to below the number of tokens "
                f"{n_tokens}; got {tuple(cutoffs)}."
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
        scale = embedding_std**0.5  # of the table and the projection each
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
        self.bias = nnx.Param(
            jax.random.uniform(rngs.params(), (n_tokens,), param_dtype, -bound, bound)
        )

    def __call__(
        self, tokens: Int[Array, "*batch"], drop: Callable[[Array], Array] = lambda x: x
    ) -> Inexact[Array, "*batch H"]:
        """Embeds tokens; ``drop`` sees their vectors before the projection."""
        x = jnp.zeros((), self.tables[0].dtype)
        for i, (a, b) in enumerate(itertools.pairwise(self.bounds)):
            rows = self.tables[i](jnp.clip(tokens - a, 0, b - a - 1))
            inside = ((a <= tokens) & (tokens < b))[..., None]
            x = jnp.where(inside, self.projections[i](drop(rows)), x)
        return x * self.d_model**0.5

    def project(self, x: Inexact[Array, "*batch H"]) -> Inexact[Array, "*batch D"]:
        """What :math:`E_i` multiplies, of all clusters one after the other."""
        tails = (
            x @ projection.kernel[...].astype(x.dtype).T for projection in self.projections[1:]
        )
        return jnp.concatenate([self.head(x), *tails], axis=-1)

    def log_probabilities(self, h: Inexact[Array, "*batch D"]) -> Float[Array, "*batch V"]:
        """Of every token, from what `project` returned."""
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
        return attend(self.tables[i], h) + self.bias[a:b]
