"""HOPE: transfer functions in powers of one all-pass section, given by their Markov parameters."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Inexact

from s5jax._errors import check_choice, check_positive
from s5jax._promotion import with_axes
from s5jax.layers._base import Edits
from s5jax.layers._dense import feedthrough
from s5jax.layers._feature_ssm import TRANSFORM, Transform, initial_raw_step
from s5jax.layers._kernel import KernelLayer
from s5jax.ops import (
    ChunkTables,
    ConvAlgorithm,
    hope_chunks,
    hope_kernel,
    hope_response,
    hope_state,
    hope_step,
    hope_transfer_function,
    pair_to_complex,
)

HOPEForm = Literal["causal", "circular", "mirrored"]


class HOPECoefficients(NamedTuple):
    """Markov parameters and warps of one direction; ``D`` is None backward in time."""

    h: Float[Array, "H N"]
    Delta: Float[Array, " H"]
    D: Float[Array, " H"] | None


class HOPE(KernelLayer):
    r"""HOPE: each feature has a transfer function in powers of one all-pass section.

    .. math::
        Y(z) = \sum_{k=1}^n k^\beta h_k\, \varphi(z)^{-k}\, U(z) + D\, U(z), \qquad
        \varphi(z) = \frac{(1 + \Delta) z + \Delta - 1}{(\Delta - 1) z + \Delta + 1}

    with :math:`\beta` the ``decay_exp``. :math:`\varphi^{-n}` delays what changes more slowly than
    :math:`\Delta` by :math:`n / \Delta` steps without attenuating it, and fast changes by
    :math:`n \Delta` steps only: n numbers are remembered, not n / Δ steps at full bandwidth.

    ==============  ================================================================================
    ``form``
    ==============  ================================================================================
    ``"causal"``    this library's: the equation as a linear convolution of real ``h`` with its
                    exact impulse response (`s5jax.ops.hope_kernel`), and as the ladder of n
                    all-pass sections of `s5jax.ops.hope_step`: O(n) per step, with a state.
                    Bidirectional, a second kernel over the inputs to come, of its own ``h`` and the
                    same :math:`\Delta`, which starts with the next step.
    ``"circular"``  the published minimal layer: complex ``h``, one row for the first half of the
                    frequencies and one for the second, each with its :math:`\Delta`, multiplied
                    with the spectrum of the sequence as it is, of even length.
    ``"mirrored"``  the published block: the same with one :math:`\Delta`, on the sequence followed
                    by its mirror image. It outputs both halves of the result, 2 H features
                    (``d_output``), each with its own ``D``; in a `s5jax.ResidualBlock` this needs
                    the activation ``"glu"``, as published.
    ==============  ================================================================================

    In the published forms the end of a sequence meets its start, the samples are taken at twice the
    angle of the frequency that they multiply, and both depend on the length. So these forms have no
    step, state or kernel, and refuse ``lengths`` and ``resets``; they need ``bidirectional=True``,
    because an output depends on all inputs. Imaginary parts of ``h`` matter
    there because the spectrum lacks the symmetry of a real filter; in the causal form they would
    have no effect, hence real ``h``.

    In the causal form ``lengths`` with a state, and resets, run one step at a time.

    Parameters, with n = ``d_state`` and R = 2 if bidirectional, else 1: ``h`` of shape
    ``(R, H, n)``, and a last axis of (real, imaginary) in the published forms; ``raw_step`` of
    shape ``(H,)`` (``(2, H)`` if circular), where :math:`\Delta = f(\mathtt{raw\_step})`; ``D`` of
    shape ``(H,)`` (``(2, H)`` if mirrored). Initially ``h`` is normal, real or complex, with
    :math:`E |h|^2 = 1 / (n\, \mathtt{scale\_factor}^2)`. The optimiser group ``"ssm"`` holds all
    but ``D``. The published code trains ``h`` at a smaller rate, with weight decay for images only,
    and keeps :math:`\Delta` fixed for Path-X, ListOps and noisy CIFAR. In its scripts for ListOps,
    text and retrieval ``h`` stays untrained as well, because its learning rate is set to the
    weight decay, zero. Here all are trained; to freeze some, give them a group of their own in
    `s5jax.param_labels`. A state has shape ``(*batch, H, n)``.

    Args:
        d_model: number of features H.
        d_state: number n of Markov parameters, and of states, per feature and direction. It equals
            the ``d_state`` of the published block, and half the one of the published minimal layer.
        bidirectional: also run backward in time.
        form: ``"causal"``, ``"circular"`` or ``"mirrored"``.
        decay_exp: exponent :math:`\beta` of the decay of the Markov parameters; 0 in the minimal
            layer.
        scale_factor: divisor of the initial Markov parameters; :math:`2 \sqrt 2` in the minimal
            layer.
        dt_transform: how :math:`\Delta` is parameterised, ``"exp"`` or ``"softplus"``.
        dt_min: smallest initial :math:`\Delta`.
        dt_max: largest initial :math:`\Delta`; published values reach 10.
        algorithm: how uniform sequences are convolved, ``"fft"``, ``"chunked"`` or ``"auto"``, see
            `s5jax.ops.conv_algorithm`.
        dtype: dtype of the output; by default, inputs and parameters decide together. Kernels,
            transforms and states are kept in float32 or wider.
        param_dtype: dtype of the parameters.
        rngs: source of the key ``params``.

    Raises:
        ValueError: for sizes or a ``scale_factor`` that are not positive, an unknown option, or a
            published form that is not bidirectional.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from s5jax import HOPE
        >>> layer = HOPE(d_model=4, d_state=8, rngs=nnx.Rngs(0))
        >>> y, state = layer(jnp.ones((2, 100, 4)), return_state=True)
        >>> y_next, state = layer.step(jnp.ones((2, 4)), state)
        >>> y.shape, y_next.shape, state.shape
        ((2, 100, 4), (2, 4), (2, 4, 8))

    References:
        Yu, Mahoney and Erichson, "HOPE for a Robust Parameterization of Long-memory State Space
        Models", 2024, https://arxiv.org/abs/2405.13975.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int,
        *,
        bidirectional: bool = False,
        form: HOPEForm = "causal",
        decay_exp: float = 0.0,
        scale_factor: float = 2.0,
        dt_transform: Transform = "exp",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        algorithm: ConvAlgorithm = "auto",
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        d_model, d_state = check_positive("HOPE", d_model=d_model, d_state=d_state)
        check_choice("HOPE", "form", form, get_args(HOPEForm))
        check_choice("HOPE", "algorithm", algorithm, get_args(ConvAlgorithm))
        check_choice("HOPE", "dt_transform", dt_transform, get_args(Transform))
        if not scale_factor > 0:
            raise ValueError(f"HOPE: `scale_factor` must be positive; got {scale_factor}.")
        if form != "causal" and not bidirectional:
            raise ValueError(
                f"HOPE: in form {form!r} an output depends on all inputs, so it needs "
                "`bidirectional=True`; got False. For a causal layer use `form='causal'`."
            )
        self.d_model, self.d_state, self.bidirectional = d_model, d_state, bidirectional
        self.form, self.decay_exp, self.scale_factor = form, decay_exp, scale_factor
        self.dt_transform, self.dt_min, self.dt_max = dt_transform, dt_min, dt_max
        self.algorithm, self.dtype, self.param_dtype = algorithm, dtype, param_dtype

        parts = () if form == "causal" else (2,)
        h = jax.random.normal(
            rngs.params(), (1 + bidirectional, d_model, d_state, *parts), param_dtype
        )
        scale = scale_factor * np.sqrt(d_state * max(parts, default=1))
        rows = 2 if form == "circular" else 1
        raw_step = initial_raw_step(rngs, rows * d_model, dt_min, dt_max, dt_transform, param_dtype)
        skips = (2, d_model) if form == "mirrored" else (d_model,)
        raw_step = raw_step.reshape(2, d_model) if rows == 2 else raw_step
        self.h = nnx.Param(h / scale.astype(h.dtype), group="ssm", feature_axis=1)
        self.raw_step = nnx.Param(raw_step, group="ssm", feature_axis=-1)
        self.D = nnx.Param(jax.random.normal(rngs.params(), skips, param_dtype), feature_axis=-1)

    @property
    def d_output(self) -> int:
        """Number of output features, which is H, or 2 H in the mirrored form."""
        return 2 * self.d_model if self.form == "mirrored" else self.d_model

    def coefficients(
        self, dt: Array | float | None = None, *, backward: bool = False
    ) -> HOPECoefficients:
        """Returns Markov parameters and warps of one direction."""
        h, Delta = self._system()
        return HOPECoefficients(h[int(backward)], Delta, None if backward else self.D[...])

    def init_state(self, batch_shape: Sequence[int] = ()) -> Float[Array, "*batch H N"]:
        """Returns zeros, one number per section of every feature."""
        return self.zero_state(batch_shape, self.d_model, self.d_state)

    def advance(
        self, coefficients: HOPECoefficients, state: Array, u: Inexact[Array, "*batch H"]
    ) -> tuple[Inexact[Array, "*batch H"], Array]:
        """Takes one step of the ladder."""
        y, x = hope_step(coefficients.h, coefficients.Delta, state, self._wide(u))
        return self._skip(coefficients, y, u), x

    def convolution_kernel(self, coefficients: HOPECoefficients, L: int) -> Float[Array, "L H"]:
        r"""Returns the impulse response of :math:`\sum_k k^\beta h_k \varphi^{-k}`."""
        return hope_kernel(coefficients.h, coefficients.Delta, L)

    def chunk_tables(self, coefficients: HOPECoefficients, T: int) -> ChunkTables:
        """Returns the same response by chunks."""
        return hope_chunks(coefficients.h, coefficients.Delta, T)

    def response(
        self, coefficients: HOPECoefficients, state: Array, L: int
    ) -> Float[Array, "*batch L H"]:
        """Returns the outputs that the ladder's state leads to."""
        return hope_response(coefficients.h, coefficients.Delta, state, L)

    def final_state(
        self, coefficients: HOPECoefficients, state: Array, u: Float[Array, "*batch L H"]
    ) -> Float[Array, "*batch H N"]:
        """Returns the ladder's state after the last step."""
        return hope_state(coefficients.Delta, u, state)

    def run_both(self, u: Array, edits: Edits) -> Inexact[Array, "*batch L out"]:
        """Convolves with both kernels, or multiplies with the published spectrum."""
        if self.form == "causal":
            return super().run_both(u, edits)
        L, v = u.shape[-2], self._wide(u)
        if self.form == "mirrored":
            y = self._multiply_spectra(jnp.concatenate([v, jnp.flip(v, -2)], -2))
            halves = y[..., :L, :], jnp.flip(y[..., L:, :], -2)
            skips = (feedthrough(D, v) for D in self.D)
            y = jnp.concatenate([half + skip for half, skip in zip(halves, skips, strict=True)], -1)
        else:
            if L % 2:
                raise ValueError(
                    f"HOPE: form 'circular' needs an even length, as published; got {L}. Pad the "
                    "sequences by one step, or use `form='causal'` or `form='mirrored'`."
                )
            y = self._multiply_spectra(v) + feedthrough(self.D[...], v)
        return y.astype(self._compute_dtype(u))

    def _system(self) -> tuple[Inexact[Array, "R H N"], Float[Array, "..."]]:
        """Returns Markov parameters with their decay, and warps."""
        wide = jnp.promote_types(self.param_dtype, jnp.float32)
        h = self.h[...].astype(wide)
        if self.form != "causal":
            h = pair_to_complex(h)
        decay = np.arange(1, self.d_state + 1) ** float(self.decay_exp)
        Delta = TRANSFORM[self.dt_transform](self.raw_step[...].astype(wide))
        return h * with_axes(jnp.asarray(decay, wide), h), Delta

    def _multiply_spectra(self, v: Float[Array, "*batch M H"]) -> Float[Array, "*batch M H"]:
        r"""Returns the real part of a circular convolution with the published samples.

        It equals a product with their Hermitian part. The samples of the first row are followed by
        the reversed samples of the second, M / 2 of each around the whole circle. Angles are
        wrapped to :math:`[-\pi, \pi)`, where float32 is most accurate.
        """
        M = v.shape[-2]
        revolutions = 2 * np.arange(M // 2) / M
        h, Delta = self._system()
        theta = jnp.asarray(2 * np.pi * (revolutions - np.round(revolutions)), Delta.dtype)
        first, second = hope_transfer_function(h, Delta, theta)
        G = jnp.concatenate([first, jnp.flip(second, 0)])
        G = (G + jnp.roll(jnp.flip(G, 0), 1, 0).conj()) / 2
        G = with_axes(G[: M // 2 + 1], v)
        return jnp.fft.irfft(G * jnp.fft.rfft(v, axis=-2), M, axis=-2)

    def check_use(self, use: str, got: object = None) -> None:
        """Raises a ValueError for what the published forms cannot do."""
        if self.form == "causal":
            super().check_use(use, got)
        elif use == "kernel":
            raise ValueError(
                f"HOPE.kernel: form {self.form!r} has no impulse response, because its filter "
                "depends on the length of the sequence and wraps around. Use `form='causal'`, or "
                "look at the spectrum, `s5jax.ops.hope_transfer_function`."
            )
        elif use == "lengths":
            raise ValueError(
                f"HOPE: the filter of form {self.form!r} depends on the length of the sequence, so "
                "`lengths` and `resets` would give each sequence or segment another one. Omit "
                "them, or use `form='causal'`."
            )
        elif use == "symbolic length":
            raise ValueError(
                f"HOPE: the filter of form {self.form!r} depends on the length of the sequence, "
                f"which must be a number; got {got}. Export with a fixed length, or use "
                "`form='causal'`."
            )
        else:
            raise ValueError(
                f"HOPE: `{use}` needs a causal layer, and form {self.form!r} wraps around at the "
                "ends of the whole sequence. Build it with `form='causal'` and "
                "`bidirectional=False`, or call it on whole sequences."
            )
