"""S4: one state space per feature, with a state matrix that is diagonal plus low rank."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Complex, Float, Inexact

from s5jax._errors import check_choice
from s5jax._promotion import with_axes
from s5jax.init import nplr
from s5jax.layers._feature_ssm import FeatureSSM, Transform, away_from_zero, check_sizes
from s5jax.ops import (
    DPLR,
    ChunkTables,
    ConvAlgorithm,
    StateSpace,
    complex_to_pair,
    discretize_dplr,
    dplr_chunks,
    dplr_kernel,
    dplr_response,
    dplr_state,
    dplr_step,
    pair_to_complex,
)
from s5jax.ops._dplr_powers import dense_change, dplr_change

S4Init = Literal["legs", "legt", "fourier"]
S4Algorithm = Literal[ConvAlgorithm, "cauchy"]


class S4Coefficients(NamedTuple):
    """The continuous system, for kernels, and one step; ``D`` is None backward in time."""

    Lambda: Complex[Array, "H M"]
    P: Complex[Array, "H R M"]
    B: Complex[Array, "H M"]
    Delta: Float[Array, "*batch H"]
    step: DPLR
    C: Complex[Array, "H M"]
    D: Float[Array, " H"] | None


class S4(FeatureSSM):
    r"""S4: each feature has its own state space, diagonal plus low rank.

    .. math::
        x_k = \bar A x_{k-1} + \bar B u_k, \qquad y_k = 2 \operatorname{Re}(C x_k) + D u_k

    per feature, with :math:`\bar A, \bar B` from :math:`A = \Lambda - P P^*`, :math:`B` and one
    step size by the bilinear rule. One of each conjugate pair of states is kept. Uniform sequences
    are convolved with the kernel (`s5jax.ops.dplr_kernel`), by FFT or by chunks; a step costs O(N)
    through the low-rank form (`s5jax.ops.dplr_step`). A bidirectional layer adds a second kernel,
    of its own C, over the inputs to come, which starts with the next step.

    Resets, and a ``dt`` per step, run step by step.

    Parameters are stored as reals, complex ones with a last axis of (real, imaginary): with
    M = ``d_state / 2``, S = ``n_ssm`` and the rank R of the measure, ``raw_decay`` and
    ``Lambda_im`` of shape ``(S, M)``, where
    :math:`\operatorname{Re} \Lambda = -f(\mathtt{raw\_decay})`, ``P`` of shape ``(S, R, M, 2)``,
    ``B`` of shape ``(S, M, 2)``, ``raw_step`` of shape ``(H,)``, ``C`` of shape ``(1, H, M, 2)``
    (``(2, H, M, 2)`` if bidirectional, forward first) and ``D`` of shape ``(H,)``. Feature h uses
    the system h modulo S. None depends on a sequence length: C is the output vector itself,
    where the published code stores one that is truncated to a kernel length. The optimiser group
    ``"ssm"`` holds all but ``C`` and ``D``. A state has shape ``(*batch, H, M)``.

    Args:
        d_model: number of features H.
        d_state: number of states per feature, conjugates included; even.
        n_ssm: number of different :math:`(\Lambda, P, B)`, a divisor of ``d_model``, which it is by
            default.
        bidirectional: also run backward in time.
        init: the HiPPO measure, ``"legs"``, ``"legt"`` (rank 2) or ``"fourier"``, see
            `s5jax.init.nplr`.
        dt_transform: how the step size is parameterised, ``"exp"`` or ``"softplus"``.
        real_transform: how the decay rates are parameterised, ``"exp"`` or ``"softplus"``.
        dt_min: smallest initial step size, in units of the continuous time of A.
        dt_max: largest initial step size.
        algorithm: how uniform sequences are convolved, ``"fft"``, ``"chunked"`` or ``"auto"``, see
            `s5jax.ops.conv_algorithm`; or ``"cauchy"``, an FFT with the kernel as published, see
            `s5jax.ops.dplr_kernel`.
        dtype: dtype of the output; by default, inputs and parameters decide together. Kernels,
            transforms and states are kept in float32 or wider.
        param_dtype: dtype of the parameters.
        rngs: source of the key ``params``.

    Raises:
        ValueError: for sizes that are not positive or do not divide, an odd ``d_state``, or an
            unknown option.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from s5jax import S4
        >>> layer = S4(d_model=4, d_state=8, rngs=nnx.Rngs(0))
        >>> y, state = layer(jnp.ones((2, 100, 4)), return_state=True)
        >>> y_next, state = layer.step(jnp.ones((2, 4)), state)
        >>> y.shape, y_next.shape, state.shape
        ((2, 100, 4), (2, 4), (2, 4, 4))

    References:
        Gu, Goel and Ré, "Efficiently Modeling Long Sequences with Structured State Spaces", 2022,
        https://arxiv.org/abs/2111.00396.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int,
        *,
        n_ssm: int | None = None,
        bidirectional: bool = False,
        init: S4Init = "legs",
        dt_transform: Transform = "exp",
        real_transform: Transform = "exp",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        algorithm: S4Algorithm = "auto",
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        d_model, d_state, S = check_sizes("S4", d_model, d_state, n_ssm)
        check_choice("S4", "init", init, get_args(S4Init))
        check_choice("S4", "dt_transform", dt_transform, get_args(Transform))
        check_choice("S4", "real_transform", real_transform, get_args(Transform))
        check_choice("S4", "algorithm", algorithm, get_args(S4Algorithm))
        self.d_model, self.d_state, self.n_ssm = d_model, d_state, None if n_ssm is None else S
        self.bidirectional, self.init = bidirectional, init
        self.dt_transform, self.real_transform = dt_transform, real_transform
        self.dt_min, self.dt_max = dt_min, dt_max
        self.algorithm = algorithm
        self.dtype, self.param_dtype = dtype, param_dtype

        Lambda, P, B, _ = nplr(init, d_state)
        Lambda, P, B = (np.broadcast_to(v, (S, *v.shape)) for v in (Lambda, P, B))
        P = complex_to_pair(jnp.asarray(P)).astype(param_dtype)
        self.P = nnx.Param(P, group="ssm", feature_axis=0)
        self._make_parameters(away_from_zero(Lambda), B, rngs, (dt_min, dt_max))

    def coefficients(
        self, dt: Array | float | None = None, *, backward: bool = False
    ) -> S4Coefficients:
        """Discretises every feature's system and picks the output vectors of one direction."""
        Lambda, B, Delta = self._continuous(dt)
        P = self._per_feature(pair_to_complex(self.P[...]))
        step = discretize_dplr(Lambda, P, B, Delta)
        C, D = pair_to_complex(self.C[int(backward)]), None if backward else self.D[...]
        return S4Coefficients(Lambda, P, B, Delta, step, C, D)

    def init_state(self, batch_shape: Sequence[int] = ()) -> Complex[Array, "*batch H M"]:
        """Returns zeros, one complex number per kept state of every feature."""
        return self.zero_state(batch_shape, self.d_model, self.d_state // 2, complex_valued=True)

    def advance(
        self, coefficients: S4Coefficients, state: Array, u: Inexact[Array, "*batch H"]
    ) -> tuple[Inexact[Array, "*batch H"], Array]:
        """Takes one step of the recurrence, in O(N)."""
        x = dplr_step(coefficients.step, state, self._wide(u))
        y = 2 * (with_axes(coefficients.C, x) * x).sum(-1).real
        return self._skip(coefficients, y, u), x

    def algorithm_for(self, L: int, batch: int = 1) -> str:
        """Returns ``"fft"``, ``"chunked"`` or ``"cauchy"``."""
        return "cauchy" if self.algorithm == "cauchy" else super().algorithm_for(L, batch)

    def convolution_kernel(self, coefficients: S4Coefficients, L: int) -> Float[Array, "L H"]:
        r"""Returns :math:`2 \operatorname{Re}(C \bar A^l \bar B)`."""
        Lambda, P, B, Delta, _, C, _ = coefficients
        form = "cauchy" if self.algorithm == "cauchy" else "auto"
        return dplr_kernel(Lambda, P, B, C, Delta, L, algorithm=form)

    def chunk_tables(self, coefficients: S4Coefficients, T: int) -> ChunkTables:
        """Returns the same kernel by chunks."""
        return dplr_chunks(coefficients.step, coefficients.C, T)

    def response(
        self, coefficients: S4Coefficients, state: Array, L: int
    ) -> Float[Array, "*batch L H"]:
        r"""Returns :math:`2 \operatorname{Re}(C \bar A^{l + 1} x)`."""
        step = coefficients.step
        return dplr_response(step, coefficients.C, state + dplr_change(step, state), L)

    def final_state(
        self, coefficients: S4Coefficients, state: Array, u: Float[Array, "*batch L H"]
    ) -> Complex[Array, "*batch H M"]:
        """Returns the state after the last step."""
        return dplr_state(coefficients.step, u, state)

    def to_ssm(self) -> StateSpace:
        """Returns real matrices; each feature has its real parts first, then the imaginary ones."""
        self.check_use("to_ssm")
        c, N = self.coefficients(), self.d_state
        blocks = jnp.eye(N)[None] + dense_change(c.step)
        B = jnp.concatenate([c.step.B_bar.real, c.step.B_bar.imag], -1)
        C = 2 * jnp.concatenate([c.C.real, -c.C.imag], -1)
        owner = jnp.repeat(jnp.eye(self.d_model), N, axis=0)
        return StateSpace(
            A=jax.scipy.linalg.block_diag(*blocks),
            B=B.reshape(-1, 1) * owner,
            C=C.reshape(1, -1) * owner.T,
            D=jnp.diag(self.D[...]),
        )
