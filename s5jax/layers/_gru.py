"""GRU: the gated baseline, behind the contract of the linear layers."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Inexact

from s5jax._errors import check_positive
from s5jax.layers._base import SequenceLayer
from s5jax.layers._dense import matmul


class GRUCoefficients(NamedTuple):
    """The cell and the output matrix of one direction."""

    cell: nnx.GRUCell
    C: Float[Array, "H N"]


class GRU(SequenceLayer):
    r"""Gated recurrent units, through Flax's own cell, and an output matrix.

    .. math::
        r_k &= \sigma(W_{ir} u_k + b_r + W_{hr} x_{k-1}) \\
        z_k &= \sigma(W_{iz} u_k + b_z + W_{hz} x_{k-1}) \\
        n_k &= \tanh(W_{in} u_k + b_n + r_k \odot W_{hn} x_{k-1}) \\
        x_k &= (1 - z_k) \odot n_k + z_k \odot x_{k-1}, \qquad y_k = C x_k

    A bidirectional layer adds :math:`C' x'_k` with the states :math:`x'` of a second cell that runs
    backward in time; both states see :math:`u_k`. Steps depend on each other in a way that cannot
    run in parallel, so a sequence runs step by step.

    Parameters: ``cells``, one `flax.nnx.GRUCell` a direction, and ``C`` of shape ``(H, N)``
    (``(H, 2 N)`` if bidirectional, forward states first). The layer is neither linear nor does it
    have a step length: ``kernel``, ``to_ssm`` and ``dt`` raise.

    Args:
        d_model: number of features H.
        d_state: number of units N.
        bidirectional: also run backward in time.
        dtype: dtype of the matrix products and the output; by default, inputs and parameters decide
            together. States are kept in float32 or wider.
        param_dtype: dtype of the parameters.
        rngs: source of the key ``params``.

    Raises:
        ValueError: for sizes that are not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from s5jax import GRU
        >>> layer = GRU(d_model=4, d_state=8, rngs=nnx.Rngs(0))
        >>> y, state = layer(jnp.ones((2, 100, 4)), return_state=True)
        >>> y_next, state = layer.step(jnp.ones((2, 4)), state)
        >>> y.shape, y_next.shape, state.shape
        ((2, 100, 4), (2, 4), (2, 8))

    References:
        Cho, van Merrienboer, Gulcehre, Bahdanau, Bougares, Schwenk and Bengio, "Learning Phrase
        Representations using RNN Encoder-Decoder for Statistical Machine Translation", 2014,
        https://arxiv.org/abs/1406.1078.
    """

    linear = False
    mixes_features = True

    def __init__(
        self,
        d_model: int,
        d_state: int,
        *,
        bidirectional: bool = False,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        d_model, d_state = check_positive("GRU", d_model=d_model, d_state=d_state)
        self.d_model, self.d_state, self.bidirectional = d_model, d_state, bidirectional
        self.dtype, self.param_dtype = dtype, param_dtype

        directions = 1 + bidirectional
        self.cells = nnx.List(
            nnx.GRUCell(d_model, d_state, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
            for _ in range(directions)
        )
        C = jax.random.normal(rngs.params(), (d_model, directions * d_state), param_dtype)
        self.C = nnx.Param(C / d_state**0.5)

    def coefficients(
        self, dt: Array | float | None = None, *, backward: bool = False
    ) -> GRUCoefficients:
        """Returns the parameters of one direction, unchanged."""
        N = self.d_state
        C = self.C[...]
        return GRUCoefficients(self.cells[int(backward)], C[:, N:] if backward else C[:, :N])

    def init_state(self, batch_shape: Sequence[int] = ()) -> Float[Array, "*batch N"]:
        """Returns zeros, one number per unit."""
        return self.zero_state(batch_shape, self.d_state)

    def advance(
        self, coefficients: GRUCoefficients, state: Array, u: Inexact[Array, "*batch H"]
    ) -> tuple[Inexact[Array, "*batch H"], Array]:
        """Takes one step of the cell."""
        x = coefficients.cell(state, u)[0].astype(state.dtype)
        dtype = self._compute_dtype(u)
        return matmul(x.astype(dtype), coefficients.C.T.astype(dtype)).astype(dtype), x
