r"""Discretisation of state-space models with a diagonal state matrix.

Both rules map :math:`\dot x = \Lambda x + B u` to :math:`x_k = \bar\Lambda x_{k-1} + \Gamma B
u_k`. They return the factor :math:`\Gamma` rather than :math:`\bar B = \Gamma B`, so one function
serves every shape of ``B``.
"""

from math import factorial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact

from s5jax._promotion import default_promotion, with_axes


@default_promotion
def discretize_zoh(
    Lambda: Inexact[Array, "*#shape"], Delta: Float[Array, "*#shape"]
) -> tuple[Inexact[Array, "*shape"], Inexact[Array, "*shape"]]:
    r"""Zero-order hold for a diagonal SSM: the input is constant over each step.

    .. math::
        \bar\Lambda = e^{\Lambda\Delta}, \qquad
        \Gamma = (e^{\Lambda\Delta} - 1) / \Lambda = \Delta\, \varphi_1(\Lambda\Delta)

    The result is accurate for small steps, where :math:`e^z - 1` cancels. At ``Lambda == 0``, where
    :math:`\Gamma = \Delta`, values and gradients are finite; see `phi1`.

    Args:
        Lambda: eigenvalues of the state matrix, real or complex, shape ``(*shape)``.
        Delta: positive step sizes, any shape that broadcasts with ``Lambda``, for example
            ``(*batch, L, P)`` for steps of different lengths.

    Returns:
        ``Lambda_bar`` and ``Gamma``, each of the broadcast shape and of the dtype of ``Lambda``.

    Raises:
        ValueError: if the shapes do not broadcast.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import discretize_zoh
        >>> _, Gamma = discretize_zoh(jnp.array([0.0 + 0.0j, -0.5 + 1.0j]), jnp.array([0.1, 0.1]))
        >>> print(Gamma[0].real)
        0.1

    References:
        Smith et al., "Simplified State Space Layers" (S5), 2023, https://arxiv.org/abs/2208.04933.
    """
    Lambda, Delta = _broadcast("discretize_zoh", Lambda, Delta)
    z = Lambda * Delta
    return jnp.exp(z), Delta * phi1(z)


@default_promotion
def discretize_zoh_ref(
    Lambda: Inexact[Array, "*#shape"], Delta: Float[Array, "*#shape"]
) -> tuple[Inexact[Array, "*shape"], Inexact[Array, "*shape"]]:
    r"""`discretize_zoh` by its definition, an integral over the held step; for tests.

    .. math:: \Gamma = \int_0^{\Delta} e^{\Lambda s} \, ds

    Gauss-Legendre quadrature with 32 nodes, exact to rounding for :math:`|\Lambda\Delta| \le 50`.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import discretize_zoh_ref
        >>> Lambda_bar, Gamma = discretize_zoh_ref(jnp.array([-2.0]), jnp.array([0.5]))
        >>> print(f"{Lambda_bar[0]:.4f} {Gamma[0]:.4f}")
        0.3679 0.3161
    """
    Lambda, Delta = _broadcast("discretize_zoh_ref", Lambda, Delta)
    z = Lambda * Delta
    nodes, weights = (jnp.asarray(v, z.dtype) for v in np.polynomial.legendre.leggauss(32))
    mean = jnp.exp(z[..., None] * with_axes(1 + nodes, z[..., None]) / 2) @ (weights / 2)
    return jnp.exp(z), Delta * mean


@default_promotion
def discretize_bilinear(
    Lambda: Inexact[Array, "*#shape"], Delta: Float[Array, "*#shape"]
) -> tuple[Inexact[Array, "*shape"], Inexact[Array, "*shape"]]:
    r"""Bilinear (trapezoidal, Tustin) rule for a diagonal SSM: stable at any step size.

    .. math::
        \bar\Lambda = \frac{1 + \Lambda\Delta/2}{1 - \Lambda\Delta/2}, \qquad
        \Gamma = \frac{\Delta}{1 - \Lambda\Delta/2}

    The rule maps the left half plane onto the unit disc, so stable systems stay stable.

    Args:
        Lambda: eigenvalues of the state matrix, real or complex, shape ``(*shape)``.
        Delta: positive step sizes, any shape that broadcasts with ``Lambda``.

    Returns:
        ``Lambda_bar`` and ``Gamma``, each of the broadcast shape and of the dtype of ``Lambda``.

    Raises:
        ValueError: if the shapes do not broadcast.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import discretize_bilinear
        >>> Lambda_bar, Gamma = discretize_bilinear(jnp.array([-2.0]), jnp.array([0.5]))
        >>> print(f"{Lambda_bar[0]:.4f} {Gamma[0]:.4f}")
        0.3333 0.3333

    References:
        Gu et al., "Structured State Spaces" (S4), 2022, https://arxiv.org/abs/2111.00396.
    """
    Lambda, Delta = _broadcast("discretize_bilinear", Lambda, Delta)
    half = Lambda * Delta / 2
    inverse = 1 / (1 - half)
    return (1 + half) * inverse, Delta * inverse


