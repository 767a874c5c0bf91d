"""Language models: tokens in, scores of the next token out."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Inexact, Int, PyTree

from s5jax._errors import check_choice, check_integers, check_positive
from s5jax.layers._base import SequenceLayer
from s5jax.layers._dense import attend, flat_apply, output_map
from s5jax.layers._inputs import as_array
from s5jax.layers._masks import select, valid_steps
from s5jax.models._adaptive import AdaptiveEmbedding
from s5jax.models._backbone import SequenceBackbone
from s5jax.models._dropout import check_rate, drop
from s5jax.models._labeler import StepwiseModel
from s5jax.models._tokens import check_tokens, in_vocabulary

MAX_LOGITS = 2**27
"""Logits that a loss holds at a time; half a gigabyte in float32."""


class LanguageModel(StepwiseModel):
    r"""Tokens in, logits of the next token out.

    .. math:: \text{logits}_t = E\, x_t \ \text{(tied)} \ \text{or}\ W x_t + b, \qquad
        x = \operatorname{backbone}(\text{tokens})

    with E the token embedding, of shape ``(d_input, H)``. With ``cutoffs`` both embedding and
    logits are adaptive, for vocabularies of hundreds of thousands of words: vectors of rare tokens
    are shorter (`AdaptiveEmbedding`), and the logits are log-probabilities.

    Generation is a loop over `step`: see `s5jax.generate`.

    Args:
        layer: class of the layers, for example `S5`; causal.
        tie_embedding: read the logits off with the embedding of the input.
        embedding_dropout: rate of the drops of single entries after the embedding and before the
            logits, on both sides before a projection.
        cutoffs: ranks at which the vectors of tokens get shorter; by default they never do. Tokens
            must be numbered by falling frequency.
        div_val: how many times shorter.
        rngs: source of the key ``params``.
        **backbone: the other arguments of `SequenceBackbone`; ``d_input`` is the number of tokens,
            and ``encoder`` can only be ``"embedding"``.

    Raises:
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
        Press and Wolf, "Using the Output Embedding to Improve Language Models", 2016,
        https://arxiv.org/abs/1608.05859; Baevski and Auli, "Adaptive Input Representations for
        Neural Language Modeling", 2019, https://arxiv.org/abs/1809.10853.
    """

    encode: Any

    def __init__(
        self,
        layer: Callable[..., SequenceLayer],
        *,
        tie_embedding: bool = True,
        embedding_dropout: float = 0.0,
        cutoffs: Sequence[int] = (),
        div_val: int = 4,
        rngs: nnx.Rngs,
        **backbone: Any,
    ) -> None:
        encoder = backbone.setdefault("encoder", "embedding")
        check_choice("LanguageModel", "encoder", encoder, ["embedding"])
        check_rate("LanguageModel", embedding_dropout=embedding_dropout)
        if len(cutoffs) and not tie_embedding:
            raise ValueError(
                "LanguageModel: `cutoffs` need `tie_embedding=True`, as the logits are read off "
                "with the embedding's vectors; got False."
            )
        self.tie_embedding, self.embedding_dropout = tie_embedding, embedding_dropout
        (self.div_val,) = check_positive("LanguageModel", div_val=div_val)
        self.cutoffs = check_integers("LanguageModel", "cutoffs", cutoffs)
        super().__init__(layer, rngs=rngs, **backbone)
        if self.blocks[0].layer.bidirectional:
            raise ValueError(
                "LanguageModel: `layer_options` must not ask for a bidirectional layer, which sees "
                "the tokens that it is to predict; leave `bidirectional` out."
            )
        self.token_dropout = nnx.Dropout(embedding_dropout)
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.decode = (
            None if tie_embedding else output_map(self.d_model, self.d_input, rngs=rngs, **dtypes)
        )

    def __call__(
        self,
        u: Inexact[Array, "*batch L d_input"] | Int[Array, "*batch L"],
        *,
        targets: Int[Array, "*batch L"] | None = None,
        ignore_index: int | None = None,
        state: PyTree[Array] | None = None,
        lengths: Int[Array, "*batch"] | None = None,
        resets: Bool[Array, "*batch L"] | None = None,
        dt: Float[Array, "*batch L"] | float | None = None,
        return_state: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> Any:
        """Maps a batch of sequences to logits ``(*batch, L, d_input)``; see `SequenceBackbone`.

        With ``targets``, usually the tokens one step ahead, it returns their negative
        log-likelihoods instead, ``(*batch, L)``, and never holds the logits of all steps at once.
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
        u = as_array("LanguageModel", "u", u)
        targets = None if targets is None else as_array("LanguageModel", "targets", targets)
        valid = valid_steps("LanguageModel", lengths, self._check_input(u, 2))
        counted = self._counted(u, targets, ignore_index, valid)
        x = SequenceBackbone.__call__(
            self,
            u,
            state=state,
            lengths=lengths,
            resets=resets,
            dt=dt,
            return_state=return_state,
            rngs=rngs,
        )
        x, state = x if return_state else (x, None)
        h = self._drop(self._project(x), rngs)
        y = self._logits(h) if counted is None else self._score(h, *counted)
        y = y if valid is None else select(valid, y, 0)
        return (y, state) if return_state else y

    def head(self, x: Inexact[Array, "*batch H"]) -> Inexact[Array, "*batch d_input"]:
        """The logits of a step, in evaluation mode."""
        return self._logits(self._project(x))

    def _make_encoder(self, rngs: nnx.Rngs) -> nnx.Module:
        if not self.cutoffs:
            return super()._make_encoder(rngs)
        return AdaptiveEmbedding(
            self.d_input,
            self.d_model,
            cutoffs=self.cutoffs,
            div_val=self.div_val,
            embedding_std=self.d_model**-0.5 if self.embedding_std is None else self.embedding_std,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            rngs=rngs,
        )

    def _encode(self, u: Array, rngs: nnx.Rngs | None = None) -> Array:
        if self.cutoffs:
            return self.encode(u, functools.partial(self._drop, rngs=rngs))
        return self._drop(self.encode(u), rngs)

    def _drop(self, x: Array, rngs: nnx.Rngs | None) -> Array:
        return drop("LanguageModel", self.token_dropout, x, rngs)

    def _project(self, x: Array) -> Array:
        return flat_apply(self.encode.project, x) if self.cutoffs else x

    def _logits(self, h: Array) -> Array:
        if self.cutoffs:
            return flat_apply(self.encode.log_probabilities, h)
        return attend(self.encode, h) if self.decode is None else flat_apply(self.decode, h)

    def _counted(
        self, u: Array, targets: Array | None, ignore_index: int | None, valid: Array | None
    ) -> tuple[Array, Bool[Array, "*batch L"]] | None:
        """The targets and which of them count; None without targets."""
        if targets is None:
            if ignore_index is not None:
                raise ValueError(
                    "LanguageModel: `ignore_index` must be given together with `targets`; got "
                    f"{ignore_index} without."
                )
            return None
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
        return targets, counts

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
