"""DLR: diagonal linear recurrences with shared eigenvalues; and DSS, which they simplify."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Complex, Float, Inexact

from s5jax._errors import check_choice, check_positive
from s5jax._promotion import with_axes
from s5jax.init import DSSInit, dlr_eigenvalues, dss_eigenvalues, log_uniform_step
from s5jax.layers._diagonal import DiagonalRecurrence
from s5jax.layers._edits import Edits
from s5jax.layers._kernel import SCANS, KernelLayer, KernelOrScan
from s5jax.ops import (
    ChunkTables,
    KernelToReal,
    StateSpace,
    complex_to_pair,
    discretize_zoh,
    dlr_kernel,
    dlr_modes,
    dss_softmax_kernel,
    linear_scan,
    pair_to_complex,
    real_state_space,
    vandermonde,
    vandermonde_chunks,
    vandermonde_state,
)

Version = Literal["dlr", "dss_exp", "dss_softmax"]


class DLRCoefficients(NamedTuple):
    """Exponents and weights of a kernel; ``D`` is None backward in time."""

    z: Complex[Array, " N"] | Complex[Array, "H N"]
    W: Complex[Array, "H N"]
    D: Float[Array, " H"] | None

    def kernel(self, L: int) -> Float[Array, "L H"]:
        """Returns the first lags, without the skip."""
        return vandermonde(self.W, self.z, L)

    def modes(self) -> tuple[Complex[Array, "H P"], Complex[Array, "H P"]]:
        """Returns weights and exponents of the recurrence."""
        return self.W, jnp.broadcast_to(self.z, self.W.shape)

    @property
    def Lambda_bar(self) -> Complex[Array, " HP"]:
        """Eigenvalues of the recurrence, feature by feature."""
        return jnp.exp(self.modes()[1]).reshape(-1)


class ProductCoefficients(DLRCoefficients):
    """Coefficients whose kernel is a product; its many modes are formed on demand."""

    def kernel(self, L: int) -> Float[Array, "L H"]:
        """Returns the first lags, without the skip."""
        return dlr_kernel(self.W, self.z, L, kernel_to_real="prod")

    def modes(self) -> tuple[Complex[Array, "H P"], Complex[Array, "H P"]]:
        """Returns weights and exponents of the recurrence."""
        return dlr_modes(*super().modes(), "prod")


class DLR(KernelLayer):
    r"""DLR: a diagonal linear recurrence whose eigenvalues all features share; also DSS.

    .. math::
        y_t = \sum_{l} K_l u_{t-l} + D u_t, \qquad K_l = f\left( \sum_n w_n e^{z_n l} \right)

    for every feature, where f takes the real part, the imaginary part, their sum or their product
    (``kernel_to_real``), without conjugate pairs. As a recurrence,
    :math:`x_t = e^z x_{t-1} + u_t` for each feature; see `s5jax.ops.dlr_modes` for the product,
    which has the square of the number of states. A bidirectional layer adds a second kernel, of its
    own W, over the inputs to come, which starts with the next step.

    ==================  =============================================  ===========================
    ``version``         z and w                                        real part of Lambda
    ==================  =============================================  ===========================
    ``"dlr"``           :math:`\Lambda`; W                             minus the square of its raw
    ``"dss_exp"``       :math:`\Delta\Lambda`;                         minus the exponential of its
                        :math:`W (e^{\Delta\Lambda} - 1) / \Lambda`    raw
    ``"dss_softmax"``   :math:`\Delta\Lambda`;                         free
                        `s5jax.ops.dss_softmax_kernel`
    ==================  =============================================  ===========================

    The kernel of ``"dss_softmax"`` depends on the length of the sequence, and a kernel that is cut
    off at ``l_kernel`` is not a recurrence. Neither steps nor returns a state, and the first
    refuses ``lengths`` and ``resets`` as well.

    Parameters are stored as reals, complex ones with a last axis of (real, imaginary):
    ``raw_Lambda_re`` and ``Lambda_im`` of shape ``(N,)``, ``log_step`` of shape ``(H,)`` (DSS
    only), ``W`` of shape ``(1, H, N, 2)`` (``(2, H, N, 2)`` if bidirectional, forward first) and
    ``D`` of shape ``(H,)``. The optimiser group ``"ssm"`` holds all but ``D``. A state has shape
    ``(*batch, H P)``, feature by feature, with P = N, or N squared for a product.

    Args:
        d_model: number of features H.
        d_state: number of complex states N; the paper takes 1024 to 4096.
        bidirectional: also run backward in time.
        version: ``"dlr"``, ``"dss_exp"`` or ``"dss_softmax"``.
        kernel_to_real: ``"real"``, ``"imag"``, ``"sum"`` or ``"prod"``.
        l_kernel: number of lags after which the kernel is cut off; never, if omitted.
        Lambda_init: for DSS only, ``"lin"`` (if omitted) or ``"hippo"``, see
            `s5jax.init.dss_eigenvalues`; DLR has `s5jax.init.dlr_eigenvalues`.
        dt_min: smallest initial step size; for DLR, twice the smallest decay rate.
        dt_max: largest initial step size; for DLR, twice the largest decay rate.
        algorithm: how uniform sequences run: convolved by ``"fft"``, ``"chunked"`` or ``"auto"``,
            see `s5jax.ops.conv_algorithm`, or as a recurrence by ``"scan"``, ``"sequential"`` or
            ``"associative"``, see `s5jax.ops.scan_algorithm`. Resets always run as a recurrence.
        dtype: dtype of the output; by default, inputs and parameters decide together. Kernels,
            transforms and states are kept in float32 or wider.
        param_dtype: dtype of the parameters.
        rngs: source of the key ``params``.

    Raises:
        ValueError: for sizes that are not positive, an unknown option, or options that exclude each
            other.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from s5jax import DLR
        >>> layer = DLR(d_model=4, d_state=16, rngs=nnx.Rngs(0))
        >>> y, state = layer(jnp.ones((2, 100, 4)), return_state=True)
        >>> y_next, state = layer.step(jnp.ones((2, 4)), state)
        >>> y.shape, y_next.shape, state.shape
        ((2, 100, 4), (2, 4), (2, 64))

    References:
        Gupta, Mehta and Berant, "Simplifying and Understanding State Space Models with Diagonal
        Linear RNNs", 2022, https://arxiv.org/abs/2212.00768; Gupta, Gu and Berant, "Diagonal State
        Spaces are as Effective as Structured State Spaces", 2022, https://arxiv.org/abs/2203.14343.
    """

    state_feature_axis = -1

    def __init__(
        self,
        d_model: int,
        d_state: int,
        *,
        bidirectional: bool = False,
        version: Version = "dlr",
        kernel_to_real: KernelToReal = "real",
        l_kernel: int | None = None,
        Lambda_init: DSSInit | None = None,
        dt_min: float = 1e-4,
        dt_max: float = 1e-1,
        algorithm: KernelOrScan = "auto",
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        d_model, d_state = check_positive("DLR", d_model=d_model, d_state=d_state)
        if l_kernel is not None:
            (l_kernel,) = check_positive("DLR", l_kernel=l_kernel)
        check_choice("DLR", "version", version, get_args(Version))
        check_choice("DLR", "kernel_to_real", kernel_to_real, get_args(KernelToReal))
        check_choice("DLR", "algorithm", algorithm, get_args(KernelOrScan))
        if Lambda_init is not None:
            check_choice("DLR", "Lambda_init", Lambda_init, get_args(DSSInit))
            if version == "dlr":
                raise ValueError(
                    "DLR: `Lambda_init` is an option of the DSS versions, because version 'dlr' "
                    f"starts at the roots of unity; got {Lambda_init!r}. Omit it."
                )
        if (version == "dss_softmax" and algorithm in ("chunked", *SCANS)) or (
            l_kernel is not None and algorithm == "chunked"
        ):
            raise ValueError(
                "DLR: version 'dss_softmax', and a kernel that is cut off at `l_kernel`, have no "
                f"state to pass on, so they cannot run by `algorithm={algorithm!r}`. Use "
                "`algorithm='fft'`."
            )
        self.d_model, self.d_state, self.bidirectional = d_model, d_state, bidirectional
        self.version, self.kernel_to_real, self.l_kernel = version, kernel_to_real, l_kernel
        self.Lambda_init, self.dt_min, self.dt_max = Lambda_init, dt_min, dt_max
        self.algorithm = algorithm
        self.dtype, self.param_dtype = dtype, param_dtype

        W_shape = (1 + bidirectional, d_model, d_state, 2)
        W = jax.random.normal(rngs.params(), W_shape, param_dtype)
        if version == "dlr":
            Lambda = dlr_eigenvalues(rngs.params(), d_state, dt_min, dt_max, dtype=param_dtype)
            raw, W, self.log_step = jnp.sqrt(-Lambda.real), W / d_state, None
        else:
            Lambda = dss_eigenvalues(Lambda_init or "lin", d_state)
            raw = np.log(-Lambda.real) if version == "dss_exp" else Lambda.real
            log_step = log_uniform_step(
                rngs.params(), (d_model,), dt_min, dt_max, dtype=param_dtype
            )
            self.log_step = nnx.Param(log_step, group="ssm", feature_axis=0)
        self.raw_Lambda_re = nnx.Param(jnp.asarray(raw, param_dtype), group="ssm")
        self.Lambda_im = nnx.Param(jnp.asarray(Lambda.imag, param_dtype), group="ssm")
        self.W = nnx.Param(W, group="ssm", feature_axis=1)
        D = jax.random.normal(rngs.params(), (d_model,), param_dtype)
        self.D = nnx.Param(D, feature_axis=0)

    def coefficients(
        self, dt: Array | float | None = None, *, backward: bool = False
    ) -> DLRCoefficients:
        """Returns exponents, and the weights of one direction."""
        W = pair_to_complex(self.W[...][int(backward)])
        D = None if backward else self.D[...]
        Lambda, Delta = self._exponents()
        z = Lambda if self.version == "dlr" else Delta[:, None] * Lambda[None]
        if self.version == "dss_exp":
            W = W * discretize_zoh(Lambda, Delta[:, None])[1]
        if self.kernel_to_real == "prod":
            return ProductCoefficients(z, W, D)
        return DLRCoefficients(z, dlr_modes(W, z, self.kernel_to_real)[0], D)

    def init_state(self, batch_shape: Sequence[int] = ()) -> Complex[Array, "*batch HP"]:
        """Returns zeros, one complex number per mode of every feature."""
        size = self.d_model * self._states_per_feature() // 2
        return self.zero_state(batch_shape, size, complex_valued=True)

    @property
    def recurrence(self) -> DiagonalRecurrence:
        """The recurrence of all modes of all features."""
        return DiagonalRecurrence(self, self._scan_algorithm())

    def advance(
        self, coefficients: DLRCoefficients, state: Array, u: Inexact[Array, "*batch H"]
    ) -> tuple[Inexact[Array, "*batch H"], Array]:
        """Takes one step of the recurrence."""
        return self.recurrence.advance(coefficients, state, u)

    def drive(
        self, coefficients: DLRCoefficients, u: Inexact[Array, "*batch H"]
    ) -> Float[Array, "*batch 2 HP"]:
        """Returns the input itself, for every mode of its feature."""
        P = coefficients.Lambda_bar.shape[-1] // self.d_model
        return complex_to_pair(jnp.repeat(u.astype(self._compute_dtype(u)), P, axis=-1), axis=-2)

    def readout(
        self,
        coefficients: DLRCoefficients,
        x: Float[Array, "*batch 2 HP"],
        u: Inexact[Array, "*batch H"],
    ) -> Inexact[Array, "*batch H"]:
        r"""Returns :math:`\operatorname{Re}(w x) + D u`, with the weights of the recurrence."""
        w, _ = coefficients.modes()
        x = pair_to_complex(x, axis=-2)
        x = x.reshape(*x.shape[:-1], *w.shape)
        y = (with_axes(w, x) * x).sum(-1).real
        return self._skip(coefficients, y, u)

    def algorithm_for(self, L: int, batch: int = 1) -> str:
        """Returns ``"fft"``, ``"chunked"`` or the algorithm of a scan."""
        if self.algorithm not in SCANS and not self._has_recurrence():
            return "fft"
        return super().algorithm_for(L, batch)

    def convolution_kernel(self, coefficients: DLRCoefficients, L: int) -> Float[Array, "Lk H"]:
        """Returns the lags before the cut-off, without the skip."""
        L = L if self.l_kernel is None else min(L, self.l_kernel)
        if self.version != "dss_softmax":
            return coefficients.kernel(L)
        made_real = "prod" if self.kernel_to_real == "prod" else "real"
        return dss_softmax_kernel(coefficients.W, *self._exponents(), L, kernel_to_real=made_real)

    def chunk_tables(self, coefficients: DLRCoefficients, T: int) -> ChunkTables:
        """Returns the same kernel by chunks."""
        w, z = coefficients.W, coefficients.z
        if self.kernel_to_real == "prod":
            w, z = coefficients.modes()
        return vandermonde_chunks(w, z, T)

    def response(
        self, coefficients: DLRCoefficients, state: Array, L: int
    ) -> Float[Array, "*batch L H"]:
        r"""Returns :math:`\operatorname{Re}(w\, e^{v (l + 1)} x)`."""
        w, v = coefficients.modes()
        x = state.reshape(*state.shape[:-1], *w.shape)
        return vandermonde(with_axes(w * jnp.exp(v), x) * x, v, L)

    def final_state(
        self, coefficients: DLRCoefficients, state: Array, u: Float[Array, "*batch L H"]
    ) -> Complex[Array, "*batch HP"]:
        """Returns the state after the last step."""
        _, v = coefficients.modes()
        x0 = state.reshape(*state.shape[:-1], *v.shape)
        return vandermonde_state(u, v, jnp.ones_like(v), x0).reshape(state.shape)

    def run(
        self, state: Array | None, u: Array, edits: Edits, *, reverse: bool = False
    ) -> tuple[Array, Array | None]:
        """Runs a sequence; where the kernel is cut off, a scan that lags is subtracted."""
        T = self.l_kernel
        if T is not None and T < u.shape[-2] and self._steps(u, edits):
            return self._window(u, edits.resets, T, reverse=reverse), None
        return super().run(state, u, edits, reverse=reverse)

    def to_ssm(self) -> StateSpace:
        """Real matrices with two states, real and imaginary part, for each complex one."""
        self.check_use("to_ssm")
        c = self.coefficients()
        w, _ = c.modes()
        owner = jnp.repeat(jnp.eye(self.d_model), w.shape[-1], axis=0)
        return real_state_space(c.Lambda_bar, owner, w.reshape(1, -1) * owner.T, self.D[...])

    def _exponents(self) -> tuple[Complex[Array, " N"], Float[Array, " H"]]:
        """Returns Lambda and the step sizes, which are 1 in DLR."""
        wide = jnp.promote_types(self.param_dtype, jnp.float32)
        raw = self.raw_Lambda_re[...].astype(wide)
        re = {"dlr": -(raw**2), "dss_exp": -jnp.exp(raw), "dss_softmax": raw}[self.version]
        Lambda = jax.lax.complex(re, self.Lambda_im[...].astype(wide))
        if self.log_step is None:
            return Lambda, jnp.ones(self.d_model, wide)
        return Lambda, jnp.exp(self.log_step[...].astype(wide))

    def _has_recurrence(self) -> bool:
        return self.version != "dss_softmax" and self.l_kernel is None

    def _states_per_feature(self) -> int:
        return 2 * self.d_state ** (2 if self.kernel_to_real == "prod" else 1)

    def _window(
        self,
        u: Inexact[Array, "*batch L H"],
        resets: Bool[Array, "*batch L"] | None,
        T: int,
        *,
        reverse: bool,
    ) -> Inexact[Array, "*batch L H"]:
        r"""The recurrence over the last T steps only, :math:`x_t - e^{z T} x_{t - T}`.

        The second state counts if it belongs to the same segment.
        """
        coefficients = self.coefficients(backward=reverse)
        a, b = coefficients.Lambda_bar, self.drive(coefficients, u)
        b = pair_to_complex(b, axis=-2)
        x = linear_scan(a, b, resets=resets, reverse=reverse, algorithm=self._scan_algorithm())
        earlier = x[..., T:, :] if reverse else x[..., :-T, :]
        if resets is not None:
            segment = jnp.cumsum(resets, -1)
            same = segment[..., T:] == segment[..., :-T]
            earlier = jnp.where(same[..., None], earlier, 0)
        gap = jnp.zeros_like(x[..., :T, :])
        earlier = jnp.concatenate([earlier, gap] if reverse else [gap, earlier], -2)
        x = x - with_axes(a**T, x) * earlier
        return self.readout(coefficients, complex_to_pair(x, axis=-2), u)

    def check_use(self, use: str, got: object = None) -> None:
        """Raises a ValueError for what needs a recurrence, where there is none."""
        super().check_use(use, got)
        if use == "kernel" or self._has_recurrence():
            return
        if use == "symbolic length":
            raise ValueError(
                "DLR: version 'dss_softmax', and a kernel that is cut off at `l_kernel`, need the "
                f"length of the sequence as a number; got {got}. Export with a fixed length, or "
                "use version 'dss_exp' without `l_kernel`."
            )
        if self.version != "dss_softmax":
            if use == "lengths":
                return
            raise ValueError(
                f"DLR: `{use}` needs a recurrence, and a kernel that is cut off after `l_kernel` "
                f"= {self.l_kernel} lags has none. Build the layer with `l_kernel=None`, or call "
                "it on whole sequences."
            )
        if use == "lengths":
            raise ValueError(
                "DLR: the kernel of version 'dss_softmax' is normalised over the length of the "
                "sequence, so `lengths` and `resets` would give each sequence or segment another "
                "one. Omit them, or use version 'dss_exp'."
            )
        raise ValueError(
            f"DLR: `{use}` needs a recurrence, and the kernel of version 'dss_softmax' is "
            "normalised over the length of the sequence. Use version 'dss_exp', or call the "
            "layer on whole sequences."
        )
