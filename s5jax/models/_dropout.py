"""Dropout, with an error that explains a missing key."""

from flax import nnx
from jaxtyping import Array, Inexact


def drop(
    where: str, dropout: nnx.Dropout, x: Inexact[Array, "..."], rngs: nnx.Rngs | None
) -> Inexact[Array, "..."]:
    """Applies dropout.

    Args:
        where: name of the caller, for the message.
        dropout: the module, with its rate and mode.
        x: any features.
        rngs: source of the key ``dropout``.

    Raises:
        ValueError: without ``rngs`` in training mode, if the rate is positive.
    """
    if rngs is None and dropout.rate > 0 and not dropout.deterministic:
        raise ValueError(
            f"{where}: in training mode with `dropout` > 0 a call needs `rngs`, for example "
            "model(u, rngs=nnx.Rngs(dropout=key)). For evaluation call model.eval() first."
        )
    return dropout(x, rngs=rngs)
