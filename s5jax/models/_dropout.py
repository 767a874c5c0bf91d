"""Dropout that says what it lacks."""

from flax import nnx
from jaxtyping import Array, Inexact


def drop(
    where: str, dropout: nnx.Dropout, x: Inexact[Array, "..."], rngs: nnx.Rngs | None
) -> Inexact[Array, "..."]:
    """Applies dropout.

    Args:
        where: who asks, for the message.
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


def check_rate(where: str, **rates: float) -> None:
    """Raises a ValueError unless every rate lies in [0, 1)."""
    for name, rate in rates.items():
        if not 0 <= rate < 1:
            raise ValueError(f"{where}: `{name}` must lie in [0, 1); got {rate}.")
