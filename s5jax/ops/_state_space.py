"""Explicit discrete state spaces."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float


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
