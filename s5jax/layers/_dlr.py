"""DLR: diagonal linear recurrences with shared eigenvalues; and DSS, which they simplify."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Complex, Float, Inexact

from s5jax._errors import check_choice, check_positive
from s5jax.init import DSSInit, dlr_eigenvalues, dss_eigenvalues, log_uniform_step
from s5jax.layers._base import Edits
from s5jax.layers._diagonal import DiagonalLayer
from s5jax.layers._kernel import KernelLayer
from s5jax.ops import (
    Backend,
    ChunkTables,
    KernelToReal,
    StateSpace,
    complex_to_pair,
    conv_backend,
    discretize_zoh,
    dlr_kernel,
    dlr_modes,
    dss_softmax_kernel,
    linear_scan,
    pair_to_complex,
    scan_backend,
    vandermonde,
    vandermonde_chunks,
    vandermonde_state,
)

Version = Literal["dlr", "dss_exp", "dss_softmax"]
DLRConv = Literal["auto", "fft", "chunked", "scan"]


class DLRCoefficients(NamedTuple):
    """Exponents and weights of a kernel; ``D`` is None backward in time."""

    z: Complex[Array, " N"] | Complex[Array, "H N"]
    W: Complex[Array, "H N"]
    D: Float[Array, " H"] | None

    def kernel(self, L: int) -> Float[Array, "L H"]:
        """The first lags, without the skip."""
        return vandermonde(self.W, self.z, L)

    def modes(self) -> tuple[Complex[Array, "H P"], Complex[Array, "H P"]]:
        """Weights and exponents of the recurrence."""
        return self.W, jnp.broadcast_to(self.z, self.W.shape)

    @property
    def Lambda_bar(self) -> Complex[Array, " HP"]:
        """Eigenvalues of the recurrence, feature by feature."""
        return jnp.exp(self.modes()[1]).reshape(-1)


class ProductCoefficients(DLRCoefficients):
    """Those whose kernel is a product; its many modes are made only where they are used."""

    def kernel(self, L: int) -> Float[Array, "L H"]:
        """The first lags, without the skip."""
        return dlr_kernel(self.W, self.z, L, kernel_to_real="prod")

    def modes(self) -> tuple[Complex[Array, "H P"], Complex[Array, "H P"]]:
        """Weights and exponents of the recurrence."""
        return dlr_modes(*super().modes(), "prod")


class DLR(KernelLayer, DiagonalLayer):
    r"""DLR: a diagonal linear recurrence whose eigenvalues all features share; also DSS.

    .. math::
        y_t = \sum_{l} K_l u_{t-l} + D u_t, \qquad K_l = f\Big( \sum_n w_n e^{z_n l} \Big)

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
    off at ``l_kernel`` is no recurrence: neither steps nor hands on a state, and the first refuses
    ``lengths`` and ``resets`` as well.

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
        conv: how plain sequences are computed, ``"fft"`` or ``"chunked"`` (convolutions),
            ``"scan"`` (the recurrence) or ``"auto"``, see
            `s5jax.ops.conv_backend`.
        backend: algorithm of the scan, which always serves resets; see `s5jax.ops.scan_backend`.
        dtype: dtype of the output; by default that of inputs and parameters together. Kernels,
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

    feature_states = True

    feature_axes: ClassVar[Mapping[str, int]] = {"log_step": 0, "W": 1, "D": 0}

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
        conv: DLRConv = "auto",
        backend: Backend = "auto",
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        d_model, d_state = check_positive("DLR", d_model=d_model, d_state=d_state)
        if l_kernel is not None:
            (l_kernel,) = check_positive("DLR", l_kernel=l_kernel)
        check_choice("DLR", "version", version, get_args(Version))
        check_choice("DLR", "kernel_to_real", kernel_to_real, get_args(KernelToReal))
        check_choice("DLR", "conv", conv, get_args(DLRConv))
        if Lambda_init is not None:
            check_choice("DLR", "Lambda_init", Lambda_init, get_args(DSSInit))
            if version == "dlr":
                raise ValueError(
                    "DLR: `Lambda_init` is an option of the DSS versions, because version 'dlr' "
                    f"starts at the roots of unity; got {Lambda_init!r}. Omit it."
                )
        if (version == "dss_softmax" and conv in ("chunked", "scan")) or (
            l_kernel is not None and conv == "chunked"
        ):
            raise ValueError(
                "DLR: version 'dss_softmax', and a kernel that is cut off at `l_kernel`, have no "
                f"state to hand on, so they cannot run as `conv={conv!r}`. Use `conv='fft'`."
            )
        scan_backend(backend)
        self.d_model, self.d_state, self.bidirectional = d_model, d_state, bidirectional
        self.version, self.kernel_to_real, self.l_kernel = version, kernel_to_real, l_kernel
        self.Lambda_init, self.dt_min, self.dt_max = Lambda_init, dt_min, dt_max
        self.conv, self.backend = conv, backend
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
            self.log_step = nnx.Param(log_step, group="ssm")
        self.raw_Lambda_re = nnx.Param(jnp.asarray(raw, param_dtype), group="ssm")
        self.Lambda_im = nnx.Param(jnp.asarray(Lambda.imag, param_dtype), group="ssm")
        self.W = nnx.Param(W, group="ssm")
        self.D = nnx.Param(jax.random.normal(rngs.params(), (d_model,), param_dtype))

    def coefficients(
        self, dt: Array | float | None = None, *, backward: bool = False
    ) -> DLRCoefficients:
        """Exponents, and the weights of one direction."""
        W = pair_to_complex(self.W[...][int(backward)])
        D = None if backward else self.D[...]
        Lambda, Delta = self._exponents()
        z = Lambda if self.version == "dlr" else Delta[:, None] * Lambda
        if self.version == "dss_exp":
            W = W * discretize_zoh(Lambda, Delta[:, None])[1]
        if self.kernel_to_real == "prod":
            return ProductCoefficients(z, W, D)
        return DLRCoefficients(z, dlr_modes(W, z, self.kernel_to_real)[0], D)

    def init_state(self, batch_shape: Sequence[int] = ()) -> Complex[Array, "*batch HP"]:
        """Zeros, one complex number per mode of every feature."""
        P = self.d_state ** (2 if self.kernel_to_real == "prod" else 1)
        return jnp.zeros(
            (*batch_shape, self.d_model * P), jnp.result_type(self._state_dtype(), jnp.complex64)
        )

    def drive(
        self, coefficients: DLRCoefficients, u: Inexact[Array, "*batch H"]
    ) -> Float[Array, "*batch 2 HP"]:
        """The input itself, for every mode of its feature."""
        P = coefficients.Lambda_bar.shape[-1] // self.d_model
        return complex_to_pair(jnp.repeat(u.astype(self._compute_dtype(u)), P, axis=-1), axis=-2)

    def readout(
        self,
        coefficients: DLRCoefficients,
        x: Float[Array, "*batch 2 HP"],
        u: Inexact[Array, "*batch H"],
    ) -> Inexact[Array, "*batch H"]:
        r""":math:`\operatorname{Re}(w x) + D u`, with the weights of the recurrence."""
        w, _ = coefficients.modes()
        x = pair_to_complex(x, axis=-2)
        y = (w * x.reshape(*x.shape[:-1], *w.shape)).sum(-1).real
        return self._skip(coefficients, y, u)

    def algorithm(self, L: int, batch: int = 1) -> str:
        """``"fft"``, ``"chunked"`` or ``"scan"``."""
        if self.conv == "scan":
            return "scan"
        if self.version == "dss_softmax" or self.l_kernel is not None:
            return "fft"
        n_states = 2 * self.init_state().shape[0] // self.d_model
        two_sided = self.bidirectional
        return conv_backend(self.conv, L, n_states, batch=batch, two_sided=two_sided)

    def convolution_kernel(self, coefficients: DLRCoefficients, L: int) -> Float[Array, "Lk H"]:
        """The lags before the cut-off, without the skip."""
        L = L if self.l_kernel is None else min(L, self.l_kernel)
        if self.version != "dss_softmax":
            return coefficients.kernel(L)
        made_real = "prod" if self.kernel_to_real == "prod" else "real"
        return dss_softmax_kernel(coefficients.W, *self._exponents(), L, kernel_to_real=made_real)

    def chunk_tables(self, coefficients: DLRCoefficients, T: int) -> ChunkTables:
        """The same kernel by chunks."""
        w, z = coefficients.W, coefficients.z
        if self.kernel_to_real == "prod":
            w, z = coefficients.modes()
        return vandermonde_chunks(w, z, T)

    def from_rest(
        self, coefficients: DLRCoefficients, u: Inexact[Array, "*batch L H"]
    ) -> Inexact[Array, "*batch L H"]:
        """A convolution, or the recurrence."""
        if self.conv == "scan":
            return self.edited(self.init_state(u.shape[:-2]), u, None, Edits())[0]
        return super().from_rest(coefficients, u)

    def parallel(
        self, coefficients: DLRCoefficients, state: Array, u: Inexact[Array, "*batch L H"]
    ) -> tuple[Inexact[Array, "*batch L H"], Array]:
        """A convolution, the response to the state before it, and the state after it."""
        if self.conv == "scan":
            return DiagonalLayer.parallel(self, coefficients, state, u)
        w, v = coefficients.modes()
        L, x0 = u.shape[-2], state.reshape(*state.shape[:-1], *w.shape)
        y = self.convolve(coefficients, u)
        y += vandermonde(w * jnp.exp(v) * x0, v, L)
        last = vandermonde_state(self._wide(u), v, jnp.ones_like(v), x0)
        return self._skip(coefficients, y, u), last.reshape(state.shape)

    def two_sided(
        self, u: Inexact[Array, "*batch L H"], dt: Array | float | None
    ) -> Inexact[Array, "*batch L H"]:
        """A convolution with both kernels, or the two recurrences."""
        if self.conv == "scan":
            return DiagonalLayer.two_sided(self, u, dt)
        return super().two_sided(u, dt)

    def edited(
        self, state: Array, u: Array, scalar_dt: Array | float | None, edits: Edits
    ) -> tuple[Array, Array]:
        """Scans, of which one that lags is taken off where the kernel is cut off."""
        T, resets = self.l_kernel, edits.resets
        if T is None or T >= u.shape[-2]:
            return super().edited(state, u, scalar_dt, edits)
        y = self._window(self.coefficients(), u, resets, T)
        if self.bidirectional:
            reverse = self._window(self.coefficients(backward=True), u, resets, T, reverse=True)
            y = y + self.deliver(reverse, resets)
        return y, state

    def any_length(
        self, state: Array, u: Array, scalar_dt: Array | float | None, edits: Edits
    ) -> tuple[Array, Array]:
        """One step after the other, where there is a recurrence."""
        if self.version == "dss_softmax" or self.l_kernel is not None:
            raise ValueError(
                "DLR: version 'dss_softmax', and a kernel that is cut off at `l_kernel`, need the "
                f"length of the sequence as a number; got {u.shape[-2]}. Export with a fixed "
                "length, or use version 'dss_exp' without `l_kernel`."
            )
        return super().any_length(state, u, scalar_dt, edits)

    def to_ssm(self) -> StateSpace:
        """Real matrices with two states, real and imaginary part, for each complex one."""
        self._needs_causal("to_ssm")
        c = self.coefficients()
        w, Lambda_bar = c.modes()[0], c.Lambda_bar
        owner = jnp.repeat(jnp.eye(self.d_model), w.shape[-1], axis=0)
        re, im = jnp.diag(Lambda_bar.real), jnp.diag(Lambda_bar.imag)
        C = w.reshape(-1) * owner.T
        return StateSpace(
            A=jnp.block([[re, -im], [im, re]]),
            B=jnp.concatenate([owner, jnp.zeros_like(owner)]),
            C=jnp.concatenate([C.real, -C.imag], axis=1),
            D=jnp.diag(self.D[...]),
        )

    def _exponents(self) -> tuple[Complex[Array, " N"], Float[Array, " H"]]:
        """Lambda and the step sizes, which are 1 in DLR."""
        wide = jnp.promote_types(self.param_dtype, jnp.float32)
        raw = self.raw_Lambda_re[...].astype(wide)
        re = {"dlr": -(raw**2), "dss_exp": -jnp.exp(raw), "dss_softmax": raw}[self.version]
        Lambda = jax.lax.complex(re, self.Lambda_im[...].astype(wide))
        if self.log_step is None:
            return Lambda, jnp.ones(self.d_model, wide)
        return Lambda, jnp.exp(self.log_step[...].astype(wide))

    def _impulse_response(self, coefficients: DLRCoefficients, L: int) -> Array:
        K = self.convolution_kernel(coefficients, L)
        K = jnp.pad(K, [(0, L - len(K)), (0, 0)])
        return K if coefficients.D is None else K.at[0].add(coefficients.D)

    def _window(
        self,
        coefficients: DLRCoefficients,
        u: Inexact[Array, "*batch L H"],
        resets: Bool[Array, "*batch L"] | None,
        T: int,
        *,
        reverse: bool = False,
    ) -> Inexact[Array, "*batch L H"]:
        r"""The recurrence over the last T steps only, :math:`x_t - e^{z T} x_{t - T}`.

        The second state counts where it lies in the same segment.
        """
        a, b = coefficients.Lambda_bar, self.drive(coefficients, u)
        b = pair_to_complex(b, axis=-2)
        x = linear_scan(a, b, resets=resets, reverse=reverse, backend=self.backend)
        earlier = x[..., T:, :] if reverse else x[..., :-T, :]
        if resets is not None:
            segment = jnp.cumsum(resets, -1)
            same = segment[..., T:] == segment[..., :-T]
            earlier = jnp.where(same[..., None], earlier, 0)
        gap = jnp.zeros_like(x[..., :T, :])
        earlier = jnp.concatenate([earlier, gap] if reverse else [gap, earlier], -2)
        return self.readout(coefficients, complex_to_pair(x - a**T * earlier, axis=-2), u)

    def _needs_causal(self, what: str) -> None:
        super()._needs_causal(what)
        if self.version == "dss_softmax":
            raise ValueError(
                f"DLR: `{what}` needs a recurrence, and the kernel of version 'dss_softmax' is "
                "normalised over the length of the sequence. Use version 'dss_exp', or call the "
                "layer on whole sequences."
            )
        if self.l_kernel is not None:
            raise ValueError(
                f"DLR: `{what}` needs a recurrence, and a kernel that is cut off after `l_kernel` "
                f"= {self.l_kernel} lags is none. Build the layer with `l_kernel=None`, or call it "
                "on whole sequences."
            )

    def _check(
        self, u: Array, state: Any, lengths: Any, resets: Any, dt: Any, return_state: bool
    ) -> tuple[Any, Edits, Array | float | None]:
        if self.version == "dss_softmax" and not (lengths is None and resets is None):
            raise ValueError(
                "DLR: the kernel of version 'dss_softmax' is normalised over the length of the "
                "sequence, so `lengths` and `resets` would give each sequence or segment another "
                "one. Omit them, or use version 'dss_exp'."
            )
        return super()._check(u, state, lengths, resets, dt, return_state)
