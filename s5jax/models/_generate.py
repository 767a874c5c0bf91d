"""Sampling from a language model."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Integer

from s5jax._errors import as_integer, check_positive
from s5jax._promotion import default_promotion
from s5jax.layers._explicit import on_automatic_axes, sharding
from s5jax.layers._inputs import as_array
from s5jax.models._language import LanguageModel
from s5jax.models._tokens import check_tokens


@default_promotion
def generate(
    model: LanguageModel,
    prompts: Integer[Array, "*batch L"],
    n: int,
    *,
    lengths: Integer[Array, "*batch"] | None = None,
    key: Array | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
) -> Integer[Array, "*batch n"]:
    r"""Continues sequences of tokens.

    .. math:: w_{t+1} \sim p_t, \qquad
        p_t \propto \exp(\text{logits}_t / \tau) \ \text{on the likeliest tokens}

    The prompts are read in parallel, which gives a state; then one `jax.lax.scan` takes n recurrent
    steps, each at a cost that does not depend on how much was read before. A pure function: under
    `jax.jit` make ``n``, ``temperature``, ``top_k`` and ``top_p`` static.

    Prompts of different lengths are read step by step by S4, HOPE and GRU, still in parallel by the
    others; so leave ``lengths`` out where all prompts have the same.

    Args:
        model: a trained model, in evaluation mode.
        prompts: right-padded tokens, ``(*batch, L)``.
        n: number of new tokens.
        lengths: true lengths of the prompts, at least 1; by default all of ``L``.
        key: source of randomness, such as ``jax.random.key(0)``.
        temperature: τ; 0 always takes the likeliest token and needs no key.
        top_k: draw among the k likeliest tokens, ties included; by default among all.
        top_p: draw among the likeliest tokens that together have this probability, after
            ``temperature`` and ``top_k``.

    Returns:
        New tokens, int32 of shape ``(*batch, n)``; -1 from the step on at which logits are NaN, as
        after a prompt with unknown tokens under `jax.jit`.

    Raises:
        ValueError: if an argument breaks these rules, or the model cannot step: in training mode
            with batch norm or dropout, or with layers that have no recurrence.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> import s5jax
        >>> model = s5jax.LanguageModel(
        ...     s5jax.S5, d_input=50, d_model=16, n_layers=2, layer_options={"d_state": 8},
        ...     norm="layer", rngs=nnx.Rngs(0),
        ... )
        >>> prompts = jnp.array([[3, 14, 15, 9], [2, 7, 0, 0]])
        >>> s5jax.generate(model, prompts, 20, lengths=jnp.array([4, 2]), temperature=0.0).shape
        (2, 20)

    References:
        Holtzman et al., "Neural Text Degeneration", 2020, https://arxiv.org/abs/1904.09751.
    """
    prompts = as_array("generate", "prompts", prompts)
    lengths = None if lengths is None else as_array("generate", "lengths", lengths)
    _check_prompts(model, prompts, lengths)
    n, top_k = _check_options(model, n, key, temperature, top_k, top_p)

    def sample(model: LanguageModel, arguments: Any) -> Array:
        return _sample(model, *arguments, n, temperature, top_k, top_p)

    split = P(*sharding(prompts)[:-1])
    return on_automatic_axes(sample, model, (prompts, lengths, key), split)


def _sample(
    model: LanguageModel,
    prompts: Array,
    lengths: Array | None,
    key: Array | None,
    n: int,
    temperature: float,
    top_k: int | None,
    top_p: float,
) -> Integer[Array, "*batch n"]:
    features, state = model.backbone(prompts, lengths=lengths, return_state=True)
    last = jnp.full(prompts.shape[:-1], prompts.shape[-1]) if lengths is None else lengths
    position = jnp.maximum(last - 1, 0)[..., None, None]
    logits = model.head(jnp.take_along_axis(features, position, axis=-2)[..., 0, :])

    def step(carry: Any, key: Array) -> Any:
        logits, state = carry
        token = _choose(logits, key, temperature, top_k, top_p)
        token = jnp.where(jnp.isnan(logits).any(-1), -1, token)
        return model.step(token, state), token

    keys = jax.random.split(jax.random.key(0) if key is None else key, n)
    _, tokens = jax.lax.scan(step, (logits, state), keys)
    return jnp.moveaxis(tokens, 0, -1)


def _choose(
    logits: Float[Array, "*batch V"],
    key: Array,
    temperature: float,
    top_k: int | None,
    top_p: float,
) -> Integer[Array, "*batch"]:
    """Draws a token from the scores of all."""
    if temperature == 0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32)) / temperature
    if top_k is not None:
        least = jax.lax.top_k(logits, top_k)[0][..., -1:]
        logits = jnp.where(logits >= least, logits, -jnp.inf)
    if top_p < 1:
        falling = jnp.sort(jax.nn.softmax(logits), axis=-1, descending=True)
        before = jnp.cumsum(falling, axis=-1) - falling
        least = jnp.min(falling, axis=-1, where=before < top_p, initial=1.0, keepdims=True)
        logits = jnp.where(jax.nn.softmax(logits) >= least, logits, -jnp.inf)
    return jax.random.categorical(key, logits).astype(jnp.int32)


def _check_prompts(model: LanguageModel, prompts: Array, lengths: Array | None) -> None:
    if not isinstance(model, LanguageModel):
        raise ValueError(
            f"generate: `model` must be a LanguageModel; got a {type(model).__name__}."
        )
    if prompts.ndim < 1 or prompts.shape[-1] < 1:
        raise ValueError(
            "generate: `prompts` must have shape (*batch, L) with L >= 1, since the first new "
            f"token follows from those before it; got {prompts.shape}."
        )
    if isinstance(prompts, Tracer) or isinstance(lengths, Tracer):
        return
    if lengths is not None and np.min(lengths) < 1:
        raise ValueError(
            f"generate: `lengths` must be at least 1; got {np.min(lengths)}. An empty prompt gives "
            "the model nothing to continue."
        )
    steps = np.arange(prompts.shape[-1])
    real = True if lengths is None else steps < np.asarray(lengths)[..., None]
    advice = "Encode the text as the model's training data were."
    check_tokens("generate", "prompts", prompts, model.d_input, real, advice=advice)


def _check_options(
    model: LanguageModel,
    n: int,
    key: Array | None,
    temperature: float,
    top_k: int | None,
    top_p: float,
) -> tuple[int, int | None]:
    (n,) = check_positive("generate", n=n)
    if not temperature >= 0:
        raise ValueError(f"generate: `temperature` must not be negative; got {temperature}.")
    if temperature > 0 and key is None:
        raise ValueError(
            "generate: `key` must be given unless `temperature` is 0, for example "
            "key=jax.random.key(0)."
        )
    k = None if top_k is None else as_integer(top_k)
    if top_k is not None and (k is None or not 1 <= k <= model.d_input):
        raise ValueError(
            f"generate: `top_k` must be between 1 and the number of tokens {model.d_input}; "
            f"got {top_k}."
        )
    if not 0 < top_p <= 1:
        raise ValueError(f"generate: `top_p` must be in (0, 1]; got {top_p}.")
    return n, k
