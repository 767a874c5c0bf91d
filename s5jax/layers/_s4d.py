"""S4D: one diagonal state space per feature, run as a convolution."""

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
from s5jax.init import log_uniform_step, s4d, s4d_dfout, s4d_random
from s5jax.layers._diagonal import DiagonalRecurrence
from s5jax.layers._feature_ssm import FeatureSSM, Transform, away_from_zero, check_sizes
from s5jax.layers._kernel import KernelOrScan
from s5jax.ops import (
    ChunkTables,
    StateSpace,
    complex_to_pair,
    discretize_bilinear,
    discretize_zoh,
    pair_to_complex,
    real_state_space,
    vandermonde,
    vandermonde_chunks,
    vandermonde_state,
)

S4DInit = Literal["legs", "lin", "inv", "inv2", "quad", "real", "random", "dfout"]
Discretization = Literal["zoh", "bilinear"]

_DISCRETIZE = {"zoh": discretize_zoh, "bilinear": discretize_bilinear}


class S4DCoefficients(NamedTuple):
    """One step of S4D, features and their states on one axis; ``D`` is None backward in time."""

    Lambda_bar: Complex[Array, "*batch HM"]
    log_Lambda_bar: Complex[Array, "*batch HM"]
    B_bar: Complex[Array, "*batch HM"]
    C: Complex[Array, "H M"]
    D: Float[Array, " H"] | None


