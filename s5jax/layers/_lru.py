"""LRU: a linear recurrent unit with complex diagonal state matrix."""

from collections.abc import Sequence
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Complex, Float

from s5jax._errors import check_choice, check_positive
from s5jax.init import lru_ring
from s5jax.layers._shared_state import SharedStateAlgorithm, SharedStateLayer
from s5jax.ops import pair_to_complex


class LRUCoefficients(NamedTuple):
    """One step of the LRU; ``D`` is None backward in time, since the skip must not count twice."""

    Lambda_bar: Complex[Array, " N"]
    B: Complex[Array, "N H"]
    C: Complex[Array, "H N"]
    D: Float[Array, " H"] | None


class LRU(SharedStateLayer):
    r"""LRU: all features share one diagonal recurrence, stable by construction.

    .. math::
        x_k = \Lambda x_{k-1} + \gamma \odot B u_k, \qquad
        y_k = \operatorname{Re}(C x_k) + D \odot u_k, \qquad
        \Lambda = e^{-e^{\nu} + i e^{\theta}}

    in discrete time, without conjugate pairs. A bidirectional layer adds
    :math:`\operatorname{Re}(C' x'_k)` with
    :math:`x'_k = \Lambda x'_{k+1} + \gamma \odot B u_k`; both states see :math:`u_k`.

    Parameters are stored as reals, complex ones with a last axis of (real, imaginary): ``nu_log``,
    ``theta_log``, ``gamma_log`` (:math:`\log\gamma`) of shape ``(N,)``, ``B`` of shape
    ``(N, H, 2)``, ``C`` of shape ``(H, N, 2)`` (``(H, 2 N, 2)`` if bidirectional, forward states
    first) and ``D`` of shape ``(H,)``. The optimiser group ``"ssm"`` (small learning rate, no
    weight decay) holds ``nu_log``, ``theta_log`` and ``gamma_log``.

    Args:
        d_model: number of features H.
        d_state: number of complex states N.
        bidirectional: also run backward in time.
        r_min: smallest initial absolute value of an eigenvalue.
        r_max: largest initial absolute value of an eigenvalue.
        max_phase: largest initial phase of an eigenvalue, in radians; a small one, such as
            pi / 10, with ``r_min`` near 1 suits very long sequences.
        algorithm: for steps that are all alike ``"block"`` (matrix products, see
            `s5jax.ops.block_scan`), an algorithm of `s5jax.ops.linear_scan`, or ``"auto"``: blocks
            where there is an accelerator, else the scan. Blocks leave sequences with resets to the
            scan; ``"chunked"`` refuses them.
        dtype: dtype of the matrix products and the output; by default, inputs and parameters decide
            together. States are kept in float32 or wider.
        param_dtype: dtype of the parameters.
        rngs: source of the key ``params``.

    Raises:
        ValueError: for sizes that are not positive, a ring that is empty (see
            `s5jax.init.lru_ring`), or an unknown option.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from s5jax import LRU
        >>> layer = LRU(d_model=4, d_state=8, r_min=0.9, rngs=nnx.Rngs(0))
        >>> y, state = layer(jnp.ones((2, 100, 4)), return_state=True)
        >>> y_next, state = layer.step(jnp.ones((2, 4)), state)
        >>> y.shape, y_next.shape, state.shape
        ((2, 100, 4), (2, 4), (2, 8))

    References:
        Orvieto, Smith, Gu, Fernando, Gulcehre, Pascanu and De, "Resurrecting Recurrent Neural
        Networks for Long Sequences", 2023, https://arxiv.org/abs/2303.06349.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int,
        *,
        bidirectional: bool = False,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 6.28,
        algorithm: SharedStateAlgorithm = "auto",
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        d_model, d_state = check_positive("LRU", d_model=d_model, d_state=d_state)
        check_choice("LRU", "algorithm", algorithm, get_args(SharedStateAlgorithm))
        self.d_model, self.d_state, self.bidirectional = d_model, d_state, bidirectional
        self.r_min, self.r_max, self.max_phase = r_min, r_max, max_phase
        self.algorithm, self.dtype, self.param_dtype = algorithm, dtype, param_dtype

        nu_log, theta_log, gamma_log = lru_ring(
            rngs.params(), d_state, r_min=r_min, r_max=r_max, max_phase=max_phase, dtype=param_dtype
        )
        B_shape, C_shape = (d_state, d_model, 2), (d_model, (1 + bidirectional) * d_state, 2)
        B = jax.random.normal(rngs.params(), B_shape, param_dtype) / (2 * d_model) ** 0.5
        C = jax.random.normal(rngs.params(), C_shape, param_dtype) / d_state**0.5

        self.nu_log = nnx.Param(nu_log, group="ssm")
        self.theta_log = nnx.Param(theta_log, group="ssm")
        self.gamma_log = nnx.Param(gamma_log, group="ssm")
        self.B = nnx.Param(B)
        self.C = nnx.Param(C)
        self.D = nnx.Param(jax.random.normal(rngs.params(), (d_model,), param_dtype))

    def coefficients(
        self, dt: Array | float | None = None, *, backward: bool = False
    ) -> LRUCoefficients:
        """Returns eigenvalues, the normalised input matrix and one direction's output matrix."""
        wide = jnp.promote_types(self.param_dtype, jnp.float32)
        nu, theta, gamma = (
            jnp.exp(log[...].astype(wide)) for log in (self.nu_log, self.theta_log, self.gamma_log)
        )
        N = self.d_state
        C = self.C[...][:, N:] if backward else self.C[...][:, :N]
        return LRUCoefficients(
            jnp.exp(jax.lax.complex(-nu, theta)),
            gamma[:, None] * pair_to_complex(self.B[...]),
            pair_to_complex(C),
            None if backward else self.D[...],
        )

    def init_state(self, batch_shape: Sequence[int] = ()) -> Complex[Array, "*batch N"]:
        """Returns zeros, one complex number per state."""
        return self.zero_state(batch_shape, self.d_state, complex_valued=True)

    def input_matrix(self, coefficients: LRUCoefficients) -> Complex[Array, "N H"]:
        r"""Returns :math:`\gamma \odot B`."""
        return coefficients.B

    def output_matrix(self, coefficients: LRUCoefficients) -> Complex[Array, "H N"]:
        """Returns C."""
        return coefficients.C
