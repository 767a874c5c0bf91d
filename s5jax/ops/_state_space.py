"""Explicit discrete state spaces."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Inexact

from s5jax._promotion import default_promotion


class StateSpace(NamedTuple):
    r"""Matrices of a discrete state space.

    .. math:: x_k = A x_{k-1} + B u_k, \qquad y_k = C x_k + D u_k, \qquad x_{-1} = 0

    The input enters the state *before* the output is read, so lag 0 of the impulse response is
    :math:`C B + D`.
    """

    A: Float[Array | np.ndarray, "*systems N N"]
    B: Float[Array | np.ndarray, "*systems N H"]
    C: Float[Array | np.ndarray, "*systems H N"]
    D: Float[Array | np.ndarray, "*systems H H"]


@default_promotion
def real_state_space(
    Lambda_bar: Complex[Array, " P"],
    B_bar: Inexact[Array, "P H"],
    C: Complex[Array, "H P"],
    D: Float[Array, " H"],
) -> StateSpace:
    r"""Builds the real state space of a complex diagonal one.

    .. math:: x_k = \bar\Lambda x_{k-1} + \bar B u_k, \qquad
              y_k = \operatorname{Re}(C x_k) + D \odot u_k

    The real states are :math:`(\operatorname{Re} x, \operatorname{Im} x)`, with the matrices

    .. math::
        A = \begin{pmatrix} \operatorname{Re} \bar\Lambda & -\operatorname{Im} \bar\Lambda \\
            \operatorname{Im} \bar\Lambda & \operatorname{Re} \bar\Lambda \end{pmatrix}, \qquad
        B = \begin{pmatrix} \operatorname{Re} \bar B \\ \operatorname{Im} \bar B \end{pmatrix},
            \qquad
        C \leftarrow (\operatorname{Re} C, -\operatorname{Im} C).

    Args:
        Lambda_bar: discrete eigenvalues, ``(P,)``.
        B_bar: discrete input matrix, complex or real, ``(P, H)``.
        C: output matrix, ``(H, P)``, including the factor 2 if only one state of each conjugate
            pair is kept.
        D: skip connection, ``(H,)``.

    Returns:
        The state space, with 2 P states.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import real_state_space
        >>> one = jnp.ones((1, 1), complex)
        >>> real_state_space(jnp.array([0.5 + 1.0j]), one, one, jnp.zeros(1)).A.tolist()
        [[0.5, -1.0], [1.0, 0.5]]

    References:
        Smith et al., "Simplified State Space Layers" (S5), 2023, https://arxiv.org/abs/2208.04933.
    """
    shapes = [v.shape for v in (Lambda_bar, B_bar, C, D)]
    P, H = shapes[0][-1:], shapes[3][-1:]
    if shapes != [P, P + H, H + P, H]:
        raise ValueError(
            "real_state_space: `Lambda_bar`, `B_bar`, `C` and `D` must have the shapes (P,), "
            f"(P, H), (H, P) and (H,); got {', '.join(map(str, shapes))}."
        )
    re, im = jnp.diag(Lambda_bar.real), jnp.diag(Lambda_bar.imag)
    return StateSpace(
        A=jnp.block([[re, -im], [im, re]]),
        B=jnp.concatenate([B_bar.real, B_bar.imag]),
        C=jnp.concatenate([C.real, -C.imag], axis=1),
        D=jnp.diag(D),
    )
