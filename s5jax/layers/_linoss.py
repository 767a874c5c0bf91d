"""LinOSS: forced harmonic oscillators, a diagonal recurrence in their phase plane."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Complex, Float

from s5jax._errors import check_choice, check_positive
from s5jax._promotion import with_axes
from s5jax.layers._shared_state import SharedStateAlgorithm, SharedStateLayer

Integrator = Literal["im", "imex"]

A_MIN = 1e-4
"""The phase plane has no coordinates at A = 0, and gradients in float32 lose digits near it."""
STABLE = 4 * (1 - 1e-4)
"""The symplectic step diverges where its squared length times A exceeds 4."""


class LinOSSCoefficients(NamedTuple):
    """One step of LinOSS; ``D`` is None backward in time, since the skip must not count twice."""

    Lambda_bar: Complex[Array, "*batch N"]
    Gamma: Complex[Array, "*batch N"]
    B: Float[Array, "N H"]
    C: Complex[Array, "H N"]
    D: Float[Array, " H"] | None


class LinOSS(SharedStateLayer):
    r"""LinOSS: all features drive and read the same forced harmonic oscillators.

    .. math::
        \ddot x = -A x + B u, \qquad y = \operatorname{Re}(C x) + D \odot u, \qquad A \ge 0,

    where B and C are complex, so that each frequency :math:`\sqrt{A}` has two oscillators, one for
    each part of :math:`x`. The velocity :math:`z = \dot x` and the position take a step

    .. math::
        z_k = z_{k-1} + \Delta (-A x_* + B u_k), \qquad x_k = x_{k-1} + \Delta z_k,

    with :math:`x_* = x_k` (``"im"``, implicit: memory decays) or :math:`x_* = x_{k-1}` (``"imex"``,
    symplectic: energy is conserved). The eigenvectors of this step turn the plane of velocity and
    position into one complex number, :math:`w = z + c x`, with

    .. math::
        w_k = \bar\Lambda (w_{k-1} + \Delta B u_k), \qquad \bar\Lambda = \begin{cases}
            1 / (1 - i \Delta \omega), & c = i \omega, \quad \omega = \sqrt{A} & \text{implicit} \\
            1 + c \Delta, & c = -\tfrac{1}{2} \Delta A + i \omega, \quad
                \omega = \sqrt{A (1 - \tfrac{1}{4} \Delta^2 A)} & \text{symplectic,}
        \end{cases}

    and :math:`x = \operatorname{Im} w / \omega`: a diagonal recurrence instead of the scan over
    2 x 2 matrices of the official code, with the same outputs. A bidirectional layer adds a map
    backward in time with its own C; both see :math:`u_k`.

    Parameters are stored as reals, complex ones with a last axis of (real, imaginary): ``A`` and
    ``raw_step`` (:math:`\Delta` before a sigmoid) of shape ``(P,)``, ``B`` of shape ``(P, H, 2)``,
    ``C`` of shape ``(H, P, 2)`` (``(H, 2 P, 2)`` if bidirectional, forward first) and ``D`` of
    shape ``(H,)``. The step uses :math:`\max(A, 10^{-4})`, and ``"imex"`` at most
    :math:`4 / \Delta^2`, where it would diverge. The optimiser group ``"ssm"`` (small learning
    rate, no weight decay) holds ``A`` and ``raw_step``. A state has shape ``(*batch, N)``, where
    N = 2 P.

    Args:
        d_model: number of features H.
        d_state: number of frequencies P.
        bidirectional: also run backward in time.
        discretization: ``"im"`` or ``"imex"``.
        algorithm: for steps that are all alike ``"block"`` (matrix products, see
            `s5jax.ops.block_scan`), an algorithm of `s5jax.ops.linear_scan`, or ``"auto"``: blocks
            where there is an accelerator, else the scan. Blocks leave sequences with resets or a
            ``dt`` per step to the scan; ``"chunked"`` refuses them.
        dtype: dtype of the matrix products and the output; by default, inputs and parameters decide
            together. States are kept in float32 or wider.
        param_dtype: dtype of the parameters.
        rngs: source of the key ``params``.

    Raises:
        ValueError: for sizes that are not positive, or an unknown option; in a call, for a ``dt``
            per step with ``"imex"``, whose phase plane depends on the step.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from s5jax import LinOSS
        >>> layer = LinOSS(d_model=4, d_state=8, rngs=nnx.Rngs(0))
        >>> y, state = layer(jnp.ones((2, 100, 4)), return_state=True)
        >>> y_next, state = layer.step(jnp.ones((2, 4)), state)
        >>> y.shape, y_next.shape, state.shape
        ((2, 100, 4), (2, 4), (2, 16))

    References:
        Rusch and Rus, "Oscillatory State-Space Models", 2025, https://arxiv.org/abs/2410.03943.
    """

    continuous_time = True

    def __init__(
        self,
        d_model: int,
        d_state: int,
        *,
        bidirectional: bool = False,
        discretization: Integrator = "im",
        algorithm: SharedStateAlgorithm = "auto",
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        d_model, d_state = check_positive("LinOSS", d_model=d_model, d_state=d_state)
        check_choice("LinOSS", "discretization", discretization, get_args(Integrator))
        check_choice("LinOSS", "algorithm", algorithm, get_args(SharedStateAlgorithm))
        self.d_model, self.d_state, self.bidirectional = d_model, d_state, bidirectional
        self.discretization, self.algorithm = discretization, algorithm
        self.dtype, self.param_dtype = dtype, param_dtype

        def uniform(shape: tuple[int, ...], low: float, high: float) -> Array:
            return jax.random.uniform(rngs.params(), shape, param_dtype, low, high)

        H, P = d_model, d_state
        self.A = nnx.Param(uniform((P,), 0, 1), group="ssm")
        self.raw_step = nnx.Param(uniform((P,), 0, 1), group="ssm")
        self.B = nnx.Param(uniform((P, H, 2), -(H**-0.5), H**-0.5))
        self.C = nnx.Param(uniform((H, (1 + bidirectional) * P, 2), -(P**-0.5), P**-0.5))
        self.D = nnx.Param(jax.random.normal(rngs.params(), (H,), param_dtype))

    def coefficients(
        self, dt: Array | float | None = None, *, backward: bool = False
    ) -> LinOSSCoefficients:
        """Integrates one step and picks the output matrix of one direction."""
        wide = jnp.promote_types(self.param_dtype, jnp.float32)
        A = jnp.maximum(self.A[...].astype(wide), A_MIN)
        Delta = jax.nn.sigmoid(self.raw_step[...].astype(wide))
        if dt is not None:
            dt = jnp.asarray(dt, wide)[..., None]
            Delta = dt * with_axes(Delta, dt)
        omega, Lambda_bar = _INTEGRATE[self.discretization](A, Delta)
        P = self.d_state
        B, C = self.B[...].astype(wide), self.C[...].astype(wide)
        C = C[:, P:] if backward else C[:, :P]
        C = jnp.concatenate([C[..., 0], -C[..., 1]], axis=-1) / jnp.tile(omega, 2)[None]
        return LinOSSCoefficients(
            _twice(Lambda_bar),
            _twice(Delta * Lambda_bar),
            jnp.concatenate([B[..., 0], B[..., 1]]),
            jax.lax.complex(jnp.zeros_like(C), -C),
            None if backward else self.D[...],
        )

    def init_state(self, batch_shape: Sequence[int] = ()) -> Complex[Array, "*batch N"]:
        """Returns zeros, one complex number per oscillator."""
        return self.zero_state(batch_shape, 2 * self.d_state, complex_valued=True)

    def input_matrix(self, coefficients: LinOSSCoefficients) -> Complex[Array, "N H"]:
        r"""Returns :math:`\Delta \bar\Lambda B` for one step size, else B."""
        Gamma, B = coefficients.Gamma, coefficients.B
        if Gamma.ndim > 1:
            return jax.lax.complex(B, jnp.zeros_like(B))
        return Gamma[:, None] * B

    def input_scale(self, coefficients: LinOSSCoefficients) -> Complex[Array, "*batch N"] | None:
        r"""Returns :math:`\Delta \bar\Lambda` if there are several step sizes."""
        return coefficients.Gamma if coefficients.Gamma.ndim > 1 else None

    def output_matrix(self, coefficients: LinOSSCoefficients) -> Complex[Array, "H N"]:
        r"""Returns the map from w to :math:`\operatorname{Re}(C x)`."""
        return coefficients.C


def _implicit(
    A: Float[Array, " P"], Delta: Float[Array, "*batch P"]
) -> tuple[Float[Array, " P"], Complex[Array, "*batch P"]]:
    omega = jnp.sqrt(A)
    return omega, 1 / jax.lax.complex(jnp.ones_like(Delta), -with_axes(omega, Delta) * Delta)


def _symplectic(
    A: Float[Array, " P"], Delta: Float[Array, "*batch P"]
) -> tuple[Float[Array, " P"], Complex[Array, "*batch P"]]:
    if Delta.ndim > 1:
        raise ValueError(
            "LinOSS: with `discretization='imex'` all steps have the same length, so `dt` must be "
            f"one number; got shape {Delta.shape[:-1]}. Build the layer with 'im'."
        )
    A = jnp.minimum(A, STABLE / Delta**2)
    omega = jnp.sqrt(A * (1 - Delta**2 * A / 4))
    return omega, jax.lax.complex(1 - Delta**2 * A / 2, Delta * omega)


_INTEGRATE = {"im": _implicit, "imex": _symplectic}


def _twice(v: Complex[Array, "*batch P"]) -> Complex[Array, "*batch N"]:
    """Returns the values for both oscillators of each frequency."""
    return jnp.concatenate([v, v], axis=-1)