@default_promotion
def discretize_bilinear_ref(
    Lambda: Inexact[Array, "*#shape"], Delta: Float[Array, "*#shape"]
) -> tuple[Inexact[Array, "*shape"], Inexact[Array, "*shape"]]:
    r"""`discretize_bilinear` by the linear solves of a dense state matrix; for tests.

    .. math::
        (I - \tfrac{\Delta}{2} A)\, [\bar A, \bar B] = [I + \tfrac{\Delta}{2} A,\ \Delta B],
        \qquad A = \operatorname{diag}(\Lambda),\ B = 1

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import discretize_bilinear_ref
        >>> Lambda_bar, Gamma = discretize_bilinear_ref(jnp.array([-2.0]), jnp.array([0.5]))
        >>> print(f"{Lambda_bar[0]:.4f} {Gamma[0]:.4f}")
        0.3333 0.3333
    """
    Lambda, Delta = _broadcast("discretize_bilinear_ref", Lambda, Delta)
    half = (Lambda * Delta / 2)[..., None]
    I = with_axes(jnp.eye(Lambda.shape[-1], dtype=Lambda.dtype), half)
    half = half * I
    right = jnp.concatenate([I + half, Delta[..., None]], axis=-1)
    solution = jnp.linalg.solve(I - half, right)
    return jnp.diagonal(solution, axis1=-2, axis2=-1), solution[..., -1]


@jax.custom_jvp
@default_promotion
def phi1(z: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
    r"""First exponential integrator function, accurate everywhere, with an accurate derivative.

    .. math:: \varphi_1(z) = \frac{e^z - 1}{z} = \sum_{k \ge 0} \frac{z^k}{(k+1)!}

    Near zero the function is summed as a series, and its derivative has a series of its own. The
    naive derivative of ``expm1(z) / z`` has a relative error of 0.5 at :math:`|z| = 10^{-6}` in
    float32, and is NaN at zero.

    Args:
        z: real or complex, shape ``(*shape)``.

    Returns:
        The values, same shape and dtype. In float32, for :math:`\operatorname{Re} z \le 0` and
        :math:`|z| \le 8`, their relative error is at most 4e-7, and the relative error of the
        derivative at most 1e-6.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import phi1
        >>> z = jnp.array(0.0)
        >>> print(phi1(z), jax.grad(phi1)(z))
        1.0 0.5

    References:
        Hochbruck and Ostermann, "Exponential integrators", Acta Numerica 19, 2010.
    """
    is_near, near, far = _near_and_far(z, 0.5)
    series = _polynomial([1 / factorial(k + 1) for k in range(9 if _is_single(z) else 15)], near)
    return jnp.where(is_near, series, jnp.expm1(far) / far)


@phi1.defjvp
@default_promotion
def _phi1_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (z,), (z_dot,) = primals, tangents
    phi = phi1(z)
    is_near, near, far = _near_and_far(z, 1.0)
    terms = range(1, 13 if _is_single(z) else 21)
    series = _polynomial([k / factorial(k + 1) for k in terms], near)
    derivative = jnp.where(is_near, series, (jnp.exp(z) - phi) / far)
    return phi, derivative * z_dot


def _near_and_far(
    z: Inexact[Array, "*shape"], radius: float
) -> tuple[Bool[Array, "*shape"], Inexact[Array, "*shape"], Inexact[Array, "*shape"]]:
    """Where |z| is small, and finite arguments of the series and of the closed form."""
    is_near = jnp.abs(jnp.real(z)) + jnp.abs(jnp.imag(z)) < radius
    return (
        is_near,
        jnp.where(is_near, z, jnp.zeros_like(z)),
        jnp.where(is_near, jnp.ones_like(z), z),
    )


def _is_single(z: Inexact[Array, "*shape"]) -> bool:
    return bool(jnp.finfo(z.dtype).eps > 1e-10)


def _polynomial(coefficients: list[float], z: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
    value = jnp.full_like(z, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * z + coefficient
    return value


def _broadcast(
    name: str, Lambda: Inexact[Array, "*#shape"], Delta: Float[Array, "*#shape"]
) -> tuple[Inexact[Array, "*shape"], Inexact[Array, "*shape"]]:
    try:
        shape = jnp.broadcast_shapes(Lambda.shape, Delta.shape)
    except ValueError:
        raise ValueError(
            f"{name}: the shapes of `Lambda` and `Delta` must broadcast; got {Lambda.shape} and "
            f"{Delta.shape}. Give one step per eigenvalue, or insert axes of length 1."
        ) from None
    return jnp.broadcast_to(Lambda, shape), jnp.broadcast_to(Delta, shape).astype(Lambda.dtype)
