"""S5: one multi-input, multi-output diagonal state space."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Complex, Float

from s5jax._errors import check_choice, check_positive
from s5jax._promotion import with_axes
from s5jax.init import (
    CInit,
    block_diagonal_hippo,
    block_diagonal_random,
    log_uniform_step,
    s5_input_matrix,
    s5_output_matrix,
)
from s5jax.layers._diagonal import DiagonalRecurrence
from s5jax.layers._edits import Edits
from s5jax.layers._shared_state import SharedStateAlgorithm, SharedStateLayer
from s5jax.ops import (
    complex_to_pair,
    discretize_bilinear,
    discretize_zoh,
    pair_to_complex,
    s5_scan,
)

Discretization = Literal["zoh", "bilinear"]
S5Init = Literal["hippo", "random"]
S5Algorithm = Literal[SharedStateAlgorithm, "pallas"]

_DISCRETIZE = {"zoh": discretize_zoh, "bilinear": discretize_bilinear}


class S5Coefficients(NamedTuple):
    """One step of S5; ``D`` is None backward in time, since the skip must not count twice."""

    Lambda_bar: Complex[Array, "*batch P"]
    Gamma: Complex[Array, "*batch P"]
    B: Complex[Array, "P H"]
    C: Complex[Array, "H P"]
    D: Float[Array, " H"] | None


class FusedRecurrence(DiagonalRecurrence):
    """Runs S5 by the fused kernels of `s5jax.ops.s5_scan`."""

    layer: "S5"

    def run(
        self, state: Array | None, u: Array, edits: Edits, *, reverse: bool = False
    ) -> tuple[Array, Array | None]:
        """Runs a uniform sequence."""
        if not edits.uniform:
            raise ValueError(
                "S5: with `algorithm='pallas'` all steps are equal, so there can be no `resets`, "
                "no `dt` per step, and no `lengths` together with a state. Build the layer with "
                "another `algorithm`; its parameters are the same."
            )
        coefficients = self.layer.coefficients(edits.dt, backward=reverse)
        B, C = self.layer.input_matrix(coefficients), self.layer.output_matrix(coefficients)
        x0 = self.layer.init_state(u.shape[:-2]) if state is None else state
        u = u.astype(self.layer._compute_dtype(u))
        y, last = s5_scan(coefficients.Lambda_bar, B, C, u, x0, D=coefficients.D, reverse=reverse)
        return y, None if state is None else last

    def run_both(self, u: Array, edits: Edits) -> Array:
        """Runs a uniform sequence in both directions."""
        return self.run(None, u, edits)[0] + self.run(None, u, edits, reverse=True)[0]

    def run_shard(self, state: Array | None, u: Array, edits: Edits) -> tuple[Array, Array | None]:
        """Refuses a share of the steps."""
        raise ValueError(
            "S5: `algorithm='pallas'` scans whole sequences on one device, and this mesh splits "
            "time. Build the layer with another `algorithm`, or use a mesh without the axis `seq`."
        )


class S5(SharedStateLayer):
    r"""S5: all features share one diagonal state space.

    .. math::
        x_k = \bar\Lambda x_{k-1} + \Gamma \tilde B u_k, \qquad
        y_k = f \operatorname{Re}(\tilde C x_k) + D \odot u_k

    with :math:`\bar\Lambda, \Gamma` from :math:`\Lambda` and one step size per state, and
    :math:`f = 2` if one of each conjugate pair is kept (``conj_sym``), else 1. A bidirectional
    layer adds :math:`f \operatorname{Re}(\tilde C' x'_k)` with
    :math:`x'_k = \bar\Lambda x'_{k+1} + \Gamma \tilde B u_k`; both states see :math:`u_k`.

    Parameters are stored as reals, complex ones with a last axis of (real, imaginary):
    ``Lambda_re``, ``Lambda_im``, ``log_step`` of shape ``(P,)``, ``B`` of shape ``(P, H, 2)``,
    ``C`` of shape ``(H, P, 2)`` (``(H, 2 P, 2)`` if bidirectional, forward states first) and ``D``
    of shape ``(H,)``, where P is ``d_state / 2`` with ``conj_sym``. The optimiser group ``"ssm"``
    (small learning rate, no weight decay) holds ``Lambda_re``, ``Lambda_im``, ``log_step`` and
    ``B``.

    Args:
        d_model: number of features H.
        d_state: number of states, conjugates included.
        n_blocks: number of blocks that initialise the state matrix.
        init: initial blocks: ``"hippo"``, the normal part of HiPPO-LegS, or ``"random"``, see
            `s5jax.init.block_diagonal_random`.
        conj_sym: keep one of each conjugate pair of states; the output is real either way.
        bidirectional: also run backward in time.
        clip_eigs: keep the real parts of Lambda at or below -1e-4, so that the layer is stable.
        discretization: ``"zoh"`` or ``"bilinear"``.
        C_init: ``"trunc_standard_normal"``, ``"lecun_normal"`` or ``"complex_normal"``, see
            `s5jax.init.s5_output_matrix`.
        dt_min: smallest initial step size, in units of the continuous time of Lambda.
        dt_max: largest initial step size.
        algorithm: for steps that are all alike ``"block"`` (matrix products, see
            `s5jax.ops.block_scan`), ``"pallas"`` (fused kernels for a GPU, see
            `s5jax.ops.s5_scan`), an algorithm of `s5jax.ops.linear_scan`, or ``"auto"``: blocks
            where there is an accelerator, else the scan. The kernels have not been timed on a GPU
            yet. Blocks leave sequences with resets or a ``dt`` per step to the scan; ``"pallas"``
            and ``"chunked"`` refuse them.
        dtype: dtype of the matrix products and the output; by default, inputs and parameters decide
            together. States are kept in float32 or wider.
        param_dtype: dtype of the parameters.
        rngs: source of the key ``params``.

    Raises:
        ValueError: for sizes that are not positive or do not divide, an odd number of states per
            block under ``conj_sym``, or an unknown option; in a call, if ``"pallas"`` cannot run.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from s5jax import S5
        >>> layer = S5(d_model=4, d_state=8, rngs=nnx.Rngs(0))
        >>> y, state = layer(jnp.ones((2, 100, 4)), return_state=True)
        >>> y_next, state = layer.step(jnp.ones((2, 4)), state)
        >>> y.shape, y_next.shape, state.shape
        ((2, 100, 4), (2, 4), (2, 4))

    References:
        Smith, Warrington and Linderman, "Simplified State Space Layers for Sequence Modeling",
        2023, https://arxiv.org/abs/2208.04933.
    """

    continuous_time = True

    def __init__(
        self,
        d_model: int,
        d_state: int,
        *,
        n_blocks: int = 1,
        init: S5Init = "hippo",
        conj_sym: bool = True,
        bidirectional: bool = False,
        clip_eigs: bool = False,
        discretization: Discretization = "zoh",
        C_init: CInit = "trunc_standard_normal",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        algorithm: S5Algorithm = "auto",
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        sizes = {"d_model": d_model, "d_state": d_state, "n_blocks": n_blocks}
        d_model, d_state, n_blocks = check_positive("S5", **sizes)
        check_choice("S5", "init", init, get_args(S5Init))
        check_choice("S5", "discretization", discretization, get_args(Discretization))
        check_choice("S5", "C_init", C_init, get_args(CInit))
        check_choice("S5", "algorithm", algorithm, get_args(S5Algorithm))
        self.d_model, self.d_state, self.n_blocks = d_model, d_state, n_blocks
        self.init, self.conj_sym, self.clip_eigs = init, conj_sym, clip_eigs
        self.bidirectional = bidirectional
        self.discretization, self.C_init = discretization, C_init
        self.dt_min, self.dt_max = dt_min, dt_max
        self.algorithm, self.dtype, self.param_dtype = algorithm, dtype, param_dtype

        if init == "random":
            Lambda, V, V_inv = block_diagonal_random(
                rngs.params(), d_state, n_blocks, conj_sym=conj_sym, dtype=param_dtype
            )
        else:
            Lambda, V, V_inv = block_diagonal_hippo(d_state, n_blocks, conj_sym=conj_sym)
        B = s5_input_matrix(rngs.params(), V_inv, d_model, dtype=param_dtype)
        C = [
            s5_output_matrix(rngs.params(), V, d_model, C_init=C_init, dtype=param_dtype)
            for _ in range(1 + bidirectional)
        ]
        log_step = log_uniform_step(rngs.params(), Lambda.shape, dt_min, dt_max, dtype=param_dtype)

        self.Lambda_re = nnx.Param(jnp.asarray(Lambda.real, param_dtype), group="ssm")
        self.Lambda_im = nnx.Param(jnp.asarray(Lambda.imag, param_dtype), group="ssm")
        self.log_step = nnx.Param(log_step, group="ssm")
        self.B = nnx.Param(complex_to_pair(B).astype(param_dtype), group="ssm")
        self.C = nnx.Param(complex_to_pair(jnp.concatenate(C, -1)).astype(param_dtype))
        self.D = nnx.Param(jax.random.normal(rngs.params(), (d_model,), param_dtype))

    @property
    def recurrence(self) -> DiagonalRecurrence:
        """The scan, or the fused kernels."""
        if self.algorithm == "pallas":
            return FusedRecurrence(self)
        return super().recurrence

    def algorithm_for(self, L: int, batch: int = 1) -> str:
        """Returns the algorithm of the scan, or ``"pallas"``."""
        return "pallas" if self.algorithm == "pallas" else super().algorithm_for(L, batch)

    def coefficients(
        self, dt: Array | float | None = None, *, backward: bool = False
    ) -> S5Coefficients:
        """Discretises Lambda and picks the output matrix of one direction."""
        wide = jnp.promote_types(self.param_dtype, jnp.float32)
        Lambda_re = self.Lambda_re[...].astype(wide)
        if self.clip_eigs:
            Lambda_re = jnp.minimum(Lambda_re, -1e-4)
        Lambda = jax.lax.complex(Lambda_re, self.Lambda_im[...].astype(wide))
        Delta = jnp.exp(self.log_step[...].astype(wide))
        if dt is not None:
            dt = jnp.asarray(dt, wide)[..., None]
            Delta = dt * with_axes(Delta, dt)
        Lambda_bar, Gamma = _DISCRETIZE[self.discretization](Lambda, Delta)
        P = Lambda.shape[0]
        C = self.C[...][:, P:] if backward else self.C[...][:, :P]
        return S5Coefficients(
            Lambda_bar,
            Gamma,
            pair_to_complex(self.B[...]),
            pair_to_complex(C),
            None if backward else self.D[...],
        )

    def init_state(self, batch_shape: Sequence[int] = ()) -> Complex[Array, "*batch P"]:
        """Returns zeros, one complex number per kept state."""
        return self.zero_state(batch_shape, self.log_step.shape[0], complex_valued=True)

    def input_matrix(self, coefficients: S5Coefficients) -> Complex[Array, "P H"]:
        r"""Returns :math:`\Gamma \tilde B` for one step size, else :math:`\tilde B`."""
        Gamma, B = coefficients.Gamma, coefficients.B
        return B if Gamma.ndim > 1 else Gamma[:, None] * B

    def input_scale(self, coefficients: S5Coefficients) -> Complex[Array, "*batch P"] | None:
        r"""Returns :math:`\Gamma` if there are several step sizes."""
        return coefficients.Gamma if coefficients.Gamma.ndim > 1 else None

    def output_matrix(self, coefficients: S5Coefficients) -> Complex[Array, "H P"]:
        r"""Returns :math:`f \tilde C`."""
        return coefficients.C * (2 if self.conj_sym else 1)
