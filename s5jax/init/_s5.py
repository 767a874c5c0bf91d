"""Random matrices of S5."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import lecun_normal, normal
from jax.typing import DTypeLike
from jaxtyping import Array, Complex, Complex128, PRNGKeyArray

from s5jax._errors import check_choice
from s5jax._promotion import default_promotion
from s5jax.init._dplr import block_size
from s5jax.ops import pair_to_complex

CInit = Literal["trunc_standard_normal", "lecun_normal", "complex_normal"]


@default_promotion
def block_diagonal_random(
    key: PRNGKeyArray,
    d_state: int,
    n_blocks: int = 1,
    *,
    conj_sym: bool = True,
    dtype: DTypeLike = jnp.float32,
) -> tuple[Complex[Array, " P"], Complex[Array, "d_state P"], Complex[Array, "P d_state"]]:
    r"""Eigenvalues and eigenvectors of random blocks, in the place of `block_diagonal_hippo`.

    .. math:: S = -\tfrac{1}{2} I + \tfrac{1}{\sqrt{2}} (G - G^\top), \qquad
        G_{ij} \sim \mathcal{N}(0, 1)

    Like the normal part of HiPPO-LegS, each block is a skew-symmetric matrix minus half the
    identity; but the matrix is drawn, and its frequencies are at most about twice the root of the
    number of its states.

    Args:
        key: random key.
        d_state: number of states in all blocks, before conjugates are dropped.
        n_blocks: number of blocks, a divisor of ``d_state``.
        conj_sym: whether to keep only one eigenvalue of each conjugate pair.
        dtype: real dtype of each part of the results.

    Returns:
        ``Lambda``, ``V`` and ``V_inv``, as from `block_diagonal_hippo`.

    Raises:
        ValueError: as in `block_diagonal_hippo`.

    Example:
        >>> import jax
        >>> from s5jax.init import block_diagonal_random
        >>> Lambda, V, V_inv = block_diagonal_random(jax.random.key(0), 8, 2)
        >>> print(Lambda.real, V.shape, V_inv.shape)
        [-0.5 -0.5 -0.5 -0.5] (8, 4) (4, 8)

    References:
        Smith et al., "Simplified State Space Layers" (S5), 2023, https://arxiv.org/abs/2208.04933,
        whose ablation compares HiPPO-N with random matrices.
    """
    N = block_size("block_diagonal_random", d_state, n_blocks, conj_sym=conj_sym)
    G = jax.random.normal(key, (n_blocks, N, N), dtype)
    skew = (G - G.mT) / np.sqrt(2).astype(dtype)
    frequencies, V = jnp.linalg.eigh(jax.lax.complex(jnp.zeros_like(skew), -skew))
    kept = N // 2 if conj_sym else N
    frequencies, V = frequencies[:, :kept].reshape(-1), V[..., :kept]
    V = jax.scipy.linalg.block_diag(*V)
    return jax.lax.complex(jnp.full_like(frequencies, -0.5), frequencies), V, V.conj().T


@default_promotion
def s5_input_matrix(
    key: PRNGKeyArray,
    V_inv: Complex128[np.ndarray, "P d_state"] | Complex[Array, "P d_state"],
    d_model: int,
    *,
    dtype: DTypeLike = jnp.float32,
) -> Complex[Array, "P d_model"]:
    r"""Draws S5's input matrix in the eigenvector basis.

    .. math:: \tilde B = V^{-1} B, \qquad B \in \mathbb{R}^{d_{state} \times H},
        \quad \operatorname{std} B = 1/\sqrt{d_{state}}

    B has a truncated normal distribution. Its fan-in is the state axis, as in the official code.

    Args:
        key: random key.
        V_inv: inverse eigenvectors of `block_diagonal_hippo`, shape ``(P, d_state)``.
        d_model: number of input features H.
        dtype: real dtype of each part of the result.

    Returns:
        ``B``, shape ``(P, H)``.

    Example:
        >>> import jax
        >>> from s5jax.init import block_diagonal_hippo, s5_input_matrix
        >>> _, _, V_inv = block_diagonal_hippo(8, 2)
        >>> print(s5_input_matrix(jax.random.key(0), V_inv, 3).shape)
        (4, 3)

    References:
        Smith et al., "Simplified State Space Layers" (S5), 2023, https://arxiv.org/abs/2208.04933,
        appendix B.3.
    """
    B = lecun_normal()(key, (V_inv.shape[1], d_model), dtype)
    complex_dtype = jnp.result_type(dtype, jnp.complex64)
    return jnp.matmul(
        jnp.asarray(V_inv, complex_dtype), B.astype(complex_dtype), precision="highest"
    )


@default_promotion
def s5_output_matrix(
    key: PRNGKeyArray,
    V: Complex128[np.ndarray, "d_state P"] | Complex[Array, "d_state P"],
    d_model: int,
    *,
    C_init: CInit = "trunc_standard_normal",
    dtype: DTypeLike = jnp.float32,
) -> Complex[Array, "d_model P"]:
    r"""Draws S5's output matrix in the eigenvector basis, for one direction.

    .. math:: \tilde C = C V, \qquad C \in \mathbb{C}^{H \times d_{state}}

    The real and imaginary parts of C have the distribution and standard deviation

    - ``"trunc_standard_normal"`` (the official name): :math:`1/\sqrt{d_{state}}`, truncated normal;
    - ``"lecun_normal"``: :math:`1/\sqrt{H d_{state}}`, truncated normal;
    - ``"complex_normal"``: :math:`\sqrt{1/2}`, normal, drawn as :math:`\tilde C` directly.

    Args:
        key: random key.
        V: eigenvectors of `block_diagonal_hippo`, shape ``(d_state, P)``.
        d_model: number of output features H.
        C_init: one of the names above.
        dtype: real dtype of each part of the result.

    Returns:
        ``C``, shape ``(H, P)``.

    Raises:
        ValueError: if ``C_init`` is unknown.

    Example:
        >>> import jax
        >>> from s5jax.init import block_diagonal_hippo, s5_output_matrix
        >>> _, V, _ = block_diagonal_hippo(8, 2)
        >>> print(s5_output_matrix(jax.random.key(0), V, 3, C_init="complex_normal").shape)
        (3, 4)

    References:
        Smith et al., "Simplified State Space Layers" (S5), 2023, https://arxiv.org/abs/2208.04933,
        appendix B.3.
    """
    check_choice("s5_output_matrix", "C_init", C_init, get_args(CInit))
    d_state, P = V.shape
    if C_init == "complex_normal":
        return pair_to_complex(normal(np.sqrt(0.5))(key, (d_model, P, 2), dtype))
    if C_init == "lecun_normal":
        C = lecun_normal()(key, (d_model, d_state, 2), dtype)
    else:
        C = lecun_normal(in_axis=1, out_axis=2, batch_axis=0)(key, (d_model, d_state, 2), dtype)
    C = pair_to_complex(C)
    return jnp.matmul(C, jnp.asarray(V, C.dtype), precision="highest")
