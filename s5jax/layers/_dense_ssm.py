"""A discrete state space with dense matrices, such as `reduce_order` finds."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Inexact

from s5jax._errors import check_positive
from s5jax.layers._base import SequenceLayer


class DenseCoefficients(NamedTuple):
    """Matrices of G systems with M inputs and outputs each."""

    A: Float[Array, "G N N"]
    B: Float[Array, "G N M"]
    C: Float[Array, "G M N"]
    D: Float[Array, "G M M"]


class DenseSSM(SequenceLayer):
    r"""A small state space with dense matrices, which runs one step after the other.

    .. math:: x_k = A x_{k-1} + B u_k, \qquad y_k = C x_{k-1} + D u_k

    either for every feature by itself (G = H systems with M = 1 input and output) or for all of
    them together (G = 1 and M = H). The output is read *before* the input enters the state, so that
    lag 0 of the response is D alone. Nothing keeps the eigenvalues of A inside the unit circle in
    training.

    Parameters: ``A`` of shape ``(G, N, N)``, ``B`` of shape ``(G, N, M)``, ``C`` of shape
    ``(G, M, N)`` and ``D`` of shape ``(G, M, M)``. The optimiser group ``"ssm"`` holds ``A`` and
    ``B``. A state has shape ``(*batch, G, N)``. ``error_bound`` of shape ``(G,)`` is not a
    parameter: see `reduce_order`. It is zero in a layer that `reduce_order` did not make.

    Args:
        d_model: number of features H.
        d_state: number of states N of each system.
        multi_input: whether all features share one system.
        dtype: dtype of the output; by default, inputs and parameters decide together. States are
            kept in float32 or wider.
        param_dtype: dtype of the parameters.
        rngs: source of the key ``params``.

    Raises:
        ValueError: for sizes that are not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from s5jax import DenseSSM
        >>> layer = DenseSSM(d_model=4, d_state=3, rngs=nnx.Rngs(0))
        >>> y, state = layer(jnp.ones((2, 10, 4)), return_state=True)
        >>> y_next, state = layer.step(jnp.ones((2, 4)), state)
        >>> y.shape, y_next.shape, state.shape
        ((2, 10, 4), (2, 4), (2, 4, 3))

    References:
        Antoulas, "Approximation of Large-Scale Dynamical Systems", 2005, chapter 4.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int,
        *,
        multi_input: bool = False,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        d_model, d_state = check_positive("DenseSSM", d_model=d_model, d_state=d_state)
        self.d_model, self.d_state, self.multi_input = d_model, d_state, multi_input
        self.mixes_features = multi_input
        self.dtype, self.param_dtype = dtype, param_dtype
        G, M, N = (1, d_model, d_state) if multi_input else (d_model, 1, d_state)

        def normal(*shape: int) -> Float[Array, "..."]:
            return jax.random.normal(rngs.params(), shape, param_dtype) / np.sqrt(shape[-1])

        A = 0.95 * jax.random.orthogonal(rngs.params(), N, (G,), param_dtype)
        self.A = nnx.Param(A, group="ssm")
        self.B = nnx.Param(normal(G, N, M), group="ssm")
        self.C = nnx.Param(normal(G, M, N))
        self.D = nnx.Param(normal(G, M, M))
        self.error_bound = nnx.Variable(jnp.zeros(G, param_dtype))

    def coefficients(
        self, dt: Array | float | None = None, *, backward: bool = False
    ) -> DenseCoefficients:
        """Returns the matrices, in float32 or wider."""
        del dt, backward  # refused earlier
        wide = jnp.promote_types(self.param_dtype, jnp.float32)
        return DenseCoefficients(*(v[...].astype(wide) for v in (self.A, self.B, self.C, self.D)))

    def init_state(self, batch_shape: Sequence[int] = ()) -> Float[Array, "*batch G N"]:
        """Returns zeros."""
        return self.zero_state(batch_shape, len(self.A), self.d_state)

    def advance(
        self, coefficients: DenseCoefficients, state: Array, u: Inexact[Array, "*batch H"]
    ) -> tuple[Inexact[Array, "*batch H"], Array]:
        """Takes one step of the recurrence."""
        A, B, C, D = coefficients
        dtype = self._compute_dtype(u)
        v = u.astype(dtype).astype(state.dtype).reshape(*u.shape[:-1], *D.shape[:2])
        y = _apply(C, state) + _apply(D, v)
        return y.reshape(u.shape).astype(dtype), _apply(A, state) + _apply(B, v)


def _apply(matrix: Float[Array, "G a b"], x: Float[Array, "*batch G b"]) -> Array:
    return jnp.einsum("gab,...gb->...ga", matrix, x, precision="highest")
