"""Language models: tokens in, scores of the next token out."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, Unpack, overload

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Inexact, PyTree, Shaped

from s5jax._errors import check_choice, check_integers, check_positive
from s5jax.layers._dense import flat_apply, output_map
from s5jax.layers._edits import select
from s5jax.layers._inputs import as_array
from s5jax.models._adaptive import AdaptiveEmbedding
from s5jax.models._arguments import BackboneArguments, CallArguments, Layers, check_rate
from s5jax.models._base import Call, Result
from s5jax.models._dropout import drop
from s5jax.models._encoders import TokenEmbedding
from s5jax.models._model import StepwiseModel
from s5jax.models._tokens import check_tokens, in_vocabulary

MAX_LOGITS = 2**27
"""Logits that a loss holds at a time; half a gigabyte in float32."""


class LanguageModel(StepwiseModel):
    r"""Tokens in, logits of the next token out.

    .. math:: \text{logits}_t = E\, x_t \ \text{(tied)} \ \text{or}\ W x_t + b, \qquad
        x = \operatorname{backbone}(\text{tokens})

    with E the token embedding, of shape ``(d_input, H)``. With ``cutoffs`` both embedding and
    logits are adaptive, for vocabularies of hundreds of thousands of words: vectors of rare tokens
    are shorter (an adaptive embedding), and the logits are log-probabilities.

    Generation is a loop over ``step``: see `s5jax.generate`.

    Args:
        layer: class of the layers, for example `S5`, or a list of them as in `SequenceBackbone`;
            causal.
        tie_embedding: read the logits off with the embedding of the input.
        embedding_dropout: rate of the drops of single entries after the embedding and before the
            logits, on both sides before a projection.
        cutoffs: ranks at which the vectors of tokens get shorter; by default they never do. Tokens
            must be numbered by falling frequency.
        div_val: factor by which they get shorter at each cutoff.
        rngs: source of the key ``params``.
        **backbone: the other arguments of `SequenceBackbone`; ``d_input`` is the number of tokens,
            and ``encoder`` can only be ``"embedding"``.

    Raises:
        TypeError: for an argument that does not exist.
        ValueError: for sizes that are not positive, an unknown option, cutoffs that do not fit the
            vocabulary, or a bidirectional layer, which would see the tokens that it is to predict.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from s5jax import S5, LanguageModel
        >>> model = LanguageModel(
        ...     S5, d_input=50, d_model=16, n_layers=2, layer_options={"d_state": 8},
        ...     norm="layer", rngs=nnx.Rngs(0),
        ... )
        >>> text = jnp.array([[3, 14, 15, 9, 26]])
        >>> model(text).shape
        (1, 5, 50)
        >>> losses = model(text[:, :-1], targets=text[:, 1:])  # -log p of each token but the first
        >>> losses.shape
        (1, 4)

    References:
        Press and Wolf, "Using the Output Embedding", 2016, https://arxiv.org/abs/1608.05859.
        Baevski and Auli, "Adaptive Input Representations", 2019, https://arxiv.org/abs/1809.10853.
    """

    def __init__(
        self,
        layer: Layers,
        *,
        tie_embedding: bool = True,
        embedding_dropout: float = 0.0,
        cutoffs: Sequence[int] = (),
        div_val: int = 4,
        rngs: nnx.Rngs,
        **backbone: Unpack[BackboneArguments],
    ) -> None:
        name = "LanguageModel"
        check_choice(name, "encoder", backbone.get("encoder", "embedding"), ["embedding"])
        check_rate(name, embedding_dropout=embedding_dropout)
        if len(cutoffs) and not tie_embedding:
            raise ValueError(
                "LanguageModel: `cutoffs` need `tie_embedding=True`, as the logits are read off "
                "with the embedding's vectors; got False."
            )
        self.tie_embedding, self.embedding_dropout = tie_embedding, embedding_dropout
        (self.div_val,) = check_positive(name, div_val=div_val)
        self.cutoffs = check_integers(name, "cutoffs", cutoffs)
        embedding: Callable[..., nnx.Module] = TokenEmbedding
        if self.cutoffs:
            adaptive: dict[str, Any] = {"cutoffs": self.cutoffs, "div_val": self.div_val}
            embedding = functools.partial(AdaptiveEmbedding, **adaptive)
        backbone["encoder"] = functools.partial(embedding, dropout=embedding_dropout)
        super().__init__(layer, rngs=rngs, **backbone)
        if any(layer.bidirectional for layer in self.layers):
            raise ValueError(
                "LanguageModel: `layer_options` must not ask for a bidirectional layer, which sees "
                "the tokens that it is to predict; leave `bidirectional` out."
            )
        self.token_dropout = nnx.Dropout(embedding_dropout)
        sizes = self.d_model, self.d_input
        self.decode = None if tie_embedding else output_map(*sizes, rngs=rngs, **self.dtypes)

    @overload
    def __call__(
        self,
        u: ArrayLike | Sequence[Any],
        *,
        targets: ArrayLike | Sequence[Any] | None = None,
        ignore_index: int | None = None,
        return_state: Literal[False] = False,
        **call: Unpack[CallArguments],
    ) -> Float[Array, "..."]: ...

    @overload
    def __call__(
        self,
        u: ArrayLike | Sequence[Any],
        *,
        targets: ArrayLike | Sequence[Any] | None = None,
        ignore_index: int | None = None,
        return_state: Literal[True],
        **call: Unpack[CallArguments],
    ) -> tuple[Float[Array, "..."], PyTree[Array]]: ...

    def __call__(  # ty: ignore[incompatible-method-override]
        self,
        u: ArrayLike | Sequence[Any],
        *,
        targets: ArrayLike | Sequence[Any] | None = None,
        ignore_index: int | None = None,
        return_state: bool = False,
        **call: Unpack[CallArguments],
    ) -> Float[Array, "..."] | tuple[Float[Array, "..."], PyTree[Array]]:
        """Maps tokens to logits ``(*batch, L, d_input)``.

        Other arguments are those of `s5jax.models.SequenceModule`.

        With ``targets``, usually the tokens one step ahead, it returns their negative
        log-likelihoods instead, ``(*batch, L)``, and never holds the logits of all steps together.
        Outputs at padded steps are zero.

        Targets equal to ``ignore_index`` do not count: their losses are zero, and so are the
        gradients of these. A mean must be taken over the others.

        Tokens and targets outside of the vocabulary are refused where their values are known. Under
        `jax.jit` they are not: such a token makes the outputs NaN that depend on it, and such a
        target its loss and the gradient.

        Raises:
            ValueError: if ``targets`` are not integers of the shape of ``u``, tokens or targets are
                outside of the vocabulary, or ``ignore_index`` is given without targets; and as a
                layer does.

        Example:
            >>> import jax.numpy as jnp
            >>> from flax import nnx
            >>> from s5jax import S5, LanguageModel
            >>> model = LanguageModel(
            ...     S5, d_input=50, d_model=16, n_layers=2, layer_options={"d_state": 8},
            ...     norm="layer", rngs=nnx.Rngs(0),
            ... )
            >>> tokens = jnp.array([[3, 14, 15, 9, 26]])
            >>> targets = jnp.array([[14, 15, -100, -100, 5]])
            >>> losses = model(tokens, targets=targets, ignore_index=-100)
            >>> (losses == 0).tolist()
            [[False, False, True, True, False]]
            >>> mean = losses.sum() / (targets != -100).sum()  # over three steps, not five
        """
        if targets is None:
            if ignore_index is not None:
                raise ValueError(
                    "LanguageModel: `ignore_index` must be given together with `targets`; got "
                    f"{ignore_index} without."
                )
            return self._call(self.run, u, return_state, call)
        targets = as_array("LanguageModel", "targets", targets)
        run = functools.partial(self._run_losses, targets=targets, ignore_index=ignore_index)
        return self._call(run, u, return_state, call)

    def run(self, u: Shaped[Array, "*batch L"], call: Call) -> Result:
        """Maps checked tokens to logits; see `s5jax.models.SequenceModule`."""
        h, state = self._before_logits(u, call)
        y, valid = self._logits(h), call.edits.valid
        return y if valid is None else select(valid, y, 0), state

    def head(self, x: Inexact[Array, "*batch H"]) -> Inexact[Array, "*batch d_input"]:
        """Returns the logits of a step, in evaluation mode."""
        return self._logits(self._project(x))

    def _run_losses(
        self, u: Array, call: Call, *, targets: Array, ignore_index: int | None
    ) -> Result:
        """Maps checked tokens to the losses of targets."""
        valid = call.edits.valid
        counts = self._check_targets(u, targets, ignore_index, valid)
        h, state = self._before_logits(u, call)
        y = self._score(h, targets, counts)
        return y if valid is None else select(valid, y, 0), state

    def _before_logits(self, u: Array, call: Call) -> Result:
        x, state = self.features(u, call)
        return drop("LanguageModel", self.token_dropout, self._project(x), call.rngs), state

    def _project(self, x: Array) -> Array:
        return self.backbone.encode.project(x) if self.decode is None else x

    def _logits(self, h: Array) -> Array:
        if self.decode is None:
            return self.backbone.encode.logits(h)
        return flat_apply(self.decode, h)

    def _check_targets(
        self, u: Array, targets: Array, ignore_index: int | None, valid: Array | None
    ) -> Bool[Array, "*batch L"]:
        """Checks targets, and returns which of them count."""
        if targets.shape != u.shape or not jnp.issubdtype(targets.dtype, jnp.integer):
            raise ValueError(
                f"LanguageModel: `targets` must be integers of shape {u.shape}, one for each "
                f"token; got {targets.dtype} with shape {targets.shape}."
            )
        counts = jnp.ones(u.shape, bool) if valid is None else valid
        if ignore_index is not None:
            counts &= jnp.asarray(targets).astype(int) != ignore_index
        advice = "If these targets do not count, pass `ignore_index={bad}`."
        check_tokens("LanguageModel", "targets", targets, self.d_input, counts, advice=advice)
        return counts

    def _score(self, h: Array, targets: Array, counts: Bool[Array, "*batch L"]) -> Array:
        """Losses of the targets that count, zero for the others; NaN outside of the vocabulary."""
        known = in_vocabulary(targets, self.d_input)
        losses = self._losses(h, jnp.where(known, targets, 0))
        losses *= jnp.where(known | ~counts, 1, jnp.nan).astype(losses.dtype)  # the gradient, too
        return jnp.where(counts, losses, 0)

    def _losses(self, h: Array, targets: Array) -> Array:
        """Cross entropy; over a few time steps at a time where all logits would be too many."""

        def loss(h: Array, targets: Array) -> Array:
            logits = self._logits(h)
            logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
            chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
            return jax.nn.logsumexp(logits, axis=-1) - chosen

        n_logits = max(1, targets.size * self.d_input)
        n_steps = max(1, MAX_LOGITS * targets.shape[-1] // n_logits)
        if n_steps >= targets.shape[-1]:
            return loss(h, targets)
        steps = jnp.moveaxis(h, -2, 0), jnp.moveaxis(targets, -1, 0)
        rematerialised = jax.checkpoint(loss)
        losses = jax.lax.map(lambda step: rematerialised(*step), steps, batch_size=n_steps)
        return jnp.moveaxis(losses, 0, -1)
