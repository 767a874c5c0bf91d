r"""HOPE: transfer functions that are sums of powers of one all-pass section.

With the warp :math:`\varphi` of the unit circle onto itself,

.. math::
    G(z) = \sum_{k=1}^n h_k\, \varphi(z)^{-k}, \qquad
    \varphi(z) = \frac{(1 + \Delta) z + \Delta - 1}{(\Delta - 1) z + \Delta + 1}, \qquad
    \frac{1}{\varphi(z)} = \frac{z^{-1} - a}{1 - a z^{-1}}, \quad a = \frac{1 - \Delta}{1 + \Delta}.

For every :math:`\Delta > 0`, :math:`|a| < 1`, so each power is causal and stable.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Inexact

from s5jax._errors import check_positive
from s5jax._promotion import default_promotion, with_axes
from s5jax.ops._chunked import ChunkTables, dense_chunks
from s5jax.ops._convolution import fft_conv_ref
from s5jax.ops._hope_powers import (
    hope_drive,
    hope_powers,
    hope_readout,
    hope_section,
    kernel_by_steps,
)
from s5jax.ops._scan import linear_scan
from s5jax.ops._tables import (
    block_length,
    by_steps,
    free_response,
    highest,
    last_state,
)
from s5jax.ops._vandermonde import _exponentials


@default_promotion
def hope_transfer_function(
    h: Inexact[Array, "*#batch H N"],
    Delta: Float[Array, "*#batch H"],
    theta: Float[Array, " J"],
) -> Complex[Array, "*batch J H"]:
    r"""Samples the transfer function of HOPE on the unit circle.

    .. math::
        G(e^{i \theta_j}) = \sum_{k=1}^n h_k e^{-i k \psi_j}, \qquad
        \psi_j = 2 \arctan\!\left( \frac{1}{\Delta} \tan \frac{\theta_j}{2} \right)

    The warped angles :math:`\psi` are not equally spaced and differ between features, so an FFT
    does not apply. The powers come from two tables of about :math:`\sqrt n` exponentials per angle.

    Args:
        h: Markov parameters, ``(*batch, H, n)``, real or complex.
        Delta: positive warps, ``(*batch, H)``; leading axes broadcast with ``h``.
        theta: angles, ``(J,)``; float32 loses digits outside :math:`[-\pi, \pi]`.

    Returns:
        Samples, ``(*batch, J, H)``.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import hope_transfer_function
        >>> h, Delta = jnp.array([[1.0, 0.5]]), jnp.array([0.1])
        >>> print(hope_transfer_function(h, Delta, jnp.array([0.0, jnp.pi]))[:, 0].real)
        [ 1.5 -0.5]

    References:
        Yu et al., "Long-memory State Space Models" (HOPE), 2024, https://arxiv.org/abs/2405.13975.
    """
    _check_warp("hope_transfer_function", h, Delta)
    warp, n = Delta[..., None], h.shape[-1]
    half = with_axes(theta / 2, warp)
    psi = 2 * jnp.arctan2(jnp.sin(half), warp * jnp.cos(half))
    z = jax.lax.complex(jnp.zeros_like(psi), -psi)
    T = block_length(n)
    left, right = _exponentials(z, T, -(-n // T)), _exponentials(z, 1, T + 1)[..., 1:]
    h = jnp.pad(h, [(0, 0)] * (h.ndim - 1) + [(0, -n % T)])
    h = h.reshape(*h.shape[:-1], -1, T).astype(z.dtype)
    blocks = highest("...hab,...hjb->...hja", h, right)
    G = (with_axes(left, blocks) * blocks).sum(-1)
    return jnp.moveaxis(G, -1, -2)


@default_promotion
def hope_transfer_function_ref(
    h: Inexact[Array, "*#batch H N"],
    Delta: Float[Array, "*#batch H"],
    theta: Float[Array, " J"],
) -> Complex[Array, "*batch J H"]:
    """`hope_transfer_function` by its definition, in the published form of the warp; for tests.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import hope_transfer_function_ref
        >>> h, Delta = jnp.array([[1.0, 0.5]]), jnp.array([0.1])
        >>> print(hope_transfer_function_ref(h, Delta, jnp.array([0.0]))[:, 0].real)
        [1.5]
    """
    _check_warp("hope_transfer_function_ref", h, Delta)
    Delta = with_axes(Delta, h[..., 0])[..., None, :]
    z, h = with_axes(jnp.exp(1j * theta)[:, None], Delta), with_axes(h, Delta)
    w = ((1 + Delta) * z + Delta - 1) / ((Delta - 1) * z + Delta + 1)
    terms = [h[..., None, :, k] * w ** -(k + 1) for k in range(h.shape[-1])]
    return jnp.stack(terms).sum(0)


@default_promotion
def hope_kernel(
    h: Float[Array, "*batch H N"], Delta: Float[Array, " H"], L: int
) -> Float[Array, "*batch L H"]:
    r"""First L lags of HOPE's impulse response, without aliasing.

    .. math:: \sum_{t \ge 0} K_t z^{-t} = \sum_{k=1}^n h_k\, \varphi(z)^{-k}

    An inverse FFT of samples of the right side would alias: it returns the sum of :math:`K` over
    all lags that are equal modulo the number of samples, and K decays only like
    :math:`e^{-2 \Delta t}`. This function evaluates the impulse response of the state space of
    `hope_step` instead, :math:`K_0 = d` and :math:`K_t = C A^{t-1} B`, with

    .. math::
        A = (I + a S)^{-1} (a I + S), \qquad B_j = s (-a)^{j-1}, \qquad
        C_j = s \sum_{k \ge j} h_k (-a)^{k-j}, \qquad d = \sum_k h_k (-a)^k,

    where S is the down-shift and :math:`s^2 = 1 - a^2`. A is a Toeplitz matrix and a contraction.
    It has one n-fold eigenvalue with a single eigenvector, so it cannot be diagonalised. K is the
    product of two tables of about :math:`\sqrt L` vectors. The tables grow by doubling, with powers
    of A from squaring. A square costs n^2, because A is Toeplitz. On a CPU and up to 2,048 lags the
    vectors follow one after another instead.

    Args:
        h: Markov parameters, ``(*batch, H, n)``.
        Delta: positive warps, ``(H,)``.
        L: number of lags.

    Returns:
        Kernels, ``(*batch, L, H)``.

    Raises:
        ValueError: if the shapes do not fit or ``L`` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import hope_kernel
        >>> h = jnp.array([[3.0, 2.0, 1.0]])
        >>> print(hope_kernel(h, jnp.array([1.0]), 5)[:, 0])
        [0. 3. 2. 1. 0.]

    References:
        Yu et al., "Long-memory State Space Models" (HOPE), 2024, https://arxiv.org/abs/2405.13975.
    """
    _check_kernel("hope_kernel", h, Delta, L=L)
    if by_steps(L):
        return kernel_by_steps(h, Delta, L)
    A = hope_powers(Delta, h.shape[-1])
    C, d = hope_readout(h, Delta)
    later = free_response(A, C, hope_drive(Delta, h.shape[-1]), L)
    return jnp.concatenate([d[..., None, :], later], -2)[..., :L, :]


@default_promotion
def hope_kernel_ref(
    h: Float[Array, "*batch H N"], Delta: Float[Array, " H"], L: int
) -> Float[Array, "*batch L H"]:
    """`hope_kernel` by repeated convolution with the impulse response of a section; for tests.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import hope_kernel_ref
        >>> h = jnp.array([[3.0, 2.0, 1.0]])
        >>> print(hope_kernel_ref(h, jnp.array([1.0]), 5)[:, 0])
        [0. 3. 2. 1. 0.]
    """
    _check_kernel("hope_kernel_ref", h, Delta, L=L)
    a, t = ((1 - Delta) / (1 + Delta))[None], jnp.arange(L)[:, None]
    section = jnp.where(t == 0, -a, (1 - a**2) * a ** jnp.maximum(t - 1, 0))
    power, K = section, h[..., None, :, 0] * with_axes(section, h)
    for k in range(1, h.shape[-1]):
        power = fft_conv_ref(power, section)
        K = K + h[..., None, :, k] * with_axes(power, h)
    return K


@default_promotion
def hope_step(
    h: Float[Array, "H N"],
    Delta: Float[Array, " H"],
    x: Float[Array, "*batch H N"],
    u: Float[Array, "*batch H"],
) -> tuple[Float[Array, "*batch H"], Float[Array, "*batch H N"]]:
    r"""One step of HOPE as a ladder of n all-pass sections, in O(n).

    :math:`1/\varphi` is a section with one state :math:`\xi`, input v and output :math:`v'`,

    .. math::
        v'_t = -a v_t + s \xi_t, \qquad \xi_{t+1} = s v_t + a \xi_t, \qquad s = \sqrt{1 - a^2},

    because :math:`\xi = \frac{s z^{-1}}{1 - a z^{-1}} v` and
    :math:`-a + \frac{s^2 z^{-1}}{1 - a z^{-1}} = \frac{z^{-1} - a}{1 - a z^{-1}}`. Section k takes
    the output of section k - 1, and the first section takes the input, so the output of section k
    is :math:`\varphi^{-k} u`:

    .. math:: v_0 = u, \qquad v_k = -a v_{k-1} + s \xi_k, \qquad y = \sum_{k=1}^n h_k v_k.

    Every section is an orthogonal matrix on :math:`(v, \xi)`, hence so is the map from the state
    and the input to the next state and :math:`v_n`: rounding never grows. Written out,
    :math:`\xi_{t+1} = A \xi_t + B u_t` and :math:`y_t = C \xi_t + d u_t` with the matrices of
    `hope_kernel`. The decay is formed as :math:`1 - a = 2 \Delta / (1 + \Delta)`, since a rounded
    a would lose a small :math:`\Delta`.

    Args:
        h: Markov parameters, ``(H, n)``.
        Delta: positive warps, ``(H,)``.
        x: states of the sections, ``(*batch, H, n)``.
        u: input, ``(*batch, H)``.

    Returns:
        The output, ``(*batch, H)``, and the next states, ``(*batch, H, n)``.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import hope_step
        >>> h, x = jnp.array([[3.0, 2.0]]), jnp.array([[1.0, 10.0]])
        >>> y, x = hope_step(h, jnp.array([1.0]), x, jnp.array([5.0]))
        >>> print(y, x)
        [23.] [[5. 1.]]

    References:
        Yu et al., "Long-memory State Space Models" (HOPE), 2024, https://arxiv.org/abs/2405.13975.
    """
    _check_warp("hope_step", h, Delta)
    minus_a, s = hope_section(Delta)
    s, decay = (with_axes(v[:, None], x) for v in (s, 2 * Delta / (1 + Delta)))
    v = linear_scan(minus_a, jnp.moveaxis(s * x, -1, -2), u)
    v = jnp.concatenate([u[..., None], jnp.moveaxis(v, -2, -1)], -1)
    return (with_axes(h, x) * v[..., 1:]).sum(-1), x + (s * v[..., :-1] - decay * x)


@default_promotion
def hope_response(
    h: Float[Array, "*#batch H N"],
    Delta: Float[Array, " H"],
    x: Float[Array, "*#batch H N"],
    L: int,
) -> Float[Array, "*batch L H"]:
    r"""Free response of HOPE: its outputs without inputs.

    .. math:: y_l = C A^l x, \qquad l = 0, \ldots, L - 1

    with the matrices of `hope_kernel`.

    Args:
        h: Markov parameters, ``(*batch, H, n)``.
        Delta: positive warps, ``(H,)``.
        x: states, ``(*batch, H, n)``; leading axes broadcast with ``h``.
        L: number of outputs.

    Returns:
        Outputs, ``(*batch, L, H)``.

    Raises:
        ValueError: if the shapes do not fit or ``L`` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import hope_response
        >>> h, x = jnp.array([[3.0, 2.0]]), jnp.array([[1.0, 10.0]])
        >>> print(hope_response(h, jnp.array([1.0]), x, 3)[:, 0])
        [23.  2.  0.]

    References:
        Yu et al., "Long-memory State Space Models" (HOPE), 2024, https://arxiv.org/abs/2405.13975.
    """
    _check_kernel("hope_response", h, Delta, L=L)
    return free_response(hope_powers(Delta, h.shape[-1]), hope_readout(h, Delta)[0], x, L)


@default_promotion
def hope_state(
    Delta: Float[Array, " H"], u: Float[Array, "*batch L H"], x0: Float[Array, "*batch H N"]
) -> Float[Array, "*batch H N"]:
    r"""Last state of HOPE, without the earlier states.

    .. math:: x = A^L x_0 + \sum_{l=0}^{L-1} A^{L-1-l} B u_l

    with the matrices of `hope_kernel`. The state does not depend on the Markov parameters.

    Args:
        Delta: positive warps, ``(H,)``.
        u: inputs, ``(*batch, L, H)``.
        x0: state before the first input, ``(*batch, H, n)``.

    Returns:
        States, ``(*batch, H, n)``.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import hope_state
        >>> x0 = jnp.array([[7.0, 8.0, 9.0]])
        >>> print(hope_state(jnp.array([1.0]), jnp.array([[1.0], [2.0]]), x0))
        [[2. 1. 7.]]

    References:
        Yu et al., "Long-memory State Space Models" (HOPE), 2024, https://arxiv.org/abs/2405.13975.
    """
    n = x0.shape[-1]
    return last_state(hope_powers(Delta, n), hope_drive(Delta, n), u, x0)


@default_promotion
def hope_chunks(h: Float[Array, "H N"], Delta: Float[Array, " H"], T: int) -> ChunkTables:
    """Builds the tables of `chunked_conv` for the kernel of `hope_kernel`.

    Args:
        h: Markov parameters, ``(H, n)``.
        Delta: positive warps, ``(H,)``.
        T: length of a chunk, a power of two.

    Returns:
        The tables, with n real states.

    Raises:
        ValueError: if the shapes do not fit or ``T`` is not a power of two.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import hope_chunks
        >>> print(hope_chunks(jnp.array([[3.0, 2.0]]), jnp.array([1.0]), 4).taps)
        [[0. 3. 2. 0.]]

    References:
        Yu et al., "Long-memory State Space Models" (HOPE), 2024, https://arxiv.org/abs/2405.13975.
    """
    _check_kernel("hope_chunks", h, Delta, T=T)
    C, d = hope_readout(h, Delta)
    n = h.shape[-1]
    return dense_chunks("hope_chunks", hope_powers(Delta, n), hope_drive(Delta, n), C, d, T)


def hope_matrices(
    h: Float[Array, "H N"], Delta: Float[Array, " H"]
) -> tuple[Float[Array, "H N N"], Float[Array, "H N"], Float[Array, "H N"], Float[Array, " H"]]:
    """Dense matrices A, B, C and d of `hope_kernel`."""
    n = h.shape[-1]
    return (
        jnp.eye(n)[None] + next(hope_powers(Delta, n)),
        hope_drive(Delta, n),
        *hope_readout(h, Delta),
    )


def _check_warp(where: str, h: Array, Delta: Array) -> None:
    if h.ndim < 2 or Delta.ndim < 1 or Delta.shape[-1] != h.shape[-2]:
        raise ValueError(
            f"{where}: `h` must have shape (*batch, H, n) and `Delta` one warp per feature; got "
            f"{h.shape} and {Delta.shape}."
        )


def _check_kernel(where: str, h: Array, Delta: Array, **length: int) -> None:
    if h.ndim < 2 or Delta.shape != h.shape[-2:-1]:
        raise ValueError(
            f"{where}: `h` must have shape (*batch, H, n) and `Delta` shape (H,); got {h.shape} "
            f"and {Delta.shape}."
        )
    check_positive(where, **length)