class S4D(FeatureSSM):
    r"""S4D: each feature has its own diagonal state space.

    .. math::
        x_k = \bar\Lambda x_{k-1} + \bar B u_k, \qquad y_k = 2 \operatorname{Re}(C x_k) + D u_k

    per feature, with :math:`\bar\Lambda, \bar B` from :math:`\Lambda, B` and one step size. One of
    each conjugate pair of states is kept. Uniform sequences are convolved with the kernel
    :math:`2 \operatorname{Re} \sum_n C_n \bar B_n \bar\Lambda_n^l` (`s5jax.ops.vandermonde`), by
    FFT or by chunks. A bidirectional layer adds a second kernel, of its own C, over the inputs to
    come, which starts with the next step.

    Parameters are stored as reals, complex ones with a last axis of (real, imaginary): with
    M = ``d_state / 2`` and S = ``n_ssm``, ``raw_decay`` and ``Lambda_im`` of shape ``(S, M)``,
    where :math:`\operatorname{Re} \Lambda = -f(\mathtt{raw\_decay})`, ``B`` of shape
    ``(S, M, 2)``, ``raw_step`` of shape ``(H,)``, ``C`` of shape ``(1, H, M, 2)``
    (``(2, H, M, 2)`` if bidirectional, forward first) and ``D`` of shape ``(H,)``. Feature h uses
    the system h modulo S. The optimiser group ``"ssm"`` holds all but ``C`` and ``D``. A state has
    shape ``(*batch, H M)``, feature by feature.

    Args:
        d_model: number of features H.
        d_state: number of states per feature, conjugates included; even.
        n_ssm: number of different :math:`(\Lambda, B)`, a divisor of ``d_model``, which it is by
            default.
        bidirectional: also run backward in time.
        init: initial eigenvalues: a method of `s5jax.init.s4d`, ``"random"``, see
            `s5jax.init.s4d_random`, or ``"dfout"``, see `s5jax.init.s4d_dfout`. The last starts
            with steps of length 1, damping factors between ``dt_min`` and ``dt_max``, which are
            also its ``B``, and needs the zero-order hold.
        discretization: ``"zoh"`` or ``"bilinear"``.
        dt_transform: how the step size is parameterised, ``"exp"`` or ``"softplus"``.
        real_transform: how the decay rates are parameterised, ``"exp"`` or ``"softplus"``.
        dt_min: smallest initial step size, in units of the continuous time of Lambda.
        dt_max: largest initial step size.
        algorithm: how uniform sequences run: convolved by ``"fft"``, ``"chunked"`` or ``"auto"``,
            see `s5jax.ops.conv_algorithm`, or as a recurrence by ``"scan"``, ``"sequential"`` or
            ``"associative"``, see `s5jax.ops.scan_algorithm`. Resets and irregular steps always run
            as a recurrence.
        dtype: dtype of the output; by default, inputs and parameters decide together. Kernels,
            transforms and states are kept in float32 or wider.
        param_dtype: dtype of the parameters.
        rngs: source of the key ``params``.

    Raises:
        ValueError: for sizes that are not positive or do not divide, an odd ``d_state``, or an
            unknown option, or ``init="dfout"`` with another discretization than ``"zoh"``.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from s5jax import S4D
        >>> layer = S4D(d_model=4, d_state=8, rngs=nnx.Rngs(0))
        >>> y, state = layer(jnp.ones((2, 100, 4)), return_state=True)
        >>> y_next, state = layer.step(jnp.ones((2, 4)), state)
        >>> y.shape, y_next.shape, state.shape
        ((2, 100, 4), (2, 4), (2, 16))

    References:
        Gu, Gupta, Goel and Ré, "On the Parameterization and Initialization of Diagonal State Space
        Models", 2022, https://arxiv.org/abs/2206.11893.
    """

    state_feature_axis = -1

    def __init__(
        self,
        d_model: int,
        d_state: int,
        *,
        n_ssm: int | None = None,
        bidirectional: bool = False,
        init: S4DInit = "legs",
        discretization: Discretization = "zoh",
        dt_transform: Transform = "exp",
        real_transform: Transform = "exp",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        algorithm: KernelOrScan = "auto",
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        d_model, d_state, S = check_sizes("S4D", d_model, d_state, n_ssm)
        check_choice("S4D", "init", init, get_args(S4DInit))
        check_choice("S4D", "discretization", discretization, get_args(Discretization))
        if init == "dfout" and discretization != "zoh":
            raise ValueError(
                "S4D: `init='dfout'` places the poles of the zero-order hold, so that "
                f"`discretization` must be 'zoh'; got {discretization!r}."
            )
        check_choice("S4D", "dt_transform", dt_transform, get_args(Transform))
        check_choice("S4D", "real_transform", real_transform, get_args(Transform))
        check_choice("S4D", "algorithm", algorithm, get_args(KernelOrScan))
        self.d_model, self.d_state, self.n_ssm = d_model, d_state, None if n_ssm is None else S
        self.bidirectional, self.init, self.discretization = bidirectional, init, discretization
        self.dt_transform, self.real_transform = dt_transform, real_transform
        self.dt_min, self.dt_max = dt_min, dt_max
        self.algorithm = algorithm
        self.dtype, self.param_dtype = dtype, param_dtype

        if init == "dfout":
            wide = jnp.promote_types(param_dtype, jnp.float32)
            damping = jnp.exp(log_uniform_step(rngs.params(), (S,), dt_min, dt_max, dtype=wide))
            Lambda = s4d_dfout(damping, d_state)
            B = jnp.broadcast_to(damping[:, None] + 0j, Lambda.shape)
            self._make_parameters(Lambda, B, rngs, (1.0, 1.0))
            return
        if init == "random":
            Lambda = s4d_random(rngs.params(), S, d_state, dtype=param_dtype)
            B = jnp.ones_like(Lambda)
        else:
            Lambda, B = (np.broadcast_to(v, (S, len(v))) for v in s4d(init, d_state))
        self._make_parameters(away_from_zero(Lambda), B, rngs, (dt_min, dt_max))

    def coefficients(
        self, dt: Array | float | None = None, *, backward: bool = False
    ) -> S4DCoefficients:
        """Discretises every feature's system and picks the output vectors of one direction."""
        Lambda, B, Delta = self._continuous(dt)
        Delta = Delta[..., None]
        Lambda, B = with_axes(Lambda, Delta), with_axes(B, Delta)
        Lambda_bar, Gamma = _DISCRETIZE[self.discretization](Lambda, Delta)
        log = Lambda * Delta if self.discretization == "zoh" else _log_bilinear(Lambda * Delta)
        HM = self.d_model * self.d_state // 2
        return S4DCoefficients(
            *(v.reshape(*v.shape[:-2], HM) for v in (Lambda_bar, log, Gamma * B)),
            pair_to_complex(self.C[int(backward)]),
            None if backward else self.D[...],
        )

    def init_state(self, batch_shape: Sequence[int] = ()) -> Complex[Array, "*batch HM"]:
        """Returns zeros, one complex number per kept state of every feature."""
        size = self.d_model * self.d_state // 2
        return self.zero_state(batch_shape, size, complex_valued=True)

    @property
    def recurrence(self) -> DiagonalRecurrence:
        """The recurrence of all states of all features."""
        return DiagonalRecurrence(self, self._scan_algorithm())

    def advance(
        self, coefficients: S4DCoefficients, state: Array, u: Inexact[Array, "*batch H"]
    ) -> tuple[Inexact[Array, "*batch H"], Array]:
        """Takes one step of the recurrence."""
        return self.recurrence.advance(coefficients, state, u)

    def drive(
        self, coefficients: S4DCoefficients, u: Inexact[Array, "*batch H"]
    ) -> Float[Array, "*batch 2 HM"]:
        r"""Returns :math:`\bar B u`, every input repeated for the states of its feature."""
        u = u.astype(self._compute_dtype(u))
        B_bar = complex_to_pair(coefficients.B_bar, axis=-2)
        u = jnp.repeat(u, self.d_state // 2, axis=-1)[..., None, :]
        return with_axes(B_bar, u) * u

    def readout(
        self,
        coefficients: S4DCoefficients,
        x: Float[Array, "*batch 2 HM"],
        u: Inexact[Array, "*batch H"],
    ) -> Inexact[Array, "*batch H"]:
        r"""Returns :math:`2 \operatorname{Re}(C x) + D u`."""
        x = pair_to_complex(x, axis=-2)
        x = x.reshape(*x.shape[:-1], *coefficients.C.shape)
        y = 2 * (with_axes(coefficients.C, x) * x).sum(-1).real
        return self._skip(coefficients, y, u)

    def convolution_kernel(self, coefficients: S4DCoefficients, L: int) -> Float[Array, "L H"]:
        r"""Returns :math:`2 \operatorname{Re} \sum_n C_n \bar B_n \bar\Lambda_n^l`."""
        return self._decay(coefficients, coefficients.B_bar, L)

    def chunk_tables(self, coefficients: S4DCoefficients, T: int) -> ChunkTables:
        """Returns the same kernel by chunks."""
        C = coefficients.C
        weights = 2 * C * coefficients.B_bar.reshape(C.shape)
        return vandermonde_chunks(weights, coefficients.log_Lambda_bar.reshape(C.shape), T)

    def response(
        self, coefficients: S4DCoefficients, state: Array, L: int
    ) -> Float[Array, "*batch L H"]:
        r"""Returns :math:`2 \operatorname{Re}(C \bar\Lambda^{l + 1} x)`."""
        x = with_axes(coefficients.Lambda_bar, state) * state
        return self._decay(coefficients, x, L)

    def final_state(
        self, coefficients: S4DCoefficients, state: Array, u: Float[Array, "*batch L H"]
    ) -> Complex[Array, "*batch HM"]:
        """Returns the state after the last step."""
        shape = coefficients.C.shape
        log, B_bar = (v.reshape(shape) for v in (coefficients.log_Lambda_bar, coefficients.B_bar))
        x0 = state.reshape(*state.shape[:-1], *shape)
        return vandermonde_state(u, log, B_bar, x0).reshape(state.shape)

    def to_ssm(self) -> StateSpace:
        """Returns real matrices with two states, real and imaginary part, for each complex one."""
        self.check_use("to_ssm")
        c = self.coefficients()
        owner = jnp.repeat(jnp.eye(self.d_model), self.d_state // 2, axis=0)
        B, C = c.B_bar[:, None] * owner, 2 * c.C.reshape(1, -1) * owner.T
        return real_state_space(c.Lambda_bar, B, C, self.D[...])

    def _decay(
        self, coefficients: S4DCoefficients, x: Complex[Array, "*batch HM"], L: int
    ) -> Float[Array, "*batch L H"]:
        """Returns the outputs that follow from a first state, without inputs."""
        C = coefficients.C
        x = x.reshape(*x.shape[:-1], *C.shape)
        return vandermonde(with_axes(2 * C, x) * x, coefficients.log_Lambda_bar.reshape(C.shape), L)


def _log_bilinear(z: Complex[Array, "*shape"]) -> Complex[Array, "*shape"]:
    r""":math:`\log \frac{1 + z/2}{1 - z/2}` without the cancellation near 1."""
    x, y = z.real / 2, z.imag / 2
    size = jnp.log1p(4 * x / ((1 - x) ** 2 + y**2)) / 2
    return jax.lax.complex(size, jnp.arctan2(y, 1 + x) + jnp.arctan2(y, 1 - x))
