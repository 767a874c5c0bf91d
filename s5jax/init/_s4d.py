"""Initial diagonal systems of S4D."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Complex, Complex128, Float, Float64, PRNGKeyArray

from s5jax._errors import check_choice, check_positive
from s5jax._promotion import default_promotion
from s5jax.init._dplr import check_even, nplr


@default_promotion
def s4d(
    method: str,
    N: int,
    *,
    real_scale: float = 1.0,
    imag_scale: float = 1.0,
    B_init: str = "constant",
    B_scale: float = 1.0,
    normalize: bool = False,
) -> tuple[Complex128[np.ndarray, " M"], Complex128[np.ndarray, " M"]]:
    r"""Diagonal state matrix and input vector of S4D, one of each conjugate pair.

    .. math:: \Lambda_n = -\rho\, a_n - i\, \omega\, b_n, \qquad n = 0, \ldots, N/2 - 1

    where :math:`\rho, \omega` are ``real_scale`` and ``imag_scale``, and :math:`a_n = \tfrac{1}{2}`
    except for ``"real"``:

    - ``"legs"``: the eigenvalues of `nplr` for LegS, with its clipped B (``B_init`` is not used);
    - ``"lin"``: :math:`b_n = \pi n`;
    - ``"inv"``: :math:`b_n = \frac{N}{\pi} \left( \frac{N}{2n+1} - 1 \right)`;
    - ``"inv2"``: :math:`b_n = \frac{N}{\pi} \left( \frac{N}{n+1} - 1 \right)`;
    - ``"quad"``: :math:`b_n = (2n+1)^2 / \pi`;
    - ``"real"``: :math:`a_n = n + 1`, :math:`b_n = 0` (``real_scale`` is not used).

    Args:
        method: one of the names above.
        N: number of states, even.
        real_scale: factor of the decay rates.
        imag_scale: factor of the frequencies.
        B_init: ``"constant"``: 1; ``"alternating"``: :math:`(-1)^n`; ``"unit-cw"`` and
            ``"unit-ccw"``: :math:`e^{\mp 2 \pi i n / N}`.
        B_scale: factor of ``B``.
        normalize: divide ``B`` by :math:`\sqrt{2 \sum_n |B_n / \Lambda_n|^2}`.

    Returns:
        ``Lambda`` and ``B``, each of shape ``(M,)`` with ``M = N / 2``.

    Raises:
        ValueError: if a name is unknown, or ``N`` is odd or not positive.

    Example:
        >>> from s5jax.init import s4d
        >>> Lambda, B = s4d("lin", 6)
        >>> print(Lambda.round(2), B)
        [-0.5-0.j   -0.5-3.14j -0.5-6.28j] [1.+0.j 1.+0.j 1.+0.j]

    References:
        Gu et al., "Diagonal State Space Models" (S4D), 2022, https://arxiv.org/abs/2206.11893.
    """
    check_choice("s4d", "method", method, ("legs", "real", *_FREQUENCIES))
    check_choice("s4d", "B_init", B_init, _INPUTS)
    N = check_even("s4d", N)
    n = np.arange(N // 2)
    a, B = np.full(n.shape, real_scale / 2), _INPUTS[B_init](n, N)
    if method == "legs":
        legs, _, B, _ = nplr("legs", N)
        b = -legs.imag
    elif method == "real":
        a, b = n + 1.0, np.zeros(n.shape)
    else:
        b = _FREQUENCIES[method](n, N)
    Lambda = -(a + 1j * imag_scale * b)
    B = B_scale * B
    if normalize:
        B = B / np.sqrt(2 * np.sum(np.abs(B / Lambda) ** 2))
    return Lambda, B


@default_promotion
def s4d_random(
    key: PRNGKeyArray, S: int, N: int, *, dtype: DTypeLike = jnp.float32
) -> Complex[Array, "S M"]:
    r"""Draws the eigenvalues of S diagonal systems without a plan, one of each conjugate pair.

    .. math:: \Lambda = -a - i\, b, \qquad a \sim \mathcal{U}[0, 1), \quad
        \log b \sim \mathcal{N}(0, 1)

    Args:
        key: random key.
        S: number of systems.
        N: number of states of each, even.
        dtype: real dtype of each part of the result.

    Returns:
        ``Lambda``, shape ``(S, M)`` with ``M = N / 2``.

    Raises:
        ValueError: if ``N`` is odd, or a number is not positive.

    Example:
        >>> import jax
        >>> from s5jax.init import s4d_random
        >>> Lambda = s4d_random(jax.random.key(0), 2, 8)
        >>> print(Lambda.shape, bool((Lambda.real <= 0).all()), bool((Lambda.imag < 0).all()))
        (2, 4) True True

    References:
        Gu et al., "Diagonal State Space Models" (S4D), 2022, https://arxiv.org/abs/2206.11893,
        whose ablations start from such eigenvalues.
    """
    (S,) = check_positive("s4d_random", S=S)
    shape = S, check_even("s4d_random", N) // 2
    decay, frequency = jax.random.split(key)
    a = jax.random.uniform(decay, shape, dtype)
    return -jax.lax.complex(a, jnp.exp(jax.random.normal(frequency, shape, dtype)))


@default_promotion
def s4d_dfout(damping: Float[Array, " S"], N: int) -> Complex[Array, "S M"]:
    r"""Eigenvalues of S systems whose frequencies share one discrete Fourier grid (S4D-DFouT).

    With a step size of 1, the zero-order hold of system s has the poles

    .. math::
        e^{\Lambda_{sn}} = \exp \left( -\frac{\xi_s}{2} - i\, \Omega_{sn} \right), \qquad
        \Omega_{sn} = \frac{2 \pi n}{N} + \frac{2 \pi s}{N S}, \qquad n = 0, \ldots, N/2 - 1 .

    So the :math:`S N / 2` frequencies of all systems are evenly spaced on :math:`[0, \pi)`, none
    occurs twice, and none depends on the damping. The conjugates cover the other half of the
    circle.

    Args:
        damping: :math:`\xi`, positive, twice the decay rate per step, shape ``(S,)``.
        N: number of states of each system, even.

    Returns:
        ``Lambda``, shape ``(S, M)`` with ``M = N / 2``.

    Raises:
        ValueError: if ``N`` is odd or not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.init import s4d_dfout
        >>> Lambda = s4d_dfout(jnp.array([0.1, 0.2]), 4)
        >>> print((-Lambda.imag / jnp.pi).T.ravel(), Lambda[:, 0].real)
        [0.   0.25 0.5  0.75] [-0.05 -0.1 ]

    References:
        Solozabal et al., "Spectral Bias" (S4D-DFouT), 2025, https://arxiv.org/abs/2508.20441.
    """
    M, S = check_even("s4d_dfout", N) // 2, len(damping)
    Omega = np.pi * (np.arange(M) / M + np.arange(S)[:, None] / (M * S))
    decay = jnp.broadcast_to(damping[:, None] / 2, Omega.shape)
    return -jax.lax.complex(decay, jnp.asarray(Omega, decay.dtype))


_FREQUENCIES: dict[str, Callable[[np.ndarray, int], Float64[np.ndarray, " M"]]] = {
    "lin": lambda n, N: np.pi * n,
    "inv": lambda n, N: N / np.pi * (N / (2 * n + 1) - 1),
    "inv2": lambda n, N: N / np.pi * (N / (n + 1) - 1),
    "quad": lambda n, N: (2 * n + 1) ** 2 / np.pi,
}

_INPUTS: dict[str, Callable[[np.ndarray, int], Complex128[np.ndarray, " M"]]] = {
    "constant": lambda n, N: np.ones(n.shape, complex),
    "alternating": lambda n, N: (-1.0 + 0j) ** n,
    "unit-cw": lambda n, N: np.exp(-2j * np.pi * n / N),
    "unit-ccw": lambda n, N: np.exp(2j * np.pi * n / N),
}
